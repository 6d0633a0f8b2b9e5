"""The JAX meaning of a program: one step over the leaves of a parameter tree.

The module is the language's only one that imports JAX. It holds no state and knows no optimizer library; what becomes
of the update, and where the slots live between two steps, is the caller's.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evolion.primitives.branches import Block, Guard, schedule
from evolion.primitives.dataflow import DataFlow, Reference, data_flow, reference_kinds
from evolion.primitives.kinds import SIDES, Kind
from evolion.primitives.layout import matrix_sides
from evolion.primitives.op import Elementwise, Matrixwise, Meaning, Reduction
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program, infer_kinds

__all__ = ["Shape", "Stepper", "Value", "compute_dtype", "initial_slots", "shape_of", "stepper", "widen"]

Value = Any
"""By kind: a float or array of rank 0 (scalar), or a list of one array for each parameter tensor (see `shape_of`)."""

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


def stepper(program: Program, *, negated: bool = False) -> Stepper:
    """Return a function that runs one step of the program; `negated`, it gives minus the update, bit for bit.

    It takes the value of every parameter and hyperparameter by name, the shapes of the parameter tensors and the dtype
    to compute in, and gives back the update and the next slots, as tensors and as the slots' kinds. Arrays must come
    in that dtype; Python floats stay exact until they meet an array. Each scalar is computed once, whatever the number
    of tensors. What is costly and read by one branch of a `where` alone is run only in steps that take the branch (see
    `evolion.primitives.branches`); where `jax.vmap` runs several steps at once that differ in this, it is run always.
    The function is pure, and works under strict dtype promotion and without rank promotion.
    """
    flow, kinds = data_flow(program), infer_kinds(program)
    kind_of = reference_kinds(program, kinds)
    slots = {slot.name: slot.kind for slot in program.slots}
    meanings = [OPS[statement.op].under(program.protected) for statement in program.statements]
    order = schedule(program)
    factor = _scalar_factor(program, flow, kind_of) if negated else None

    def run(index: int, values: Mapping[Reference, Value], shapes: Sequence[Shape], dtype: Any) -> Value:
        references = flow.arguments[index]
        args = [_value(reference, values, dtype) for reference in references]
        if factor is not None and index == flow.update:
            args[factor] = -args[factor]
        given = tuple(map(kind_of, references))
        return _in_range(_apply(meanings[index], kinds[index], args, given, shapes, dtype), dtype)

    def step(inputs: Mapping[str, Value], shapes: Sequence[Shape], dtype: Any) -> tuple[Value, dict[str, Value]]:
        values: dict[Reference, Value] = {name: _in_range(value, dtype) for name, value in inputs.items()}
        for part in order:
            if isinstance(part, int):
                values[part] = run(part, values, shapes, dtype)
            else:
                values |= _run_block(part, run, kind_of, values, shapes, dtype)

        def widened(reference: Reference, kind: Kind) -> Value:
            return widen(_value(reference, values, dtype), kind_of(reference), kind, shapes, dtype)

        next_slots = {name: widened(flow.next_slots[name], kind) for name, kind in slots.items()}
        update = widened(flow.update, Kind.TENSOR)
        return [-entry for entry in update] if negated and factor is None else update, next_slots

    return step


def _value(reference: Reference, values: Mapping[Reference, Value], dtype: Any) -> Value:
    return _in_range(reference, dtype) if isinstance(reference, float) else values[reference]


def _run_block(
    block: Block,
    run: Callable[[int, Mapping[Reference, Value], Sequence[Shape], Any], Value],
    kind_of: Callable[[Reference], Kind],
    values: Mapping[Reference, Value],
    shapes: Sequence[Shape],
    dtype: Any,
) -> dict[Reference, Value]:
    """Return the results of a block, zeros where they do not count; `run` runs one statement."""

    def results(known: dict[Reference, Value], shapes: Sequence[Shape]) -> list[Value]:
        def compute() -> list[Value]:
            inner = dict(known)
            for index in block.statements:
                inner[index] = run(index, inner, shapes, dtype)
            return [inner[index] for index in block.results]

        return _if_all([(guard, _value(guard.condition, known, dtype)) for guard in block.guards], compute)

    read: dict[Reference, Value] = {reference: values[reference] for reference in block.reads}
    if not block.by_tensor:
        return dict(zip(block.results, results(read, shapes), strict=True))
    single = {reference for reference in read if kind_of(reference) is Kind.SCALAR}
    parts = [
        results({r: value if r in single else [value[i]] for r, value in read.items()}, [shape])
        for i, shape in enumerate(shapes)
    ]
    return {index: [part[place][0] for part in parts] for place, index in enumerate(block.results)}


def _if_all(guards: Sequence[tuple[Guard, Value]], compute: Callable[[], list[Value]]) -> list[Value]:
    """Return what a function gives, or zeros of the same types if the value of a guard's condition is not as it says.

    What is known at once, eagerly or while tracing, decides at once: an eager `jax.lax.cond` would compile its branches
    anew at every call.
    """

    def zeros() -> list[Value]:
        # The types tell also how arrays lie on the devices of an explicit mesh, or vary over those of a `shard_map`.
        return [[jax.lax.full_like(entry, 0) for entry in found] for found in jax.eval_shape(compute)]

    traced = []
    for guard, value in guards:
        number = value[0] if isinstance(value, list) else value
        if isinstance(number, jax.core.Tracer):
            nonzero = jnp.not_equal(number, 0.0)
            traced.append(nonzero if guard.holds else jnp.logical_not(nonzero))
        elif bool(number != 0.0) is not guard.holds:
            return zeros()
    if not traced:
        return compute()
    found: list[Value] = jax.lax.cond(functools.reduce(jnp.logical_and, traced), compute, zeros)
    return found


def _scalar_factor(program: Program, flow: DataFlow, kind_of: Callable[[Reference], Kind]) -> int | None:
    """Return which argument of the update's own statement changes its sign alone, at the cost of one number.

    That is a scalar factor, as the learning rate mostly is, or a scalar that is divided. None if there is none, or if
    something else reads the statement.
    """
    update = flow.update
    if not isinstance(update, int) or update in (*flow.next_slots.values(), *itertools.chain(*flow.arguments)):
        return None
    positions = {"*": (0, 1), "/": (0,)}.get(OPS[program.statements[update].op].symbol, ())
    return next((i for i in positions if kind_of(flow.arguments[update][i]) is Kind.SCALAR), None)


def _in_range(value: Value, dtype: Any) -> Value:
    """Make a float that exceeds the dtype infinite; JAX would do the same, with a warning."""
    if not isinstance(value, float) or not abs(value) > float(np.finfo(dtype).max):
        return value
    return float("inf") if value > 0 else float("-inf")


def _apply(
    meaning: Meaning, kind: Kind, args: list[Value], kinds: tuple[Kind, ...], shapes: Sequence[Shape], dtype: Any
) -> Value:
    """Run one statement for arguments of the given kinds and a result of `kind`."""
    wide = [argument is not Kind.SCALAR for argument in kinds]
    if isinstance(meaning, Elementwise) and not any(wide):
        if all(isinstance(argument, float) for argument in args):
            with np.errstate(all="ignore"):
                return float(meaning.numpy(*args))
        return meaning.jax(jnp, *args)
    rows = [[a[i] if w else a for a, w in zip(args, wide, strict=True)] for i in range(len(shapes))]
    if isinstance(meaning, Elementwise):
        return [meaning.jax(jnp, *row) for row in rows]
    if isinstance(meaning, Matrixwise):
        return [_on_matrices(meaning, kind, row, kinds, shape) for row, shape in zip(rows, shapes, strict=True)]
    if meaning.scope is not Kind.SCALAR:
        return [meaning.apply(jnp, meaning.combine(jnp, _reduced(meaning, row), *row), *row) for row in rows]
    # A tree without leaves is reduced all the same: as an empty array.
    joined = [[jnp.ravel(term) for term in meaning.terms(jnp, *row)] for row in rows]
    if not rows:
        empty = [jnp.zeros((0,), dtype) if w else a for a, w in zip(args, wide, strict=True)]
        joined = [list(meaning.terms(jnp, *empty))]
    totals = tuple(_total(meaning, column) for column in zip(*joined, strict=True))
    reduced = meaning.combine(jnp, totals, *args)
    if kind is Kind.SCALAR:
        return meaning.apply(jnp, reduced, *args)
    return [meaning.apply(jnp, reduced, *row) for row in rows]


def _reduced(meaning: Reduction, row: Sequence[Value]) -> tuple[Any, ...]:
    """Reduce the rows, the columns or all of one tensor; a row's or column's number keeps all axes, of length 1."""

    def reduce(term: Any) -> Any:
        axes: tuple[int, ...] | None = None
        if meaning.scope is not Kind.LEAF:
            last = max(term.ndim - 1, 0)
            axes = tuple(range(last)) if meaning.scope is Kind.COLUMN else tuple(range(last, term.ndim))
        return _entries(meaning, term, axis=axes, keepdims=axes is not None)

    return tuple(map(reduce, meaning.terms(jnp, *row)))


def _entries(meaning: Reduction, term: Any, **axes: Any) -> Any:
    if meaning.reducer == "max":
        return jnp.max(term, initial=-jnp.inf, **axes)
    return jnp.mean(term, **axes) if meaning.reducer == "mean" else jnp.sum(term, **axes)


def _total(meaning: Reduction, terms: Sequence[Any]) -> Any:
    """Reduce the terms of all tensors to one number."""
    if meaning.reducer == "max":
        return jnp.max(jnp.stack([jnp.max(term, initial=-jnp.inf) for term in terms]))
    sums = [jnp.sum(term) for term in terms]
    total = sum(sums[1:], start=sums[0])
    return total / float(sum(term.size for term in terms)) if meaning.reducer == "mean" else total


def _on_matrices(meaning: Matrixwise, kind: Kind, row: Sequence[Value], kinds: tuple[Kind, ...], shape: Shape) -> Any:
    """Run an op on the matrix views of one tensor."""
    sides = dict(zip("mn", matrix_sides(shape), strict=True)) | {"1": 1}
    views = []
    for value, given in zip(row, kinds, strict=True):
        numbers = given in (Kind.SCALAR, Kind.LEAF)
        views.append(value if numbers else jnp.reshape(value, tuple(sides[side] for side in SIDES[given])))
    return jnp.reshape(meaning.compute(jnp, *views), shape_of(kind, shape))


def shape_of(kind: Kind, shape: Shape) -> Shape:
    """Return the shape of a value for one parameter tensor of a shape.

    The numbers of rows and columns keep all axes of the tensor, so that they broadcast and are sharded like it.
    """
    m, n = matrix_sides(shape)
    return {
        Kind.SCALAR: (),
        Kind.LEAF: (),
        Kind.ROW: (*shape[:-1], 1) if shape else (),
        Kind.COLUMN: (*(1,) * (len(shape) - 1), n) if shape else (),
        Kind.TENSOR: tuple(shape),
        Kind.LEFT: (m, m),
        Kind.RIGHT: (n, n),
    }[kind]


def initial_slots(program: Program, shapes: Sequence[Shape], dtype: Any) -> dict[str, Value]:
    """Return the zeros that the slots start from, each of its kind."""
    return {
        slot.name: jnp.zeros((), dtype)
        if slot.kind is Kind.SCALAR
        else [jnp.zeros(shape_of(slot.kind, shape), dtype) for shape in shapes]
        for slot in program.slots
    }


def widen(value: Value, kind: Kind, to: Kind, shapes: Sequence[Shape], dtype: Any) -> Value:
    """Broadcast a value of one kind to another to which it widens.

    The arrays are of `dtype` and strongly typed, so that a state keeps its type from step to step.
    """
    if to is Kind.SCALAR:
        return jnp.asarray(value, dtype)
    values = [value] * len(shapes) if kind is Kind.SCALAR else value
    return [
        jnp.broadcast_to(jnp.asarray(entry, dtype), shape_of(to, shape))
        for entry, shape in zip(values, shapes, strict=True)
    ]
