"""Programs as graphs of values: no names, no order but that of the data, equal values once.

A graph is what rewriting works on. Building one already removes copies, repeated values, operations on constants alone
and what no update can depend on; `to_program` gives a program back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evolion.primitives.dataflow import Reference, data_flow
from evolion.primitives.kinds import Kind, widens
from evolion.primitives.op import Elementwise, result_kind
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program

__all__ = ["Builder", "Graph", "Node", "folded", "graph_of", "rebuilt", "same", "swapped_freely"]

Node = tuple[str, tuple[Reference, ...]]
"""The name of an op and what its arguments refer to; an int is the index of an earlier node."""

_SWAPPED_FREELY = frozenset(op.name for op in OPS.values() if op.commutative and op.name not in ("max", "min"))
"""Ops whose arguments may change places bit for bit; of two zeros, max and min may give either."""


_BY_ENTRY = frozenset(op.name for op in OPS.values() if isinstance(op.meaning, Elementwise))
"""Ops that make of a narrow value what they would make of the same value, widened."""


@dataclass(frozen=True, slots=True)
class Graph:
    """The values that reach an update, now or in a later step.

    Attributes:
        program: Where the signature, the names and the documentation come from.
        nodes: The operations; arguments come before what reads them.
        origins: For each node the statement of `program` that gave its name, or -1.
        kinds: The kind of each node.
        update: What is returned first.
        next_slots: For each live slot its value after the step, in the order of the signature.

    """

    program: Program
    nodes: tuple[Node, ...]
    origins: tuple[int, ...]
    kinds: tuple[Kind, ...]
    update: Reference
    next_slots: dict[str, Reference]

    def kind_of(self, reference: Reference) -> Kind:
        """Return the kind of a value."""
        if isinstance(reference, str):
            return next((p.kind for p in self.program.parameters if p.name == reference), Kind.SCALAR)
        return self.kinds[reference] if isinstance(reference, int) else Kind.SCALAR

    def measure(self) -> tuple[int, int, int, int]:
        """Return (statements, slots, arguments, sum of heights), which every accepted rewrite makes smaller.

        Tuples of natural numbers in lexicographic order have no infinite descent, so rewriting ends. Copies count as
        statements: of a slot's next value that is no operation of its own, and of an old value that is the update.
        """
        own = {reference for reference in self.next_slots.values() if isinstance(reference, int)}
        copies = len(self.next_slots) - len(own) + (self.update in self.next_slots)
        heights: list[int] = []
        for _, args in self.nodes:
            heights.append(1 + max([heights[a] for a in args if isinstance(a, int)], default=0))
        arguments = sum([len(args) for _, args in self.nodes])
        return len(self.nodes) + copies, len(self.next_slots), arguments + copies, sum(heights)


def same(first: Reference, second: Reference) -> bool:
    """Say whether two references are one; zeros of different sign are not."""
    return first == second and type(first) is type(second) and _label(first) == _label(second)


def _label(reference: Reference) -> int | str:
    return f"#{reference!r}" if isinstance(reference, float) else reference


def swapped_freely(op: str, args: tuple[Reference, ...]) -> bool:
    """Say whether the first two arguments of a commutative op may change places bit for bit."""
    return op in _SWAPPED_FREELY or any(isinstance(argument, float) and argument != 0.0 for argument in args)


def folded(op: str, args: tuple[Reference, ...], protected: bool) -> float | None:
    """Return the value of an operation on constants alone, or None if there is none or it is not finite.

    It is computed in float64 by the NumPy meaning. That is how both executions compute with constants, which are
    rounded to the dtype of the parameters only where they meet an array: folding changes no bit.
    """
    meaning = OPS[op].under(protected)
    if not isinstance(meaning, Elementwise):
        return None
    constants = [argument for argument in args if isinstance(argument, float)]
    if len(constants) < len(args):
        return None
    with np.errstate(all="ignore"):
        value = float(meaning.numpy(*constants))
    return value if math.isfinite(value) else None


@dataclass(slots=True)
class Builder:
    """Adds nodes, each value once.

    Attributes:
        protected: As in `Program`.
        nodes: The nodes so far.
        origins: As in `Graph`.
        fired: How often a value was a copy, a constant or there already.

    """

    protected: bool
    nodes: list[Node] = field(default_factory=list)
    origins: list[int] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    _found: dict[tuple[object, ...], int] = field(default_factory=dict)

    def add(self, op: str, args: tuple[Reference, ...], origin: int) -> Reference:
        """Return a reference to the value of an operation, and add a node if there is none for it."""
        if op == "identity":
            self.fired["copy"] += 1
            return args[0]
        value = folded(op, args, self.protected)
        if value is not None:
            self.fired["constants"] += 1
            return value
        labels = [_label(argument) for argument in args]
        if op in _SWAPPED_FREELY:
            labels.sort(key=str)
        key = (op, *labels)
        index = self._found.get(key)
        if index is not None:
            self.fired["common subexpression"] += 1
            return index
        self._found[key] = len(self.nodes)
        self.nodes.append((op, args))
        self.origins.append(origin)
        return len(self.nodes) - 1


def graph_of(program: Program) -> tuple[Graph, Counter[str]]:
    """Return the graph of a program, and how often building it removed something, by reason."""
    flow = data_flow(program)
    builder = Builder(program.protected)
    moved: dict[Reference, Reference] = {}
    for index, (statement, references) in enumerate(zip(program.statements, flow.arguments, strict=True)):
        args = tuple([moved.get(r, r) if r.__class__ is int else r for r in references])
        moved[index] = builder.add(statement.op, args, index)
    slots = {name: moved.get(r, r) if r.__class__ is int else r for name, r in flow.next_slots.items()}
    update = moved[flow.update] if flow.update.__class__ is int else flow.update
    # A program that exists has fitting kinds, and folding cannot narrow a value that an op needs wide.
    graph = _finished(program, builder, update, slots, {})
    assert graph is not None
    dead = len(builder.nodes) - len(graph.nodes)
    builder.fired |= {"dead code": dead, "dead slot": len(slots) - len(graph.next_slots)}
    return graph, +builder.fired


def rebuilt(
    graph: Graph,
    replacements: Mapping[int, Callable[[Builder, Callable[[Reference], Reference]], Reference]] | None = None,
    renamed: Mapping[str, Reference] | None = None,
) -> tuple[Graph, Counter[str]] | None:
    """Return the graph with some nodes replaced and some parameters read as something else.

    Args:
        graph: The graph.
        replacements: By index, what adds the value in the node's place. It gets a builder and what turns a reference
            to an earlier node into one of the new graph.
        renamed: By name, what is read in a parameter's place.

    Returns:
        The new graph and what building it removed, or None if a value would be of a kind that its reader does not take.

    """
    replacements, renamed = replacements or {}, renamed or {}
    builder = Builder(graph.program.protected)
    moved: list[Reference] = []
    required: dict[int, tuple[Kind, ...]] = {}
    entry = {parameter.name: parameter.kind for parameter in graph.program.parameters}

    def to_new(reference: Reference) -> Reference:
        if isinstance(reference, int):
            return moved[reference]
        return renamed.get(reference, reference) if isinstance(reference, str) else reference

    for index, (op, args) in enumerate(graph.nodes):
        replacement = replacements.get(index)
        if replacement is not None:
            moved.append(replacement(builder, to_new))
            added = builder.nodes and moved[-1] == len(builder.nodes) - 1
            if added and builder.origins[-1] == -1:
                builder.origins[-1] = graph.origins[index]
        else:
            moved.append(builder.add(op, tuple([to_new(argument) for argument in args]), graph.origins[index]))
            if isinstance(moved[-1], int) and op not in _BY_ENTRY:
                before = tuple([_kind(argument, graph.kinds, entry) for argument in args])
                if required.setdefault(moved[-1], before) != before:
                    return None
    slots = {name: to_new(r) for name, r in graph.next_slots.items() if name not in renamed}
    new = _finished(graph.program, builder, to_new(graph.update), slots, required)
    return None if new is None else (new, builder.fired)


def _finished(
    program: Program,
    builder: Builder,
    update: Reference,
    slots: dict[str, Reference],
    required: Mapping[int, tuple[Kind, ...]],
) -> Graph | None:
    """Leave out what no update can depend on and infer the kinds; None if they do not fit.

    `required` has the kinds that the arguments of some nodes must have: a sum over the rows of a tensor of equal
    columns is not that over the numbers of one column.
    """
    live: set[Reference] = set()
    pending = [update]
    while pending:
        reference = pending.pop()
        if isinstance(reference, float) or reference in live:
            continue
        live.add(reference)
        if isinstance(reference, int):
            pending += builder.nodes[reference][1]
        elif reference in slots:
            pending.append(slots[reference])
    entry = {parameter.name: parameter.kind for parameter in program.parameters}
    moved: dict[Reference, int] = {}
    nodes: list[Node] = []
    origins: list[int] = []
    kinds: list[Kind] = []
    for index, (op, args) in enumerate(builder.nodes):
        if index not in live:
            continue
        references = tuple([moved[a] if a.__class__ is int else a for a in args])
        own = tuple([_kind(r, kinds, entry) for r in references])
        kind = result_kind(OPS[op], own)
        if kind is None or required.get(index, own) != own:
            return None
        moved[index] = len(nodes)
        nodes.append((op, references))
        origins.append(builder.origins[index])
        kinds.append(kind)
    kept = {name: moved[r] if r.__class__ is int else r for name, r in slots.items() if name in live}
    if not all(widens(_kind(reference, kinds, entry), entry[name]) for name, reference in kept.items()):
        return None
    end = moved[update] if update.__class__ is int else update
    return Graph(program, tuple(nodes), tuple(origins), tuple(kinds), end, kept)


def _kind(reference: Reference, kinds: Sequence[Kind], entry: dict[str, Kind]) -> Kind:
    if isinstance(reference, int):
        return kinds[reference]
    return entry.get(reference, Kind.SCALAR) if isinstance(reference, str) else Kind.SCALAR
