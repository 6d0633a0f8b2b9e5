"""Rewrite rules about comparisons, choices, bounds and reductions."""

from __future__ import annotations

from collections.abc import Mapping

from evolion.primitives.kinds import Kind
from evolion.primitives.rule import NEGATION, ROUNDING, Rule, approximate_rule, exact_rule

__all__ = ["APPROXIMATE", "EXACT"]

_UNORDERED = "but where either is NaN"
_NUMBER = {"y": (Kind.LEAF, Kind.SCALAR)}
_MIRRORED = {"greater": "less", "less": "greater", "greater_equal": "less_equal", "less_equal": "greater_equal"}
_SYMMETRIC = {"equal": "equal", "not_equal": "not_equal"}
_COMPLEMENTS = {"greater": "less_equal", "less": "greater_equal", "greater_equal": "less", "less_equal": "greater"}
_NORMS = {"norm": "tensor", "global_norm": "global", "row_norm": "row", "column_norm": "column"}
_MEANS = {"tensor": "entry", "row": "column", "column": "row"}  # the scope of a mean and what its sum is divided by


def _not_zero(constants: Mapping[str, float]) -> bool:
    return 0.0 not in constants.values()


def _true(constants: Mapping[str, float]) -> bool:
    return abs(constants["c"]) >= 1e-30  # float32 holds it


def _ordered(constants: Mapping[str, float]) -> bool:
    return constants["k"] < constants["c"]


EXACT: tuple[Rule, ...] = (
    exact_rule("where(z, x, x)", "x", "both branches are one"),
    exact_rule("where(c, x, y)", "x", "the condition holds", constants=_true, where="|c| >= 1e-30"),
    exact_rule("where(0, x, y)", "y", "the condition does not hold"),
    exact_rule("where(not_equal(z, 0), x, y)", "where(z, x, y)", "where compares with 0 itself"),
    exact_rule("where(equal(z, 0), x, y)", "where(z, y, x)", "where compares with 0 itself"),
    exact_rule("where(z, x, where(z, y, s))", "where(z, x, s)", "the inner condition is known"),
    exact_rule("where(z, where(z, x, y), s)", "where(z, x, s)", "the inner condition is known"),
    exact_rule("where(x, 1, 0)", "not_equal(x, 0)", "where compares with 0 itself"),
    exact_rule("where(x, 0, 1)", "equal(x, 0)", "where compares with 0 itself"),
    exact_rule("greater(x, x)", "0", "nothing is above itself, and NaN compares as 0"),
    exact_rule("less(x, x)", "0", "nothing is below itself, and NaN compares as 0"),
    *(exact_rule(f"{op}(x, x)", "1", "x is no NaN", finite=("x",)) for op in ("greater_equal", "less_equal", "equal")),
    exact_rule("not_equal(x, x)", "0", "x is no NaN", finite=("x",)),
    *(
        exact_rule(f"{op}(negative(x), negative(y))", f"{other}(x, y)", NEGATION)
        for op, other in (_MIRRORED | _SYMMETRIC).items()
    ),
    *(
        exact_rule(f"{op}(negative(x), c)", f"{other}(x, negative(c))", NEGATION)
        for op, other in (_MIRRORED | _SYMMETRIC).items()
    ),
    *(exact_rule(f"{op}(x - y, 0)", f"{op}(x, y)", "a difference does not underflow") for op in ("greater", "less")),
    *(
        exact_rule(f"{op}(0, x - y)", f"{_MIRRORED[op]}(x, y)", "a difference does not underflow")
        for op in ("greater", "less")
    ),
    exact_rule("1 - equal(x, y)", "not_equal(x, y)", "the complement, NaN included"),
    exact_rule("1 - not_equal(x, y)", "equal(x, y)", "the complement, NaN included"),
    exact_rule("is_finite(x)", "1", "x is finite", finite=("x",)),
    *(exact_rule(f"is_finite({op}(x))", "is_finite(x)", "the size alone counts") for op in ("negative", "abs")),
    exact_rule("x - x", "0", "infinity and NaN alone give something else", finite=("x",)),
    exact_rule(
        "x * 0", "0", "infinity, NaN and a minus sign alone give something else", finite=("x",), nonnegative=("x",)
    ),
    *(
        exact_rule(f"{op}(x)", "x", "0 and 1 stay", indicator=("x",))
        for op in ("sign", "square", "sqrt", "cube", "floor")
    ),
    *(exact_rule(f"{op}(x, 0)", "x", "0 and 1 stay", indicator=("x",)) for op in ("greater", "not_equal")),
    exact_rule("less(0, x)", "x", "0 and 1 stay", indicator=("x",)),
    exact_rule("clip_value(clip_value(x, y, z), y, z)", "clip_value(x, y, z)", "idempotent"),
    exact_rule("min(max(x, y), z)", "clip_value(x, y, z)", "clip_value is defined so"),
    exact_rule("max(min(x, c), k)", "clip_value(x, k, c)", "the bounds are apart", constants=_ordered, where="k < c"),
    *(exact_rule(f"{op}({op}(x, y), y)", f"{op}(x, y)", "idempotent") for op in ("max", "min")),
    *(exact_rule(f"{op}(x, {op}(x, y))", f"{op}(x, y)", "idempotent") for op in ("max", "min")),
    *(
        exact_rule(
            f"{op}({op}(x, c), k)", f"{op}(x, {op}(c, k))", "associative", constants=_not_zero, where="c, k not 0"
        )
        for op in ("max", "min")
    ),
    exact_rule("max(x, 0)", "x", "x is no less", nonnegative=("x",)),
    exact_rule("max(0, x)", "x", "x is no less", nonnegative=("x",)),
    exact_rule(
        "max(x, k)", "x", "x is no less", nonnegative=("x",), constants=lambda found: found["k"] < 0, where="k < 0"
    ),
    exact_rule("floor(floor(x))", "floor(x)", "idempotent"),
    exact_rule("floor(sign(x))", "sign(x)", "signs are whole numbers"),
    exact_rule("reciprocal(1 + exp(negative(x)))", "sigmoid(x)", "sigmoid is defined so"),
    *(
        exact_rule(f"sqrt({scope}_sum(square(x)))", f"{norm}(x)", "the same sum and root")
        for norm, scope in _NORMS.items()
    ),
    exact_rule("global_sum(square(x))", "dot(x, x)", "the same sum"),
    exact_rule("global_sum(x * y)", "dot(x, y)", "the same sum"),
    *(
        exact_rule(
            f"{scope}_sum(x) / {counted}_count(x)", f"{scope}_mean(x)", "a mean is defined so", arithmetic="plain"
        )
        for scope, counted in _MEANS.items()
    ),
    *(exact_rule(f"top_k_mask(x, {zero})", "0", "none of the entries") for zero in ("0", "-0.0")),
)

