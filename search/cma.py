"""CMA-ES as a function of what was told: no optimizer is kept, it is made anew from the ranks of its generations.

It is the separable one (Ros & Hansen, "A Simple Modification in CMA-ES Achieving Linear Time and Space Complexity",
PPSN X, 2008; arXiv:1604.00772 for the rest) of the library `cmaes`, which looks at nothing but ranks and draws from a
seed. So the ranks and the seed are the whole state, and plain data. A full covariance matrix would be learned in more
candidates than a program is given, and its eigenvectors, so the proposals, would hang on the kind of processor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import floor, log

import numpy as np

from evolion.search.population import Member
from evolion.search.types import Fitness

__all__ = ["Schedule", "Tuning", "closed", "generation_size", "proposals"]


@dataclass(frozen=True, slots=True)
class Tuning:
    """A program whose constants are being tuned.

    Attributes:
        base: The number of the candidate whose constants are the first mean.
        size: Candidates per generation.
        first: From this number on candidates are of the open generation.
        ranks: For each closed generation the ranks of its candidates, 0 for the best.
        told: Those of the open generation that were told so far; without fitness those that failed.

    """

    base: int
    size: int
    first: int
    ranks: tuple[tuple[int, ...], ...] = ()
    told: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which candidates may be proposals: an even share of the numbers, dealt out to so many tunings in turn."""

    share: float
    tunings: int

    def tuning_of(self, number: int) -> int | None:
        """Return which tuning may propose the candidate of a number, counted from 0; None if none does."""
        turn = floor(number * self.share)
        return None if turn == floor((number - 1) * self.share) else turn % self.tunings

    def turns(self, tuning: int, first: int, end: int) -> int:
        """Return how many of the numbers from `first` up to, not including, `end` are a tuning's."""
        return self._before(tuning, end) - self._before(tuning, first)

    def _before(self, tuning: int, number: int) -> int:
        return (floor((number - 1) * self.share) - tuning) // self.tunings + 1


def generation_size(constants: int) -> int:
    """Return the candidates of a generation (Hansen, equation 48)."""
    return 4 + floor(3 * log(constants))


def closed(tuning: Tuning, indices: dict[int, int], first: int) -> Tuning | None:
    """Return the tuning after its open generation ended, the next one open; None if it is to end.

    It ends if all candidates failed, or if fewer than half of the generation were told: where constants hardly change
    any more, most points are the program itself. Who was told and failed is behind those with a fitness. Points that
    were never asked for, or made way, say nothing, and come last: what is behind the better half has no effect.

    Args:
        tuning: The tuning.
        indices: The positions in the generation of the candidates told, by number.
        first: As in `Tuning`.

    """
    values: dict[int, Fitness | None] = {indices[member.number]: member.fitness for member in tuning.told}
    known = [value for value in values.values() if value is not None]
    if not known or len(values) < tuning.size // 2:
        return None
    ranks = [tuning.size] * tuning.size
    for index, value in values.items():
        ranks[index] = len(known) if value is None else sum(other < value for other in known)
    return replace(tuning, first=first, ranks=(*tuning.ranks, tuple(ranks)), told=())


@lru_cache(maxsize=64)
def proposals(
    start: tuple[float, ...], step: float, seed: tuple[int, ...], size: int, ranks: tuple[tuple[int, ...], ...]
) -> tuple[tuple[float, ...], ...]:
    """Return the points of a generation, as many as `size`.

    Args:
        start: The first mean.
        step: The first standard deviation.
        seed: Integers that are not negative.
        size: Points per generation.
        ranks: Of the points of all generations before.

    """
    from cmaes import SepCMA

    bits = int(np.random.SeedSequence(seed).generate_state(1)[0])
    mean = np.array(start if len(start) > 1 else (*start, 0.0))  # the library wants two: the second has no effect
    optimizer = SepCMA(mean, step, seed=bits, population_size=size)
    points = [optimizer.ask() for _ in range(size)]
    for generation in ranks:
        optimizer.tell([(point, float(rank)) for point, rank in zip(points, generation, strict=True)])
        points = [optimizer.ask() for _ in range(size)]
    return tuple([tuple(map(float, point[: len(start)])) for point in points])
