"""Kinds of values: what a program can hold in a variable.

Every parameter tensor is also a matrix, its *matrix view*, for the operations that need one: a tensor with shape
(…, n) has as many columns as its last axis has entries and all other axes as rows. So a convolution kernel of shape
(height, width, in, out) is a matrix of height · width · in rows and out columns, a vector of n entries one row, and a
single number a matrix of one entry. That is the layout of Flax, where the last axis is the output.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from functools import reduce
from types import MappingProxyType

__all__ = ["SIDES", "Kind", "join", "kind_named", "kind_of_sides", "widens"]


class Kind(IntEnum):
    """How a value varies over the parameters of a network; m and n are rows and columns of the matrix view."""

    SCALAR = 0
    """One number."""
    LEAF = 1
    """One number per parameter tensor."""
    ROW = 2
    """One number per row of each parameter tensor: m numbers."""
    COLUMN = 3
    """One number per column of each parameter tensor: n numbers."""
    TENSOR = 4
    """One number per parameter: the shape of the parameters."""
    LEFT = 5
    """One m×m matrix per parameter tensor."""
    RIGHT = 6
    """One n×n matrix per parameter tensor."""

    def __str__(self) -> str:
        """Give the word that a program text uses as an annotation."""
        return self.name.lower()


SIDES: Mapping[Kind, tuple[str, str]] = MappingProxyType(
    {
        Kind.SCALAR: ("1", "1"),
        Kind.LEAF: ("1", "1"),
        Kind.ROW: ("m", "1"),
        Kind.COLUMN: ("1", "n"),
        Kind.TENSOR: ("m", "n"),
        Kind.LEFT: ("m", "m"),
        Kind.RIGHT: ("n", "n"),
    }
)
"""Rows and columns of the value for one parameter tensor, as a matrix."""

_BY_NAME = {str(kind): kind for kind in Kind}
_BY_SIDES = {sides: kind for kind, sides in SIDES.items()}  # (1, 1) gives leaf, the later of the two

_NARROWER: Mapping[Kind, frozenset[Kind]] = MappingProxyType(
    {
        Kind.SCALAR: frozenset({Kind.SCALAR}),
        Kind.LEAF: frozenset({Kind.SCALAR, Kind.LEAF}),
        Kind.ROW: frozenset({Kind.SCALAR, Kind.LEAF, Kind.ROW}),
        Kind.COLUMN: frozenset({Kind.SCALAR, Kind.LEAF, Kind.COLUMN}),
        Kind.TENSOR: frozenset({Kind.SCALAR, Kind.LEAF, Kind.ROW, Kind.COLUMN, Kind.TENSOR}),
        Kind.LEFT: frozenset({Kind.SCALAR, Kind.LEAF, Kind.LEFT}),
        Kind.RIGHT: frozenset({Kind.SCALAR, Kind.LEAF, Kind.RIGHT}),
    }
)


def kind_named(word: str) -> Kind | None:
    """Return the kind that an annotation names, or None if there is none of that name."""
    return _BY_NAME.get(word)


def kind_of_sides(rows: str, columns: str) -> Kind | None:
    """Return the kind of a matrix of these sides ("1", "m" or "n"), or None if there is none."""
    return _BY_SIDES.get((rows, columns))


def widens(kind: Kind, to: Kind) -> bool:
    """Say whether a value of one kind can be broadcast to another: a number stands for a tensor of equal entries.

    A row's number stands for all entries of the row, a column's for those of the column. Nothing is ever narrowed.
    """
    return kind in _NARROWER[to]


def _join(one: Kind | None, other: Kind) -> Kind | None:
    if one is None:
        return None
    return next((kind for kind in Kind if widens(one, kind) and widens(other, kind)), None)


def join(kinds: Iterable[Kind]) -> Kind | None:
    """Return the narrowest kind to which all of these widen, or None if there is none.

    A row and a column make a tensor; a left matrix goes with numbers and left matrices alone. No kinds make a scalar.
    """
    start: Kind | None = Kind.SCALAR
    return reduce(_join, kinds, start)
