"""How far a run is, as plain data, and who is told: the driver tells an `Observer`, everything here only looks."""

from __future__ import annotations

import logging
import math
import sqlite3
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from evolion.evaluators.types import PoolStatus

__all__ = [
    "IN_FLIGHT_FOR_A_WORKER",
    "Observer",
    "Pace",
    "Phase",
    "Progress",
    "StageProgress",
    "duration_text",
    "fitness_text",
    "interval_of",
    "several",
    "silent",
]

_log = logging.getLogger(__name__)

IN_FLIGHT_FOR_A_WORKER = 4
"""So many candidates in flight have one in training, as measured with the default stages: the others are known by their
key, stopped by the probe, or wait to be told."""

_QUANTILE = 1.96
"""Of the normal distribution: what an interval of 95 % is wide, in standard errors."""


class Phase(StrEnum):
    """What a run is busy with, in this order; a comparison has one phase, as its stages go side by side."""

    SEARCH = "search"
    TUNING = "tuning"
    RETEST = "retest"
    ABLATION = "ablation"
    COMPARISON = "comparing"


@dataclass(frozen=True, slots=True)
class StageProgress:
    """What became of the candidates in one stage of the evaluation.

    Attributes:
        name: "stage 1", as in the funnel of `evolion status`.
        task: What it trains on.
        steps: For how long; None for the task's own horizon.
        entered: Candidates told that entered it with a training of their own, so not those known by their key.
        passed: Of these, those that went on to the next stage; in the last stage, those that finished.
        waiting: Candidates asked for and not yet told that are in this stage now, training or queued.

    """

    name: str
    task: str
    steps: int | None = None
    entered: int = 0
    passed: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    In the search the candidates told are `reused`, `probed` and those that entered the first of `stages`.

    Attributes:
        phase: What it is busy with.
        done: Units of this phase that are done: candidates told in the search, jobs elsewhere.
        total: Units of this phase.
        evaluated: Candidates that were trained.
        reused: Duplicates: candidates told whose scores were known by their key.
        failed: Candidates without fitness.
        best_number: The best candidate so far.
        best_fitness: Its fitness, smaller is better.
        best_text: Its program text.
        confirmed: Programs that were trained again with fresh seeds.
        confirming: The share of the training time of the search that went into that.
        workers: What the workers do and hold; None where nobody says.
        generated: Candidates asked for, told or not; at least `done` in the search.
        invalid: Proposals that were no valid program and became no candidate.
        probed: Candidates told that the probe stopped.
        stages: The stages of the evaluation, cheapest first; empty where nobody says.
        best_interval: Between what the value of the best lies in 95 of 100 cases, see `interval_of`; None before it is
            confirmed.
        restarts: How often the search began anew.
        mutations: The relative frequency of each mutation now, by name, where the search adapts them.

    """

    phase: Phase
    done: int
    total: int
    evaluated: int = 0
    reused: int = 0
    failed: int = 0
    best_number: int | None = None
    best_fitness: tuple[float, ...] | None = None
    best_text: str = ""
    confirmed: int = 0
    confirming: float = 0.0
    workers: PoolStatus | None = None
    generated: int = 0
    invalid: int = 0
    probed: int = 0
    stages: tuple[StageProgress, ...] = ()
    best_interval: tuple[float, float] | None = None
    restarts: int = 0
    mutations: tuple[tuple[str, float], ...] = ()


class Observer(Protocol):
    """Is told how far a run is, often: up to some twenty times a second. Must return at once."""

    def on_progress(self, progress: Progress) -> None:
        """Take note."""
        ...


@dataclass(slots=True)
class _Silent:
    def on_progress(self, progress: Progress) -> None:
        del progress


def silent() -> Observer:
    """Return an observer that does nothing."""
    return _Silent()


@dataclass(slots=True)
class _Several:
    """Observers that are told one after another; one that raises is told no more."""

    observers: list[Observer] = field(default_factory=list)

    def on_progress(self, progress: Progress) -> None:
        for observer in tuple(self.observers):
            try:
                observer.on_progress(progress)
            except sqlite3.Error:
                raise  # One that writes to the run must not lose what the run itself has written with it.
            except Exception as error:  # Whatever is wrong with a view, the run is worth more.
                self.observers.remove(observer)
                name = type(observer).__name__
                _log.warning("%s shows no more, the run goes on: %s: %s", name, type(error).__name__, error)


def several(*observers: Observer) -> Observer:
    """Return an observer that tells all of these, in this order.

    One that raises an exception is switched off with one warning; the others and the run go on.
    """
    return _Several(list(observers))


@dataclass(slots=True)
class Pace:
    """Candidates per second, lately: what an earlier process did, or this one yesterday, does not count.

    Attributes:
        window: Over so many seconds at least.
        units: And over so many units at least, so that a search of slow candidates has a speed as well.

    """

    window: float = 60.0
    units: int = 20
    _phase: Phase | None = None
    _first: deque[tuple[float, tuple[int, ...]]] = field(default_factory=deque)
    _latest: tuple[int, ...] = ()

    def add(self, progress: Progress, now: float) -> None:
        """Take note of how far a run is; `now` is in seconds."""
        counts = (progress.done, *(stage.entered for stage in progress.stages))
        if progress.phase is not self._phase or len(counts) != len(self._latest) or counts < self._latest:
            self._phase = progress.phase
            self._first.clear()
        self._latest = counts
        first = self._first
        if not first or (first[-1][1] != counts and now - first[-1][0] >= self.window / 60):
            first.append((now, counts))
        while len(first) > 1 and now - first[1][0] >= self.window and counts[0] - first[1][1][0] >= self.units:
            first.popleft()

    def rates(self, now: float) -> tuple[float | None, ...]:
        """Return units per second, then the candidates that entered each stage per second; None while unknown."""
        if not self._first:
            return (None,)
        begun, counts = self._first[0]
        seconds = now - begun
        return tuple(
            (latest - before) / seconds if latest > before and seconds > 0 else None
            for latest, before in zip(self._latest, counts, strict=True)
        )


def interval_of(value: float, error: float) -> tuple[float, float]:
    """Return between what a confirmed value lies in 95 of 100 cases.

    Args:
        value: The geometric mean over the tasks that were reached.
        error: The standard error of its logarithm, as in `evolion.records.Confirmation`.

    """
    factor = math.exp(_QUANTILE * error)
    return value / factor, value * factor


def fitness_text(fitness: Sequence[float], number: int | None) -> str:
    """Return the fitness of a candidate in words: its value, the stage from 1, its number."""
    *before, value = fitness
    # The funnel ranks by minus the stage, from 0, and then the value up to it.
    stage = f" in stage {1 - round(before[0])}" if before else ""
    return f"{value:.4g}{stage}" + (f" (candidate {number})" if number is not None else "")


def duration_text(seconds: float) -> str:
    """Return a time as minutes and seconds, with hours or days before them where there are any."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours}:{minutes:02} h"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
