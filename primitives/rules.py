"""Rewrite rules as rows: each says what may stand in place of what, when, and why.

Patterns are expressions of the language. `x`, `y`, `z`, `s`, `a` and `b` stand for any value, `c` and `k` for any
constant of the text (hyperparameters are none: tuning may change them). What is computed from constants alone in a
replacement is a constant.

A rule is *exact* if both sides are equal bit for bit on every input, infinities, NaN (but for its payload and sign),
zeros of either sign and denormal numbers included, in the NumPy meaning in float64 and float32. Every other rule is
*approximate*: equal in real arithmetic, perhaps but for single points such as 0 or values that no training reaches. So
`x + 0` is approximate (of -0 it makes 0), and `x - x` (infinity gives NaN).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

from evolion.primitives.dataflow import Reference, data_flow
from evolion.primitives.parser import parse

__all__ = ["EXAMPLE_CONSTANTS", "RULES", "Arithmetic", "Call", "Rule", "Term", "Wildcard"]

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

_ANY, _CONSTANTS = ("x", "y", "z"), ("c", "k")
_SCALAR = ("s", "a", "b")


@cache
def _term(text: str) -> Term:
    """Read an expression over the wildcards with the language's own parser."""
    values, scalars = ", ".join(_ANY), ", ".join(f"{name}=1" for name in (*_SCALAR, *_CONSTANTS))
    program = parse(f"def train({values}, *, {scalars}):\n    return {text}, {values}\n")
    flow = data_flow(program)

    def term(reference: Reference) -> Term:
        if isinstance(reference, int):
            return Call(program.statements[reference].op, tuple(map(term, flow.arguments[reference])))
        return Wildcard(reference, reference in _CONSTANTS) if isinstance(reference, str) else reference

    return term(flow.update)


def _any_constants(_: Mapping[str, float]) -> bool:
    return True


def _positive(constants: Mapping[str, float]) -> bool:
    return constants["c"] > 0.0


def _enlarging(constants: Mapping[str, float]) -> bool:
    # Up to a bound: a factor that float32 does not hold becomes infinite, and 0 times infinity is NaN.
    return 1.0 <= constants["c"] <= 1e30


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
    shortens: bool = False

    def terms(self) -> tuple[Term, Term]:
        """Return pattern and replacement, read from their texts."""
        return _term(self.pattern), _term(self.replacement)


def _row(exact: bool, pattern: str, replacement: str, reason: str, **options: Any) -> Rule:
    rule = Rule("", pattern, replacement, exact, reason, **options)
    conditions: list[str] = [rule.arithmetic] if rule.arithmetic != "both" else []
    conditions += [rule.where] if rule.where else []
    conditions += [f"{name} not negative" for name in rule.nonnegative]
    conditions += [f"{name} bounded" for name in rule.bounded]
    given = f" ({', '.join(conditions)})" if conditions else ""
    return replace(rule, name=f"{pattern} = {replacement}{given}")


def _exact(pattern: str, replacement: str, reason: str, **options: Any) -> Rule:
    return _row(True, pattern, replacement, reason, **options)


def _approximate(pattern: str, replacement: str, reason: str, **options: Any) -> Rule:
    return _row(False, pattern, replacement, reason, **options)


_ODD = ("sin", "tan", "arcsin", "arctan", "sinh", "tanh", "arcsinh", "arctanh", "cbrt", "cube", "reciprocal")
_EVEN = ("abs", "square", "cos", "cosh", "norm", "global_norm")
_MAGNITUDES = ("sqrt", "log", "log10", "log2")
_SIGN_KEEPING = ("tanh", "arctan", "arcsinh", "sinh", "cbrt", "expm1")
_INVERSES = (
    *(("tan", "arctan"), ("sin", "arcsin"), ("cos", "arccos"), ("sinh", "arcsinh"), ("arcsinh", "sinh")),
    *(("tanh", "arctanh"), ("arctanh", "tanh"), ("cosh", "arccosh"), ("cube", "cbrt"), ("cbrt", "cube")),
    *(("log", "exp"), ("log2", "exp2"), ("log10", "exp10"), ("reciprocal", "reciprocal")),
)
_NEGATION = "negation changes the sign bit alone"
_PROTECTED_MAGNITUDE = "under protected arithmetic the operation takes |x| itself"
_ROUNDING = "equal but for rounding, overflow and underflow"
_ZERO = "equal but for the sign of a zero"
_NOT_FINITE = "not where x is infinite or NaN; the sign of a zero may change"


