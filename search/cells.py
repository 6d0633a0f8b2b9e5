"""The cells of a quality-diversity search: a grid over the descriptors of programs, kept by pyribs.

Tjanaka et al., "pyribs: A Bare-Bones Python Library for Quality Diversity Optimization" (arXiv:2303.00191).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from evolion.search.population import Member, tournament_winner
from evolion.search.traits import DESCRIPTORS
from evolion.search.types import Fitness

__all__ = ["Cell", "Cells", "Diversity", "cell_index", "cells_of", "diversity_of", "empty_grid", "grid_archive"]


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell that was filled: its index, and its best candidate with the latest one, oldest first.

    Either may turn out to be worth something else, and then the other is there.
    """

    index: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Cells:
    """The state: the cells that are filled, by index."""

    filled: tuple[Cell, ...] = ()


@dataclass(frozen=True, slots=True)
class Diversity:
    """How much of a grid a search has reached.

    Attributes:
        cells: How many there are.
        filled: How many hold a candidate.
        score: The QD score: the sum of the objectives of their best, see `grid_archive`.

    """

    cells: int
    filled: int
    score: float


def diversity_of(descriptors: tuple[str, ...], state: Cells) -> Diversity:
    """Return the statistics of `grid_archive`, without pyribs, whose import takes seconds."""
    best = [tournament_winner(cell.members) for cell in state.filled]
    score = math.fsum(_objective(member.fitness) for member in best)
    return Diversity(math.prod(len(DESCRIPTORS[name].labels) for name in descriptors), len(best), score)


def cell_index(descriptors: tuple[str, ...], bins: tuple[int, ...]) -> int:
    """Return the index of the cell of a program's bins, one for each descriptor."""
    return int(empty_grid(descriptors).index_of_single(np.add(bins, 0.5)))


def cells_of(descriptors: tuple[str, ...], state: Cells) -> tuple[tuple[dict[str, str], Member], ...]:
    """Return for each filled cell what its programs have in common, by descriptor, and the best of them."""
    rows = []
    for cell, bins in zip(state.filled, _bins_of(descriptors, state), strict=True):
        labels = {name: DESCRIPTORS[name].labels[bin] for name, bin in zip(descriptors, bins, strict=True)}
        rows.append((labels, tournament_winner(cell.members)))
    return tuple(rows)


def grid_archive(descriptors: tuple[str, ...], state: Cells) -> Any:
    """Return the state as a `ribs.archives.GridArchive`, for its statistics (coverage, QD score) and pictures.

    The solution of a cell is the number of its best candidate. Its objective, which grows with what it is worth, is one
    number for a fitness of (-stage, value): the stage plus 1 / (1 + exp(value)), so that a cell of the QD score counts
    with the stage reached and what is left is a share of the next.
    """
    archive = _make_grid(descriptors)
    # One by one: the first batch would have Numba compile for seconds.
    for cell, bins in zip(state.filled, _bins_of(descriptors, state), strict=True):
        best = tournament_winner(cell.members)
        archive.add_single([best.number], _objective(best.fitness), np.add(bins, 0.5))
    return archive


def _bins_of(descriptors: tuple[str, ...], state: Cells) -> list[list[int]]:
    indices = np.array([cell.index for cell in state.filled], dtype=np.int64)
    bins: list[list[int]] = empty_grid(descriptors).int_to_grid_index(indices).tolist()
    return bins


def _objective(fitness: Fitness | None) -> float:
    assert fitness is not None
    return -sum(fitness[:-1]) + 0.5 * (1.0 - math.tanh(fitness[-1] / 2.0))


@lru_cache(maxsize=8)
def empty_grid(descriptors: tuple[str, ...]) -> Any:
    """Return the grid that maps bins to cells; nothing is ever put into it."""
    return _make_grid(descriptors)


def _make_grid(descriptors: tuple[str, ...]) -> Any:
    try:
        # It imports Numba and pandas, which takes seconds.
        from ribs.archives import GridArchive
    except ImportError:
        raise ValueError(
            "the algorithm quality-diversity keeps its cells with pyribs: pip install 'evolion[quality-diversity]'"
        ) from None
    bins = [len(DESCRIPTORS[name].labels) for name in descriptors]
    return GridArchive(solution_dim=1, dims=bins, ranges=[(0.0, count) for count in bins])
