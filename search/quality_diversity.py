"""Quality-diversity: the best program of every kind is kept, and each is as likely to become a parent.

MAP-Elites (Mouret & Clune, "Illuminating search spaces by mapping elites", arXiv:1504.04909). Descriptors place a
program in a cell of a grid (`evolion.search.cells`); programs compete within their cell alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import final

from evolion.primitives.program import Program
from evolion.search.cells import Cell, Cells, cell_index, empty_grid
from evolion.search.drafts import prepared
from evolion.search.draws import pick
from evolion.search.mutation import MutationConfig, breed
from evolion.search.population import Member, revised, tournament_winner
from evolion.search.streams import stream
from evolion.search.traits import DESCRIPTORS, descriptors_of
from evolion.search.types import SEED, Candidate, Fitness, Programs

__all__ = ["QualityDiversity"]


@final
@dataclass(frozen=True, slots=True)
class QualityDiversity:
    """MAP-Elites over the descriptors of programs.

    Attributes:
        seed_program: Candidate 0, and the parent of all while no cell is filled.
        seed: The random seed, not negative.
        mutation: What children may be; completed by what the seed program has.
        descriptors: Names of `DESCRIPTORS`, the axes of the grid.

    Raises:
        ValueError: At construction, for what is unknown or out of its range, or without pyribs.

    """

    seed_program: Program
    seed: int = 0
    mutation: MutationConfig = field(default_factory=MutationConfig)
    descriptors: tuple[str, ...] = tuple(DESCRIPTORS)

    def __post_init__(self) -> None:
        """Check the fields, and that the library is there."""
        if self.seed < 0:
            raise ValueError(f"the random seed must not be negative, got {self.seed}")
        unknown = [name for name in self.descriptors if name not in DESCRIPTORS]
        if unknown or not self.descriptors or len(set(self.descriptors)) < len(self.descriptors):
            raise ValueError(
                f"descriptors must be different names among {', '.join(DESCRIPTORS)}; got {', '.join(self.descriptors)}"
            )
        empty_grid(self.descriptors)
        object.__setattr__(self, "mutation", self.mutation.for_seed(self.seed_program))

    def initial(self) -> Cells:
        """Return the empty grid."""
        return Cells()

    def ask(self, state: Cells, number: int, programs: Programs) -> Candidate:
        """Return the seed program as number 0, later a child of the best of a cell, each cell with equal chance."""
        if number == 0:
            return Candidate(0, self.seed_program, None, SEED, prepared(self.seed_program)[1])
        rng = stream(self.seed, number)
        cells = state.filled or (Cell(0, (Member(0, None),)),)
        parent = tournament_winner(pick(cells, rng).members).number
        mate = None
        if self.mutation.weight("crossover") > 0.0:
            mate = tournament_winner(pick(cells, rng).members).number
        child = breed(programs[parent], rng, self.mutation, None if mate is None else programs[mate])
        used = mate if child.mutation == "crossover" else None
        return Candidate(number, child.program, parent, child.mutation, child.key, used)

    def tell(self, state: Cells, candidate: Candidate, fitness: Fitness | None) -> Cells:
        """Put a candidate that did not fail into its cell, beside the best of those that were there."""
        if fitness is None:
            return state
        bins = descriptors_of(candidate.program, self.descriptors)
        index = cell_index(self.descriptors, bins)
        cells = {cell.index: cell for cell in self.revise(state, candidate.number, None).filled}
        before = (tournament_winner(cells[index].members),) if index in cells else ()
        cells[index] = Cell(index, (*before, Member(candidate.number, fitness)))
        return Cells(tuple([cells[index] for index in sorted(cells)]))

    def revise(self, state: Cells, number: int, fitness: Fitness | None) -> Cells:
        """Give a candidate that still has a place another fitness, or take its place away."""
        cells = [
            replace(cell, members=revised(cell.members, number, fitness))
            if any(member.number == number for member in cell.members)
            else cell
            for cell in state.filled
        ]
        return Cells(tuple([cell for cell in cells if cell.members]))
