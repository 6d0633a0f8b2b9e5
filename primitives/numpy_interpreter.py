"""The reference meaning of a program: NumPy on a flat vector of all parameters.

Slow and plain on purpose; JAX executions are tested against it, and behavioural keys are made of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.primitives.dataflow import Reference, data_flow
from evolion.primitives.kinds import Kind
from evolion.primitives.ops import OPS, Elementwise, Reduction
from evolion.primitives.program import RESERVED, Program, infer_kinds

__all__ = ["Layout", "Stepper", "Value", "initial_slots", "stepper", "trajectory", "widen"]

Value = Any
"""A float (scalar), an array of one number per parameter tensor (leaf) or of one per parameter (tensor)."""

Stepper = Callable[[Mapping[str, Value]], tuple[Value, dict[str, Value]]]


@dataclass(frozen=True)
class Layout:
    """Where each parameter tensor lies in the flat vector: one after the other, each in C order.

    Attributes:
        shapes: The shapes of the parameter tensors, none of them empty.

    """

    shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """The number of entries of each tensor, shape (tensors,)."""
        return np.array([math.prod(shape) for shape in self.shapes], dtype=np.int64)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The position of each tensor's first entry, shape (tensors,)."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)

    @cached_property
    def entries(self) -> int:
        """The number of entries of all tensors."""
        return int(self.sizes.sum())

    def flatten(self, tensors: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Lay the tensors into one vector."""
        return np.concatenate([np.ravel(tensor) for tensor in tensors])

    def unflatten(self, vector: NDArray[Any]) -> list[NDArray[Any]]:
        """Cut a vector back into tensors."""
        pieces = np.split(vector, self.starts[1:])
        return [piece.reshape(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]


def _elementwise(meaning: Elementwise, kinds: tuple[Kind, ...], sizes: NDArray[np.int64]) -> Callable[..., Value]:
    if not (Kind.LEAF in kinds and Kind.TENSOR in kinds):
        return meaning.numpy
    widen = [kind is Kind.LEAF for kind in kinds]

    def call(*args: Value) -> Value:
        return meaning.numpy(*[np.repeat(a, sizes) if wide else a for a, wide in zip(args, widen, strict=True)])

    return call


def _reduction(meaning: Reduction, starts: NDArray[np.int64]) -> Callable[..., Value]:
    if meaning.scope is Kind.LEAF:

        def total(x: NDArray[Any]) -> Value:
            return np.add.reduceat(x, starts)
    else:

        def total(x: NDArray[Any]) -> Value:
            return x.sum()

    def call(*args: Value) -> Value:
        reduced = meaning.combine(np, tuple(map(total, meaning.terms(np, *args))), *args)
        return meaning.apply(np, reduced, *args)

    return call


def stepper(program: Program, layout: Layout) -> Stepper:
    """Return a function that runs one step of the program.

    It takes the value of every parameter and hyperparameter by name and gives back the update and the next slots.
    Widening of the results to a tensor, or of a slot to its kind, is the caller's. Floating-point warnings are not
    silenced here; wrap calls in `np.errstate(all="ignore")`.
    """
    flow, kinds = data_flow(program), infer_kinds(program)
    entry = {p.name: p.kind for p in program.parameters} | {h.name: Kind.SCALAR for h in program.hyperparameters}
    sizes, starts = layout.sizes, layout.starts

    def kind_of(reference: Reference) -> Kind:
        if isinstance(reference, int):
            return kinds[reference]
        return entry[reference] if isinstance(reference, str) else Kind.SCALAR

    calls: list[tuple[Callable[..., Value], tuple[Reference, ...]]] = []
    for statement, references in zip(program.statements, flow.arguments, strict=True):
        meaning = OPS[statement.op].under(program.protected)
        if isinstance(meaning, Elementwise):
            call = _elementwise(meaning, tuple(map(kind_of, references)), sizes)
        else:
            call = _reduction(meaning, starts)
        calls.append((call, references))

    def step(inputs: Mapping[str, Value]) -> tuple[Value, dict[str, Value]]:
        values: dict[Reference, Value] = dict(inputs.items())

        def value(reference: Reference) -> Value:
            return reference if isinstance(reference, float) else values[reference]

        for index, (call, references) in enumerate(calls):
            values[index] = call(*[r if r.__class__ is float else values[r] for r in references])
        return value(flow.update), {name: value(reference) for name, reference in flow.next_slots.items()}

    return step


def initial_slots(program: Program, layout: Layout, dtype: Any = np.float64) -> dict[str, Value]:
    """Return the zeros that the slots start from, each of the shape of its kind."""
    shapes: dict[Kind, tuple[int, ...]] = {
        Kind.SCALAR: (),
        Kind.LEAF: (len(layout.shapes),),
        Kind.TENSOR: (layout.entries,),
    }
    return {slot.name: np.zeros(shapes[slot.kind], dtype)[()] for slot in program.slots}


def widen(value: Value, kind: Kind, layout: Layout, dtype: Any = np.float64) -> Value:
    """Broadcast a value to a kind that is at least as wide as its own."""
    array = np.asarray(value, dtype)
    if kind is Kind.SCALAR or (kind is Kind.TENSOR and array.shape == (layout.entries,)):
        return array[()]
    if kind is Kind.TENSOR and array.ndim == 1:
        return np.repeat(array, layout.sizes)
    return np.broadcast_to(array, (len(layout.shapes) if kind is Kind.LEAF else layout.entries,))


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
            slots = {slot.name: widen(slots[slot.name], slot.kind, layout) for slot in program.slots}
            w = w - widen(update, Kind.TENSOR, layout)
            path.append(layout.unflatten(w))
    return path
