"""The ops that reduce rows, columns, parameter tensors or the whole tree: one record each."""

from __future__ import annotations

from typing import Literal

from evolion.primitives.kinds import Kind
from evolion.primitives.op import Op, Reduction

__all__ = ["REDUCTION_OPS"]

_WIDE = (Kind.TENSOR, Kind.ROW, Kind.COLUMN, Kind.LEFT, Kind.RIGHT)
_ARGUMENTS = {
    Kind.ROW: (Kind.TENSOR,),
    Kind.COLUMN: (Kind.TENSOR,),
    Kind.LEAF: _WIDE,
    Kind.SCALAR: (*_WIDE, Kind.LEAF),
}
_SCOPES = {
    Kind.ROW: ("row", "of each row"),
    Kind.COLUMN: ("column", "of each column"),
    Kind.LEAF: ("tensor", "of each parameter tensor"),
    Kind.SCALAR: ("global", "of the whole tree"),
}
_AXES = {
    # Slices of the axes, as a single number has none.
    Kind.ROW: ", axis=tuple(range({0}.ndim))[-1:], keepdims=True",
    Kind.COLUMN: ", axis=tuple(range({0}.ndim))[:-1], keepdims=True",
    Kind.LEAF: "",
}
_SUMMARIES = {"sum": "sum", "mean": "mean", "max": "largest entry"}
_LATEX = {"sum": r"\sum", "mean": r"\operatorname{{mean}}", "max": r"\max"}
_TREE_SOURCES = {
    "sum": "optax.tree.sum({0})",
    "mean": "optax.tree.sum({0}) / float(optax.tree.size({0}))",
    "max": "optax.tree.max({0})",
}


def _index(scope: Kind) -> str:
    return {Kind.ROW: "_i", Kind.COLUMN: "_j", Kind.LEAF: "", Kind.SCALAR: "_{{\\mathrm{{all}}}}"}[scope]


def _reduction(scope: Kind, reducer: Literal["sum", "mean", "max"]) -> Op:
    word, whose = _SCOPES[scope]
    initial = ", initial=-jnp.inf" if reducer == "max" else ""  # of no entries, as of a tensor without any
    source = _TREE_SOURCES[reducer] if scope is Kind.SCALAR else f"jnp.{reducer}({{0}}{initial}{_AXES[scope]})"
    meaning = Reduction(
        scope=scope,
        reducer=reducer,
        terms=lambda _, x: (x,),
        combine=lambda _, reduced, __: reduced[0],
        apply=lambda _, reduced, __: reduced,
        source=source,
        apply_source="{reduced}",
        operations=1,
    )
    return Op(
        name=f"{word}_{reducer}",
        arity=1,
        signatures={(kind,): scope for kind in _ARGUMENTS[scope]},
        meaning=meaning,
        summary=f"{_SUMMARIES[reducer]} {whose}",
        latex=rf"{_LATEX[reducer]}{_index(scope)}\left({{0}}\right)",
        domain="NaN if any entry is" if reducer == "max" else "",
    )


def _norm(name: str, scope: Kind) -> Op:
    axes = _AXES.get(scope, "")
    source = "optax.tree.norm({0})" if scope is Kind.SCALAR else f"jnp.sqrt(jnp.sum(jnp.square({{0}}){axes}))"
    meaning = Reduction(
        scope=scope,
        reducer="sum",
        terms=lambda xp, x: (xp.square(x),),
        combine=lambda xp, sums, _: xp.sqrt(sums[0]),
        apply=lambda _, reduced, __: reduced,
        source=source,
        apply_source="{reduced}",
        operations=2,
    )
    return Op(
        name=name,
        arity=1,
        signatures={(kind,): scope for kind in _ARGUMENTS[scope]},
        meaning=meaning,
        summary=f"Euclidean norm {_SCOPES[scope][1]}",
        latex=rf"\left\|{{0}}\right\|{_index(scope)}",
        domain="infinite where the sum of the squares overflows",
    )


REDUCTION_OPS: tuple[Op, ...] = (
    _norm("norm", Kind.LEAF),
    _norm("global_norm", Kind.SCALAR),
    Op(
        name="dot",
        arity=2,
        signatures={(Kind.TENSOR, Kind.TENSOR): Kind.SCALAR},
        meaning=Reduction(
            scope=Kind.SCALAR,
            reducer="sum",
            terms=lambda xp, x, y: (xp.multiply(x, y),),
            combine=lambda _, sums, *__: sums[0],
            apply=lambda _, reduced, *__: reduced,
            source="optax.tree.vdot({0}, {1})",
            apply_source="{reduced}",
            operations=2,
        ),
        summary="inner product of two whole trees",
        latex=r"\left\langle {0}, {1} \right\rangle",
        commutative=True,
    ),
    Op(
        name="cosine_sim",
        arity=2,
        signatures={(Kind.TENSOR, Kind.TENSOR): Kind.SCALAR},
        meaning=Reduction(
            scope=Kind.SCALAR,
            reducer="sum",
            terms=lambda xp, x, y: (xp.multiply(x, y), xp.square(x), xp.square(y)),
            combine=lambda xp, sums, *_: sums[0] / (xp.sqrt(sums[1]) * xp.sqrt(sums[2])),
            apply=lambda _, reduced, *__: reduced,
            source="optax.tree.vdot({0}, {1}) / (optax.tree.norm({0}) * optax.tree.norm({1}))",
            apply_source="{reduced}",
            operations=6,
        ),
        summary="cosine of the angle between two whole trees",
        latex=r"\cos\angle\left({0}, {1}\right)",
        domain="NaN if either is zero",
        commutative=True,
    ),
    Op(
        name="clip",
        arity=2,
        signatures={(Kind.TENSOR, Kind.SCALAR): Kind.TENSOR},
        meaning=Reduction(
            scope=Kind.SCALAR,
            reducer="sum",
            terms=lambda xp, x, s: (xp.square(x),),
            combine=lambda xp, sums, _, s: xp.minimum(1.0, s / xp.sqrt(sums[0])),
            apply=lambda xp, reduced, x, _: xp.multiply(reduced, x),
            source="jnp.minimum(1.0, {1} / optax.tree.norm({0}))",
            apply_source="{reduced} * {0}",
            operations=3,
        ),
        summary="the tree x scaled down to global norm s where it is longer",
        latex=r"\min\left(1, \frac{{{1}}}{{\left\|{0}\right\|}}\right) {0}",
        domain="NaN where the tree and s are both zero",
    ),
    *(_norm(f"{_SCOPES[scope][0]}_norm", scope) for scope in (Kind.ROW, Kind.COLUMN)),
    *(_reduction(scope, reducer) for scope in _SCOPES for reducer in ("sum", "mean", "max")),
)
"""Every op that reduces; those of the Lion paper stand first."""
