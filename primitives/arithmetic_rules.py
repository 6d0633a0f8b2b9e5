"""Rewrite rules about sums, products, powers and functions of one value."""

from __future__ import annotations

from collections.abc import Mapping

from evolion.primitives.rule import NEGATION, NOT_FINITE, ROUNDING, ZERO, Rule, approximate_rule, exact_rule, positive

__all__ = ["APPROXIMATE", "EXACT"]

_ODD = ("sin", "tan", "arcsin", "arctan", "sinh", "tanh", "arcsinh", "arctanh", "cbrt", "cube", "reciprocal")
_EVEN = ("abs", "square", "cos", "cosh", "norm", "global_norm", "row_norm", "column_norm")
_MAGNITUDES = ("sqrt", "log", "log10", "log2")
_SIGN_KEEPING = ("tanh", "arctan", "arcsinh", "sinh", "cbrt", "expm1")
_INVERSES = (
    *(("tan", "arctan"), ("sin", "arcsin"), ("cos", "arccos"), ("sinh", "arcsinh"), ("arcsinh", "sinh")),
    *(("tanh", "arctanh"), ("arctanh", "tanh"), ("cosh", "arccosh"), ("cube", "cbrt"), ("cbrt", "cube")),
    *(("log", "exp"), ("log2", "exp2"), ("log10", "exp10"), ("reciprocal", "reciprocal")),
)
_PROTECTED_MAGNITUDE = "under protected arithmetic the operation takes |x| itself"


def _enlarging(constants: Mapping[str, float]) -> bool:
    # Up to a bound: a factor that float32 does not hold becomes infinite, and 0 times infinity is NaN.
    return 1.0 <= constants["c"] <= 1e30


EXACT: tuple[Rule, ...] = (
    exact_rule("x * 1", "x", "one is neutral"),
    exact_rule("x / 1", "x", "one is neutral; protected division divides by 1 + 1e-8", arithmetic="plain"),
    exact_rule("x ** 1", "x", "one is neutral"),
    exact_rule("x ** 0", "1", "IEEE 754 gives 1 for every x, NaN included"),
    exact_rule("1 ** x", "1", "IEEE 754 gives 1 for every x, NaN included"),
    exact_rule("x - 0", "x", "zero is neutral, and keeps the sign of -0"),
    exact_rule("x + -0.0", "x", "minus zero is neutral, and keeps the sign of either zero"),
    exact_rule("x + 0", "x", "zero is neutral where x is no -0", nonnegative=("x",)),
    exact_rule("max(x, x)", "x", "idempotent"),
    exact_rule("min(x, x)", "x", "idempotent"),
    exact_rule("abs(x)", "x", "x has no minus sign", nonnegative=("x",)),
    exact_rule("x * x", "square(x)", "square is defined so"),
    exact_rule("square(x) * x", "cube(x)", "cube is defined so"),
    exact_rule("1 / x", "reciprocal(x)", "reciprocal is defined so", arithmetic="plain"),
    exact_rule("sqrt(dot(x, x))", "global_norm(x)", "the same sum and the same root"),
    exact_rule("(1 - a) * x + a * y", "interp(x, y, a)", "interp is defined so"),
    exact_rule("negative(negative(x))", "x", NEGATION),
    exact_rule("x * -1", "negative(x)", NEGATION),
    exact_rule("x / -1", "negative(x)", NEGATION, arithmetic="plain"),
    exact_rule("-0.0 - x", "negative(x)", "minus zero is neutral, and keeps the sign of either zero"),
    exact_rule("x + negative(y)", "x - y", "subtraction is defined so"),
    exact_rule("x - negative(y)", "x + y", "subtraction is defined so"),
    exact_rule("negative(x) * negative(y)", "x * y", NEGATION),
    exact_rule("negative(x) / negative(y)", "x / y", NEGATION, arithmetic="plain"),
    exact_rule("negative(x) * c", "x * negative(c)", NEGATION),
    exact_rule("negative(x) / c", "x / negative(c)", NEGATION, arithmetic="plain"),
    exact_rule("negative(x * c)", "x * negative(c)", NEGATION),
    exact_rule("dot(negative(x), negative(y))", "dot(x, y)", NEGATION),
    exact_rule("cosine_sim(negative(x), negative(y))", "cosine_sim(x, y)", NEGATION),
    exact_rule("sign(sign(x))", "sign(x)", "signs are their own signs"),
    exact_rule(
        "sign(x * c)", "sign(x)", "such a factor makes no number zero", constants=_enlarging, where="1 <= c <= 1e30"
    ),
    exact_rule(
        "x / sqrt(square(y))",
        "x / abs(y)",
        "sqrt(y * y) is |y| in binary, but where y * y overflows (y is bounded) or underflows (|y| + 1e-8 is 1e-8)",
        arithmetic="protected",
        bounded=("y",),
    ),
    *(exact_rule(f"negative({op}(negative(x)))", f"{op}(x)", "an odd function") for op in _ODD),
    *(exact_rule(f"{op}(negative(x))", f"{op}(x)", "an even function") for op in _EVEN),
    *(exact_rule(f"{op}(abs(x))", f"{op}(x)", "an even function") for op in _EVEN),
    *(exact_rule(f"{op}(negative(x))", f"{op}(x)", _PROTECTED_MAGNITUDE, arithmetic="protected") for op in _MAGNITUDES),
    *(exact_rule(f"{op}(abs(x))", f"{op}(x)", _PROTECTED_MAGNITUDE, arithmetic="protected") for op in _MAGNITUDES),
    *(exact_rule(f"sign({op}(x))", "sign(x)", "zero at zero alone, and of the sign of x") for op in _SIGN_KEEPING),
)

