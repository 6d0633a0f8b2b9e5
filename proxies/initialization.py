"""Initial parameters of Flax models, drawn at once."""

from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.streams import SEED_LIMIT

_NamedShape = tuple[str, tuple[int, ...]]


def initialize(
    model: nn.Module, inputs: NDArray[Any], seed: int, factor: float = 1.0, embedding: float = 1.0
) -> dict[str, Any]:
    """Parameters of `model` for `inputs` (one example suffices): a tree of float32 arrays with the model's own shapes.

    The rule follows the name of a leaf: `kernel` is normal with variance 1 / fan-in (LeCun), `…embedding` is normal
    with standard deviation `embedding`, both times `factor`; `scale` is one and `bias` zero. Raises ValueError for
    another name.

    One standard normal vector is drawn (threefry) and cut up in the order of the tree, in place of one draw for each
    leaf by the model's own initializers: XLA takes 0.3 s to compile a draw, so that seven of them would cost more than
    a training run.
    """
    if not 0 <= seed < SEED_LIMIT:
        raise ValueError(f"seed is {seed}: a seed is an integer from 0 to {SEED_LIMIT - 1}")
    leaves, treedef = _shapes(model, inputs.shape, inputs.dtype)
    draw = np.asarray(_normal(sum(int(np.prod(shape)) for _, shape in leaves), np.uint32(seed)))
    values, start = [], 0
    for name, shape in leaves:
        size = int(np.prod(shape))
        share = factor * (embedding if name.endswith("embedding") else 1.0)
        values.append(jnp.asarray(_values(name, shape, np.float32(share) * draw[start : start + size].reshape(shape))))
        start += size
    params: dict[str, Any] = jax.tree.unflatten(treedef, values)
    return params


def parameter_count(model: nn.Module, inputs: NDArray[Any]) -> int:
    """The number of parameters of `model` for `inputs`; computes none of them."""
    leaves, _ = _shapes(model, inputs.shape, inputs.dtype)
    return sum(int(np.prod(shape)) for _, shape in leaves)


def _values(name: str, shape: tuple[int, ...], normal: NDArray[np.float32]) -> NDArray[np.float32]:
    if name == "kernel":
        return normal * np.float32(1 / np.sqrt(np.prod(shape[:-1])))
    if name.endswith("embedding"):
        return normal
    if name in ("scale", "bias"):
        return np.full(shape, name == "scale", np.float32)
    raise ValueError(f"no initial value for a parameter named {name!r}: call it kernel, bias, scale or …embedding")


@lru_cache(maxsize=64)
def _shapes(model: nn.Module, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[list[_NamedShape], Any]:
    def variables(key: jax.Array) -> Any:
        return model.init(key, jnp.zeros(shape, dtype))

    abstract = jax.eval_shape(variables, jax.random.key(0, impl="threefry2x32"))
    paths, treedef = jax.tree.flatten_with_path(abstract["params"])
    return [(str(path[-1].key), leaf.shape) for path, leaf in paths], treedef


@partial(jax.jit, static_argnums=0)
def _normal(size: int, seed: jax.Array) -> jax.Array:
    return jax.random.normal(jax.random.key(seed, impl="threefry2x32"), (size,), jnp.float32)
