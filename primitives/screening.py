"""What can be said of programs before any of them is trained: which cannot train, and which need not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from evolion.primitives.descent import descent
from evolion.primitives.keys import Probe, ProbeStatus, probe
from evolion.primitives.parser import parse
from evolion.primitives.program import Program

__all__ = ["Memo", "Screen", "Screened"]

_TIMELESS = frozenset({"w", "g", "lr", "w0"})
"""What a program may read to take the scores of another: the others vary over a training run in ways that a few steps
do not show."""

_JUDGED = _TIMELESS | {"t"}
"""What a program may read to be refused: corrections of bias need the step; a rule of the horizon or of the loss may do
in a whole run what it does not do in a few steps."""


@dataclass(frozen=True, slots=True)
class Screened:
    """What a screen says about a program.

    Attributes:
        program: The program whose scores it takes: itself, or an earlier one that is almost the same.
        key: The behavioural key of that program.
        status: Whether there is anything to train.

    """

    program: Program
    key: str
    status: ProbeStatus


V = TypeVar("V")


class Memo(Protocol[V]):
    """What was found out before, by key: a dict, or something that holds more than memory does."""

    def get(self, key: str, /) -> V | None:
        """Return what was kept under a key, None if nothing was."""
        ...

    def __setitem__(self, key: str, value: V, /) -> None:
        """Keep a value under a key that has none."""
        ...


@dataclass(frozen=True, slots=True)
class Screen:
    """Looks at one program after the other and remembers them.

    What it says depends on the programs so far and their order, on nothing else.

    Attributes:
        alike: Whether a program takes the scores of the first one that came the same way down the losses of
            `evolion.primitives.descent`, to 4 %. One that reads more than weights, gradient and learning rate never
            does.
        probes: Results of the probe by structural key.
        ways: By behavioural key what programs share that count as one; "" for a program that does not descend.
        first: By way the behavioural key and, after a line break, the text of the first program that came it.

    """

    alike: bool = True
    probes: Memo[Probe] = field(default_factory=dict)
    ways: Memo[str] = field(default_factory=dict)
    first: Memo[str] = field(default_factory=dict)

    def check(self, program: Program, structure: str) -> Screened:
        """Say what is known of a program with this structural key, in a millisecond if nothing like it was there."""
        probed = self.probes.get(structure)
        if probed is None:
            self.probes[structure] = probed = probe(program)
        if probed.status is not ProbeStatus.OK:
            return Screened(program, probed.key, probed.status)
        way = self.ways.get(probed.key)
        if way is None:
            self.ways[probed.key] = way = self._way(program, probed.key)
        if not way:
            return Screened(program, probed.key, ProbeStatus.NO_DESCENT)
        first = self.first.get(way)
        if first is None:
            self.first[way] = first = f"{probed.key}\n{program}"
        key, _, text = first.partition("\n")
        return Screened(program if key == probed.key else parse(text), key, ProbeStatus.OK)

    def _way(self, program: Program, key: str) -> str:
        if not _JUDGED.issuperset(program.inputs):
            return key
        found = descent(program)
        if not found.succeeds:
            return ""
        return found.way if self.alike and found.way and _TIMELESS.issuperset(program.inputs) else key