APPROXIMATE: tuple[Rule, ...] = (
    *(
        approximate_rule(f"where({op}(x, y), {first}, {second})", f"{extreme}(x, y)", _UNORDERED)
        for op, extremes in (("greater", ("max", "min")), ("less", ("min", "max")))
        for suffix in ("", "_equal")
        for op, extremes in ((op + suffix, extremes),)
        for extreme, first, second in ((extremes[0], "x", "y"), (extremes[1], "y", "x"))
    ),
    *(
        approximate_rule(f"where({op}(x, 0), x, negative(x))", "abs(x)", "equal but for the sign of a zero")
        for op in ("greater", "greater_equal")
    ),
    approximate_rule("where(greater(x, 0), 1, -1)", "sign(x)", "not where x is 0 or NaN"),
    approximate_rule("where(less(x, 0), -1, 1)", "sign(x)", "not where x is 0 or NaN"),
    *(approximate_rule(f"{op}(x, x)", "1", "not where x is NaN") for op in ("greater_equal", "less_equal", "equal")),
    approximate_rule("not_equal(x, x)", "0", "not where x is NaN"),
    *(
        approximate_rule(f"{op}(x - y, 0)", f"{op}(x, y)", "not where both are infinite")
        for op in ("greater_equal", "less_equal")
    ),
    *(approximate_rule(f"1 - {op}(x, y)", f"{other}(x, y)", _UNORDERED) for op, other in _COMPLEMENTS.items()),
    approximate_rule("1 - sigmoid(x)", "sigmoid(negative(x))", ROUNDING),
    approximate_rule("log1p(exp(x))", "softplus(x)", ROUNDING),
    approximate_rule("log(1 + exp(x))", "softplus(x)", ROUNDING),
    approximate_rule("sign(x / y)", "sign(x)", "not where y is zero or infinite", nonnegative=("y",)),
    approximate_rule("sign(x * y)", "sign(x)", "not where y is zero or infinite", nonnegative=("y",), kinds=_NUMBER),
    approximate_rule(
        "top_k_mask(x / y, s)", "top_k_mask(x, s)", "not where y is zero", nonnegative=("y",), kinds=_NUMBER
    ),
)
