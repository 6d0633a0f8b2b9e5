"""How busy a driver keeps many workers, by the lag of its search.

    python benchmarks/scale/simulated_workers.py [--workers 1000] [--evaluations 20] [--plot docs/lag.svg] [--json]

The workers are simulated: an evaluation takes a second on average, log-normal with a standard deviation of half of it,
so that one in a thousand takes more than four. Time is simulated too, but for the driver's own: a real search runs, its
processor time passes on the simulated clock, and where it waits the clock goes on to the next evaluation that ends.
Every candidate with a new structural key is trained, once.

The floor is no wait at all: workers are busy all the time. A search that may be `lag` candidates ahead has at most that
many and one in flight, and it tells them in order: the slowest holds up the others once `lag` have followed it.
Busy time is counted from the moment at which the first tenth of the candidates was told until the last was asked for.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driver import ByStructure, score_of

from evolion.config import ConfirmationConfig, RunConfig, SearchConfig, StageConfig, program_of
from evolion.evaluators.types import Job, PoolStatus
from evolion.funnel import run_search
from evolion.ledger import Ledger
from evolion.proxies.score import Score
from evolion.store import RunStore

LAGS = (64, 128, 256, 512, 1024, 2048, 4096)
MEAN, DEVIATION = 1.0, 0.5
"""Seconds of an evaluation."""

VARIANCE = math.log(1.0 + (DEVIATION / MEAN) ** 2)
PARAMETERS = math.log(MEAN) - VARIANCE / 2.0, math.sqrt(VARIANCE)
BUSY = 0.95


@dataclass(slots=True)
class Simulated:
    """An evaluator whose workers and clock are simulated; the driver's processor time passes on the clock.

    Attributes:
        workers: How many.
        clock: Seconds since the beginning.
        driver: Of these, those in which the driver worked.
        busy: Seconds of work begun so far, added up over workers.

    """

    workers: int
    clock: float = 0.0
    driver: float = 0.0
    busy: float = 0.0
    numerics: str = "simulated"
    _ended: list[Job] = field(default_factory=list)
    _queue: deque[Job] = field(default_factory=deque)
    _running: list[tuple[float, int, Job]] = field(default_factory=list)
    _rng: random.Random = field(default_factory=lambda: random.Random(0))
    _left: float = field(default_factory=time.process_time)

    @property
    def status(self) -> PoolStatus:
        """All are there."""
        return PoolStatus(self.workers, self.workers, len(self._running))

    def numerics_of(self, device: str) -> str:
        """One class alone."""
        return self.numerics

    def submit(self, job: Job) -> None:
        """Give a job to a worker that is free, else queue it."""
        self._driver_worked()
        self._queue.append(job)
        self._start()
        self._left = time.process_time()

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        """Return what has ended; wait for the next one if the timeout allows it."""
        self._driver_worked()
        if timeout != 0.0 and not self._ended and self._running and self._running[0][0] > self.clock:
            self.clock = self._running[0][0]
        self._advance()
        ended, self._ended = self._ended, []
        self._left = time.process_time()
        return [(job, score_of(job)) for job in ended]

    def close(self) -> None:
        """Nothing to close."""

    def spent(self) -> float:
        """Return the seconds of work done until now, added up over workers."""
        return self.busy - sum(end - self.clock for end, _, _ in self._running if end > self.clock)

    def _driver_worked(self) -> None:
        took = time.process_time() - self._left
        self.clock += took
        self.driver += took
        self._advance()

    def _advance(self) -> None:
        """Let workers that became free in the meantime go on at the moment at which they became free."""
        while self._running and self._running[0][0] <= self.clock:
            end, _, job = heapq.heappop(self._running)
            self._ended.append(job)
            if self._queue:
                self._begin(self._queue.popleft(), end)

    def _start(self) -> None:
        while self._queue and len(self._running) < self.workers:
            self._begin(self._queue.popleft(), self.clock)

    def _begin(self, job: Job, at: float) -> None:
        seconds = self._rng.lognormvariate(*PARAMETERS)
        self.busy += seconds
        heapq.heappush(self._running, (at + seconds, job.number, job))


@dataclass(slots=True)
class Marks:
    """Notes the clock and the work done, at the beginning and the end of what is measured."""

    evaluator: Simulated
    first: int
    last: int
    begun: tuple[float, float] | None = None
    ended: tuple[float, float] | None = None

    def on_progress(self, progress: Any) -> None:
        """Look at how many were told."""
        if self.begun is None and progress.done >= self.first:
            self.begun = (self.evaluator.clock, self.evaluator.spent())
        if self.ended is None and progress.generated >= self.last:
            self.ended = (self.evaluator.clock, self.evaluator.spent())


def measure(workers: int, lag: int, candidates: int) -> dict[str, float]:
    """Run a search and say how busy its workers were."""
    config = RunConfig(
        search=SearchConfig(budget=candidates, lag=lag, population=1000, tournament=5),
        stages=(StageConfig("digits-mlp", learning_rates=(0.1,)),),
        confirmation=ConfirmationConfig(share=0.0),
    )
    evaluator = Simulated(workers)
    marks = Marks(evaluator, candidates // 10, candidates)
    with tempfile.TemporaryDirectory() as folder, RunStore.create(Path(folder) / "run", config, {}) as store:
        run_search(config, program_of(config.search.warm_start), Ledger(store, evaluator), marks, screen=ByStructure())
        trained = store.counts().evaluated
    assert marks.begun is not None
    assert marks.ended is not None
    seconds, work = (after - before for before, after in zip(marks.begun, marks.ended, strict=True))
    return {
        "lag": lag,
        "busy": work / (workers * seconds),
        "evaluations a second": trained / evaluator.clock,
        "driver busy": evaluator.driver / evaluator.clock,
    }


def plot(rows: list[dict[str, float]], workers: int, path: Path) -> None:
    """Draw how busy the workers were against the lag."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.2, 3.0), layout="constrained")
    lags = [row["lag"] for row in rows]
    axes.plot(lags, [100 * row["busy"] for row in rows], marker="o", color="#0072b2", label=f"{workers:,} workers")
    bound = [100 * min(1.0, (lag + 1) / workers) for lag in lags]
    axes.plot(lags, bound, color="#7a7a7a", linestyle="--", label="bound: lag + 1 in flight")
    axes.axhline(100 * BUSY, color="#d55e00", linewidth=0.9, label="95 %")
    axes.set_xscale("log", base=2)
    axes.set_xticks(lags, [f"{int(lag):,}" for lag in lags])
    axes.set_xlabel("lag (candidates)")
    axes.set_ylabel("time that workers are busy (%)")
    axes.set_ylim(0, 105)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--evaluations", type=int, default=20, help="For each worker.")
    parser.add_argument("--lags", type=int, nargs="+", default=LAGS)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for lag in arguments.lags:
        rows.append(measure(arguments.workers, lag, arguments.workers * arguments.evaluations))
        if not arguments.json:
            print("  ".join(f"{name} {value:,.3g}" for name, value in rows[-1].items()), flush=True)
    if arguments.json:
        print(json.dumps(rows))
    if arguments.plot is not None:
        plot(rows, arguments.workers, arguments.plot)


if __name__ == "__main__":
    main()
