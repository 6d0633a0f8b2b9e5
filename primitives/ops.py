"""The table of all ops, and the vocabularies: explicit lists of names that a search may draw from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from evolion.primitives.elementwise_ops import ELEMENTWISE_OPS
from evolion.primitives.kinds import Kind
from evolion.primitives.matrix_ops import MATRIX_OPS
from evolion.primitives.op import Op
from evolion.primitives.reduction_ops import REDUCTION_OPS

__all__ = ["FULL", "LION", "OPS", "VOCABULARIES", "accepted_kinds", "fitting_kinds"]


def _registry(records: tuple[Op, ...]) -> Mapping[str, Op]:
    table = {record.name: record for record in records}
    if len(table) != len(records):
        raise ValueError("two ops share a name; give each op its own")
    return MappingProxyType(table)


OPS: Mapping[str, Op] = _registry(ELEMENTWISE_OPS + REDUCTION_OPS + MATRIX_OPS)
"""Every op by name. A search never draws from this table but from a vocabulary."""

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

FULL: tuple[str, ...] = (*LION, *(name for name in OPS if name not in LION and name != "identity"))
"""Every op but the plain assignment: the Lion paper's functions, comparisons, reductions and matrix ops."""

VOCABULARIES: Mapping[str, tuple[str, ...]] = MappingProxyType({"lion": LION, "full": FULL})
"""The vocabularies by the name that a configuration uses."""


@cache
def accepted_kinds(name: str) -> tuple[frozenset[Kind], ...]:
    """Return for each argument of an op the kinds that it may have, whatever the others are."""
    return tuple(map(frozenset, zip(*OPS[name].signatures, strict=True)))


@cache
def fitting_kinds(name: str, chosen: tuple[Kind, ...], available: frozenset[Kind]) -> frozenset[Kind]:
    """Return the kinds that the next argument of an op may have so that the others can be filled as well.

    Args:
        name: The op.
        chosen: The kinds of the arguments before.
        available: The kinds that arguments can be drawn from.

    """
    at = len(chosen)
    return frozenset(
        kinds[at] for kinds in OPS[name].signatures if kinds[:at] == chosen and available.issuperset(kinds[at:])
    )
