"""Regularized evolution with a warm start.

Real et al., "Regularized Evolution for Image Classifier Architecture Search" (arXiv:1802.01548), as in Chen et al.,
"Symbolic Discovery of Optimization Algorithms" (arXiv:2302.06675), section 2.2: tournament selection, one child per
step, and the oldest member leaves whatever its fitness.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from evolion.primitives.program import Program
from evolion.search.drafts import prepared
from evolion.search.mutation import MutationConfig, breed
from evolion.search.population import Member, draw_seats, joined, revised, tournament_winner
from evolion.search.streams import stream
from evolion.search.types import SEED, Candidate, Fitness, Programs

__all__ = ["Population", "RegularizedEvolution"]


@dataclass(frozen=True, slots=True)
class Population:
    """The state: the youngest members and what is known of the seed.

    Attributes:
        members: At most as many as there are seats, oldest first.
        seed_fitness: The fitness of candidate 0, which the seats that nobody has taken yet share; None until it is
            told, and for good if the seed failed.

    """

    members: tuple[Member, ...] = ()
    seed_fitness: Fitness | None = None


@final
@dataclass(frozen=True, slots=True)
class RegularizedEvolution:
    """Regularized evolution from copies of a seed program.

    Attributes:
        seed_program: The program that holds every seat at the start; candidate 0.
        seed: The random seed, not negative.
        population: The number of seats.
        tournament: How many different seats compete to be the parent.
        mutation: What children may be; completed by what the seed program has, see `MutationConfig.for_seed`.

    Raises:
        ValueError: At construction, for a number out of its range.

    """

    seed_program: Program
    seed: int = 0
    population: int = 1000
    tournament: int = 2
    mutation: MutationConfig = field(default_factory=MutationConfig)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.seed < 0:
            raise ValueError(f"the random seed must not be negative, got {self.seed}")
        if not 1 <= self.tournament <= self.population:
            raise ValueError(
                f"need 1 <= tournament <= population, got a tournament of {self.tournament} "
                f"in a population of {self.population}"
            )

        object.__setattr__(self, "mutation", self.mutation.for_seed(self.seed_program))

    def initial(self) -> Population:
        """Return the population in which every seat holds the seed program."""
        return Population()

    def ask(self, state: Population, number: int, programs: Programs) -> Candidate:
        """Return the seed program as number 0, later a mutated tournament winner."""
        if number == 0:
            return Candidate(0, self.seed_program, None, SEED, prepared(self.seed_program)[1])
        rng = stream(self.seed, number)
        copy, copies = Member(0, state.seed_fitness), self.population - len(state.members)
        parent = tournament_winner(draw_seats(state.members, self.tournament, rng, copies, copy)).number
        mate = None
        if self.mutation.weight("crossover") > 0.0:
            mate = tournament_winner(draw_seats(state.members, self.tournament, rng, copies, copy)).number
        child = breed(programs[parent], rng, self.mutation, None if mate is None else programs[mate])
        used = mate if child.mutation == "crossover" else None
        return Candidate(number, child.program, parent, child.mutation, child.key, used)

    def tell(self, state: Population, candidate: Candidate, fitness: Fitness | None) -> Population:
        """Let a candidate that did not fail take a seat, if need be that of the oldest member."""
        if fitness is None:
            return state
        members = joined(state.members, Member(candidate.number, fitness), self.population)
        return Population(members, fitness if candidate.number == 0 else state.seed_fitness)

    def revise(self, state: Population, number: int, fitness: Fitness | None) -> Population:
        """Give a living member another fitness; one that fails leaves its seat to the seed program."""
        members = revised(state.members, number, fitness)
        return Population(members, fitness if number == 0 else state.seed_fitness)
