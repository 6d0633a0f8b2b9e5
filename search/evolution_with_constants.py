"""Regularized evolution, with CMA-ES for the constants of its best programs.

A share of the candidates goes to CMA-ES; all others are those of evolution, which learns from both. A generation of
proposals begins when the one before was told in full. What would be a proposal in between is evolution's, and so is
what would be the same program again or none; CMA-ES learns from its own proposals alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import final

from evolion.primitives.keys import structural_key
from evolion.search.cma import Schedule, Tuning, closed, generation_size, proposals
from evolion.search.constants import coordinates_of, with_coordinates
from evolion.search.drafts import prepared
from evolion.search.population import Member
from evolion.search.regularized_evolution import RegularizedEvolution
from evolion.search.tuned_population import ConstantsSettings, Structure, TunedPopulation, described, marked, promising
from evolion.search.types import Candidate, Fitness, Programs

__all__ = ["CMA", "EvolutionWithConstants"]

CMA = "cma"
"""The mutation that is written down for a candidate whose constants CMA-ES proposed."""


@final
@dataclass(frozen=True, slots=True)
class EvolutionWithConstants:
    """Evolution of programs, and CMA-ES for the constants of the fittest living ones that were not tuned yet.

    Attributes:
        evolution: What makes all other candidates.
        constants: How much goes to the constants.
        lag: Of the run: proposals of a generation are asked from `lag` + 1 numbers after the last of the one before.

    """

    evolution: RegularizedEvolution
    constants: ConstantsSettings = field(default_factory=ConstantsSettings)
    lag: int = 32

    def initial(self) -> TunedPopulation:
        """Return the state in which nothing is tuned."""
        return TunedPopulation(self.evolution.initial(), (), (None,) * self.constants.programs)

    def ask(self, state: TunedPopulation, number: int, programs: Programs) -> Candidate:
        """Return a proposal of CMA-ES where it is the turn of one, else evolution's candidate."""
        slot = self._schedule.tuning_of(number)
        tuning = None if slot is None or number == 0 else state.tunings[slot]
        index = None if slot is None or tuning is None else self._at(slot, tuning, number)
        if tuning is None or index is None:
            return self.evolution.ask(state.evolution, number, programs)
        program = programs[tuning.base]
        seed = (self.evolution.seed, tuning.base)
        points = proposals(coordinates_of(program), self.constants.step, seed, tuning.size, tuning.ranks)
        child = with_coordinates(program, points[index])
        key = "" if child is None else structural_key(child)
        if child is None or key == prepared(program)[1]:
            return self.evolution.ask(state.evolution, number, programs)
        return Candidate(number, child, tuning.base, CMA, key)

    def tell(self, state: TunedPopulation, candidate: Candidate, fitness: Fitness | None) -> TunedPopulation:
        """Let evolution learn, and CMA-ES where it was its proposal; what ended before this candidate makes room."""
        number = candidate.number
        if fitness is None and candidate.mutation != CMA:
            return state
        structures, tunings = self._advanced(state, number)
        for slot, tuning in enumerate(tunings):
            if (
                tuning
                and (candidate.mutation, candidate.parent) == (CMA, tuning.base)
                and self._at(slot, tuning, number) is not None
            ):
                tunings[slot] = replace(tuning, told=(*tuning.told, Member(number, fitness)))
        if fitness is None:
            return replace(state, structures=structures, tunings=tuple(tunings))
        newcomer = described(number, candidate.program, structures)
        return TunedPopulation(
            self.evolution.tell(state.evolution, candidate, fitness),
            (*structures, newcomer)[-self.evolution.population :],
            tuple(tunings),
        )

    def revise(self, state: TunedPopulation, number: int, fitness: Fitness | None) -> TunedPopulation:
        """Give a candidate another fitness, also in its generation; what fails is tuned no longer."""
        gone = fitness is None
        tunings = [tuning and replace(tuning, told=_revised(tuning.told, number, fitness)) for tuning in state.tunings]
        return TunedPopulation(
            self.evolution.revise(state.evolution, number, fitness),
            tuple([structure for structure in state.structures if not gone or structure.number != number]),
            tuple([None if gone and tuning and tuning.base == number else tuning for tuning in tunings]),
        )

    @property
    def _schedule(self) -> Schedule:
        return Schedule(self.constants.share, self.constants.programs)

    def _at(self, slot: int, tuning: Tuning, number: int) -> int | None:
        """Return the position of a number in the open generation of a tuning."""
        if self._schedule.tuning_of(number) != slot or number < tuning.first:
            return None
        index = self._schedule.turns(slot, tuning.first, number)
        return index if index < tuning.size else None

    def _advanced(self, state: TunedPopulation, number: int) -> tuple[tuple[Structure, ...], list[Tuning | None]]:
        """Close generations that ended before a number, and fill free places with the fittest that had no turn yet."""
        structures, tunings = state.structures, list(state.tunings)
        for slot, tuning in enumerate(tunings):
            if tuning and self._schedule.turns(slot, tuning.first, number) >= tuning.size:
                indices = {m.number: self._schedule.turns(slot, tuning.first, m.number) for m in tuning.told}
                tuning = closed(tuning, indices, number + self.lag + 1)
                if tuning and len(tuning.ranks) >= self.constants.generations:
                    tuning = None
            chosen = None if tuning else promising(state.evolution, structures, self.constants.dimensions)
            if chosen:
                tuning = Tuning(chosen.number, generation_size(chosen.constants), number + self.lag + 1)
                structures = marked(structures, chosen.digest)
            tunings[slot] = tuning
        return structures, tunings


def _revised(told: tuple[Member, ...], number: int, fitness: Fitness | None) -> tuple[Member, ...]:
    """Return those told after one of them got another fitness; who fails later was told nevertheless."""
    return tuple([replace(member, fitness=fitness) if member.number == number else member for member in told])
