"""What a search algorithm is: it asks for candidates and is told their fitness. It never evaluates anything itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from evolion.primitives.program import Program

__all__ = ["SEED", "Candidate", "Fitness", "NoProgramError", "Programs", "Search"]

Fitness = tuple[float, ...]
"""How good a candidate is: finite numbers compared from the first to the last, smaller is better."""

SEED = "seed"
"""The mutation that is written down for the warm start."""

State = TypeVar("State")


class NoProgramError(ValueError):
    """No attempt led to a valid new program: what a search may draw from is too narrow."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program to be evaluated.

    Attributes:
        number: Position in the run, from 0.
        program: The program.
        parent: The number of the candidate that it was made from; None for the warm start and for random programs.
        mutation: The name of what made it, `SEED` for the warm start.
        key: The structural key of the program.
        mate: The number of the second candidate that it was made from, where there is one.

    """

    number: int
    program: Program
    parent: int | None
    mutation: str
    key: str
    mate: int | None = None


class Programs(Protocol):
    """The programs of candidates by their numbers. A lookup may cost as much as parsing a program."""

    def __getitem__(self, number: int, /) -> Program:
        """Return the program of a candidate; KeyError if there is none of this number."""
        ...


class Search(Protocol[State]):
    """A search algorithm: a frozen value whose methods are pure.

    Candidate 0 is the seed program. Everything depends on the algorithm's own fields, the state and the number alone,
    so a run can be replayed on any number of workers from the numbers and the fitness told.

    A state is a frozen dataclass of plain data: numbers, texts, None, tuples and other such dataclasses, so that it can
    be kept as JSON. It names candidates by their numbers; their programs are elsewhere.
    """

    def initial(self) -> State:
        """Return the state before anything was told."""
        ...

    def ask(self, state: State, number: int, programs: Programs) -> Candidate:
        """Return the candidate of this number; the state may miss any number of the latest candidates.

        `programs` has at least those of candidate 0, once that was asked for, and of every candidate told.

        Raises:
            NoProgramError: If none of the attempts led to one.

        """
        ...

    def tell(self, state: State, candidate: Candidate, fitness: Fitness | None) -> State:
        """Return the state after a candidate's fitness; candidates are told in the order of their numbers.

        A fitness of None says that the candidate failed (diverged, dead, invalid or crashed): it never becomes a
        parent.
        """
        ...

    def revise(self, state: State, number: int, fitness: Fitness | None) -> State:
        """Return the state after a candidate that was told before turned out to have another fitness.

        Changes nothing for a candidate that has no place in the state any more. A fitness of None says that the
        candidate fails: it is a parent no longer.
        """
        ...
