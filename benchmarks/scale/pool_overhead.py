"""What the bookkeeping of a pool costs the driver for each job, with many workers that take no time of the driver.

The workers are a script: each answers its batch some rounds later, so that nearly all of them are always busy. No
process is started and nothing is sent. The driver asks for the status after every job, as a search does.

    python benchmarks/scale/pool_overhead.py [--workers 1000] [--jobs 20000] [--batch 1] [--limit SECONDS]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from dataclasses import dataclass, field

from evolion.evaluators.containment import Assignment
from evolion.evaluators.pool import Limits, PoolEvaluator
from evolion.evaluators.types import Job, Score, Status
from evolion.evaluators.worker import Answer, Answers, Event, Placed, Ready
from evolion.primitives.parser import parse

SCORE = Score(Status.OK, 1.0, (), 100, 0.0)
PROGRAM = parse("def train(g, lr):\n    update = lr * g\n    return update\n")


@dataclass(eq=False, slots=True)
class StubWorker:
    """Puts its answer at the end of the line."""

    line: deque[tuple[StubWorker, Event]]

    def send(self, assignments: tuple[Assignment, ...]) -> None:
        """Answer, later."""
        self.line.append((self, Answers((Answer(SCORE, 1, 1, seconds=1e-3),) * len(assignments))))

    def kill(self) -> None:
        """Nothing is to be ended."""


@dataclass(slots=True)
class StubWorkers:
    """Tells of three workers at a time."""

    line: deque[tuple[StubWorker, Event]] = field(default_factory=deque)

    @property
    def streams(self) -> bool:
        """As Ray's."""
        return False

    @property
    def patient(self) -> bool:
        """They are there."""
        return False

    def start(self) -> StubWorker:
        """A worker that is ready at once."""
        worker = StubWorker(self.line)
        self.line.extend([(worker, Placed()), (worker, Ready("stub", 1))])
        return worker

    def wait(self, timeout: float | None) -> list[tuple[StubWorker, Event]]:
        """The next of the line."""
        return [self.line.popleft() for _ in range(min(3, len(self.line)))]

    def wanted(self) -> int | None:
        """Fixed."""
        return None

    def diagnose(self) -> str:
        """Nothing to say."""
        return ""

    def close(self) -> None:
        """Nothing is shared."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--limit", type=float, default=60.0)
    arguments = parser.parse_args()
    limits = Limits(job=arguments.limit, batch_jobs=arguments.batch)
    pool = PoolEvaluator(StubWorkers(), arguments.workers, limits)
    jobs = [Job(number, PROGRAM, "stub", 100, (0,), (0.1,)) for number in range(arguments.jobs)]
    lag, submitted, told = 2 * arguments.workers * arguments.batch, 0, 0
    begun = time.process_time()
    while told < len(jobs):
        while submitted < len(jobs) and submitted < told + lag:
            pool.submit(jobs[submitted])
            submitted += 1
        for _ in pool.collect():
            told += 1
            if pool.status.busy > arguments.workers:
                raise RuntimeError("more are busy than there are")
    seconds = time.process_time() - begun
    pool.close()
    print(f"python {' '.join(sys.argv)}")
    print(
        f"{arguments.workers:,} workers, batches of up to {arguments.batch}: {seconds / len(jobs) * 1e6:.1f} µs a job"
    )


if __name__ == "__main__":
    main()
