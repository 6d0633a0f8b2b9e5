"""Both cores used: candidates per second of several worker processes over one.

The same children of the warm start go through one worker and through all of them in turn, in one run; the median of the
pairs is printed. The workers have started and compiled their loop before the clock runs.

    python benchmarks/evaluation/workers.py [--workers 2] [--candidates 100] [--repeats 5] [--steps N] [--task NAME]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence

from evolion.evaluators.environment import cpu_class, prepare, processors

prepare()

from interpreter import children  # noqa: E402

from evolion.evaluators.processes import process_evaluator  # noqa: E402
from evolion.evaluators.types import Evaluator, Job  # noqa: E402
from evolion.proxies.registry import get_task  # noqa: E402
from evolion.proxies.score import Status  # noqa: E402


def seconds(evaluator: Evaluator, jobs: Sequence[Job]) -> float:
    """Return the wall time until every job is answered."""
    start, open_jobs = time.perf_counter(), len(jobs)
    for job in jobs:
        evaluator.submit(job)
    while open_jobs:
        answers = evaluator.collect()
        wrong = [score.message for _, score in answers if score.status not in (Status.OK, Status.DIVERGED)]
        if wrong:
            raise RuntimeError(wrong[0])
        open_jobs -= len(answers)
    return time.perf_counter() - start


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, help="the task's own without it")
    parser.add_argument("--task", default="digits-mlp")
    arguments = parser.parse_args()
    task = get_task(arguments.task)
    steps = arguments.steps or task.steps
    print(f"python {' '.join(sys.argv)}")
    print(f"{cpu_class()}, {processors()} processors")
    jobs = [
        Job(number, child, arguments.task, steps, (0,), task.learning_rates[:1])
        for number, child in enumerate(children(arguments.candidates))
    ]
    counts = (1, arguments.workers)
    with process_evaluator(1) as one, process_evaluator(arguments.workers) as many:
        evaluators = dict(zip(counts, (one, many), strict=True))
        for count, evaluator in evaluators.items():
            # As long as all of them: a worker that compiles takes few jobs while another takes the rest.
            for _ in range(3):
                seconds(evaluator, jobs[: 8 * count])
        rows: dict[int, list[float]] = {count: [] for count in counts}
        for repeat in range(arguments.repeats):
            for count in counts if repeat % 2 == 0 else counts[::-1]:
                rows[count].append(seconds(evaluators[count], jobs))
    for count, row in rows.items():
        rate = len(jobs) / statistics.median(row)
        print(f"  {count} workers: {rate:8.2f} candidates a second, median of {len(row)}")
    ratio = statistics.median(a / b for a, b in zip(rows[counts[0]], rows[counts[1]], strict=True))
    print(f"{arguments.workers} workers over one: {ratio:.2f} times the candidates (median of pairs)")


if __name__ == "__main__":
    main()
