"""Gradients taken at weights some steps old, as asynchronous workers give them: a held-out variant of tasks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["delayed", "kept_weights"]


def kept_weights(weights: Any, delay: int) -> Any:
    """Return what the loop carries to know the weights of the last `delay` steps: None without a delay."""
    if delay == 0:
        return None
    return jax.tree.map(lambda leaf: jnp.repeat(leaf[None], delay, axis=0), weights)


def delayed(kept: Any, weights: Any, step: jax.Array) -> tuple[Any, Any]:
    """Return the weights to take the gradient at, the initial ones in the first steps, and what is kept from now on."""
    if kept is None:
        return weights, None
    place = step % jax.tree.leaves(kept)[0].shape[0]
    old = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, place, keepdims=False), kept)
    return old, jax.tree.map(lambda leaf, new: jax.lax.dynamic_update_index_in_dim(leaf, new, place, 0), kept, weights)
