"""Noisy quadratic models, whose expected losses under gradient descent are known exactly (arXiv:1907.04164)."""

from functools import lru_cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.quadratic import VARIANCE
from evolion.proxies.data.streams import normal, raw_stream, rounded

_STREAM = 14
_OPTIMUM, _ROTATION = 1100, 1101


def curvatures(dimension: int, power: float) -> NDArray[np.float64]:
    """The eigenvalues i**-power of the Hessian, shape (dimension,)."""
    return np.asarray(np.arange(1.0, dimension + 1) ** -power)


@lru_cache(maxsize=4)
def optimum(dimension: int) -> NDArray[np.float32]:
    """The best weights in the eigenbasis: fixed random signs. They are not zero, to which weight decay would lead."""
    odd = raw_stream(_STREAM, _OPTIMUM).random_raw(dimension) >> np.uint64(63)
    return np.where(odd == 1, 1, -1).astype(np.float32)


@lru_cache(maxsize=4)
def rotation(dimension: int) -> NDArray[np.float32]:
    """A fixed orthogonal matrix (dimension, dimension), uniform among them: QR of standard normals."""
    orthogonal, triangular = np.linalg.qr(normal(raw_stream(_STREAM, _ROTATION), (dimension, dimension)))
    # Signs make the decomposition unique; with the rounding, every machine has the same matrix.
    return rounded(orthogonal * np.sign(np.diag(triangular)), 2.0**-20)


class NoisyQuadratic(nn.Module):
    """Losses of examples: sum over i of h_i e_i**2 / 2 + n_i e_i, with h_i = i**-power and n_i of variance h_i.

    e is the error of the weights in the eigenbasis, w - w*, or w Q - w* if `rotated`: then the Hessian is full, and a
    method that acts on each coordinate by itself sees no single curvature.
    """

    dimension: int
    power: float = 1.0
    rotated: bool = False

    @nn.compact
    def __call__(self, noise: jax.Array) -> jax.Array:
        """Losses (examples,) for noise (examples, dimension) of variance `data.quadratic.VARIANCE`."""
        weights = self.param("weights_embedding", nn.initializers.normal(1.0), (self.dimension,))
        values = curvatures(self.dimension, self.power)
        if self.rotated:
            weights = weights @ rotation(self.dimension)
        error = weights - optimum(self.dimension)
        expected = 0.5 * jnp.sum(values.astype(np.float32) * jnp.square(error))
        scale = np.sqrt(values / VARIANCE).astype(np.float32)
        return expected + noise @ (scale * error)
