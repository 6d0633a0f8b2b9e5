"""A run as it is seen from another process: read from its store alone, again and again, at little cost.

Outcomes and confirmations are written in the order of the candidates and never change, so that each reading counts what
came after the last one, however long the run is.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evolion.errors import RunError
from evolion.evaluators.stages import Reason
from evolion.evaluators.types import PoolStatus
from evolion.progress import Phase, Progress, StageProgress, interval_of
from evolion.records import Cost, Counts, Standing
from evolion.run_counts import best_unconfirmed
from evolion.run_files import is_running
from evolion.run_status import funnel
from evolion.store import RunStore

__all__ = ["WORKERS_RECORD", "Follower", "Seen", "WorkersNote", "seen_to_json", "title_of"]

WORKERS_RECORD = "workers"
"""The record of a run that says what its workers did lately: the time in seconds since 1970, and a `PoolStatus`."""

_KEPT = 64


@dataclass(slots=True)
class WorkersNote:
    """An observer that notes in the run store, every `interval` seconds, what the workers do."""

    store: RunStore
    interval: float = 10.0
    clock: Callable[[], float] = time.time
    _next: float = 0.0

    def on_progress(self, progress: Progress) -> None:
        """Note it if it is time to."""
        now = self.clock()
        # A clock that was set back must not silence it for long.
        if progress.workers is None or self._next - self.interval <= now < self._next:
            return
        self._next = now + self.interval
        self.store.put_record(WORKERS_RECORD, [now, asdict(progress.workers)])


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a run.

    Attributes:
        state: "running", "stopped" or "finished".
        progress: How far its search is.
        scores: Stored scores, those of tuning and retest included.
        noted: When the workers were noted, in seconds since 1970; None if they never were.

    """

    state: str
    progress: Progress
    scores: int = 0
    noted: float | None = None


@dataclass(slots=True)
class Follower:
    """Reads how far a run is, each time what is new."""

    folder: Path
    _last: int = -1
    _last_confirmed: int = -1
    _drops: Counter[tuple[int | None, Reason]] = field(default_factory=Counter)
    _reused: int = 0
    _failed: int = 0
    _behaviours: set[bytes] = field(default_factory=set)
    _confirmed: Standing | None = None
    _interval: tuple[float, float] | None = None
    _unconfirmed: list[Standing] = field(default_factory=list)
    _text: tuple[int, str] = (-1, "")

    def read(self) -> Seen:
        """Return what the store holds now.

        Raises:
            RunError: If there is no run, or it cannot be read.

        """
        # Closed each time: a reader that stays would keep the driver from leaving a single file at its end.
        with RunStore.open(self.folder, readonly=True) as store:
            try:
                store.database.read("BEGIN")  # All of it as it was at one moment.
                return self._seen(store)
            except sqlite3.Error as error:
                raise RunError(f"cannot read the run {self.folder}: {error}") from None

    def _seen(self, store: RunStore) -> Seen:
        self._count(store)
        self._confirm(store)
        self._rank(store)
        scores = store.database.read("SELECT max(rowid) FROM scores").fetchone()[0]
        noted, status = store.get_record(WORKERS_RECORD) or (None, None)
        finished = store.winner() is not None
        state = "finished" if finished else "running" if is_running(self.folder) else "stopped"
        workers = PoolStatus(**status) if status and state == "running" else None
        return Seen(state, self._progress(store, workers), scores or 0, noted)

    def _count(self, store: RunStore) -> None:
        rows = store.database.read(
            "SELECT stage, reason, reused, count(*), sum(fitness IS NULL), max(number) FROM outcomes "
            "WHERE number > ? GROUP BY stage, reason, reused",
            (self._last,),
        ).fetchall()
        self._unconfirmed = self._best_few(store, self._last, self._unconfirmed)
        for stage, reason, reused, count, failed, last in rows:
            self._last = max(self._last, last)
            self._failed += failed
            if reused:
                self._reused += count
            else:
                self._drops[stage, Reason(reason)] += count

    def _best_few(self, store: RunStore, after: int, known: list[Standing]) -> list[Standing]:
        found = best_unconfirmed(store.database.connection, after, _KEPT)
        return sorted([*known, *found], key=lambda standing: standing.rank)[:_KEPT]

    def _confirm(self, store: RunStore) -> None:
        rows = store.database.read(
            "SELECT number, confirmations.fitness, value, error, behaviour_key FROM confirmations "
            "JOIN candidates USING (number) WHERE number > ? ORDER BY number",
            (self._last_confirmed,),
        ).fetchall()
        numbers = set()
        for number, fitness, value, error, behaviour in rows:
            self._last_confirmed = number
            numbers.add(number)
            self._behaviours.add(behaviour)
            if fitness is None:
                continue
            standing = Standing(number, tuple(json.loads(fitness)), confirmed=True)
            if self._confirmed is None or standing.rank < self._confirmed.rank:
                self._confirmed = standing
                self._interval = None if value is None or error is None else interval_of(value, error)
        left = [standing for standing in self._unconfirmed if standing.number not in numbers]
        # Where all of the few were confirmed, others have moved up.
        self._unconfirmed = left if left or not self._unconfirmed else self._best_few(store, -1, [])

    def _rank(self, store: RunStore) -> None:
        best = self._best
        if best is not None and best.number != self._text[0]:
            record = store.candidate(best.number)
            self._text = best.number, record.text if record else ""

    @property
    def _best(self) -> Standing | None:
        found = [standing for standing in (self._confirmed, *self._unconfirmed[:1]) if standing is not None]
        return min(found, key=lambda standing: standing.rank, default=None)

    def _progress(self, store: RunStore, workers: PoolStatus | None) -> Progress:
        told = self._last + 1
        probed = sum(count for (stage, _), count in self._drops.items() if stage is None)
        evaluated = sum(self._drops.values()) - probed
        counts = Counts(
            generated=store.last_number() + 1,
            told=told,
            evaluated=evaluated,
            reused=self._reused,
            failed={},
            stages={},
            drops=self._drops,
            confirmed=len(self._behaviours),
            cost=Cost(),
            scores=0,
        )
        _, *rows = funnel(counts, store.config.stages)
        best = self._best
        return Progress(
            Phase.SEARCH,
            told,
            store.config.search.budget,
            evaluated=evaluated,
            reused=self._reused,
            failed=self._failed,
            best_number=best.number if best else None,
            best_fitness=best.fitness if best else None,
            best_text=self._text[1],
            confirmed=counts.confirmed,
            workers=workers,
            generated=counts.generated,
            probed=probed,
            stages=tuple(_stage(row) for row in rows),
            best_interval=self._interval if best and best.confirmed else None,
        )