APPROXIMATE: tuple[Rule, ...] = (
    approximate_rule("x + 0", "x", ZERO),
    approximate_rule("0 - x", "negative(x)", ZERO),
    approximate_rule("negative(x - y)", "y - x", ZERO),
    approximate_rule("negative(sign(negative(x)))", "sign(x)", ZERO),
    approximate_rule("x - x", "0", NOT_FINITE),
    approximate_rule("x * 0", "0", NOT_FINITE),
    approximate_rule("0 / x", "0", "not where x is zero or NaN"),
    approximate_rule("x / x", "1", "not where x is zero, infinite or NaN"),
    approximate_rule("x / 1", "x", "1e-8 is neglected", arithmetic="protected"),
    approximate_rule("interp(x, y, 0)", "x", "not where y is infinite or NaN"),
    approximate_rule("interp(x, y, 1)", "y", "not where x is infinite or NaN"),
    approximate_rule("interp(x, x, a)", "x", ROUNDING),
    approximate_rule("interp(x, interp(x, y, a), b)", "interp(x, y, a * b)", ROUNDING),
    approximate_rule("interp(interp(x, y, a), y, b)", "interp(x, y, a + b - a * b)", ROUNDING),
    approximate_rule("x + a * (y - x)", "interp(x, y, a)", ROUNDING),
    approximate_rule("x / abs(x)", "sign(x)", "0 where plain division gives NaN at 0; protected, 1e-8 is neglected"),
    approximate_rule("abs(x) / x", "sign(x)", "0 where plain division gives NaN at 0; protected, 1e-8 is neglected"),
    approximate_rule("x * y / abs(x)", "sign(x) * y", "as x / abs(x) is sign(x)"),
    approximate_rule("sign(x) * abs(x)", "x", ZERO),
    approximate_rule("sign(x * c)", "sign(x)", "not where the product underflows", constants=positive, where="c > 0"),
    approximate_rule("sign(cube(x))", "sign(x)", "not where the cube underflows"),
    approximate_rule("sign(clip(x, s))", "sign(x)", "not where s is not positive, or the scaled value underflows"),
    approximate_rule("clip(clip(x, s), s)", "clip(x, s)", "the norm is then at most s, but for rounding"),
    approximate_rule("sqrt(square(x))", "abs(x)", "not where the square overflows or underflows"),
    approximate_rule("square(sqrt(x))", "x", "NaN where x is negative; else but for rounding", arithmetic="plain"),
    approximate_rule("square(sqrt(x))", "abs(x)", ROUNDING, arithmetic="protected"),
    approximate_rule("exp(log(x))", "x", "NaN where x is negative; else but for rounding", arithmetic="plain"),
    approximate_rule("exp(log(x))", "abs(x)", ROUNDING, arithmetic="protected"),
    approximate_rule("x * reciprocal(y)", "x / y", ROUNDING, arithmetic="plain"),
    approximate_rule("x / reciprocal(y)", "x * y", ROUNDING, arithmetic="plain"),
    approximate_rule("x ** 2", "square(x)", ROUNDING),
    approximate_rule("x ** 3", "cube(x)", ROUNDING),
    approximate_rule("x ** -1", "reciprocal(x)", ROUNDING),
    approximate_rule("x ** 0.5", "sqrt(x)", "-inf has the root NaN; else but for rounding", arithmetic="plain"),
    approximate_rule("x * c * k", "x * (c * k)", ROUNDING, shortens=True),
    approximate_rule("x / c * k", "x * (k / c)", ROUNDING, arithmetic="plain", shortens=True),
    approximate_rule("x * c / k", "x * (c / k)", ROUNDING, shortens=True),
    approximate_rule("x + c + k", "x + (c + k)", ROUNDING, shortens=True),
    approximate_rule("x + c - k", "x + (c - k)", ROUNDING, shortens=True),
    approximate_rule("x - c + k", "x + (k - c)", ROUNDING, shortens=True),
    approximate_rule("x * y + x * z", "x * (y + z)", ROUNDING),
    approximate_rule("x * y - x * z", "x * (y - z)", ROUNDING),
    approximate_rule("y / x + z / x", "(y + z) / x", ROUNDING),
    approximate_rule("y / x - z / x", "(y - z) / x", ROUNDING),
    approximate_rule("x * y + x * s * z", "x * (y + s * z)", ROUNDING),
    approximate_rule("x + y - y", "x", ROUNDING),
    approximate_rule("x - y + y", "x", ROUNDING),
    approximate_rule("x * y / y", "x", "not where y is zero; else but for rounding (protected, 1e-8 is neglected)"),
    approximate_rule("x / y * y", "x", "not where y is zero; else but for rounding (protected, 1e-8 is neglected)"),
    *(approximate_rule(f"{outer}({inner}(x))", "x", "inverse on the domain") for outer, inner in _INVERSES),
)
