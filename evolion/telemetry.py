"""What a run measures of itself, by name, for plots and for the monitoring of a cluster."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from evolion.evaluators.memory import resident_bytes
from evolion.progress import Pace, Phase, Progress

__all__ = ["Measure", "Measurements", "Sink", "measures_of"]


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that a run says of itself.

    Attributes:
        name: As TensorBoard groups names: `candidates/told`; names for Prometheus have `_` instead of the slash.
        value: A finite number.
        help: What it is, in a few words.
        label: What it is said of where there are several, such as `("stage", "1")`.
        counts: Whether it only grows while a process lives.

    """

    name: str
    value: float
    help: str
    label: tuple[str, str] | None = None
    counts: bool = False


class Sink(Protocol):
    """Where measures go."""

    def write(self, step: int, measures: list[Measure]) -> None:
        """Take the measures after so many candidates were told, the same number again where none came since.

        May raise: then nothing more is measured.
        """
        ...


def measures_of(progress: Progress, rate: float | None = None, driver_bytes: int = 0) -> Iterator[Measure]:
    """Yield what is known; what is not is left out."""
    yield from _candidates(progress, rate)
    yield from _best(progress)
    yield from _workers(progress)
    if driver_bytes:
        yield Measure("memory/driver_bytes", driver_bytes, "What the driver holds")
    yield Measure("search/restarts", progress.restarts, "How often the search began anew", counts=True)
    for name, weight in progress.mutations:
        yield Measure("search/mutation_weight", weight, "Relative frequency of a mutation", ("mutation", name))
    for number, stage in enumerate(progress.stages, 1):
        label = ("stage", str(number))
        yield Measure("stage/entered", stage.entered, "Candidates that entered a stage", label, counts=True)
        yield Measure("stage/passed", stage.passed, "Candidates that passed a stage", label, counts=True)
        yield Measure("stage/waiting", stage.waiting, "Candidates that train or wait in a stage", label)


def _candidates(progress: Progress, rate: float | None) -> Iterator[Measure]:
    counts = {
        "told": (progress.done, "Candidates told"),
        "generated": (progress.generated, "Candidates asked for"),
        "invalid": (progress.invalid, "Proposals that were no valid program"),
        "known_by_key": (progress.reused, "Candidates whose scores were known by their key"),
        "probed": (progress.probed, "Candidates that the probe stopped"),
        "trained": (progress.evaluated, "Candidates that were trained"),
        "failed": (progress.failed, "Candidates without fitness"),
        "confirmed": (progress.confirmed, "Programs trained again with fresh seeds"),
    }
    for name, (count, text) in counts.items():
        yield Measure(f"candidates/{name}", count, text, counts=True)
    if progress.done:
        for name, count in (("known_by_key", progress.reused), ("failed", progress.failed)):
            yield Measure(f"share/{name}", count / progress.done, f"{counts[name][1]}, as a share of those told")
    if rate is not None:
        yield Measure("candidates/per_second", rate, "Candidates told a second over the last minute")


def _best(progress: Progress) -> Iterator[Measure]:
    if progress.best_fitness is None:
        return
    *before, value = progress.best_fitness
    if math.isfinite(value):
        yield Measure("best/value", value, "Value of the best candidate, smaller is better")
    if before:
        yield Measure("best/stage", 1 - before[0], "Last stage of the best candidate")
    for name, bound in zip(("low", "high"), progress.best_interval or (), strict=False):
        yield Measure(f"best/{name}", bound, f"The {name} end of the interval of the value of the best, 95 %")


def _workers(progress: Progress) -> Iterator[Measure]:
    status = progress.workers
    if status is None:
        return
    yield Measure("workers/wanted", status.wanted or status.workers, "Workers that there should be")
    yield Measure("workers/ready", status.ready, "Workers that have started")
    yield Measure("workers/busy", status.busy, "Workers with a job")
    past = {
        "deaths": (status.deaths, "Workers that died once they were ready"),
        "recycled": (status.recycled, "Workers replaced for what they held"),
        "timeouts": (status.timeouts, "Jobs without an answer in time"),
        "over_memory": (status.over_memory, "Jobs that needed more memory than their limit"),
        "quarantined": (status.quarantined, "Jobs that ended every worker that tried them"),
        "nodes_lost": (status.nodes_lost, "Machines that went away with their workers"),
    }
    for name, (count, text) in past.items():
        yield Measure(f"workers/{name}", count, text, counts=True)
    yield Measure("memory/workers_bytes", status.resident_bytes, "What all workers together hold")
    yield Measure("memory/largest_worker_bytes", status.peak_resident_bytes, "The most that a worker ever held")


@dataclass(slots=True)
class Measurements:
    """An observer that measures a search every `interval` seconds and at its end, and hands that to a sink.

    Only the search is measured: afterwards, candidates no longer count what is done.
    """

    sink: Sink
    interval: float = 10.0
    clock: Callable[[], float] = time.monotonic
    memory: Callable[[], int] = resident_bytes
    _pace: Pace = field(default_factory=Pace)
    _next: float = -math.inf
    _written: int = -1

    def on_progress(self, progress: Progress) -> None:
        """Measure if it is time to."""
        if progress.phase is not Phase.SEARCH:
            return
        now = self.clock()
        self._pace.add(progress, now)
        ended = progress.done >= progress.total and progress.done != self._written
        if now < self._next and not ended:
            return
        self._next, self._written = now + self.interval, progress.done
        measures = measures_of(progress, self._pace.rates(now)[0], self.memory())
        self.sink.write(progress.done, list(measures))
