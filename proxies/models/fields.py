"""Networks of coordinates: images as functions, and solutions of differential equations."""

from functools import lru_cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.streams import normal, raw_stream, rounded
from evolion.proxies.models.parts import ACTIVATIONS

_STREAM, _FREQUENCIES = 18, 1100


@lru_cache(maxsize=4)
def fourier_frequencies(dimensions: int, features: int, bandwidth: float) -> NDArray[np.float32]:
    """Fixed normal frequencies of standard deviation `bandwidth`, in radians, shape (dimensions, features)."""
    drawn = normal(raw_stream(_STREAM, _FREQUENCIES), (dimensions, features))
    return rounded(drawn * bandwidth)


class FourierField(nn.Module):
    """A perceptron on sines and cosines of fixed random frequencies (Tancik et al., arXiv:2006.10739)."""

    width: int
    depth: int
    outputs: int
    features: int
    bandwidth: float
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Outputs (examples, outputs) at coordinates (examples, dimensions) between -1 and 1."""
        phases = x @ fourier_frequencies(x.shape[-1], self.features, self.bandwidth)
        x = np.float32(np.sqrt(2)) * jnp.concatenate([jnp.sin(phases), jnp.cos(phases)], axis=-1)
        for _ in range(self.depth):
            x = ACTIVATIONS[self.activation](nn.Dense(self.width)(x))
        return nn.Dense(self.outputs)(x)


class BoundedField(nn.Module):
    """A tanh perceptron times x (1 - x): a function on the unit interval that is zero at both ends."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Values (examples, 1) at points (examples, 1) from 0 to 1."""
        hidden = 2 * x - 1
        for _ in range(self.depth):
            hidden = jnp.tanh(nn.Dense(self.width)(hidden))
        return x * (1 - x) * nn.Dense(1)(hidden)
