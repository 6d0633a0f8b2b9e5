"""The JAX meaning of a program: one step over the leaves of a parameter tree.

The module is the language's only one that imports JAX. It holds no state and knows no optimizer library; what becomes
of the update, and where the slots live between two steps, is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from evolion.primitives.dataflow import Reference, data_flow
from evolion.primitives.kinds import Kind
from evolion.primitives.ops import OPS, Elementwise, Meaning, Reduction
from evolion.primitives.program import Program, infer_kinds

__all__ = ["Shape", "Stepper", "Value", "compute_dtype", "initial_slots", "stepper", "widen"]

Value = Any
"""By kind: a float or array of rank 0 (scalar), a list of those (leaf), a list of arrays (tensor)."""

Shape = tuple[int, ...]

Stepper = Callable[[Mapping[str, Value], Sequence[Shape], Any], tuple[Value, dict[str, Value]]]


def compute_dtype(leaves: Iterable[Any]) -> Any:
    """Return the dtype in which a step over these arrays is computed.

    It is float64 if any of them is, and float32 otherwise: numbers of fewer bits are stored, never computed with.

    Raises:
        ValueError: If a leaf does not hold real floating-point numbers.

    """
    dtypes = [jnp.result_type(leaf) for leaf in leaves]
    for dtype in dtypes:
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"a program updates real floating-point parameters, got a leaf of {dtype}; "
                "leave such leaves out, for instance with optax.masked"
            )
    return jnp.float64 if jnp.dtype("float64") in dtypes else jnp.float32


def stepper(program: Program) -> Stepper:
    """Return a function that runs one step of the program.

    It takes the value of every parameter and hyperparameter by name, the shapes of the parameter tensors and the dtype
    to compute in, and gives back the update and the next slots, as tensors and as the slots' kinds. Arrays must come
    in that dtype; Python floats stay exact until they meet an array. Each scalar is computed once, whatever the number
    of tensors. The function is pure, and works under strict dtype promotion and without rank promotion.
    """
    flow, kinds = data_flow(program), infer_kinds(program)
    entry = {p.name: p.kind for p in program.parameters} | {h.name: Kind.SCALAR for h in program.hyperparameters}
    slots = {slot.name: slot.kind for slot in program.slots}
    meanings = [OPS[statement.op].under(program.protected) for statement in program.statements]

    def kind_of(reference: Reference) -> Kind:
        if isinstance(reference, int):
            return kinds[reference]
        return entry[reference] if isinstance(reference, str) else Kind.SCALAR

    def step(inputs: Mapping[str, Value], shapes: Sequence[Shape], dtype: Any) -> tuple[Value, dict[str, Value]]:
        values: dict[Reference, Value] = {name: _in_range(value, dtype) for name, value in inputs.items()}

        def value(reference: Reference) -> Value:
            return _in_range(reference, dtype) if isinstance(reference, float) else values[reference]

        for index, (meaning, references) in enumerate(zip(meanings, flow.arguments, strict=True)):
            args = [value(reference) for reference in references]
            wide = [kind_of(reference) is not Kind.SCALAR for reference in references]
            values[index] = _in_range(_apply(meaning, kinds[index], args, wide, len(shapes), dtype), dtype)

        def widened(reference: Reference, kind: Kind) -> Value:
            return widen(value(reference), kind_of(reference), kind, shapes, dtype)

        next_slots = {name: widened(flow.next_slots[name], kind) for name, kind in slots.items()}
        return widened(flow.update, Kind.TENSOR), next_slots

    return step


def _in_range(value: Value, dtype: Any) -> Value:
    """Make a float that exceeds the dtype infinite; JAX would do the same, with a warning."""
    if not isinstance(value, float) or not abs(value) > float(np.finfo(dtype).max):
        return value
    return float("inf") if value > 0 else float("-inf")


def _apply(meaning: Meaning, kind: Kind, args: list[Value], wide: list[bool], tensors: int, dtype: Any) -> Value:
    """Run one statement; `wide` says which arguments are lists over the tensors, `kind` is that of the result."""
    if isinstance(meaning, Elementwise) and not any(wide):
        if all(isinstance(argument, float) for argument in args):
            with np.errstate(all="ignore"):
                return float(meaning.numpy(*args))
        return meaning.jax(jnp, *args)
    rows = [[a[i] if w else a for a, w in zip(args, wide, strict=True)] for i in range(tensors)]
    if isinstance(meaning, Elementwise):
        return [meaning.jax(jnp, *row) for row in rows]
    if meaning.scope is Kind.LEAF:
        return [meaning.apply(jnp, meaning.combine(jnp, _sums(meaning, row), *row), *row) for row in rows]
    # A tree without leaves still has sums: those of empty arrays.
    empty = [jnp.zeros((0,), dtype) if w else a for a, w in zip(args, wide, strict=True)]
    sums = [_sums(meaning, row) for row in rows or [empty]]
    totals = tuple(sum(column[1:], start=column[0]) for column in zip(*sums, strict=True))
    reduced = meaning.combine(jnp, totals, *args)
    if kind is Kind.SCALAR:
        return meaning.apply(jnp, reduced, *args)
    return [meaning.apply(jnp, reduced, *row) for row in rows]


def _sums(meaning: Reduction, row: Sequence[Value]) -> tuple[Any, ...]:
    return tuple(jnp.sum(term) for term in meaning.terms(jnp, *row))


def initial_slots(program: Program, shapes: Sequence[Shape], dtype: Any) -> dict[str, Value]:
    """Return the zeros that the slots start from, each of its kind."""
    return {slot.name: widen(0.0, Kind.SCALAR, slot.kind, shapes, dtype) for slot in program.slots}


def widen(value: Value, kind: Kind, to: Kind, shapes: Sequence[Shape], dtype: Any) -> Value:
    """Broadcast a value of one kind to another that is at least as wide.

    The arrays are of `dtype` and strongly typed, so that a state keeps its type from step to step.
    """
    if to is Kind.SCALAR:
        return jnp.asarray(value, dtype)
    values = [value] * len(shapes) if kind is Kind.SCALAR else value
    if to is Kind.LEAF:
        return [jnp.asarray(entry, dtype) for entry in values]
    return [jnp.broadcast_to(jnp.asarray(entry, dtype), shape) for entry, shape in zip(values, shapes, strict=True)]
