"""Fronts of candidates of which none dominates another, and how crowded they are.

Non-dominated sorting is moocore's; the crowding distance is that of Deb et al., "A fast and elitist multiobjective
genetic algorithm: NSGA-II" (IEEE Transactions on Evolutionary Computation 6(2), 2002), section III-B.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from evolion.search.types import Fitness

__all__ = ["Point", "Points", "crowding_distances", "front_of", "places_of"]


@dataclass(frozen=True, slots=True)
class Point:
    """The number of a candidate with its fitness and its expenses, in the order of the algorithm's names."""

    number: int
    fitness: Fitness
    expenses: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Points:
    """The state: the living, oldest first."""

    living: tuple[Point, ...] = ()


def front_of(state: Points) -> tuple[Point, ...]:
    """Return the living that nobody dominates, best value first; all of them have reached the same stages."""
    places = places_of(state.living)
    first = [point for point, place in zip(state.living, places, strict=True) if place[0] == 0]
    return tuple(sorted(first, key=lambda point: (point.fitness, point.expenses, point.number)))


@lru_cache(maxsize=4)
def places_of(living: tuple[Point, ...]) -> tuple[tuple[int, float], ...]:
    """Return for each its front, from 0, and minus its crowding distance there: smaller is better."""
    from moocore import pareto_rank

    places: list[tuple[int, float]] = [(0, 0.0)] * len(living)
    before = 0
    stage = [point.fitness[:-1] for point in living]
    for _, group in groupby(sorted(range(len(living)), key=stage.__getitem__), key=stage.__getitem__):
        members = list(group)
        aims = np.array([(living[index].fitness[-1], *living[index].expenses) for index in members])
        fronts = np.asarray(pareto_rank(aims)) if len(members) > 1 else np.zeros(1, int)
        for front in range(int(fronts.max()) + 1):
            rows = np.flatnonzero(fronts == front)
            for row, distance in zip(rows, crowding_distances(aims[rows]), strict=True):
                places[members[row]] = (before + front, -float(distance))
        before += int(fronts.max()) + 1
    return tuple(places)


def crowding_distances(aims: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far the neighbours of each point of a front are, infinite at its ends, shape (points,).

    Of points that are the same all but the last have distance 0, so that copies of one do not fill a population.

    Args:
        aims: What is to be kept low, shape (points, objectives).

    """
    last = {tuple(point): row for row, point in enumerate(aims.tolist())}
    rows = np.array(list(last.values()))
    distances = np.zeros(len(aims))
    if len(rows) < 3:
        distances[rows] = np.inf
        return distances
    for values in aims[rows].T:
        order = np.argsort(values, kind="stable")
        increasing = values[order]
        width = increasing[-1] - increasing[0]
        if width > 0.0:
            distances[rows[order[1:-1]]] += (increasing[2:] - increasing[:-2]) / width
            distances[rows[order[[0, -1]]]] = np.inf
    return distances
