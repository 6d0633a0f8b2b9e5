"""Regularized evolution that begins anew when it stalls.

Chen et al., "Symbolic Discovery of Optimization Algorithms" (arXiv:2302.06675), section 2.2: what a population reaches
varies much from start to start, so the search restarts from the initial program, to explore, or from the best program
so far, to exploit.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, final

from evolion.search.adaptation import inner_state
from evolion.search.leaders import joined_by, reordered
from evolion.search.population import Member
from evolion.search.proposals import PROPOSAL
from evolion.search.regularized_evolution import Population, RegularizedEvolution
from evolion.search.types import Candidate, Fitness, Programs

__all__ = ["Restart", "RestartSettings", "RestartingPopulation", "Restarts", "restarts_of"]

RECORDED = 50
"""So many of the latest restarts are kept in the state."""


@dataclass(frozen=True, slots=True)
class RestartSettings:
    """When a search begins anew, and from what.

    Attributes:
        patience: So many candidates in a row without a new best of the population end it; more than are in flight.
        start: The seed program, the best candidate of the run, or both in turn, the seed first.

    """

    patience: int = 500
    start: Literal["seed", "best", "alternate"] = "alternate"

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.patience < 1 or self.start not in ("seed", "best", "alternate"):
            raise ValueError(f"restarts need a patience of at least 1 and start at seed, best or alternate; got {self}")


@dataclass(frozen=True, slots=True)
class Restart:
    """One restart.

    Attributes:
        ordinal: Its position among the restarts of the run, from 1.
        after: The last candidate told before it.
        start: The candidate from which the new population comes; 0 is the seed program.
        best: The best candidate of the population that was given up.
        reason: Why, for people.

    """

    ordinal: int
    after: int
    start: int
    best: int
    reason: str


@dataclass(frozen=True, slots=True)
class RestartingPopulation:
    """The state.

    Attributes:
        population: Who is alive.
        start: The candidate that the population comes from.
        after: The last candidate told before it began; -1 for the first.
        leaders: The best of the population, dead or alive, best first; one of several with equal fitness.
        champions: The same of the whole run.
        restarts: The latest restarts, oldest first.

    """

    population: Population
    start: int = 0
    after: int = -1
    leaders: tuple[Member, ...] = ()
    champions: tuple[Member, ...] = ()
    restarts: tuple[Restart, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Restarts:
    """Regularized evolution whose population, once it stalls, is emptied and comes again from the seed or the best.

    A population that comes from the best holds it in every seat, as the first one holds the seed program. What was
    asked for before a restart and is told after it may be the best of the run, but joins the new population only as a
    child of what that comes from: descendants of the old population would take it over. What a proposer made, which is
    shown the best of the run whatever the population, always joins: else hardly a proposal would after a restart.
    """

    evolution: RegularizedEvolution
    settings: RestartSettings = field(default_factory=RestartSettings)

    def initial(self) -> RestartingPopulation:
        """Return the population in which every seat holds the seed program."""
        return RestartingPopulation(self.evolution.initial())

    def ask(self, state: RestartingPopulation, number: int, programs: Programs) -> Candidate:
        """Return what regularized evolution gives for the population of now."""
        return self.evolution.ask(state.population, number, programs)

    def tell(self, state: RestartingPopulation, candidate: Candidate, fitness: Fitness | None) -> RestartingPopulation:
        """Let a candidate in, and begin anew if the population has stalled."""
        if fitness is not None:
            newcomer = Member(candidate.number, fitness)
            state = replace(state, champions=joined_by(state.champions, newcomer))
            parents = [number for number in (candidate.parent, candidate.mate) if number is not None]
            # Numbers above `after` are told only of members: whoever else was in flight has never been a parent.
            of_here = all(number == state.start or number > state.after for number in parents)
            if of_here or candidate.mutation == PROPOSAL:
                population = self.evolution.tell(state.population, candidate, fitness)
                state = replace(state, population=population, leaders=joined_by(state.leaders, newcomer))
        newest = max(state.after, state.leaders[0].number if state.leaders else 0)
        return state if candidate.number - newest < self.settings.patience else self._anew(state, candidate.number)

    def revise(self, state: RestartingPopulation, number: int, fitness: Fitness | None) -> RestartingPopulation:
        """Give a candidate another fitness; a start that fails leaves its seats to the seed program."""
        alive = any(member.number == number for member in state.population.members)
        return replace(
            state,
            population=self.evolution.revise(state.population, number, fitness),
            start=0 if fitness is None and number == state.start else state.start,
            leaders=reordered(state.leaders, number, fitness, alive=alive),
            champions=reordered(state.champions, number, fitness, alive=alive),
        )

    def _anew(self, state: RestartingPopulation, number: int) -> RestartingPopulation:
        earlier = state.restarts[-1].ordinal if state.restarts else 0
        start = Member(0, state.population.seed_fitness)
        if state.champions and (self.settings.start == "best" or (self.settings.start == "alternate" and earlier % 2)):
            start = state.champions[0]
        members = (start,) * self.evolution.population if start.number else ()
        population = replace(state.population, members=members)
        leaders = () if start.fitness is None else (start,)
        best = state.leaders[0].number if state.leaders else state.start
        reason = f"none of the candidates up to {number} was better than {best}"
        restarts = (*state.restarts, Restart(earlier + 1, number, start.number, best, reason))[-RECORDED:]
        return RestartingPopulation(population, start.number, number, leaders, state.champions, restarts)


def restarts_of(state: Any) -> tuple[Restart, ...]:
    """Return the latest restarts that the state of a search tells of, oldest first; the last has the number of all."""
    state = inner_state(state)
    return state.restarts if isinstance(state, RestartingPopulation) else ()
