"""Kinds of values: what a program can hold in a variable."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Kind", "kind_named"]


class Kind(IntEnum):
    """How a value varies over the parameters of a network.

    The order is the order of broadcasting: a value may be widened to a later kind (a scalar stands for a
    tensor of equal entries), never narrowed. The kind of an elementwise result is the `max` of its arguments'.
    """

    SCALAR = 0
    """One number."""
    LEAF = 1
    """One number per parameter tensor."""
    TENSOR = 2
    """One number per parameter: the shape of the parameters."""

    def __str__(self) -> str:
        """Give the word that a program text uses as an annotation."""
        return self.name.lower()


_BY_NAME = {str(kind): kind for kind in Kind}


def kind_named(word: str) -> Kind | None:
    """Return the kind that an annotation names, or None if there is none of that name."""
    return _BY_NAME.get(word)
