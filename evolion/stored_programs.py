"""Programs of candidates, out of the store of their run."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import final

from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.records import CandidateRecord
from evolion.search.types import Candidate
from evolion.store import RunStore

__all__ = ["StoredPrograms", "candidate_of"]

_REMEMBERED = 2048


def candidate_of(record: CandidateRecord) -> Candidate:
    """Return the candidate that a record was made of."""
    mutation, _, mate = record.mutation.partition(" ")
    program = parse(record.text)
    return Candidate(
        record.number, program, record.parent, mutation, record.structural_key, int(mate) if mate else None
    )


@final
@dataclass(slots=True, eq=False)
class StoredPrograms:
    """`Programs` of all candidates of a run; those used lately are kept in memory, others are parsed again."""

    store: RunStore
    _known: OrderedDict[int, Program] = field(default_factory=OrderedDict)

    def add(self, number: int, program: Program) -> None:
        """Remember a program that the store has, or gets in a moment."""
        self._known[number] = program
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def __getitem__(self, number: int) -> Program:
        """Return the program of a candidate; KeyError if there is no such candidate."""
        if number not in self._known:
            record = self.store.candidate(number)
            if record is None:
                raise KeyError(number)
            self.add(number, parse(record.text))
        self._known.move_to_end(number)
        return self._known[number]
