"""The JAX meaning of an op over one flat vector of parameters.

A value is a vector of shape (parameters,) or, for scalars known before the step, of shape (1,). Values of the kinds
leaf, row and column are vectors that are constant over each parameter tensor, row or column; reductions broadcast what
they reduce.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from evolion.evaluators.opcodes import Opcode
from evolion.primitives.kinds import Kind
from evolion.primitives.layout import Layout
from evolion.primitives.op import Elementwise, Matrixwise, Reduction
from evolion.primitives.ops import OPS

__all__ = ["FlatOp", "flat_meaning", "meaning_of"]

FlatOp = Callable[..., jax.Array]

_REDUCERS: dict[str, FlatOp] = {"sum": jnp.sum, "mean": jnp.mean, "max": jnp.max}


def flat_meaning(name: str, protected: bool, layout: Layout) -> FlatOp:
    """Return the function of an op: vectors in, one vector (or a shape that broadcasts to it) out.

    It is what the op does where `opcodes.has_instruction` says so for the kinds of the arguments.
    """
    meaning = OPS[name].under(protected)
    if isinstance(meaning, Elementwise):
        compute = meaning.jax
        return lambda *args: jnp.asarray(compute(jnp, *args), jnp.float32)
    return _on_tensors(meaning, layout) if isinstance(meaning, Matrixwise) else _reduction(meaning, layout)


def meaning_of(opcode: Opcode, layout: Layout) -> FlatOp:
    """Return the function of an instruction: as many vectors as it has arguments in, one vector out."""
    outer = flat_meaning(opcode.op, opcode.protected, layout)
    if opcode.inner is None:
        return outer
    inner, position = flat_meaning(opcode.inner, opcode.protected, layout), opcode.position
    stop = position + OPS[opcode.inner].arity

    def pair(*values: jax.Array) -> jax.Array:
        return outer(*values[:position], inner(*values[position:stop]), *values[stop:])

    return pair


def _reduction(meaning: Reduction, layout: Layout) -> FlatOp:
    reduce = _REDUCERS[meaning.reducer]
    axis = 0 if meaning.scope is Kind.COLUMN else 1

    def reduced(term: jax.Array) -> jax.Array:
        if meaning.scope is Kind.SCALAR:
            return reduce(term, keepdims=True)
        if meaning.scope is Kind.LEAF:
            return _by_tensor(lambda x: reduce(jnp.reshape(x, (1, -1)), axis=axis, keepdims=True), term, layout)
        return _by_tensor(lambda x: reduce(x, axis=axis, keepdims=True), term, layout)

    def call(*args: Any) -> jax.Array:
        wide = [jnp.broadcast_to(argument, (layout.entries,)) for argument in args]
        terms = tuple(reduced(term) for term in meaning.terms(jnp, *wide))
        return jnp.asarray(meaning.apply(jnp, meaning.combine(jnp, terms, *args), *args), jnp.float32)

    return call


def _on_tensors(meaning: Matrixwise, layout: Layout) -> FlatOp:
    """Run an op of a tensor and of numbers, which are the same at all entries of a parameter tensor."""

    def call(x: Any, *numbers: Any) -> jax.Array:
        wide = jnp.broadcast_to(x, (layout.entries,))
        starts = iter(layout.starts.tolist())

        def compute(matrix: jax.Array) -> jax.Array:
            start = next(starts)
            return jnp.asarray(
                meaning.compute(jnp, matrix, *[jnp.broadcast_to(k, (layout.entries,))[start] for k in numbers])
            )

        return _by_tensor(compute, wide, layout)

    return call


def _by_tensor(compute: Callable[[jax.Array], jax.Array], vector: jax.Array, layout: Layout) -> jax.Array:
    """Apply a function to the matrix view of each tensor in turn, and broadcast its value to the tensor."""
    values = []
    for start, size, sides in zip(layout.starts.tolist(), layout.sizes.tolist(), layout.sides, strict=True):
        value = compute(jnp.reshape(vector[start : start + size], sides))
        values.append(jnp.ravel(jnp.broadcast_to(value, sides)))
    return jnp.concatenate(values)
