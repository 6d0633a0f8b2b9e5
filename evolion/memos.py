"""What a search has found out about programs, by key, in the database of its run instead of in memory.

Every value hangs on its key and on candidates below the one that is looked at, so that a search which
is taken up at an earlier candidate may find values of later ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar, final

from evolion.primitives.keys import Probe, ProbeStatus
from evolion.primitives.screening import Screen
from evolion.run_database import Database

__all__ = ["Reached", "StoredMemo", "copy_memos", "forget_after", "screen_of"]

V = TypeVar("V")
_REMEMBERED = 4096


class _Kind(IntEnum):
    """What a row of the table is about; the numbers are part of the format."""

    PROBE = 1
    WAY = 2
    FIRST = 3
    REACHED = 4


@final
@dataclass(slots=True, eq=False)
class StoredMemo(Generic[V]):
    """A `Memo` in a table, with the values used lately in memory.

    Attributes:
        database: That of the run.
        kind: Which rows of the table are its own.
        write: Turns a value into a text.
        read: Turns the text into the value.

    """

    database: Database
    kind: int
    write: Callable[[V], str]
    read: Callable[[str], V]
    _known: dict[str, V | None] = field(default_factory=dict)

    def get(self, key: str, /) -> V | None:
        """Return what was kept under a key, None if nothing was."""
        found = self._known.get(key)
        if found is None and key not in self._known:
            query = "SELECT value FROM memos WHERE kind = ? AND key = ?"
            row = self.database.read(query, (self.kind, key)).fetchone()
            found = self._remember(key, None if row is None else self.read(row[0]))
        return found

    def __setitem__(self, key: str, value: V, /) -> None:
        """Keep a value under a key, in place of the one that it has."""
        statement = "INSERT OR REPLACE INTO memos VALUES (?, ?, ?)"
        self.database.write(statement, (self.kind, key, self.write(value)))
        self._remember(key, value)

    def _remember(self, key: str, value: V | None) -> V | None:
        if len(self._known) >= _REMEMBERED:
            for old in list(self._known)[: _REMEMBERED // 2]:
                del self._known[old]
        self._known[key] = value
        return value


def screen_of(database: Database, *, alike: bool) -> Screen:
    """Return a screen whose findings are kept in the database."""
    return Screen(
        alike,
        StoredMemo(database, _Kind.PROBE, _probe_text, _probe),
        StoredMemo(database, _Kind.WAY, str, str),
        StoredMemo(database, _Kind.FIRST, str, str),
    )


def _probe_text(probe: Probe) -> str:
    return f"{probe.status.value} {probe.key}"


def _probe(text: str) -> Probe:
    status, _, key = text.rpartition(" ")
    return Probe(key, ProbeStatus(status))


_Steps = tuple[tuple[int, int], ...]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """How far each behaviour got in the stages, and from which candidate on."""

    memo: StoredMemo[_Steps]

    @staticmethod
    def of(database: Database) -> Reached:
        """Return what the database of a run knows."""
        return Reached(StoredMemo(database, _Kind.REACHED, _steps_text, _steps))

    def before(self, behaviour: str, number: int) -> int:
        """Return the last stage that candidates below a number with this behaviour entered; -1 if there was none."""
        steps = self.memo.get(behaviour) or ()
        return max([stage for stage, first in steps if first < number], default=-1)

    def note(self, behaviour: str, number: int, stage: int) -> None:
        """Take note that a candidate entered a stage."""
        steps = self.memo.get(behaviour) or ()
        if all(stage > other or first > number for other, first in steps):
            earlier = tuple(step for step in steps if step[1] < number)
            self.memo[behaviour] = (*earlier, (stage, number), *(s for s in steps if s[1] > number and s[0] > stage))


def copy_memos(source: Database, target: Database) -> None:
    """Copy what the run of one database has found out to that of another, which goes through the same candidates."""
    if source.read("SELECT name FROM sqlite_master WHERE name = 'memos'").fetchone():  # earlier formats have none
        for row in source.read("SELECT kind, key, value FROM memos"):
            target.write("INSERT OR REPLACE INTO memos VALUES (?, ?, ?)", row)


def forget_after(database: Database, number: int) -> None:
    """Remove what was found out about candidates after a number, which the database holds no more."""
    run = database.write
    rows = "DELETE FROM memos WHERE kind = {} AND {} NOT IN ({})"
    structures = "SELECT lower(hex(structural_key)) FROM candidates"
    database.connection.create_function("probed", 1, lambda text: _probe(text).key, deterministic=True)
    behaviours = f"SELECT probed(value) FROM memos WHERE kind = {_Kind.PROBE:d}"
    run(rows.format(int(_Kind.PROBE), "key", structures))
    run(rows.format(int(_Kind.WAY), "key", behaviours))
    # Of those that came one way the first is here if any is: each of them looked for it.
    run(rows.format(int(_Kind.FIRST), r"substr(value, 1, instr(value, char(10)) - 1)", behaviours))
    database.connection.create_function("until", 1, lambda text: _until(text, number), deterministic=True)
    run(f"UPDATE memos SET value = until(value) WHERE kind = {_Kind.REACHED:d} AND value <> until(value)")
    run(f"DELETE FROM memos WHERE kind = {_Kind.REACHED:d} AND value = ''")


def _until(text: str, number: int) -> str:
    return _steps_text(tuple(step for step in _steps(text) if step[1] <= number))


def _steps_text(steps: _Steps) -> str:
    return " ".join(f"{stage}:{number}" for stage, number in steps)


def _steps(text: str) -> _Steps:
    return tuple((int(stage), int(number)) for stage, _, number in (part.partition(":") for part in text.split()))