_EXACT = (
    _exact("x * 1", "x", "one is neutral"),
    _exact("x / 1", "x", "one is neutral; protected division divides by 1 + 1e-8", arithmetic="plain"),
    _exact("x ** 1", "x", "one is neutral"),
    _exact("x ** 0", "1", "IEEE 754 gives 1 for every x, NaN included"),
    _exact("1 ** x", "1", "IEEE 754 gives 1 for every x, NaN included"),
    _exact("x - 0", "x", "zero is neutral, and keeps the sign of -0"),
    _exact("x + -0.0", "x", "minus zero is neutral, and keeps the sign of either zero"),
    _exact("x + 0", "x", "zero is neutral where x is no -0", nonnegative=("x",)),
    _exact("max(x, x)", "x", "idempotent"),
    _exact("min(x, x)", "x", "idempotent"),
    _exact("abs(x)", "x", "x has no minus sign", nonnegative=("x",)),
    _exact("x * x", "square(x)", "square is defined so"),
    _exact("square(x) * x", "cube(x)", "cube is defined so"),
    _exact("1 / x", "reciprocal(x)", "reciprocal is defined so", arithmetic="plain"),
    _exact("sqrt(dot(x, x))", "global_norm(x)", "the same sum and the same root"),
    _exact("(1 - a) * x + a * y", "interp(x, y, a)", "interp is defined so"),
    _exact("negative(negative(x))", "x", _NEGATION),
    _exact("x * -1", "negative(x)", _NEGATION),
    _exact("x / -1", "negative(x)", _NEGATION, arithmetic="plain"),
    _exact("-0.0 - x", "negative(x)", "minus zero is neutral, and keeps the sign of either zero"),
    _exact("x + negative(y)", "x - y", "subtraction is defined so"),
    _exact("x - negative(y)", "x + y", "subtraction is defined so"),
    _exact("negative(x) * negative(y)", "x * y", _NEGATION),
    _exact("negative(x) / negative(y)", "x / y", _NEGATION, arithmetic="plain"),
    _exact("negative(x) * c", "x * negative(c)", _NEGATION),
    _exact("negative(x) / c", "x / negative(c)", _NEGATION, arithmetic="plain"),
    _exact("negative(x * c)", "x * negative(c)", _NEGATION),
    _exact("dot(negative(x), negative(y))", "dot(x, y)", _NEGATION),
    _exact("cosine_sim(negative(x), negative(y))", "cosine_sim(x, y)", _NEGATION),
    _exact("sign(sign(x))", "sign(x)", "signs are their own signs"),
    _exact(
        "sign(x * c)", "sign(x)", "such a factor makes no number zero", constants=_enlarging, where="1 <= c <= 1e30"
    ),
    _exact(
        "x / sqrt(square(y))",
        "x / abs(y)",
        "sqrt(y * y) is |y| in binary, but where y * y overflows (y is bounded) or underflows (|y| + 1e-8 is 1e-8)",
        arithmetic="protected",
        bounded=("y",),
    ),
    *(_exact(f"negative({op}(negative(x)))", f"{op}(x)", "an odd function") for op in _ODD),
    *(_exact(f"{op}(negative(x))", f"{op}(x)", "an even function") for op in _EVEN),
    *(_exact(f"{op}(abs(x))", f"{op}(x)", "an even function") for op in _EVEN),
    *(_exact(f"{op}(negative(x))", f"{op}(x)", _PROTECTED_MAGNITUDE, arithmetic="protected") for op in _MAGNITUDES),
    *(_exact(f"{op}(abs(x))", f"{op}(x)", _PROTECTED_MAGNITUDE, arithmetic="protected") for op in _MAGNITUDES),
    *(_exact(f"sign({op}(x))", "sign(x)", "zero at zero alone, and of the sign of x") for op in _SIGN_KEEPING),
)

