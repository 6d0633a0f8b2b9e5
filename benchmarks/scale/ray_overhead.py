"""What Ray costs: two actors against one where a candidate computes, and the time of a candidate that does not.

The jobs stay the same in both: a program, to be trained for 100 steps. In place of the training there is a loop that
computes for about 20 ms, or nothing at all. What remains in the second case is all that lies between a driver's
`submit` and its `collect`: the pool, the serialization, Ray, the limits in the worker.

On a machine that others use, two actors may get no more of the processors than one; with `--wait` a candidate sleeps
instead of computing.

    python benchmarks/scale/ray_overhead.py [--jobs 150] [--empty 3000] [--lag 128] [--repeats 3] [--spin-ms 20]
        [--wait]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Where the actors find the functions below.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])

from evolion.evaluators.environment import cpu_class, processors
from evolion.evaluators.pool import Limits
from evolion.evaluators.ray_pool import connect, ray_evaluator
from evolion.evaluators.types import Evaluator, Job, Score, Status
from evolion.primitives.parser import parse

PROGRAM = "def train(g, m, lr, *, b1=0.9):\n    m = interp(g, m, b1)\n    update = lr * m\n    return update, m\n"


def tag() -> str:
    """What computes the scores."""
    return "stub"


def compute(job: Job) -> Score:
    """Keep one core busy for a fixed amount of work, given by the steps of the job; or sleep, or do nothing."""
    total = 0
    if job.task == "wait":
        time.sleep(job.steps / 1e6)
    for number in range(job.steps if job.task == "spin" else 0):
        total += number
    return Score(Status.OK, float(total), (), job.steps, 0.0)


def steps_of(milliseconds: float) -> int:
    """How many rounds of the loop take so long here."""
    rounds = 200_000
    begun = time.process_time()
    compute(_job(0, "spin", rounds))
    return int(rounds * milliseconds / 1e3 / (time.process_time() - begun))


def seconds(evaluator: Evaluator, task: str, steps: int, jobs: int, lag: int) -> tuple[float, float]:
    """Return the wall time, and the processor time of this process, until every job is answered."""
    submitted = told = 0
    wall, processor = time.perf_counter(), time.process_time()
    while told < jobs:
        while submitted < min(jobs, told + lag):
            evaluator.submit(_job(submitted, task, steps))
            submitted += 1
        told += len(evaluator.collect())
    return time.perf_counter() - wall, time.process_time() - processor


def _job(number: int, task: str, steps: int) -> Job:
    return Job(number, parse(PROGRAM) if number == 0 else _PARSED, task, steps, (0,), (0.1,))


_PARSED = parse(PROGRAM)


@contextmanager
def _actors(count: int, lag: int) -> Iterator[Evaluator]:
    with ray_evaluator(count, "local", limits=Limits(job=60.0), function=compute, tag=tag) as evaluator:
        while evaluator.status.ready < count:
            evaluator.submit(_job(0, "spin", 1))
            evaluator.collect()
            time.sleep(0.05)
        for task in ("spin", "wait", "empty"):
            seconds(evaluator, task, 1000, 4 * lag, lag)
        yield evaluator


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=150)
    parser.add_argument("--empty", type=int, default=3_000)
    parser.add_argument("--lag", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--spin-ms", type=float, default=20.0)
    parser.add_argument("--wait", action="store_true")
    arguments = parser.parse_args()
    print(f"python {' '.join(sys.argv)}")
    print(f"{cpu_class()}, {processors()} processors, load {os.getloadavg()[0]:.1f}")
    connect("local", 3)
    task = "wait" if arguments.wait else "spin"
    steps = int(1e3 * arguments.spin_ms) if arguments.wait else steps_of(arguments.spin_ms)
    lag = arguments.lag
    with _actors(1, lag) as one, _actors(2, lag) as two:
        pairs = [
            [seconds(evaluator, task, steps, arguments.jobs, lag)[0] for evaluator in (one, two)]
            for _ in range(arguments.repeats)
        ]
        empty = [seconds(two, "empty", 1, arguments.empty, lag) for _ in range(arguments.repeats)]
    for count, column in zip((1, 2), zip(*pairs, strict=True), strict=True):
        rate = arguments.jobs / statistics.median(column)
        print(f"  {count} actors, {arguments.spin_ms:g} ms each: {rate:8.1f} candidates a second")
    print(f"two actors over one: {statistics.median(a / b for a, b in pairs):.2f} (median of pairs)")
    wall, processor = (statistics.median(column) / arguments.empty * 1e3 for column in zip(*empty, strict=True))
    print(f"a candidate that takes no time: {wall:.3f} ms, of which the driver's processor {processor:.3f} ms")


if __name__ == "__main__":
    # By its name, as the actors cannot import what stands in a script.
    import ray_overhead

    ray_overhead.main()
