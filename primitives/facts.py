"""What is known about the values of a graph at every step: signs, bounds, slots that stay zero or stay equal.

Facts about slots are inductive: all are assumed, those that one step does not keep are given up, until all left are
kept. A slot starts from zero, so what one step keeps holds for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from evolion.primitives.dataflow import Reference
from evolion.primitives.graph import Builder, Graph, same
from evolion.primitives.kinds import Kind

__all__ = ["BOUND", "Fact", "equal_slots", "facts", "zero_slots"]

BOUND = 2.0**60
"""A value below this has a square that is finite in float32 as well. No larger bound is stated."""

_SLACK = 1.0 + 1e-6  # more than the rounding of a few operations in float32
_TINY = 1e-30  # more than the rounding of denormal numbers
_MEAN_SLACK = 1024.0  # more than the rounding of a sum over any tensor, relative to the largest entry
_COUNT = 2.0**48  # no tensor has more entries


@dataclass(frozen=True, slots=True)
class Fact:
    """What holds of each entry of a value; the first three of each that is not NaN.

    Attributes:
        nonnegative: The entry is not negative, and no zero with a minus sign.
        diagonal: That holds of the diagonal at least, where the value is a square matrix; else the same.
        bound: The largest absolute value.
        finite: The entry is neither infinite nor NaN.
        indicator: The entry is 0 or 1, without a minus sign.

    """

    nonnegative: bool = False
    diagonal: bool = False
    bound: float = math.inf
    finite: bool = False
    indicator: bool = False


_UNKNOWN = Fact()
_INDICATOR = Fact(True, True, 1.0, True, True)
_COUNTED = Fact(True, True, _COUNT, True)
_SURE: Mapping[str, Fact] = MappingProxyType(
    {
        **dict.fromkeys(("greater", "greater_equal", "less", "less_equal", "equal", "not_equal"), _INDICATOR),
        **dict.fromkeys(("is_finite", "top_k_mask", "eye", "sorting"), _INDICATOR),
        **dict.fromkeys(("entry_count", "row_count", "column_count"), _COUNTED),
    }
)
"""What holds of the results of some ops whatever their arguments are."""

_BOUNDS: Mapping[str, float] = MappingProxyType(
    {
        **dict.fromkeys(("sin", "cos", "tanh", "sign", "sigmoid"), 1.0),
        **dict.fromkeys(("arcsin", "arctan"), math.pi / 2),
        "arccos": math.pi,
        **dict.fromkeys(("eigenvectors", "power_iteration"), 2.0),  # orthogonal, but for rounding
    }
)
_NONNEGATIVE = frozenset(
    (
        *("abs", "square", "exp", "exp2", "exp10", "cosh", "arccos", "arccosh", "sigmoid", "softplus"),
        *("norm", "global_norm", "row_norm", "column_norm"),
    )
)
_KEEP_NONNEGATIVE = frozenset(
    (
        *("add", "multiply", "divide", "max", "min", "power", "clip_value", "floor", "reciprocal"),
        *("sqrt", "cube", "cbrt", "tanh", "arctan", "arcsinh", "sinh", "expm1", "log1p"),
        *("transpose", "upper_triangle"),
    )
)
_KEEP_NONNEGATIVE_BUT_NO_DIAGONAL = frozenset(
    (
        *(f"{whose}_{what}" for whose in ("row", "column", "tensor", "global") for what in ("sum", "mean", "max")),
        *("matmul", "matmul_transposed", "transposed_matmul", "left_gram", "right_gram", "dot", "clip"),
        *("diagonal", "trace", "diagonal_matrix"),
    )
)
_KEEP_FINITE = frozenset(
    (
        *("abs", "negative", "sign", "sin", "cos", "tanh", "arctan", "arcsinh", "cbrt", "sigmoid", "softplus"),
        *("floor", "max", "min", "clip_value", "where"),
        *("transpose", "upper_triangle", "diagonal_matrix", "diagonal"),
    )
)
"""Ops whose results are finite for finite arguments."""

_FINITE_WHERE_BOUNDED = frozenset(("add", "subtract", "multiply", "square", "cube", "interp"))
"""Ops whose results are finite for finite arguments if they do not overflow."""

_SELECTING = frozenset(("max", "min", "multiply", "transpose", "abs", "square", "floor", "cube"))
"""Ops that make 0 and 1 of 0 and 1."""


def facts(graph: Graph) -> dict[Reference, Fact]:
    """Return what is known of every node and slot; a reference without an entry has no fact but its own value."""
    everything = Fact(True, True, BOUND, True, True)
    assumed: dict[Reference, Fact] = dict.fromkeys(graph.next_slots, everything)
    while True:
        known: dict[Reference, Fact] = dict(assumed)
        for index in range(len(graph.nodes)):
            known[index] = _fact(graph, index, known)
        kept: dict[Reference, Fact] = {}
        for name, reference in graph.next_slots.items():
            after, before = fact_of(known, reference), assumed[name]
            kept[name] = Fact(
                before.nonnegative and after.nonnegative,
                before.diagonal and after.diagonal,
                before.bound if after.bound <= before.bound else math.inf,
                before.finite and after.finite,
                before.indicator and after.indicator,
            )
        if kept == assumed:
            return known
        assumed = kept


def fact_of(known: Mapping[Reference, Fact], reference: Reference) -> Fact:
    """Return what is known of a value; of a constant that is everything."""
    if isinstance(reference, float):
        positive, size = math.copysign(1.0, reference) > 0.0, abs(reference)
        # Beyond the bound float32 may hold no such number.
        bounded = size <= BOUND
        return Fact(positive, positive, size if bounded else math.inf, bounded, positive and size in (0.0, 1.0))
    return known.get(reference, _UNKNOWN)


def _fact(graph: Graph, index: int, known: Mapping[Reference, Fact]) -> Fact:
    op, args = graph.nodes[index]
    if op in _SURE:
        return _SURE[op]
    own = [fact_of(known, argument) for argument in args]
    if op == "where":
        return _of_branches(graph, args, own[1], own[2])
    protected = graph.program.protected
    always = op in _NONNEGATIVE or (op == "sqrt" and protected)
    # Of a matrix, diagonal and trace read the diagonal alone.
    signs = [fact.diagonal if op in ("diagonal", "trace") else fact.nonnegative for fact in own]
    nonnegative = always or _keeps_sign(op, args, signs)
    bound = _bound(op, own, args, protected)
    bound = bound if op in _UNROUNDED else bound * _SLACK + _TINY
    bound = bound if bound <= BOUND else math.inf
    finite = op in _KEEP_FINITE or (op in _FINITE_WHERE_BOUNDED and bound <= BOUND)
    return Fact(
        nonnegative,
        nonnegative or _keeps_diagonal(op, args, [fact.diagonal for fact in own]),
        bound,
        finite and all(fact.finite for fact in own),
        op in _SELECTING and all(fact.indicator for fact in own),
    )


def _of_branches(graph: Graph, args: tuple[Reference, ...], one: Fact, other: Fact) -> Fact:
    """Return what holds of `where`; where(is_finite(x), x, y) is finite if y is."""
    test = graph.nodes[args[0]] if isinstance(args[0], int) else None
    guarded = test is not None and test[0] == "is_finite" and same(test[1][0], args[1])
    return Fact(
        one.nonnegative and other.nonnegative,
        one.diagonal and other.diagonal,
        max(one.bound, other.bound),
        (one.finite or guarded) and other.finite,
        one.indicator and other.indicator,
    )


def _keeps_sign(op: str, args: tuple[Reference, ...], own: list[bool]) -> bool:
    """Say whether a result is never negative as some arguments are not."""
    if op in _KEEP_NONNEGATIVE or op in _KEEP_NONNEGATIVE_BUT_NO_DIAGONAL:
        first = own[:1] if op in ("power", "log1p") else own
        return all(first) or (op == "dot" and same(args[0], args[1]))
    if op == "mod":
        return own[1]
    return _is_average(op, args) and own[0] and own[1]


def _keeps_diagonal(op: str, args: tuple[Reference, ...], own: list[bool]) -> bool:
    """Say whether the diagonal of a result is never negative."""
    if op in ("left_gram", "right_gram"):
        return True
    if op in ("matmul_transposed", "transposed_matmul"):
        return same(args[0], args[1])
    return op not in _KEEP_NONNEGATIVE_BUT_NO_DIAGONAL and _keeps_sign(op, args, own)


def _is_average(op: str, args: tuple[Reference, ...]) -> bool:
    return op == "interp" and isinstance(args[2], float) and 0.0 <= args[2] <= 1.0


def _bound(op: str, own: list[Fact], args: tuple[Reference, ...], protected: bool) -> float:
    bounds = [fact.bound for fact in own]
    if op in _BOUNDS:
        return _BOUNDS[op]
    if op in _BOUND_OF:
        return _BOUND_OF[op](*bounds)
    if op == "min" and all(fact.nonnegative for fact in own):
        return min(bounds)
    if op in ("max", "min"):
        return max(bounds)
    if op == "divide" and protected and own[1].nonnegative:
        return bounds[0] * 1e8
    if op == "clip" and own[1].nonnegative:
        return bounds[0]
    if op == "interp" and isinstance(args[2], float) and math.inf not in bounds:
        return abs(1.0 - args[2]) * bounds[0] + abs(args[2]) * bounds[1]
    return math.inf


def _same_bound(bound: float) -> float:
    return bound


_SAME_BOUND = ("abs", "negative", "transpose", "diagonal", "diagonal_matrix", "upper_triangle", "identity")
_MAXIMA = tuple(f"{whose}_max" for whose in ("row", "column", "tensor", "global"))
_UNROUNDED = frozenset((*_SAME_BOUND, *_MAXIMA, "max", "min", "clip_value", *_BOUNDS))
_BOUND_OF: Mapping[str, Callable[..., float]] = MappingProxyType(
    {
        **dict.fromkeys(_SAME_BOUND, _same_bound),
        **dict.fromkeys(_MAXIMA, _same_bound),
        **dict.fromkeys(
            (f"{whose}_mean" for whose in ("row", "column", "tensor", "global")), lambda x: x * _MEAN_SLACK
        ),
        "add": lambda x, y: x + y,
        "subtract": lambda x, y: x + y,
        "multiply": lambda x, y: x * y if max(x, y) < math.inf else math.inf,
        "square": lambda x: x * x,
        "cube": lambda x: x * x * x,
        "sqrt": lambda x: max(1.0, x),
        "cbrt": lambda x: max(1.0, x),
        "floor": lambda x: x + 1.0,
        "softplus": lambda x: x + 1.0,
        "arcsinh": _same_bound,
        "mod": lambda _, y: y,
        "clip_value": lambda _, low, high: max(low, high),
    }
)
"""The largest absolute value from those of the arguments."""


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
