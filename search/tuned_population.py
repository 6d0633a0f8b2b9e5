"""What evolution knows of the constants of its members, and which of them are worth tuning next."""

from __future__ import annotations

from dataclasses import dataclass, replace

from evolion.primitives.program import Program
from evolion.search.cma import Tuning
from evolion.search.constants import coordinates_of, structure_of
from evolion.search.regularized_evolution import Population

__all__ = ["ConstantsSettings", "Structure", "TunedPopulation", "described", "marked", "promising"]


@dataclass(frozen=True, slots=True)
class ConstantsSettings:
    """How much goes to the constants.

    Attributes:
        share: The largest share of the candidates that CMA-ES proposes.
        programs: How many programs are tuned at a time.
        generations: After so many another program has its turn.
        dimensions: Programs with more constants are left to evolution.
        step: The first standard deviation, in the logarithm or the logit of a constant.

    Raises:
        ValueError: At construction, for a number out of its range.

    """

    share: float = 0.25
    programs: int = 2
    generations: int = 10
    dimensions: int = 20
    step: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.0 < self.share < 1.0 or not 0.0 < self.step <= 10.0:
            raise ValueError(f"need 0 < share < 1 and 0 < step <= 10, got {self.share} and {self.step}")
        if min(self.programs, self.generations, self.dimensions) < 1:
            raise ValueError("programs, generations and dimensions must be at least 1")


@dataclass(frozen=True, slots=True)
class Structure:
    """A living candidate's program without its constants: a digest, how many there were, whether it had its turn."""

    number: int
    digest: str
    constants: int
    tuned: bool


@dataclass(frozen=True, slots=True)
class TunedPopulation:
    """The state: that of evolution, the structures of its members, and what is being tuned; None for a free place."""

    evolution: Population
    structures: tuple[Structure, ...]
    tunings: tuple[Tuning | None, ...]


def described(number: int, program: Program, others: tuple[Structure, ...]) -> Structure:
    """Return the structure of a candidate; one that others have too had its turn if they had."""
    digest = structure_of(program)
    tuned = any(other.tuned and other.digest == digest for other in others)
    return Structure(number, digest, len(coordinates_of(program)), tuned)


def promising(population: Population, structures: tuple[Structure, ...], dimensions: int) -> Structure | None:
    """Return the structure of the fittest member that had no turn and has constants, but not too many; the younger."""
    fitness = {member.number: member.fitness for member in population.members}
    best: Structure | None = None
    for structure in structures:
        value = fitness.get(structure.number)
        if value is None or structure.tuned or not 0 < structure.constants <= dimensions:
            continue
        before = None if best is None else fitness[best.number]
        if before is None or value <= before:
            best = structure
    return best


def marked(structures: tuple[Structure, ...], digest: str) -> tuple[Structure, ...]:
    """Return the structures after those of a digest had their turn."""
    return tuple([replace(other, tuned=other.tuned or other.digest == digest) for other in structures])
