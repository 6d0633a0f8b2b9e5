"""What is known about the values of a graph at every step: signs, bounds, slots that stay zero or stay equal.

Facts about slots are inductive: all are assumed, those that one step does not keep are given up, until all left are
kept. A slot starts from zero, so what one step keeps holds for ever.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from evolion.primitives.dataflow import Reference
from evolion.primitives.graph import Builder, Graph, same
from evolion.primitives.kinds import Kind

__all__ = ["BOUND", "Fact", "equal_slots", "facts", "zero_slots"]

BOUND = 2.0**60
"""A value below this has a square that is finite in float32 as well."""

_SLACK = 1.0 + 1e-6  # more than the rounding of a few operations in float32


@dataclass(frozen=True, slots=True)
class Fact:
    """What holds of each entry of a value that is not NaN.

    Attributes:
        nonnegative: The entry is not negative, and no zero with a minus sign.
        bound: The largest absolute value.

    """

    nonnegative: bool = False
    bound: float = math.inf


_BOUNDS = {
    **dict.fromkeys(("sin", "cos", "tanh", "sign"), 1.0),
    **dict.fromkeys(("arcsin", "arctan"), math.pi / 2),
    "arccos": math.pi,
}
_NONNEGATIVE = frozenset(("abs", "square", "exp", "exp2", "exp10", "cosh", "arccos", "arccosh", "norm", "global_norm"))
_KEEP_NONNEGATIVE = frozenset(
    ("add", "multiply", "divide", "max", "min", "sqrt", "cube", "cbrt", "tanh", "arctan", "arcsinh", "sinh")
)
_UNKNOWN = Fact()


def facts(graph: Graph) -> dict[Reference, Fact]:
    """Return what is known of every node and slot; a reference without an entry has no fact but its own value."""
    assumed: dict[Reference, Fact] = dict.fromkeys(graph.next_slots, Fact(True, BOUND))
    while True:
        known: dict[Reference, Fact] = dict(assumed)
        for index, (op, args) in enumerate(graph.nodes):
            known[index] = _fact(op, [fact_of(known, a) for a in args], args, graph.program.protected)
        kept: dict[Reference, Fact] = {}
        for name, reference in graph.next_slots.items():
            after, before = fact_of(known, reference), assumed[name]
            bound = before.bound if after.bound <= before.bound else math.inf
            kept[name] = Fact(before.nonnegative and after.nonnegative, bound)
        if kept == assumed:
            return known
        assumed = kept


def fact_of(known: Mapping[Reference, Fact], reference: Reference) -> Fact:
    """Return what is known of a value; of a constant that is everything."""
    if isinstance(reference, float):
        return Fact(math.copysign(1.0, reference) > 0.0, abs(reference))
    return known.get(reference, _UNKNOWN)


def _fact(op: str, own: list[Fact], args: tuple[Reference, ...], protected: bool) -> Fact:
    nonnegative = op in _NONNEGATIVE or (op == "sqrt" and protected)
    nonnegative = nonnegative or (op in _KEEP_NONNEGATIVE and all(fact.nonnegative for fact in own))
    share = args[2] if op == "interp" else None
    if isinstance(share, float) and 0.0 <= share <= 1.0:
        nonnegative = own[0].nonnegative and own[1].nonnegative
    return Fact(nonnegative, _bound(op, [fact.bound for fact in own], args) * _SLACK)


def _bound(op: str, own: list[float], args: tuple[Reference, ...]) -> float:
    if op in _BOUNDS:
        return _BOUNDS[op]
    if op in ("abs", "negative"):
        return own[0]
    if op in ("add", "subtract"):
        return own[0] + own[1]
    if op in ("max", "min"):
        return max(own)
    product = {"multiply": own, "square": own * 2, "cube": own * 3}.get(op)
    if product is not None and math.inf not in product:
        return math.prod(product)
    share = args[2] if op == "interp" else None
    if isinstance(share, float) and math.inf not in own:
        return abs(1.0 - share) * own[0] + abs(share) * own[1]
    return math.inf


def zero_slots(graph: Graph) -> set[str]:
    """Return the slots that hold zero, without a minus sign, at every step."""
    zero = set(graph.next_slots)
    while zero:
        values = _numbered(graph, dict.fromkeys(zero, 0.0))
        kept = {name for name in zero if same(values[name], 0.0)}
        if kept == zero:
            break
        zero = kept
    return zero


def equal_slots(graph: Graph) -> dict[str, Reference]:
    """Return for slots that hold the same as an earlier slot of their kind at every step the name of that slot."""
    if len(graph.next_slots) < 2:
        return {}
    kinds = {slot.name: slot.kind for slot in graph.program.slots}
    first: dict[Kind, str] = {}
    leader = {name: first.setdefault(kinds[name], name) for name in graph.next_slots}
    while True:
        values = _numbered(graph, {name: other for name, other in leader.items() if name != other})
        found: dict[tuple[str, str], str] = {}
        split = {name: found.setdefault((leader[name], repr(values[name])), name) for name in leader}
        if split == leader:
            return {name: other for name, other in leader.items() if name != other}
        leader = split


def _numbered(graph: Graph, renamed: Mapping[str, Reference]) -> dict[str, Reference]:
    """Return the next value of every slot where some slots are read as something else; equal values are one."""
    builder = Builder(graph.program.protected)
    moved: list[Reference] = []

    def to_new(reference: Reference) -> Reference:
        if isinstance(reference, int):
            return moved[reference]
        return renamed.get(reference, reference) if isinstance(reference, str) else reference

    for op, args in graph.nodes:
        moved.append(builder.add(op, tuple([to_new(argument) for argument in args]), -1))
    return {name: to_new(reference) for name, reference in graph.next_slots.items()}
