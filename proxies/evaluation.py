"""The loss on a whole split, a bounded number of examples at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from evolion.proxies.task import Batch

__all__ = ["mean_loss"]


def mean_loss(loss: Callable[[Any, Batch], jax.Array], params: Any, batch: Batch, at_once: int) -> jax.Array:
    """Return the mean of `loss` over a split, taken in parts of at most `at_once` examples; traceable.

    A model that normalizes over its batch does so over each part.
    """
    examples = len(jax.tree.leaves(batch)[0])
    parts, rest = divmod(examples, at_once)
    if parts == 0 or examples == at_once:
        return loss(params, batch)
    whole = jax.tree.map(lambda leaf: _parts(leaf, parts, at_once), dict(batch))
    total = jnp.sum(jax.lax.map(lambda part: loss(params, part), whole)) * at_once
    if rest:
        total = total + loss(params, jax.tree.map(lambda leaf: leaf[examples - rest :], dict(batch))) * rest
    return total / examples


def _parts(leaf: jax.Array, parts: int, size: int) -> jax.Array:
    return jnp.reshape(leaf[: parts * size], (parts, size, *leaf.shape[1:]))
