"""Rewrite rules as records: each says what may stand in place of what, when, and why.

Patterns are expressions of the language. `x`, `y`, `z`, `s`, `a`, `b` and `p` stand for any value, `c` and `k` for any
constant of the text (hyperparameters are none: tuning may change them). What is computed from constants alone in a
replacement is a constant. A rule that names kinds for a value holds for these only; any other holds for all kinds that
its operations take.

A rule is *exact* if both sides are equal bit for bit on every input, infinities, NaN (but for its payload and sign),
zeros of either sign and denormal numbers included, in the NumPy meaning in float64 and float32. Every other rule is
*approximate*: equal in real arithmetic, perhaps but for single points such as 0 or values that no training reaches. So
`x + 0` is approximate (of -0 it makes 0), and `x - x` (infinity gives NaN).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from evolion.primitives.dataflow import Reference, data_flow
from evolion.primitives.kinds import Kind
from evolion.primitives.parser import parse
from evolion.primitives.program import ProgramError

__all__ = [
    "NEGATION",
    "NOT_FINITE",
    "ROUNDING",
    "SCALARS",
    "VALUES",
    "ZERO",
    "Arithmetic",
    "Call",
    "Rule",
    "Term",
    "Wildcard",
    "approximate_rule",
    "exact_rule",
    "positive",
]

Arithmetic = Literal["both", "plain", "protected"]


@dataclass(frozen=True, slots=True)
class Wildcard:
    """Stands for any value or, with `constant`, for any constant; the same one wherever the name stands."""

    name: str
    constant: bool


@dataclass(frozen=True, slots=True)
class Call:
    """An operation on terms."""

    op: str
    args: tuple[Term, ...]


Term = Call | Wildcard | float

NEGATION = "negation changes the sign bit alone"
ROUNDING = "equal but for rounding, overflow and underflow"
ZERO = "equal but for the sign of a zero"
NOT_FINITE = "not where x is infinite or NaN; the sign of a zero may change"

VALUES = ("x", "y", "z")
"""Names that stand for any value; where a rule names no kinds, tests give them tensors."""

SCALARS = ("s", "a", "b", "p")
"""Names that stand for any value as well; tests give them scalars."""

_CONSTANTS = ("c", "k")


@cache
def _term(text: str, kinds: tuple[Kind, ...]) -> Term:
    """Read an expression over the wildcards, the values of these kinds, with the language's own parser."""
    values = ", ".join(f"{name}: {kind}" for name, kind in zip(VALUES, kinds, strict=True))
    scalars = ", ".join(f"{name}=1" for name in (*SCALARS, *_CONSTANTS))
    program = parse(f"def train({values}, *, {scalars}):\n    result = {text}\n    return 0, {', '.join(VALUES)}\n")
    flow = data_flow(program)

    def term(reference: Reference) -> Term:
        if isinstance(reference, int):
            op, args = program.statements[reference].op, flow.arguments[reference]
            return term(args[0]) if op == "identity" else Call(op, tuple(map(term, args)))
        return Wildcard(reference, reference in _CONSTANTS) if isinstance(reference, str) else reference

    return term(len(program.statements) - 1)


def _fits(text: str, kinds: tuple[Kind, ...]) -> bool:
    try:
        _term(text, kinds)
    except ProgramError:
        return False
    return True


def _any_constants(_: Mapping[str, float]) -> bool:
    return True


def positive(constants: Mapping[str, float]) -> bool:
    """Say whether the constant c is above zero."""
    return constants["c"] > 0.0


@dataclass(frozen=True, slots=True)
class Rule:
    """One row.

    Attributes:
        name: What reports and tests call it.
        pattern: What is replaced, as text.
        replacement: What replaces it, as text.
        exact: Whether no bit changes; see the module.
        reason: Why it holds, or what it neglects, in one line.
        arithmetic: Under which arithmetic it holds.
        constants: What the constants must fulfil, given by name.
        where: The same in words.
        nonnegative: Values that must be known never to be negative, nor a zero with a minus sign.
        bounded: Values that must be known to stay below `facts.BOUND` or to be NaN.
        finite: Values that must be known to be neither infinite nor NaN.
        indicator: Values that must be known to be 0 or 1.
        kinds: The kinds that values may have, where the rule does not hold, or has no meaning, for all.
        shortens: Whether it is used only where it saves a statement. Without, it is used where it makes statements
            read fewer arguments, or stand less deep, as well.

    """

    name: str
    pattern: str
    replacement: str
    exact: bool
    reason: str
    arithmetic: Arithmetic = "both"
    constants: Callable[[Mapping[str, float]], bool] = _any_constants
    where: str = ""
    nonnegative: tuple[str, ...] = ()
    bounded: tuple[str, ...] = ()
    finite: tuple[str, ...] = ()
    indicator: tuple[str, ...] = ()
    kinds: Mapping[str, tuple[Kind, ...]] = field(default_factory=dict)
    shortens: bool = False

    def terms(self) -> tuple[Term, Term]:
        """Return pattern and replacement, read from their texts."""
        kinds = self.combinations()[0]
        return _term(self.pattern, kinds), _term(self.replacement, kinds)

    def combinations(self) -> list[tuple[Kind, ...]]:
        """Return the kinds that `VALUES` may have together: those that the rule names, else tensors."""
        named = itertools.product(*(self.kinds.get(name, (Kind.TENSOR,)) for name in VALUES))
        return [kinds for kinds in named if _fits(self.pattern, kinds)]


def _row(exact: bool, pattern: str, replacement: str, reason: str, **options: Any) -> Rule:
    rule = Rule("", pattern, replacement, exact, reason, **options)
    conditions: list[str] = [rule.arithmetic] if rule.arithmetic != "both" else []
    conditions += [rule.where] if rule.where else []
    conditions += [f"{name} not negative" for name in rule.nonnegative]
    conditions += [f"{name} bounded" for name in rule.bounded]
    conditions += [f"{name} finite" for name in rule.finite]
    conditions += [f"{name} 0 or 1" for name in rule.indicator]
    conditions += [f"{name} {' or '.join(map(str, kinds))}" for name, kinds in rule.kinds.items() if len(kinds) < 3]
    given = f" ({', '.join(conditions)})" if conditions else ""
    return replace(rule, name=f"{pattern} = {replacement}{given}")


def exact_rule(pattern: str, replacement: str, reason: str, **options: Any) -> Rule:
    """Return a rule that changes no bit; the options are attributes of `Rule`."""
    return _row(True, pattern, replacement, reason, **options)


def approximate_rule(pattern: str, replacement: str, reason: str, **options: Any) -> Rule:
    """Return a rule that holds but for rounding and single points; the options are attributes of `Rule`."""
    return _row(False, pattern, replacement, reason, **options)
