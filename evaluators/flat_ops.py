"""The JAX meaning of an op over one flat vector of parameters.

A value is a vector of shape (parameters,) or, for scalars known before the step, of shape (1,). Values of the kind leaf
are vectors that are constant over each parameter tensor; reductions broadcast what they reduce.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from evolion.primitives.kinds import Kind
from evolion.primitives.layout import Layout
from evolion.primitives.op import Elementwise
from evolion.primitives.ops import OPS

__all__ = ["flat_meaning"]

FlatOp = Callable[..., jax.Array]


def flat_meaning(name: str, protected: bool, layout: Layout) -> FlatOp:
    """Return the function of an op: vectors in, one vector (or a shape that broadcasts to it) out."""
    meaning = OPS[name].under(protected)
    if isinstance(meaning, Elementwise):
        compute = meaning.jax
        return lambda *args: jnp.asarray(compute(jnp, *args), jnp.float32)
    total = _leaf_totals(layout) if meaning.scope is Kind.LEAF else _tree_total

    def reduce(*args: Any) -> jax.Array:
        wide = [jnp.broadcast_to(argument, (layout.entries,)) for argument in args]
        sums = tuple(total(term) for term in meaning.terms(jnp, *wide))
        return jnp.asarray(meaning.apply(jnp, meaning.combine(jnp, sums, *args), *args), jnp.float32)

    return reduce


def _tree_total(term: jax.Array) -> jax.Array:
    return jnp.sum(term, keepdims=True)


def _leaf_totals(layout: Layout) -> Callable[[jax.Array], jax.Array]:
    pieces = list(zip(layout.starts.tolist(), layout.sizes.tolist(), strict=True))

    def totals(term: jax.Array) -> jax.Array:
        sums = [jnp.broadcast_to(jnp.sum(term[start : start + size]), (size,)) for start, size in pieces]
        return jnp.concatenate(sums)

    return totals
