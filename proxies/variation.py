"""What held-out variants do to a task: other units of its parameters, gradients of low precision."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evolion.proxies.data.streams import raw_stream, uniform

__all__ = ["rounded_gradient", "stored_units"]

_UNIT_STREAM = 4


def stored_units(params: Any) -> tuple[np.float32, ...]:
    """A factor for each parameter tensor, log-uniform from 1/10 to 10: the unit in which it is stored.

    The function that the model computes at the start stays the same; how far a step of given size moves it does not
    (ReparamWeights of `learned_optimization`; Metz et al., arXiv:2009.11243).
    """
    count = len(jax.tree.leaves(params))
    draws = uniform(raw_stream(_UNIT_STREAM, 0), (count,))
    return tuple(np.float32(f"{10 ** (2 * draw - 1):.3g}") for draw in draws)


@jax.custom_vjp
def rounded_gradient(x: jax.Array) -> jax.Array:
    """The same value, whose gradient is rounded to bfloat16."""
    return x


def _forward(x: jax.Array) -> tuple[jax.Array, None]:
    return x, None


def _backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (gradient.astype(jnp.bfloat16).astype(gradient.dtype),)


rounded_gradient.defvjp(_forward, _backward)
