"""Several aims at once: a search for the programs of which no other is better in one way and no worse in any.

NSGA-II (Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE Transactions on Evolutionary
Computation 6(2), 2002), one candidate at a time: what leaves is the last by front and crowding of those that were there
before the newcomer, who stays for as long as it takes to be compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import final

import numpy as np

from evolion.primitives.program import Program
from evolion.search.drafts import prepared
from evolion.search.fronts import Point, Points, places_of
from evolion.search.mutation import MutationConfig, breed
from evolion.search.streams import stream
from evolion.search.traits import EXPENSES, expenses_of
from evolion.search.types import SEED, Candidate, Fitness, Programs

__all__ = ["ParetoSearch"]

TOURNAMENT = 2
"""Binary, as in the paper: more would leave the ends of the front as the only parents."""


@final
@dataclass(frozen=True, slots=True)
class ParetoSearch:
    """NSGA-II over the value of a candidate and what its program takes.

    Candidates of different stages are never compared by what they take: whoever reached more stages comes first. Of
    equals the older one leaves.

    Attributes:
        seed_program: Candidate 0, and the parent of all while nobody lives.
        seed: The random seed, not negative.
        population: How many live at a time.
        mutation: What children may be; completed by what the seed program has.
        objectives: Names of `EXPENSES`, to be kept low beside the last entry of the fitness.

    Raises:
        ValueError: At construction, for what is unknown or out of its range.

    """

    seed_program: Program
    seed: int = 0
    population: int = 100
    mutation: MutationConfig = field(default_factory=MutationConfig)
    objectives: tuple[str, ...] = tuple(EXPENSES)

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.seed < 0:
            raise ValueError(f"the random seed must not be negative, got {self.seed}")
        if self.population < 2:
            raise ValueError(f"a front needs a population of at least 2, got {self.population}")
        unknown = [name for name in self.objectives if name not in EXPENSES]
        if unknown or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(
                f"objectives must be different names among {', '.join(EXPENSES)}; got {', '.join(self.objectives)}"
            )
        object.__setattr__(self, "mutation", self.mutation.for_seed(self.seed_program))

    def initial(self) -> Points:
        """Return the state in which nobody lives."""
        return Points()

    def ask(self, state: Points, number: int, programs: Programs) -> Candidate:
        """Return the seed program as number 0, later a child of the winner of a tournament by front and crowding."""
        if number == 0:
            return Candidate(0, self.seed_program, None, SEED, prepared(self.seed_program)[1])
        rng = stream(self.seed, number)
        parent = _winner(state.living, rng)
        mate = _winner(state.living, rng) if self.mutation.weight("crossover") > 0.0 else None
        child = breed(programs[parent], rng, self.mutation, None if mate is None else programs[mate])
        used = mate if child.mutation == "crossover" else None
        return Candidate(number, child.program, parent, child.mutation, child.key, used)

    def tell(self, state: Points, candidate: Candidate, fitness: Fitness | None) -> Points:
        """Let a candidate that did not fail live, if need be in the place of the last of those that were there."""
        if fitness is None:
            return state
        living = self.revise(state, candidate.number, None).living
        if len(living) >= self.population:
            places = places_of(living)
            last = max(range(len(living)), key=lambda index: (places[index], -index))
            living = living[:last] + living[last + 1 :]
        return Points((*living, Point(candidate.number, fitness, expenses_of(candidate.program, self.objectives))))

    def revise(self, state: Points, number: int, fitness: Fitness | None) -> Points:
        """Give a living candidate another fitness; one that fails lives no longer."""
        found = [(point, fitness if point.number == number else point.fitness) for point in state.living]
        return Points(tuple([replace(point, fitness=value) for point, value in found if value is not None]))


def _winner(living: tuple[Point, ...], rng: np.random.Generator) -> int:
    if not living:
        return 0
    places = places_of(living)
    drawn = rng.choice(len(living), min(TOURNAMENT, len(living)), replace=False)
    return living[min(drawn, key=lambda index: (places[index], -index))].number
