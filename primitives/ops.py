"""The ops: one record each, and nothing about an op anywhere else.

A record needs a NumPy meaning, a JAX meaning and a source template, so an op that lacks one fails at import.
The JAX meanings take the `jax.numpy` module as their first argument: this file imports no JAX, and neither do the
checker, the keys and the search, which read it.

Source of the vocabulary `LION`: Chen et al., "Symbolic Discovery of Optimization Algorithms" (arXiv:2302.06675),
section 2 and appendix, and its published program class (google/automl, folder hero).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from evolion.primitives.kinds import Kind

__all__ = ["EPSILON", "LION", "OPS", "Elementwise", "Op", "Reduction", "accepts", "result_kind"]

EPSILON = 1e-8
"""The constant of `get_eps` and of protected division, as in the Lion paper."""

_ANY = (Kind.SCALAR, Kind.LEAF, Kind.TENSOR)


@dataclass(frozen=True, slots=True)
class Elementwise:
    """A meaning that works entry by entry, after broadcasting its arguments to a common kind.

    Attributes:
        numpy: Called with the arguments as NumPy arrays or floats.
        jax: Called with the `jax.numpy` module and then the arguments.
        source: The expression in generated JAX code; `{0}`, `{1}`, … stand for the arguments.
        operations: Floating-point operations per entry of the result, by the convention of `evolion.primitives.cost`.
        transcendental: How many of them are calls of a transcendental function.

    """

    numpy: Callable[..., Any]
    jax: Callable[..., Any]
    source: str
    operations: int
    transcendental: int = 0


@dataclass(frozen=True, slots=True)
class Reduction:
    """A meaning that sums over a parameter tensor or over the whole tree.

    The value is `apply(combine(sums of terms))`. All three are written once over an array namespace, `numpy` or
    `jax.numpy`, so that a flat vector with segments, a tree of leaves and NumPy share one text.

    Attributes:
        scope: `Kind.LEAF` to sum over each parameter tensor, `Kind.SCALAR` to sum over the whole tree.
        terms: (namespace, *arguments) to the arrays that are summed, each of the kind tensor.
        combine: (namespace, sums, *arguments) to the reduced value; reads arguments of the kind scalar only.
        apply: (namespace, reduced value, *arguments) to the result, entry by entry.
        source: The reduced value in generated code; in scope scalar the arguments are trees.
        apply_source: The result in generated code from `{reduced}` and the arguments of one leaf.
        operations: Floating-point operations per entry of the arguments, the sums included.
        transcendental: How many of them are calls of a transcendental function.

    """

    scope: Kind
    terms: Callable[..., tuple[Any, ...]]
    combine: Callable[..., Any]
    apply: Callable[..., Any]
    source: str
    apply_source: str
    operations: int
    transcendental: int = 0


Meaning = Elementwise | Reduction


@dataclass(frozen=True, slots=True)
class Op:
    """One primitive.

    Attributes:
        name: The name in a program text, such as `sqrt`; an op with a symbol may be written either way.
        accepts: For each argument the kinds that it may have.
        result: The kind of the result; None stands for the widest kind among the arguments.
        meaning: What it does in a program with plain IEEE arithmetic.
        protected: What it does under `@protected`, where that differs.
        commutative: Whether the first two arguments may be swapped without changing any result (of two zeros of
            different sign, max and min may give either).
        symbol: The infix operator, or "" for a call.
        summary: One line for people.

    """

    name: str
    accepts: tuple[tuple[Kind, ...], ...]
    result: Kind | None
    meaning: Meaning
    summary: str
    protected: Meaning | None = None
    commutative: bool = False
    symbol: str = ""

    @property
    def arity(self) -> int:
        """The number of arguments."""
        return len(self.accepts)

    def under(self, protected: bool) -> Meaning:
        """Return the meaning in a program that is, or is not, marked `@protected`."""
        return self.protected if protected and self.protected is not None else self.meaning


def accepts(op: Op, position: int, kind: Kind) -> bool:
    """Say whether the argument at `position` (from 0) of `op` may have this kind."""
    return kind in op.accepts[position]


def result_kind(op: Op, kinds: Sequence[Kind]) -> Kind:
    """Return the kind of the result for arguments of the given kinds, which `op` must accept."""
    if op.result is not None:
        return op.result
    return max(kinds) if kinds else Kind.SCALAR


def _elementwise(
    name: str,
    numpy: Callable[..., Any],
    jax: Callable[..., Any],
    source: str,
    summary: str,
    *,
    operations: int,
    transcendental: int = 0,
    arity: int = 1,
    protected: Elementwise | None = None,
    commutative: bool = False,
    symbol: str = "",
) -> Op:
    return Op(
        name=name,
        accepts=(_ANY,) * arity,
        result=None,
        meaning=Elementwise(numpy, jax, source, operations, transcendental),
        summary=summary,
        protected=protected,
        commutative=commutative,
        symbol=symbol,
    )


def _named(name: str, summary: str, transcendental: int = 1) -> Op:
    """Record a unary op that NumPy and JAX both have under its own name."""
    return _elementwise(
        name,
        getattr(np, name),
        lambda jnp, x: getattr(jnp, name)(x),
        f"jnp.{name}({{0}})",
        summary,
        operations=1,
        transcendental=transcendental,
    )


def _magnitude(name: str, summary: str, transcendental: int = 1) -> Op:
    """Record a unary op that takes |x| under `@protected`."""
    plain = getattr(np, name)
    protected = Elementwise(
        lambda x: plain(np.abs(x)),
        lambda jnp, x: getattr(jnp, name)(jnp.abs(x)),
        f"jnp.{name}(jnp.abs({{0}}))",
        operations=2,
        transcendental=transcendental,
    )
    return replace(_named(name, summary, transcendental), protected=protected)


def _binary(name: str, numpy: Callable[..., Any], symbol: str, summary: str, **options: Any) -> Op:
    """Record an op of two arguments that is one floating-point operation and has an infix operator."""
    return _elementwise(
        name,
        numpy,
        lambda jnp, x, y: getattr(jnp, name)(x, y),
        f"{{0}} {symbol} {{1}}",
        summary,
        operations=1,
        arity=2,
        symbol=symbol,
        **options,
    )


def _norm(name: str, scope: Kind, source: str, summary: str) -> Op:
    meaning = Reduction(
        scope=scope,
        terms=lambda xp, x: (xp.square(x),),
        combine=lambda xp, sums, _: xp.sqrt(sums[0]),
        apply=lambda _, reduced, __: reduced,
        source=source,
        apply_source="{reduced}",
        operations=2,
    )
    return Op(name=name, accepts=((Kind.TENSOR,),), result=scope, meaning=meaning, summary=summary)


def _constant(name: str, value: float, source: str, summary: str) -> Op:
    return _elementwise(name, lambda: value, lambda _: value, source, summary, operations=0, arity=0)


_RECORDS = (
    _elementwise("identity", lambda x: x, lambda _, x: x, "{0}", "the value itself: a plain assignment", operations=0),
    _constant("get_pi", float(np.pi), "jnp.pi", "the constant pi"),
    _constant("get_e", float(np.e), "jnp.e", "the constant e"),
    _constant("get_eps", EPSILON, "1e-8", "the constant 1e-8"),
    _named("abs", "absolute value", transcendental=0),
    _named("cos", "cosine"),
    _named("sin", "sine"),
    _named("tan", "tangent"),
    _named("arcsin", "inverse sine; NaN outside [-1, 1]"),
    _named("arccos", "inverse cosine; NaN outside [-1, 1]"),
    _named("arctan", "inverse tangent"),
    _named("sinh", "hyperbolic sine"),
    _named("cosh", "hyperbolic cosine"),
    _named("tanh", "hyperbolic tangent"),
    _named("arcsinh", "inverse hyperbolic sine"),
    _named("arccosh", "inverse hyperbolic cosine; NaN below 1"),
    _named("arctanh", "inverse hyperbolic tangent; NaN outside [-1, 1]"),
    _named("exp", "e to the power x"),
    _named("exp2", "2 to the power x"),
    _elementwise(
        "exp10",
        lambda x: np.power(10.0, x),
        lambda jnp, x: jnp.power(10.0, x),
        "jnp.power(10.0, {0})",
        "10 to the power x",
        operations=1,
        transcendental=1,
    ),
    _named("expm1", "e to the power x, minus 1"),
    _magnitude("log", "natural logarithm (of |x| under @protected)"),
    _magnitude("log10", "logarithm to base 10 (of |x| under @protected)"),
    _magnitude("log2", "logarithm to base 2 (of |x| under @protected)"),
    _elementwise(
        "log1p",
        np.log1p,
        lambda jnp, x: jnp.log1p(x),
        "jnp.log1p({0})",
        "natural logarithm of 1 + x (of |1 + x| under @protected)",
        protected=Elementwise(
            lambda x: np.log(np.abs(1.0 + x)),
            lambda jnp, x: jnp.log(jnp.abs(1.0 + x)),
            "jnp.log(jnp.abs(1.0 + {0}))",
            operations=3,
            transcendental=1,
        ),
        operations=1,
        transcendental=1,
    ),
    _named("square", "x times x", transcendental=0),
    _magnitude("sqrt", "square root (of |x| under @protected)", transcendental=0),
    _elementwise(
        "cube", lambda x: x * x * x, lambda _, x: x * x * x, "{0} * {0} * {0}", "x times x times x", operations=2
    ),
    _named("cbrt", "cube root, negative for negative x"),
    _named("sign", "-1, 0 or 1", transcendental=0),
    _elementwise(
        "reciprocal", lambda x: np.divide(1.0, x), lambda jnp, x: jnp.divide(1.0, x), "1.0 / {0}", "1 / x", operations=1
    ),
    _elementwise("negative", np.negative, lambda jnp, x: jnp.negative(x), "-{0}", "-x", operations=1),
    _binary("add", np.add, "+", "sum", commutative=True),
    _binary("subtract", np.subtract, "-", "difference"),
    _binary("multiply", np.multiply, "*", "product", commutative=True),
    _binary(
        "divide",
        np.divide,
        "/",
        "quotient (x / (y + 1e-8) under @protected)",
        protected=Elementwise(
            lambda x, y: np.divide(x, y + EPSILON),
            lambda jnp, x, y: jnp.divide(x, y + EPSILON),
            "{0} / ({1} + 1e-8)",
            operations=2,
        ),
    ),
    _binary("power", np.power, "**", "x to the power y", transcendental=1),
    _elementwise(
        "max",
        np.maximum,
        lambda jnp, x, y: jnp.maximum(x, y),
        "jnp.maximum({0}, {1})",
        "the larger of two; NaN if either is",
        operations=1,
        arity=2,
        commutative=True,
    ),
    _elementwise(
        "min",
        np.minimum,
        lambda jnp, x, y: jnp.minimum(x, y),
        "jnp.minimum({0}, {1})",
        "the smaller of two; NaN if either is",
        operations=1,
        arity=2,
        commutative=True,
    ),
    _elementwise(
        "interp",
        lambda x, y, a: (1.0 - a) * x + a * y,
        lambda _, x, y, a: (1.0 - a) * x + a * y,
        "(1.0 - {2}) * {0} + {2} * {1}",
        "linear interpolation (1 - a) x + a y of interp(x, y, a)",
        operations=3,  # 1 - a is of the kind of a: as a rule a scalar, for all entries alike
        arity=3,
    ),
    _norm("norm", Kind.LEAF, "jnp.sqrt(jnp.sum(jnp.square({0})))", "Euclidean norm of each parameter tensor"),
    _norm("global_norm", Kind.SCALAR, "optax.tree.norm({0})", "Euclidean norm of the whole tree"),
    Op(
        name="dot",
        accepts=((Kind.TENSOR,), (Kind.TENSOR,)),
        result=Kind.SCALAR,
        meaning=Reduction(
            scope=Kind.SCALAR,
            terms=lambda xp, x, y: (xp.multiply(x, y),),
            combine=lambda _, sums, *__: sums[0],
            apply=lambda _, reduced, *__: reduced,
            source="optax.tree.vdot({0}, {1})",
            apply_source="{reduced}",
            operations=2,
        ),
        summary="inner product of two whole trees",
        commutative=True,
    ),
    Op(
        name="cosine_sim",
        accepts=((Kind.TENSOR,), (Kind.TENSOR,)),
        result=Kind.SCALAR,
        meaning=Reduction(
            scope=Kind.SCALAR,
            terms=lambda xp, x, y: (xp.multiply(x, y), xp.square(x), xp.square(y)),
            combine=lambda xp, sums, *_: sums[0] / (xp.sqrt(sums[1]) * xp.sqrt(sums[2])),
            apply=lambda _, reduced, *__: reduced,
            source="optax.tree.vdot({0}, {1}) / (optax.tree.norm({0}) * optax.tree.norm({1}))",
            apply_source="{reduced}",
            operations=6,
        ),
        summary="cosine of the angle between two whole trees; NaN if either is zero",
        commutative=True,
    ),
    Op(
        name="clip",
        accepts=((Kind.TENSOR,), (Kind.SCALAR,)),
        result=Kind.TENSOR,
        meaning=Reduction(
            scope=Kind.SCALAR,
            terms=lambda xp, x, _: (xp.square(x),),
            combine=lambda xp, sums, _, limit: xp.minimum(1.0, limit / xp.sqrt(sums[0])),
            apply=lambda xp, reduced, x, _: xp.multiply(reduced, x),
            source="jnp.minimum(1.0, {1} / optax.tree.norm({0}))",
            apply_source="{reduced} * {0}",
            operations=3,
        ),
        summary="clip(x, s): the tree x scaled down to global norm s where it is longer",
    ),
)


def _registry(records: tuple[Op, ...]) -> MappingProxyType[str, Op]:
    table = {record.name: record for record in records}
    if len(table) != len(records):
        raise ValueError("two ops share a name; give each op its own")
    return MappingProxyType(table)


OPS = _registry(_RECORDS)
"""Every op by name. A search never draws from this table but from a vocabulary, an explicit list."""

LION: tuple[str, ...] = (
    *("get_pi", "get_e", "get_eps"),
    *("abs", "cos", "sin", "tan", "arcsin", "arccos", "arctan"),
    *("sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh"),
    *("exp", "exp2", "exp10", "expm1", "log", "log10", "log2", "log1p"),
    *("square", "sqrt", "cube", "cbrt", "sign", "reciprocal", "negative"),
    *("norm", "global_norm"),
    *("add", "subtract", "multiply", "divide", "max", "min", "power"),
    *("dot", "cosine_sim", "clip", "interp"),
)
"""The functions of the Lion paper's space that have a meaning on floating-point numbers.

Left out are the two of the published class that have none: bitwise `invert` and logical `not`. `identity`, the plain
assignment of the text form, is no function of the paper.
"""
