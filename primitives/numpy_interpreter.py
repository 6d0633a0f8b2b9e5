"""The reference meaning of a program: NumPy, in float64 unless told otherwise.

Every other execution is tested against it, and behavioural keys are made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.primitives.dataflow import data_flow, reference_kinds
from evolion.primitives.kinds import Kind
from evolion.primitives.layout import Layout
from evolion.primitives.op import Elementwise, Matrixwise, Reduction
from evolion.primitives.ops import OPS
from evolion.primitives.program import RESERVED, Program, infer_kinds

__all__ = ["Stepper", "Value", "initial_slots", "stepper", "trajectory"]

Value = Any
"""A float (scalar), or a vector: the numbers of one parameter tensor after those of the other (see `Layout`).

In a batch there is an axis in front of the vector, and a scalar is a vector of one number; what all share may lack it.
"""

Stepper = Callable[[Mapping[str, Value]], tuple[Value, dict[str, Value]]]


def _elementwise(meaning: Elementwise, kinds: tuple[Kind, ...], kind: Kind, layout: Layout) -> Callable[..., Value]:
    places = [None if k in (Kind.SCALAR, kind) else layout.widening(k, kind) for k in kinds]
    if not any(place is not None for place in places):
        return meaning.numpy

    def call(*args: Value) -> Value:
        widened = [a if place is None else a.take(place, axis=-1) for a, place in zip(args, places, strict=True)]
        return meaning.numpy(*widened)

    return call


def _reducer(meaning: Reduction, kind: Kind, layout: Layout, batched: bool) -> Callable[[NDArray[Any]], Value]:
    """Return what reduces an array of a kind."""
    reduce = np.maximum if meaning.reducer == "max" else np.add
    if meaning.scope is Kind.SCALAR:
        # What np.sum and np.max call in the end; on arrays as small as these they take longer than it.
        whole = np.mean if meaning.reducer == "mean" else reduce.reduce
        return partial(whole, axis=-1, keepdims=True) if batched else partial(whole, axis=None)
    order = None
    if meaning.scope is Kind.LEAF:
        starts, entries = layout.starts_by_kind[kind], layout.sizes_by_kind[kind]
    else:
        starts = layout.row_starts if meaning.scope is Kind.ROW else layout.column_starts
        order = layout.by_column if meaning.scope is Kind.COLUMN else None
        entries = np.diff(starts, append=layout.entries)

    def call(x: NDArray[Any]) -> Value:
        reduced = reduce.reduceat(x if order is None else x.take(order, axis=-1), starts, axis=-1)
        return reduced / entries.astype(x.dtype) if meaning.reducer == "mean" else reduced

    return call


def _reduction(meaning: Reduction, kind: Kind, layout: Layout, batched: bool) -> Callable[..., Value]:
    total = _reducer(meaning, kind, layout, batched)

    def call(*args: Value) -> Value:
        reduced = meaning.combine(np, tuple(map(total, meaning.terms(np, *args))), *args)
        return meaning.apply(np, reduced, *args)

    return call


def _matrixwise(meaning: Matrixwise, kinds: tuple[Kind, ...], layout: Layout) -> Callable[..., Value]:
    rows = []
    for tensor in range(len(layout.shapes)):
        row: list[tuple[slice, tuple[int, ...]] | None] = []
        for kind in kinds:
            if kind is Kind.SCALAR:
                row.append(None)
                continue
            start, size = layout.starts_by_kind[kind][tensor], layout.sizes_by_kind[kind][tensor]
            shape = () if kind is Kind.LEAF else layout.matrices_by_kind[kind][tensor]
            row.append((slice(start, start + size), shape))
        rows.append(row)

    def call(*args: Value) -> Value:
        results = []
        for row in rows:
            views = [a if place is None else a[place[0]].reshape(place[1]) for a, place in zip(args, row, strict=True)]
            results.append(np.ravel(meaning.compute(np, *views)))
        return np.concatenate(results)

    return call


def _one_by_one(call: Callable[..., Value], kinds: tuple[Kind, ...]) -> Callable[..., Value]:
    """Return a function of a batch from one of a single member."""

    def calls(*args: Value) -> Value:
        arrays = [np.asarray(a) for a in args]
        members = max([len(array) for array in arrays if array.ndim == 2], default=1)
        # What does not depend on the member, such as a product of initial weights, is a batch of one.
        of_member = [
            [array[min(member, len(array) - 1)] if array.ndim == 2 else array for array in arrays]
            for member in range(members)
        ]
        return np.stack(
            [
                call(*[a.reshape(())[()] if kind is Kind.SCALAR else a for a, kind in zip(member, kinds, strict=True)])
                for member in of_member
            ]
        )

    return calls


@lru_cache(maxsize=4096)
def _call(
    op: str, protected: bool, kinds: tuple[Kind, ...], kind: Kind, layout: Layout, batched: bool
) -> Callable[..., Value]:
    """Return the function of an op for arguments of the given kinds and a result of `kind`."""
    meaning = OPS[op].under(protected)
    if isinstance(meaning, Elementwise):
        return _elementwise(meaning, kinds, kind, layout)
    if isinstance(meaning, Reduction):
        return _reduction(meaning, kinds[0], layout, batched)
    call = _matrixwise(meaning, kinds, layout)
    return _one_by_one(call, kinds) if batched else call


def stepper(program: Program, layout: Layout, dtype: Any = np.float64, *, batched: bool = False) -> Stepper:
    """Return a function that runs one step of the program.

    It takes the value of every parameter and hyperparameter by name, and gives back the update as a tensor and the next
    slots as what their kinds say, of `dtype`. Floating-point warnings are not silenced here; wrap calls in
    `np.errstate(all="ignore")`.

    With `batched`, values may have an axis in front for the members of a batch (see `Value`), which know nothing of
    each other. A result that is the same for all members may come without it, or with one of length 1.
    """
    flow, kinds = data_flow(program), infer_kinds(program)
    kind_of = reference_kinds(program, kinds)

    constants: dict[Any, Value] = {}
    calls = []
    for index, references in enumerate(flow.arguments):
        op = program.statements[index].op
        call = _call(op, program.protected, tuple(map(kind_of, references)), kinds[index], layout, batched)
        # A constant has a name of its own: 1.0 would be taken for statement 1.
        names = [(index, place) if r.__class__ is float else r for place, r in enumerate(references)]
        constants |= {name: r for name, r in zip(names, references, strict=True) if r.__class__ is float}
        calls.append((index, call, _getter(names)))
    wanted = [(flow.update, Kind.TENSOR), *((flow.next_slots[slot.name], slot.kind) for slot in program.slots)]
    results = [(reference, kind_of(reference), to) for reference, to in wanted]
    slot_names = [slot.name for slot in program.slots]

    def step(inputs: Mapping[str, Value]) -> tuple[Value, dict[str, Value]]:
        values: dict[Any, Value] = {**constants, **inputs}
        for index, call, arguments in calls:
            values[index] = call(*arguments(values))
        update, *slots = [
            _widened(r if r.__class__ is float else values[r], kind, to, layout, dtype) for r, kind, to in results
        ]
        return update, dict(zip(slot_names, slots, strict=True))

    return step


def _getter(names: Sequence[Any]) -> Callable[[Mapping[Any, Value]], tuple[Value, ...]]:
    """Return the function from values by name to a tuple of some of them."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple([values[name] for name in names])


