"""The ops that work on the matrix view of each parameter tensor: one record each.

A leaf that is no matrix has one all the same (see `evolion.primitives.kinds`): a vector is a matrix of one row. So
`orthogonalize` divides a vector by its norm, its left matrices are single numbers, and its right ones hold all
products of two of its entries. What they compute stands in `evolion.primitives.matrices`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from evolion.primitives import matrices
from evolion.primitives.kinds import SIDES, Kind, kind_of_sides
from evolion.primitives.op import Matrixwise, Op, Signatures

__all__ = ["MATRIX_OPS"]

MAXIMUM_ITERATIONS = 10
_SQUARE = (Kind.LEFT, Kind.RIGHT)

Cost = Callable[[float, float, tuple[Kind, ...], tuple[Any, ...]], float]


def _products(rows_of: Callable[[Kind], tuple[str, str]], columns_of: Callable[[Kind], tuple[str, str]]) -> Any:
    """Return the signatures of a product: (result side, summed side) of the first argument, (summed, result) of both.

    Numbers take no part: their product is `multiply`.
    """
    table: dict[tuple[Kind, Kind], Kind] = {}
    for x in Kind:
        for y in Kind:
            (rows, inner), (summed, columns) = rows_of(x), columns_of(y)
            kind = kind_of_sides(rows, columns)
            if min(x, y) > Kind.LEAF and inner == summed and kind is not None:
                table[x, y] = kind
    return table


def _plain(kind: Kind) -> tuple[str, str]:
    return SIDES[kind]


def _turned(kind: Kind) -> tuple[str, str]:
    return SIDES[kind][1], SIDES[kind][0]


def _product_cost(rows_of: Callable[[Kind], tuple[str, str]], columns_of: Callable[[Kind], tuple[str, str]]) -> Cost:
    def operations(m: float, n: float, kinds: tuple[Kind, ...], _: tuple[Any, ...]) -> float:
        length = {"1": 1.0, "m": m, "n": n}
        rows, inner = rows_of(kinds[0])
        return 2.0 * length[rows] * length[inner] * length[columns_of(kinds[-1])[1]]

    return operations


def _entries(factor: float) -> Cost:
    """Count operations for each entry of the first argument."""

    def operations(m: float, n: float, kinds: tuple[Kind, ...], _: tuple[Any, ...]) -> float:
        length = {"1": 1.0, "m": m, "n": n}
        rows, columns = SIDES[kinds[0]]
        return factor * length[rows] * length[columns]

    return operations


def _side(factor: float, power: int = 3) -> Cost:
    """Count operations by a power of the side of a square matrix."""

    def operations(m: float, n: float, kinds: tuple[Kind, ...], _: tuple[Any, ...]) -> float:
        return factor * (m if SIDES[kinds[0]][0] == "m" else n) ** power

    return operations


def _sort_cost(m: float, n: float, kinds: tuple[Kind, ...], args: tuple[Any, ...]) -> float:
    entries = _entries(1.0)(m, n, kinds, args)
    return entries * (1.0 + math.log2(max(entries, 1.0)))


def _newton_schulz_cost(m: float, n: float, kinds: tuple[Kind, ...], args: tuple[Any, ...]) -> float:
    # A number of steps that the text does not give counts as the five of Muon.
    steps = min(max(round(args[1]), 0), MAXIMUM_ITERATIONS) if isinstance(args[1], float) else 5
    sides = {Kind.TENSOR: (m, n), Kind.LEFT: (m, m), Kind.RIGHT: (n, n)}[kinds[0]]
    short, long = min(sides), max(sides)
    return steps * (4.0 * short * short * long + 2.0 * short**3 + 3.0 * short * short + 2.0 * short * long)


def _op(
    compute: Callable[..., Any],
    signatures: Mapping[Any, Kind],
    operations: Cost,
    summary: str,
    latex: str,
    domain: str = "",
) -> Op:
    return Op(
        name=compute.__name__,
        arity=len(next(iter(signatures))),
        signatures=signatures,
        meaning=Matrixwise(compute, operations),
        summary=summary,
        latex=latex,
        domain=domain,
    )


_SAME: Signatures = {(kind,): kind for kind in _SQUARE}
_COUNTED: Signatures = {(Kind.TENSOR,): Kind.LEAF}
_NUMBERS = (Kind.SCALAR, Kind.LEAF)
_NOT_FINITE = "NaN where an entry is not finite"

MATRIX_OPS: tuple[Op, ...] = (
    _op(
        matrices.matmul,
        _products(_plain, _plain),
        _product_cost(_plain, _plain),
        "matrix product x y",
        "{0} {1}",
    ),
    _op(
        matrices.matmul_transposed,
        _products(_plain, _turned),
        _product_cost(_plain, _turned),
        "matrix product of x and the transpose of y",
        r"{0} {1}^\top",
    ),
    _op(
        matrices.transposed_matmul,
        _products(_turned, _plain),
        _product_cost(_turned, _plain),
        "matrix product of the transpose of x and y",
        r"{0}^\top {1}",
    ),
    _op(
        matrices.left_gram,
        {(Kind.TENSOR,): Kind.LEFT},
        _product_cost(_plain, _turned),
        "x times its transpose: products of rows",
        r"{0} {0}^\top",
    ),
    _op(
        matrices.right_gram,
        {(Kind.TENSOR,): Kind.RIGHT},
        _product_cost(_turned, _plain),
        "the transpose of x times x: products of columns",
        r"{0}^\top {0}",
    ),
    _op(matrices.transpose, _SAME, _entries(0.0), "transpose of a square matrix", r"{0}^\top"),
    _op(matrices.eye, _SAME, _entries(0.0), "identity matrix of the size of x", "I"),
    _op(
        matrices.trace,
        {(kind,): Kind.LEAF for kind in _SQUARE},
        _side(1.0, 1),
        "sum of the diagonal",
        r"\operatorname{{tr}}\left({0}\right)",
    ),
    _op(
        matrices.diagonal,
        {(Kind.LEFT,): Kind.ROW, (Kind.RIGHT,): Kind.COLUMN},
        _entries(0.0),
        "diagonal of a square matrix",
        r"\operatorname{{diag}}\left({0}\right)",
    ),
    _op(
        matrices.diagonal_matrix,
        {(Kind.ROW,): Kind.LEFT, (Kind.COLUMN,): Kind.RIGHT},
        _entries(0.0),
        "square matrix with x on its diagonal",
        r"\operatorname{{Diag}}\left({0}\right)",
    ),
    _op(
        matrices.upper_triangle,
        _SAME,
        _entries(0.0),
        "square matrix with zeros below the diagonal",
        r"\operatorname{{triu}}\left({0}\right)",
    ),
    _op(
        matrices.sorting,
        {(Kind.ROW,): Kind.LEFT, (Kind.COLUMN,): Kind.RIGHT},
        _sort_cost,
        "permutation matrix p: the transpose of p times x is x in descending order",
        r"\operatorname{{sorting}}\left({0}\right)",
        "NaN counts as smallest",
    ),
    _op(
        matrices.top_k_mask,
        {(x, k): x for x in (Kind.TENSOR, Kind.ROW, Kind.COLUMN) for k in _NUMBERS},
        _sort_cost,
        "1 at the k largest entries of each parameter tensor, else 0",
        r"\operatorname{{top}}_{{{1}}}\left({0}\right)",
        "k is rounded and brought between 0 and the number of entries; entries equal to the k-th count as well; NaN "
        "counts as smallest",
    ),
    _op(
        matrices.entry_count,
        _COUNTED,
        _entries(0.0),
        "number of entries of the parameter tensor",
        r"\#\left({0}\right)",
    ),
    _op(matrices.row_count, _COUNTED, _entries(0.0), "number of rows of the parameter tensor", r"\#_i\left({0}\right)"),
    _op(
        matrices.column_count,
        _COUNTED,
        _entries(0.0),
        "number of columns of the parameter tensor",
        r"\#_j\left({0}\right)",
    ),
    _op(
        matrices.orthogonalize,
        {(kind, *(Kind.SCALAR,) * 4): kind for kind in (Kind.TENSOR, Kind.LEFT, Kind.RIGHT)},
        _newton_schulz_cost,
        "Newton-Schulz iterations towards the orthogonal factor, from x / max(norm of x, 1e-7)",
        r"\operatorname{{NS}}_{{{1}}}\left({0}; {2}, {3}, {4}\right)",
        "at most 10 steps; unbounded for coefficients whose iteration does not converge",
    ),
    _op(
        matrices.inverse,
        _SAME,
        _side(8.0 / 3.0),
        "matrix inverse",
        "{0}^{{-1}}",
        "NaN where x is singular or not finite; rounding decides where x is almost singular",
    ),
    _op(
        matrices.inverse_root,
        {(kind, p): kind for kind in _SQUARE for p in _NUMBERS},
        _side(11.0),
        "inverse p-th root of a symmetric matrix without negative eigenvalues",
        "{0}^{{-1/{1}}}",
        f"eigenvalues below rounding are raised to it, the root of 0 is 0; not finite for p = 0; {_NOT_FINITE}",
    ),
    _op(
        matrices.eigenvectors,
        _SAME,
        _side(9.0),
        "eigenvectors of a symmetric matrix as columns, largest eigenvalue first",
        r"\operatorname{{eig}}\left({0}\right)",
        _NOT_FINITE,
    ),
    _op(
        matrices.power_iteration,
        {(kind, kind): kind for kind in _SQUARE},
        _side(14.0 / 3.0),
        "orthogonal factor (QR) of x q: a step from the basis q towards the eigenvectors of x",
        r"\operatorname{{qr}}\left({0} {1}\right)",
        f"a basis of zeros stands for the identity; what a singular one leaves open is not determined; {_NOT_FINITE}",
    ),
)
"""Every op that works on matrix views."""
