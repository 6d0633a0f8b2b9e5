"""Scores of other runs: a store beside the run, whose loss costs time and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from evolion.errors import InputError
from evolion.evaluators.score_keys import ScoreKey, origin
from evolion.evaluators.score_store import Entry, ScoreStore, StoreError
from evolion.primitives.program import Program
from evolion.proxies.score import Score
from evolion.records import Event

__all__ = ["STORE_EVENT", "SharedScores", "StoreUse", "open_scores", "store_use"]

_LOG = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")
_NAMED = 3
"""So many other numerics are named; the rest is said to be there."""


@dataclass(frozen=True, slots=True)
class StoreUse:
    """What a store of scores was good for in a run.

    Attributes:
        file: The store.
        hits: Scores that were taken from it.
        misses: Scores that it did not hold, or that took longer than the run allows.
        seconds: What those that were taken had cost.
        other_numerics: Of the misses, those for which it holds scores made with other numerics; they were not used.
        others: In what those numerics differ from the run's.
        problem: Why the run stopped using it, empty if it did not.

    """

    file: str
    hits: int
    misses: int
    seconds: float
    other_numerics: int
    others: tuple[str, ...]
    problem: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Say it in a line."""
        asked = self.hits + self.misses
        parts = [f"{self.hits:,} of {asked:,} scores were in {self.file}, {self.seconds:,.0f} s of training saved"]
        if self.other_numerics:
            made = " or ".join([*self.others[:_NAMED], *(["others"] if len(self.others) > _NAMED else [])])
            parts.append(
                f"{self.other_numerics:,} scores of this store were made with other numerics ({made}) and were not used"
            )
        if self.problem:
            parts.append(f"it was given up: {self.problem}")
        return "; ".join(parts)


@dataclass(slots=True)
class SharedScores:
    """A store of scores as a run uses it.

    It never ends a run: when the store fails, there is one warning, and the run goes on without it. Scores made with
    other numerics, or by other code, are counted and not used. Nor are those used that took longer than the run allows:
    here the candidate would have been given up.

    Attributes:
        store: The open store; it stays open.
        numerics: The evaluator's tag for the default class of workers.
        timeout: The seconds that the evaluation of a candidate has in this run.

    """

    store: ScoreStore
    numerics: str
    timeout: float
    _hits: int = 0
    _misses: int = 0
    _seconds: float = 0.0
    _others: set[str] = field(default_factory=set)
    _other_scores: int = 0
    _problem: str = ""
    _code: str = ""

    def __post_init__(self) -> None:
        self._code = origin(self.numerics).removeprefix(self.numerics)

    def find(self, program: Program, key: ScoreKey) -> Score | None:
        """Return the score that this run would compute, None if the store does not hold it."""
        if self._problem:
            return None
        wanted = self._placed(key)
        found = self._tried(lambda: self.store.get(program, wanted))
        if found is None:
            return None
        if found.score is not None and found.score.seconds <= self.timeout:
            self._hits += 1
            self._seconds += found.score.seconds
            return found.score
        self._misses += 1
        self._other_scores += bool(found.others)
        own = wanted.numerics.split("; ")
        self._others |= {"; ".join(part for part in other.split("; ") if part not in own) for other in found.others}
        return None

    def keep(self, entries: Sequence[Entry]) -> None:
        """Put scores that this run has computed into the store."""
        if entries and not self._problem:
            placed = [replace(entry, key=self._placed(entry.key)) for entry in entries]
            self._tried(lambda: self.store.put(placed))

    def _placed(self, key: ScoreKey) -> ScoreKey:
        # Those of the key, as a run may have workers of several classes.
        return replace(key, numerics=key.numerics + self._code)

    def finish(self) -> StoreUse:
        """Note in the store what it has saved, and return what it was good for."""
        if self._hits and not self._problem:
            self._tried(lambda: self.store.note_reuse(self._hits, self._seconds))
        return StoreUse(
            file=str(self.store.path.absolute()),
            hits=self._hits,
            misses=self._misses,
            seconds=self._seconds,
            other_numerics=self._other_scores,
            others=tuple(sorted(self._others)),
            problem=self._problem,
        )

    def _tried(self, work: Callable[[], _Answer]) -> _Answer | None:
        try:
            return work()
        except StoreError as error:
            self._problem = str(error)
            _LOG.warning("%s; the run goes on without the store", error)
            return None


@contextmanager
def open_scores(path: Path | str | None) -> Iterator[ScoreStore | None]:
    """Open the store of a path, which is made where there is none, and close it at the end; None without a path.

    Raises:
        InputError: If it cannot be opened.

    """
    if path is None:
        yield None
        return
    try:
        store = ScoreStore.open(path, create=True)
    except StoreError as error:
        raise InputError(str(error)) from None
    with store:
        yield store


STORE_EVENT = "store"
"""The kind of the event that holds a `StoreUse`; a run that was resumed has one for each time that it stopped."""


def store_use(events: Iterable[Event]) -> StoreUse | None:
    """Return what a store was good for over all the sittings of a run, None if none was used."""
    total: StoreUse | None = None
    for event in events:
        if event.kind == STORE_EVENT:
            use = StoreUse(**event.detail | {"others": tuple(event.detail["others"])})
            total = use if total is None else _together(total, use)
    return total


def _together(first: StoreUse, then: StoreUse) -> StoreUse:
    return StoreUse(
        file=then.file,
        hits=first.hits + then.hits,
        misses=first.misses + then.misses,
        seconds=first.seconds + then.seconds,
        other_numerics=first.other_numerics + then.other_numerics,
        others=tuple(sorted({*first.others, *then.others})),
        problem=then.problem or first.problem,
    )
