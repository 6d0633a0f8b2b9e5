"""Where everything lies in flat vectors: the parameters of a network, and one vector for each other kind of value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.primitives.kinds import SIDES, Kind

__all__ = ["Layout", "matrix_sides"]


def matrix_sides(shape: Sequence[int]) -> tuple[int, int]:
    """Return rows and columns of the matrix view of a tensor: the last axis is the columns, a vector one row."""
    return math.prod(shape[:-1]), shape[-1] if shape else 1


@dataclass(frozen=True)
class Layout:
    """Where each parameter tensor lies in the flat vector: one after the other, each in C order.

    Values of other kinds than tensor are vectors as well: the numbers, rows, columns or matrices of one tensor after
    those of the other.

    Attributes:
        shapes: The shapes of the parameter tensors, none of them empty.

    """

    shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def sides(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of the matrix view of each tensor."""
        return tuple(map(matrix_sides, self.shapes))

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """The number of entries of each tensor, shape (tensors,)."""
        return self.sizes_by_kind[Kind.TENSOR]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The position of each tensor's first entry, shape (tensors,)."""
        return self.starts_by_kind[Kind.TENSOR]

    @cached_property
    def entries(self) -> int:
        """The number of entries of all tensors."""
        return int(self.sizes.sum())

    @cached_property
    def sizes_by_kind(self) -> dict[Kind, NDArray[np.int64]]:
        """For each kind how many numbers a value has for each tensor, shape (tensors,)."""
        return {
            kind: np.array([rows * columns for rows, columns in self.matrices_by_kind[kind]], dtype=np.int64)
            for kind in Kind
        }

    @cached_property
    def starts_by_kind(self) -> dict[Kind, NDArray[np.int64]]:
        """For each kind where the numbers for each tensor start in a value, shape (tensors,)."""
        return {
            kind: np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
            for kind, sizes in self.sizes_by_kind.items()
        }

    @cached_property
    def matrices_by_kind(self) -> dict[Kind, list[tuple[int, int]]]:
        """For each kind the rows and columns of a value for each tensor; a scalar counts as one number for each."""
        lengths = [{"1": 1, "m": m, "n": n} for m, n in self.sides]
        return {
            kind: [(length[rows], length[columns]) for length in lengths] for kind, (rows, columns) in SIDES.items()
        }

    def shape(self, kind: Kind) -> tuple[int, ...]:
        """Return the shape of a value of a kind: () for a scalar, else (numbers,)."""
        return () if kind is Kind.SCALAR else (int(self.sizes_by_kind[kind].sum()),)

    @cached_property
    def of_row(self) -> NDArray[np.int64]:
        """For each entry of the parameters the position of its row's number, shape (entries,)."""
        counts = np.concatenate([np.full(m, n) for m, n in self.sides])
        return np.repeat(np.arange(len(counts)), counts)

    @cached_property
    def of_column(self) -> NDArray[np.int64]:
        """For each entry of the parameters the position of its column's number, shape (entries,)."""
        starts = self.starts_by_kind[Kind.COLUMN]
        return np.concatenate(
            [np.tile(start + np.arange(n), m) for start, (m, n) in zip(starts, self.sides, strict=True)]
        )

    @cached_property
    def by_column(self) -> NDArray[np.int64]:
        """The positions of the parameters, column after column instead of row after row, shape (entries,)."""
        return np.argsort(self.of_column, kind="stable")

    @cached_property
    def row_starts(self) -> NDArray[np.int64]:
        """The position of each row's first entry, shape (rows,)."""
        return np.flatnonzero(np.diff(self.of_row, prepend=-1))

    @cached_property
    def column_starts(self) -> NDArray[np.int64]:
        """The position of each column's first entry among those of `by_column`, shape (columns,)."""
        return np.flatnonzero(np.diff(self.of_column[self.by_column], prepend=-1))

    @cached_property
    def _widenings(self) -> dict[tuple[Kind, Kind], NDArray[np.int64]]:
        return {}

    def widening(self, kind: Kind, to: Kind) -> NDArray[np.int64]:
        """Return the positions in a value of one kind, no scalar, of what stands in its place in a wider kind."""
        found = self._widenings.get((kind, to))
        if found is None:
            if kind is Kind.LEAF:
                found = np.repeat(np.arange(len(self.shapes)), self.sizes_by_kind[to])
            else:
                found = self.of_row if kind is Kind.ROW else self.of_column
            self._widenings[kind, to] = found
        return found

    def flatten(self, tensors: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Lay the tensors into one vector."""
        return np.concatenate([np.ravel(tensor) for tensor in tensors])

    def unflatten(self, vector: NDArray[Any]) -> list[NDArray[Any]]:
        """Cut a vector back into tensors."""
        pieces = np.split(vector, self.starts[1:])
        return [piece.reshape(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]