def _widened(value: Value, kind: Kind, to: Kind, layout: Layout, dtype: Any) -> Value:
    """Broadcast a value of one kind to another to which it widens."""
    array = np.asarray(value, dtype)
    if kind is to:
        return array[()]
    if kind is Kind.SCALAR:
        return np.full(array.shape[:-1] + layout.shape(to), array)
    return array.take(layout.widening(kind, to), axis=-1)


def initial_slots(program: Program, layout: Layout, dtype: Any = np.float64) -> dict[str, Value]:
    """Return the zeros that the slots start from, each of the shape of its kind."""
    return {slot.name: np.zeros(layout.shape(slot.kind), dtype)[()] for slot in program.slots}


def trajectory(
    program: Program,
    weights: Sequence[NDArray[Any]],
    gradients: Sequence[Sequence[NDArray[Any]]],
    *,
    learning_rate: float | Sequence[float] = 0.0,
    inputs: Mapping[str, Sequence[Value]] | None = None,
) -> list[list[NDArray[Any]]]:
    """Run a program over given gradients in float64 and return the weights after each step, the start first.

    Args:
        program: The program.
        weights: The parameter tensors at the start.
        gradients: For each step one array per parameter tensor.
        learning_rate: One number, or one for each step.
        inputs: For each further reserved input (`loss`, `hess`, `noise`, `horizon`) its value at each step; tensors
            are given as one array per parameter tensor.

    Returns:
        Steps + 1 lists of arrays of the shapes of `weights`.

    Raises:
        ValueError: If the program takes a reserved input that is not given.

    """
    layout = Layout(tuple(np.shape(tensor) for tensor in weights))
    given = {name: sequence for name, sequence in (inputs or {}).items() if name in program.inputs}
    missing = sorted(set(program.inputs) - {"w", "g", "lr", "t", "w0"} - set(given))
    if missing:
        raise ValueError(f"the program takes {', '.join(missing)}; give it in `inputs`, one value for each step")
    rates = np.broadcast_to(np.asarray(learning_rate, np.float64), (len(gradients),))
    step = stepper(program, layout)
    w = layout.flatten([np.asarray(tensor, np.float64) for tensor in weights])
    fixed: dict[str, Value] = {h.name: h.value for h in program.hyperparameters} | {"w0": w}
    slots = initial_slots(program, layout)
    path = [layout.unflatten(w)]
    with np.errstate(all="ignore"):
        for index, gradient in enumerate(gradients):
            values = fixed | slots | {"w": w, "lr": rates[index], "t": np.float64(index + 1)}
            values["g"] = layout.flatten([np.asarray(tensor, np.float64) for tensor in gradient])
            for name, sequence in given.items():
                tensors = RESERVED[name] is Kind.TENSOR
                values[name] = layout.flatten(sequence[index]) if tensors else np.float64(sequence[index])
            update, slots = step(values)
            w = w - update
            path.append(layout.unflatten(w))
    return path
