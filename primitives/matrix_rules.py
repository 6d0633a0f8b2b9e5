"""Rewrite rules about matrices."""

from __future__ import annotations

from evolion.primitives.kinds import Kind
from evolion.primitives.rule import NEGATION, ROUNDING, ZERO, Rule, approximate_rule, exact_rule, positive

__all__ = ["APPROXIMATE", "EXACT"]

_SQUARE = {"x": (Kind.LEFT, Kind.RIGHT)}
_WIDE = (Kind.TENSOR, Kind.ROW, Kind.COLUMN, Kind.LEFT, Kind.RIGHT)
_VECTOR = {"x": (Kind.ROW, Kind.COLUMN)}
_NUMBER = {"y": (Kind.LEAF, Kind.SCALAR)}
_PRODUCTS = ("matmul", "matmul_transposed", "transposed_matmul")
_SUMS = "the same sum but for the library's order of summation"
_GRAMS = ("left_gram", "right_gram")
_LIBRARY = "the same product but for the library's order of summation"


EXACT: tuple[Rule, ...] = (
    exact_rule("transpose(transpose(x))", "x", "back again", kinds=_SQUARE),
    *(
        exact_rule(f"{op}(transpose(x))", f"{op}(x)", "the same diagonal", kinds=_SQUARE)
        for op in ("trace", "diagonal")
    ),
    *(
        exact_rule(f"{op}(upper_triangle(x))", f"{op}(x)", "the same diagonal", kinds=_SQUARE)
        for op in ("trace", "diagonal")
    ),
    exact_rule("upper_triangle(upper_triangle(x))", "upper_triangle(x)", "idempotent", kinds=_SQUARE),
    exact_rule("diagonal(diagonal_matrix(x))", "x", "back again", kinds=_VECTOR),
    *(
        exact_rule(f"{op}(diagonal_matrix(x))", "diagonal_matrix(x)", "zeros but for the diagonal", kinds=_VECTOR)
        for op in ("transpose", "upper_triangle")
    ),
    *(
        exact_rule(f"{op}(eye(x))", "eye(x)", "zeros but for the diagonal", kinds=_SQUARE)
        for op in ("transpose", "upper_triangle", "eye")
    ),
    *(
        exact_rule(f"eye({op}(x))", "eye(x)", "the size alone counts", kinds=_SQUARE)
        for op in ("transpose", "upper_triangle", "negative", "inverse", "eigenvectors")
    ),
    exact_rule("matmul_transposed(x, x)", "left_gram(x)", "left_gram is defined so"),
    exact_rule("transposed_matmul(x, x)", "right_gram(x)", "right_gram is defined so"),
    *(exact_rule(f"transpose({gram}(x))", f"{gram}(x)", "symmetric: one half is computed") for gram in _GRAMS),
    *(exact_rule(f"{gram}(negative(x))", f"{gram}(x)", NEGATION) for gram in _GRAMS),
    *(
        exact_rule(f"{product}(negative(x), negative(y))", f"{product}(x, y)", NEGATION, kinds={"x": _WIDE, "y": _WIDE})
        for product in _PRODUCTS
    ),
)

APPROXIMATE: tuple[Rule, ...] = (
    approximate_rule(
        "negative(orthogonalize(negative(x), s, a, b, p))",
        "orthogonalize(x, s, a, b, p)",
        ZERO,
        kinds={"x": (*_SQUARE["x"], Kind.TENSOR)},
    ),
    approximate_rule(
        "orthogonalize(x * c, s, a, b, p)",
        "orthogonalize(x, s, a, b, p)",
        "the norm is divided out, but where it is below 1e-7",
        constants=positive,
        where="c > 0",
    ),
    approximate_rule(
        "orthogonalize(x / y, s, a, b, p)",
        "orthogonalize(x, s, a, b, p)",
        "the norm is divided out, but where it is below 1e-7 or y is zero",
        nonnegative=("y",),
        kinds=_NUMBER,
    ),
    *(
        approximate_rule(
            pattern, "y", "not where y is infinite or NaN; the sign of a zero may change", kinds={"x": (kind,)}
        )
        for pattern, kind in (
            ("matmul(eye(x), y)", Kind.LEFT),
            ("transposed_matmul(eye(x), y)", Kind.LEFT),
            ("matmul(y, eye(x))", Kind.RIGHT),
            ("matmul_transposed(y, eye(x))", Kind.RIGHT),
        )
    ),
    approximate_rule("matmul(x, transpose(y))", "matmul_transposed(x, y)", _LIBRARY, kinds={"y": (Kind.RIGHT,)}),
    approximate_rule("matmul_transposed(x, transpose(y))", "matmul(x, y)", _LIBRARY, kinds={"y": (Kind.RIGHT,)}),
    approximate_rule("matmul(transpose(x), y)", "transposed_matmul(x, y)", _LIBRARY, kinds={"x": (Kind.LEFT,)}),
    approximate_rule("transposed_matmul(transpose(x), y)", "matmul(x, y)", _LIBRARY, kinds={"x": (Kind.LEFT,)}),
    *(
        approximate_rule(f"transpose({product}(x, y))", f"{product}(y, x)", _LIBRARY)
        for product in ("matmul_transposed", "transposed_matmul")
    ),
    approximate_rule("inverse(inverse(x))", "x", "where there is an inverse, but for rounding", kinds=_SQUARE),
    approximate_rule("matmul(inverse(x), x)", "eye(x)", "where there is an inverse, but for rounding", kinds=_SQUARE),
    approximate_rule("matmul(x, inverse(x))", "eye(x)", "where there is an inverse, but for rounding", kinds=_SQUARE),
    *(approximate_rule(f"sqrt(trace({gram}(x)))", "norm(x)", _SUMS) for gram in _GRAMS),
    approximate_rule("sqrt(diagonal(left_gram(x)))", "row_norm(x)", ROUNDING),
    approximate_rule("sqrt(diagonal(right_gram(x)))", "column_norm(x)", ROUNDING),
)