_APPROXIMATE = (
    _approximate("x + 0", "x", _ZERO),
    _approximate("0 - x", "negative(x)", _ZERO),
    _approximate("negative(x - y)", "y - x", _ZERO),
    _approximate("negative(sign(negative(x)))", "sign(x)", _ZERO),
    _approximate("x - x", "0", _NOT_FINITE),
    _approximate("x * 0", "0", _NOT_FINITE),
    _approximate("0 / x", "0", "not where x is zero or NaN"),
    _approximate("x / x", "1", "not where x is zero, infinite or NaN"),
    _approximate("x / 1", "x", "1e-8 is neglected", arithmetic="protected"),
    _approximate("interp(x, y, 0)", "x", "not where y is infinite or NaN"),
    _approximate("interp(x, y, 1)", "y", "not where x is infinite or NaN"),
    _approximate("interp(x, x, a)", "x", _ROUNDING),
    _approximate("interp(x, interp(x, y, a), b)", "interp(x, y, a * b)", _ROUNDING),
    _approximate("interp(interp(x, y, a), y, b)", "interp(x, y, a + b - a * b)", _ROUNDING),
    _approximate("x + a * (y - x)", "interp(x, y, a)", _ROUNDING),
    _approximate("x / abs(x)", "sign(x)", "0 where plain division gives NaN at 0; protected, 1e-8 is neglected"),
    _approximate("abs(x) / x", "sign(x)", "0 where plain division gives NaN at 0; protected, 1e-8 is neglected"),
    _approximate("x * y / abs(x)", "sign(x) * y", "as x / abs(x) is sign(x)"),
    _approximate("sign(x) * abs(x)", "x", _ZERO),
    _approximate("sign(x * c)", "sign(x)", "not where the product underflows", constants=_positive, where="c > 0"),
    _approximate("sign(cube(x))", "sign(x)", "not where the cube underflows"),
    _approximate("sign(clip(x, s))", "sign(x)", "not where s is not positive, or the scaled value underflows"),
    _approximate("clip(clip(x, s), s)", "clip(x, s)", "the norm is then at most s, but for rounding"),
    _approximate("sqrt(square(x))", "abs(x)", "not where the square overflows or underflows"),
    _approximate("square(sqrt(x))", "x", "NaN where x is negative; else but for rounding", arithmetic="plain"),
    _approximate("square(sqrt(x))", "abs(x)", _ROUNDING, arithmetic="protected"),
    _approximate("exp(log(x))", "x", "NaN where x is negative; else but for rounding", arithmetic="plain"),
    _approximate("exp(log(x))", "abs(x)", _ROUNDING, arithmetic="protected"),
    _approximate("x * reciprocal(y)", "x / y", _ROUNDING, arithmetic="plain"),
    _approximate("x / reciprocal(y)", "x * y", _ROUNDING, arithmetic="plain"),
    _approximate("x ** 2", "square(x)", _ROUNDING),
    _approximate("x ** 3", "cube(x)", _ROUNDING),
    _approximate("x ** -1", "reciprocal(x)", _ROUNDING),
    _approximate("x ** 0.5", "sqrt(x)", "-inf has the root NaN; else but for rounding", arithmetic="plain"),
    _approximate("x * c * k", "x * (c * k)", _ROUNDING, shortens=True),
    _approximate("x / c * k", "x * (k / c)", _ROUNDING, arithmetic="plain", shortens=True),
    _approximate("x * c / k", "x * (c / k)", _ROUNDING, shortens=True),
    _approximate("x + c + k", "x + (c + k)", _ROUNDING, shortens=True),
    _approximate("x + c - k", "x + (c - k)", _ROUNDING, shortens=True),
    _approximate("x - c + k", "x + (k - c)", _ROUNDING, shortens=True),
    _approximate("x * y + x * z", "x * (y + z)", _ROUNDING),
    _approximate("x * y - x * z", "x * (y - z)", _ROUNDING),
    _approximate("y / x + z / x", "(y + z) / x", _ROUNDING),
    _approximate("y / x - z / x", "(y - z) / x", _ROUNDING),
    _approximate("x * y + x * s * z", "x * (y + s * z)", _ROUNDING),
    _approximate("x + y - y", "x", _ROUNDING),
    _approximate("x - y + y", "x", _ROUNDING),
    _approximate("x * y / y", "x", "not where y is zero; else but for rounding (protected, 1e-8 is neglected)"),
    _approximate("x / y * y", "x", "not where y is zero; else but for rounding (protected, 1e-8 is neglected)"),
    *(_approximate(f"{outer}({inner}(x))", "x", "inverse on the domain") for outer, inner in _INVERSES),
)


def _registry(rows: tuple[Rule, ...]) -> Mapping[str, Rule]:
    table = {rule.name: rule for rule in rows}
    if len(table) != len(rows):
        raise ValueError("two rules share a name; one of them is superfluous")
    return MappingProxyType(table)


RULES = _registry(_EXACT + _APPROXIMATE)
"""Every rule by name, the exact ones first."""

EXAMPLE_CONSTANTS: Mapping[str, float] = {"c": 2.5, "k": -1.5}
"""Constants that fulfil the condition of every rule."""
