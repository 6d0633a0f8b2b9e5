"""The ops that work entry by entry: one record each.

Source of those that `LION` lists: Chen et al., "Symbolic Discovery of Optimization Algorithms" (arXiv:2302.06675),
section 2 and appendix, and its published program class (google/automl, folder hero).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from evolion.primitives.op import Elementwise, Op, elementwise_signatures

__all__ = ["ELEMENTWISE_OPS", "EPSILON"]

EPSILON = 1e-8
"""The constant of `get_eps` and of protected division, as in the Lion paper."""


def _elementwise(
    name: str,
    numpy: Callable[..., Any],
    jax: Callable[..., Any],
    source: str,
    summary: str,
    latex: str,
    *,
    operations: int,
    transcendental: int = 0,
    arity: int = 1,
    domain: str = "",
    protected: Elementwise | None = None,
    commutative: bool = False,
    symbol: str = "",
) -> Op:
    return Op(
        name=name,
        arity=arity,
        signatures=elementwise_signatures(arity),
        meaning=Elementwise(numpy, jax, source, operations, transcendental),
        summary=summary,
        latex=latex,
        domain=domain,
        protected=protected,
        commutative=commutative,
        symbol=symbol,
    )


def _named(name: str, summary: str, latex: str, domain: str = "", transcendental: int = 1) -> Op:
    """Record a unary op that NumPy and JAX both have under its own name."""
    return _elementwise(
        name,
        getattr(np, name),
        lambda jnp, x: getattr(jnp, name)(x),
        f"jnp.{name}({{0}})",
        summary,
        latex,
        domain=domain,
        operations=1,
        transcendental=transcendental,
    )


def _magnitude(name: str, summary: str, latex: str, domain: str, transcendental: int = 1) -> Op:
    """Record a unary op that takes |x| under `@protected`."""
    plain = getattr(np, name)
    protected = Elementwise(
        lambda x: plain(np.abs(x)),
        lambda jnp, x: getattr(jnp, name)(jnp.abs(x)),
        f"jnp.{name}(jnp.abs({{0}}))",
        operations=2,
        transcendental=transcendental,
    )
    return replace(_named(name, summary, latex, domain, transcendental), protected=protected)


def _infix(name: str, symbol: str, latex: str, summary: str, **options: Any) -> Op:
    """Record an op of two arguments that is one floating-point operation and has an infix operator."""
    return _elementwise(
        name,
        getattr(np, name),
        lambda jnp, x, y: getattr(jnp, name)(x, y),
        f"{{0}} {symbol} {{1}}",
        summary,
        latex,
        operations=1,
        arity=2,
        symbol=symbol,
        **options,
    )


def _extreme(name: str, function: str, summary: str) -> Op:
    """Record max or min."""
    return _elementwise(
        name,
        getattr(np, function),
        lambda jnp, x, y: getattr(jnp, function)(x, y),
        f"jnp.{function}({{0}}, {{1}})",
        summary,
        rf"\{name}\left({{0}}, {{1}}\right)",
        domain="NaN if either is",
        operations=1,
        arity=2,
        commutative=True,
    )


def _constant(name: str, value: float, source: str, latex: str, summary: str) -> Op:
    return _elementwise(name, lambda: value, lambda _: value, source, summary, latex, operations=0, arity=0)


def _comparison(name: str, symbol: str, latex: str, summary: str, domain: str, commutative: bool = False) -> Op:
    """Record a comparison, whose result is 1 or 0 in the precision of its arguments."""
    compare = getattr(np, name)
    return _elementwise(
        name,
        lambda x, y: compare(x, y).astype(np.result_type(x, y)),
        lambda jnp, x, y: getattr(jnp, name)(x, y).astype(jnp.result_type(x, y)),
        f"jnp.where({{0}} {symbol} {{1}}, 1.0, 0.0)",
        summary,
        rf"\left[{{0}} {latex} {{1}}\right]",
        domain=domain,
        operations=1,
        arity=2,
        commutative=commutative,
    )


_NEVER_NAN = "0 if either is NaN"
_UNIT = "NaN outside [-1, 1]"

_PAPER = (
    _elementwise(
        "identity", lambda x: x, lambda _, x: x, "{0}", "the value itself: a plain assignment", "{0}", operations=0
    ),
    _constant("get_pi", float(np.pi), "jnp.pi", r"\pi", "the constant pi"),
    _constant("get_e", float(np.e), "jnp.e", "e", "the constant e"),
    _constant("get_eps", EPSILON, "1e-8", "10^{{-8}}", "the constant 1e-8"),
    _named("abs", "absolute value", r"\left|{0}\right|", transcendental=0),
    _named("cos", "cosine", r"\cos\left({0}\right)", "NaN at infinity"),
    _named("sin", "sine", r"\sin\left({0}\right)", "NaN at infinity"),
    _named("tan", "tangent", r"\tan\left({0}\right)", "NaN at infinity; unbounded near odd multiples of pi / 2"),
    _named("arcsin", "inverse sine", r"\arcsin\left({0}\right)", _UNIT),
    _named("arccos", "inverse cosine", r"\arccos\left({0}\right)", _UNIT),
    _named("arctan", "inverse tangent", r"\arctan\left({0}\right)"),
    _named("sinh", "hyperbolic sine", r"\sinh\left({0}\right)"),
    _named("cosh", "hyperbolic cosine", r"\cosh\left({0}\right)"),
    _named("tanh", "hyperbolic tangent", r"\tanh\left({0}\right)"),
    _named("arcsinh", "inverse hyperbolic sine", r"\operatorname{{arsinh}}\left({0}\right)"),
    _named("arccosh", "inverse hyperbolic cosine", r"\operatorname{{arcosh}}\left({0}\right)", "NaN below 1"),
    _named(
        "arctanh",
        "inverse hyperbolic tangent",
        r"\operatorname{{artanh}}\left({0}\right)",
        "NaN outside [-1, 1], infinite at both ends",
    ),
    _named("exp", "e to the power x", r"\exp\left({0}\right)"),
    _named("exp2", "2 to the power x", "2^{{{0}}}"),
    _elementwise(
        "exp10",
        lambda x: np.power(10.0, x),
        lambda jnp, x: jnp.power(10.0, x),
        "jnp.power(10.0, {0})",
        "10 to the power x",
        "10^{{{0}}}",
        operations=1,
        transcendental=1,
    ),
    _named("expm1", "e to the power x, minus 1", r"\left(\exp\left({0}\right) - 1\right)"),
    _magnitude("log", "natural logarithm (of |x| under @protected)", r"\ln\left({0}\right)", "NaN below 0, -inf at 0"),
    _magnitude(
        "log10",
        "logarithm to base 10 (of |x| under @protected)",
        r"\log_{{10}}\left({0}\right)",
        "NaN below 0, -inf at 0",
    ),
    _magnitude(
        "log2", "logarithm to base 2 (of |x| under @protected)", r"\log_2\left({0}\right)", "NaN below 0, -inf at 0"
    ),
    _elementwise(
        "log1p",
        np.log1p,
        lambda jnp, x: jnp.log1p(x),
        "jnp.log1p({0})",
        "natural logarithm of 1 + x (of |1 + x| under @protected)",
        r"\ln\left(1 + {0}\right)",
        domain="NaN below -1, -inf at -1",
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
    _named("square", "x times x", "{0}^2", transcendental=0),
    _magnitude("sqrt", "square root (of |x| under @protected)", r"\sqrt{{{0}}}", "NaN below 0", transcendental=0),
    _elementwise(
        "cube",
        lambda x: x * x * x,
        lambda _, x: x * x * x,
        "{0} * {0} * {0}",
        "x times x times x",
        "{0}^3",
        operations=2,
    ),
    _named("cbrt", "cube root, negative for negative x", r"\sqrt[3]{{{0}}}"),
    _named("sign", "-1, 0 or 1", r"\operatorname{{sign}}\left({0}\right)", transcendental=0),
    _elementwise(
        "reciprocal",
        lambda x: np.divide(1.0, x),
        lambda jnp, x: jnp.divide(1.0, x),
        "1.0 / {0}",
        "1 / x, without protection",
        r"\frac{{1}}{{{0}}}",
        domain="infinite at 0",
        operations=1,
    ),
    _elementwise("negative", np.negative, lambda jnp, x: jnp.negative(x), "-{0}", "-x", "-{0}", operations=1),
    _infix("add", "+", "{0} + {1}", "sum", commutative=True),
    _infix("subtract", "-", "{0} - {1}", "difference"),
    _infix("multiply", "*", r"{0} \cdot {1}", "product", commutative=True),
    _infix(
        "divide",
        "/",
        r"\frac{{{0}}}{{{1}}}",
        "quotient (x / (y + 1e-8) under @protected)",
        domain="infinite where y is 0, NaN where both are",
        protected=Elementwise(
            lambda x, y: np.divide(x, y + EPSILON),
            lambda jnp, x, y: jnp.divide(x, y + EPSILON),
            "{0} / ({1} + 1e-8)",
            operations=2,
        ),
    ),
    _infix(
        "power",
        "**",
        "{0}^{{{1}}}",
        "x to the power y",
        domain="NaN where x is negative and y no whole number, infinite where x is 0 and y negative",
        transcendental=1,
    ),
    _extreme("max", "maximum", "the larger of two"),
    _extreme("min", "minimum", "the smaller of two"),
    _elementwise(
        "interp",
        lambda x, y, a: (1.0 - a) * x + a * y,
        lambda _, x, y, a: (1.0 - a) * x + a * y,
        "(1.0 - {2}) * {0} + {2} * {1}",
        "linear interpolation (1 - a) x + a y",
        r"\left(1 - {2}\right) {0} + {2}\, {1}",
        operations=3,  # 1 - a is of the kind of a: as a rule a scalar, for all entries alike
        arity=3,
    ),
)

_BEYOND = (
    _comparison("greater", ">", ">", "1 where x > y, else 0", _NEVER_NAN),
    _comparison("greater_equal", ">=", r"\ge", "1 where x >= y, else 0", _NEVER_NAN),
    _comparison("less", "<", "<", "1 where x < y, else 0", _NEVER_NAN),
    _comparison("less_equal", "<=", r"\le", "1 where x <= y, else 0", _NEVER_NAN),
    _comparison("equal", "==", "=", "1 where x is y, else 0", _NEVER_NAN, commutative=True),
    _comparison("not_equal", "!=", r"\ne", "0 where x is y, else 1", "1 if either is NaN", commutative=True),
    _elementwise(
        "where",
        lambda c, x, y: np.where(np.not_equal(c, 0.0), x, y),
        lambda jnp, c, x, y: jnp.where(jnp.not_equal(c, 0.0), x, y),
        "jnp.where({0} != 0, {1}, {2})",
        "x where c is not 0, else y",
        r"\begin{{cases}} {1} & \text{{if }} {0} \ne 0 \\ {2} & \text{{else}} \end{{cases}}",
        domain="a condition that is NaN chooses x",
        operations=2,
        arity=3,
    ),
    _elementwise(
        "is_finite",
        lambda x: np.isfinite(x).astype(np.result_type(x)),
        lambda jnp, x: jnp.isfinite(x).astype(jnp.result_type(x)),
        "jnp.where(jnp.isfinite({0}), 1.0, 0.0)",
        "0 where x is infinite or NaN, else 1",
        r"\left[\left|{0}\right| < \infty\right]",
        operations=1,
    ),
    _elementwise(
        "sigmoid",
        lambda x: 1.0 / (1.0 + np.exp(-x)),
        lambda jnp, x: 1.0 / (1.0 + jnp.exp(-x)),
        "1.0 / (1.0 + jnp.exp(-{0}))",
        "1 / (1 + exp(-x))",
        r"\sigma\left({0}\right)",
        operations=4,
        transcendental=1,
    ),
    _elementwise(
        "softplus",
        lambda x: np.logaddexp(x, 0.0),
        lambda jnp, x: jnp.logaddexp(x, 0.0),
        "jnp.logaddexp({0}, 0.0)",
        "ln(1 + exp(x)), without overflow",
        r"\operatorname{{softplus}}\left({0}\right)",
        operations=1,
        transcendental=1,
    ),
    _elementwise(
        "clip_value",
        lambda x, low, high: np.minimum(np.maximum(x, low), high),
        lambda jnp, x, low, high: jnp.minimum(jnp.maximum(x, low), high),
        "jnp.minimum(jnp.maximum({0}, {1}), {2})",
        "x, but at least low, and then at most high",
        r"\operatorname{{clip}}\left({0}, {1}, {2}\right)",
        domain="high where low > high; NaN if any is",
        operations=2,
        arity=3,
    ),
    _named("floor", "the largest whole number that is not above x", r"\left\lfloor{0}\right\rfloor", transcendental=0),
    _elementwise(
        "mod",
        np.mod,
        lambda jnp, x, y: jnp.mod(x, y),
        "jnp.mod({0}, {1})",
        "remainder of x / y, with the sign of y",
        r"{0} \bmod {1}",
        domain="NaN where y is 0 or x infinite",
        operations=1,
        arity=2,
    ),
)

ELEMENTWISE_OPS: tuple[Op, ...] = _PAPER + _BEYOND
"""Every op that works entry by entry; those of the Lion paper stand first."""