def _stage(row: dict[str, Any]) -> StageProgress:
    return StageProgress(row["stage"], row["task"], row["steps"], row["entered"], row["passed"])


def seen_to_json(folder: Path, seen: Seen, rates: tuple[float | None, ...], now: float) -> dict[str, Any]:
    """Return what was seen of a run, for JSON; `now` is in seconds since 1970."""
    progress = seen.progress
    stages = [
        {
            "stage": stage.name,
            "task": stage.task,
            "steps": stage.steps,
            "entered": stage.entered,
            "passed": stage.passed,
            "per_second": rate,
        }
        for stage, rate in zip(progress.stages, rates[1:], strict=True)
    ]
    best = None
    if progress.best_fitness is not None:
        fitness, interval = progress.best_fitness, progress.best_interval
        best = {"number": progress.best_number, "fitness": fitness, "interval": interval}
    return {
        "time": round(now, 3),
        "folder": str(folder),
        "state": seen.state,
        "budget": progress.total,
        "told": progress.done,
        "per_second": rates[0],
        "generated": progress.generated,
        "evaluated": progress.evaluated,
        "reused": progress.reused,
        "probed": progress.probed,
        "failed": progress.failed,
        "confirmed": progress.confirmed,
        "scores": seen.scores,
        "stages": stages,
        "best": best,
        "workers": asdict(progress.workers) if progress.workers else None,
    }


def title_of(folder: Path, seen: Seen, now: float) -> str:
    """Return in a line whether somebody is at the run and at what; `now` is in seconds since 1970."""
    said = f"{folder}: {seen.state}"
    if seen.progress.done >= seen.progress.total and seen.state != "finished":
        said += f", the search is done, the best are compared ({seen.scores:,} scores so far)"
    if seen.progress.workers is not None and seen.noted is not None and now - seen.noted > 60:
        said += f", workers as of {round((now - seen.noted) / 60):,} min ago"
    return said
