"""Several populations side by side, between which the best migrate now and then.

The island model of Tanese, "Distributed Genetic Algorithms" (ICGA 1989), on a ring, with the best of an island as its
emigrant; see Cantú-Paz, "Efficient and Accurate Parallel Genetic Algorithms" (2000), for what else there is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import final

from evolion.search.population import joined, tournament_winner
from evolion.search.regularized_evolution import Population, RegularizedEvolution
from evolion.search.types import Candidate, Fitness, Programs

__all__ = ["Archipelago", "IslandSettings", "Islands", "islands_of"]


@dataclass(frozen=True, slots=True)
class IslandSettings:
    """How many populations there are and how often they meet.

    Attributes:
        count: The number of islands, at least 2, among which the seats of the search are divided.
        interval: After so many candidates, of all islands together, the best of each island is copied to the next.

    Raises:
        ValueError: At construction, for a number out of its range.

    """

    count: int = 4
    interval: int = 200

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.count < 2:
            raise ValueError(f"there must be at least 2 islands, got {self.count}")
        if self.interval < 1:
            raise ValueError(f"the interval between migrations must be at least 1, got {self.interval}")


@dataclass(frozen=True, slots=True)
class Archipelago:
    """The state: the population of each island."""

    islands: tuple[Population, ...]


@final
@dataclass(frozen=True, slots=True)
class Islands:
    """Regularized evolution on islands: candidate n is a child of island n mod `count`.

    The copy of a migrant is the youngest on its new island. A parent of another remainder than its child is a migrant.

    Attributes:
        evolution: What goes on on each island.
        settings: How many islands there are and how often they meet.

    """

    evolution: RegularizedEvolution
    settings: IslandSettings = field(default_factory=IslandSettings)

    def initial(self) -> Archipelago:
        """Return islands on which every seat holds the seed program."""
        return Archipelago((self.evolution.initial(),) * self.settings.count)

    def ask(self, state: Archipelago, number: int, programs: Programs) -> Candidate:
        """Return what regularized evolution gives on the candidate's island."""
        return self.evolution.ask(state.islands[number % self.settings.count], number, programs)

    def tell(self, state: Archipelago, candidate: Candidate, fitness: Fitness | None) -> Archipelago:
        """Let a candidate in on its island, the seed program on all; then let the best migrate if it is time."""
        islands = tuple(
            self.evolution.tell(island, candidate, fitness)
            if candidate.number == 0 or candidate.number % self.settings.count == index
            else island
            for index, island in enumerate(state.islands)
        )
        due = (candidate.number + 1) % self.settings.interval == 0
        return Archipelago(_migrated(islands, self.evolution.population) if due else islands)

    def revise(self, state: Archipelago, number: int, fitness: Fitness | None) -> Archipelago:
        """Give a candidate another fitness wherever it lives."""
        return Archipelago(tuple(self.evolution.revise(island, number, fitness) for island in state.islands))


def islands_of(evolution: RegularizedEvolution, settings: IslandSettings) -> Islands:
    """Return islands that share the seats of one search.

    Raises:
        ValueError: If an island has fewer seats than a tournament.

    """
    seats = evolution.population // settings.count
    if seats < evolution.tournament:
        raise ValueError(
            f"a population of {evolution.population} on {settings.count} islands is {seats} on each, "
            f"too few for a tournament of {evolution.tournament}; take fewer islands or a larger population"
        )
    return Islands(replace(evolution, population=seats), settings)


def _migrated(islands: tuple[Population, ...], seats: int) -> tuple[Population, ...]:
    """Return the islands after the best of each, as they were before, came to the next one unless it lives there."""
    arrived = []
    for index, island in enumerate(islands):
        before = islands[index - 1].members
        migrant = tournament_winner(before) if before else None
        if migrant is not None and migrant.number not in [member.number for member in island.members]:
            island = replace(island, members=joined(island.members, migrant, seats))
        arrived.append(island)
    return tuple(arrived)
