"""A warm-started search on one task: how many candidates are answered without training, and what the time goes into.

The search is run as `evolion search` runs it, in a temporary folder, without the comparison after it. Shares are of
processor seconds, which other work on the machine disturbs less than wall time: of the driver (this process) and of the
workers, their start and compilation included. The floor is the gradients: those that the workers computed, times what
one costs in a hand-written loop of plain SGD, which runs in this process now and then while the search goes on, its
time counted for nothing else.

    python benchmarks/evaluation/search.py [--candidates 10000] [--workers 2] [--population N] [--tournament N]
        [--seed 0] [--task digits-mlp] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evolion.evaluators.environment import cpu_class, prepare, processors

prepare()

import optax  # noqa: E402
from interpreter import fused  # noqa: E402

from evolion.config import RunConfig, SearchConfig, StageConfig, program_of  # noqa: E402
from evolion.evaluators.factory import make_evaluator  # noqa: E402
from evolion.evaluators.types import Evaluator, Job, PoolStatus  # noqa: E402
from evolion.funnel import run_search  # noqa: E402
from evolion.ledger import Ledger  # noqa: E402
from evolion.primitives.keys import probe  # noqa: E402
from evolion.primitives.parser import parse  # noqa: E402
from evolion.primitives.screening import Screen  # noqa: E402
from evolion.progress import Progress  # noqa: E402
from evolion.proxies.registry import get_task  # noqa: E402
from evolion.proxies.score import Score  # noqa: E402
from evolion.store import RunStore  # noqa: E402

FLOORS = 10
"""So often the floor is measured during a search."""


@dataclass(slots=True)
class Counted:
    """An evaluator that counts what the workers of another do."""

    inner: Evaluator
    jobs: int = 0
    runs: int = 0
    gradients: int = 0
    seconds: float = 0.0

    @property
    def numerics(self) -> str:
        """As of the other."""
        return self.inner.numerics

    def numerics_of(self, device: str) -> str:
        """As of the other."""
        return self.inner.numerics_of(device)

    @property
    def workers(self) -> int:
        """As of the other."""
        return self.inner.workers

    @property
    def status(self) -> PoolStatus:
        """As of the other."""
        return self.inner.status

    def submit(self, job: Job) -> None:
        """Pass a job on."""
        self.inner.submit(job)

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        """Count what comes back."""
        finished = self.inner.collect(timeout)
        for _, score in finished:
            self.jobs += 1
            self.runs += len(score.runs)
            self.gradients += sum(run.steps for run in score.runs)
            self.seconds += score.seconds
        return finished

    def close(self) -> None:
        """Close the other."""
        self.inner.close()


@dataclass(slots=True)
class Floor:
    """An observer that measures the floor now and then, in processor seconds a gradient, and what that took."""

    task: str
    every: int
    found: list[float] = field(default_factory=list)
    processor: float = 0.0
    wall: float = 0.0
    _run: Any = None

    def start(self) -> None:
        """Compile the loop and run it once."""
        self._run = fused(self.task, get_task(self.task).steps, optax.sgd(0.01))
        self._run()[1].block_until_ready()

    def on_progress(self, progress: Progress) -> None:
        """Measure if it is time to."""
        if progress.done % self.every:
            return
        processor, wall = time.process_time(), time.perf_counter()
        self._run()[1].block_until_ready()
        taken = time.process_time() - processor
        self.found.append(taken / get_task(self.task).steps)
        self.processor += taken
        self.wall += time.perf_counter() - wall


def answers(folder: Path) -> list[str]:
    """Return what became of each candidate, in the order of their numbers."""
    with RunStore.open(folder, readonly=True) as store:
        outcomes = {outcome.number: outcome for outcome in store.outcomes()}
        candidates = [candidate for candidate in store.candidates() if candidate.number in outcomes]
    found, keys = [], set()
    for candidate in sorted(candidates, key=lambda candidate: candidate.number):
        key = probe(parse(candidate.text)).key
        if outcomes[candidate.number].stage is None:
            found.append(candidate.probe_status)
        elif not outcomes[candidate.number].reused:
            found.append("trained")
        else:
            found.append("known by its key" if key in keys else "almost a known one")
        keys.add(key)
    return found


def screening_seconds(folder: Path) -> float:
    """Return the processor seconds of keys and probes alone, by screening all candidates once more."""
    with RunStore.open(folder, readonly=True) as store:
        programs = [(parse(candidate.text), candidate.structural_key) for candidate in store.candidates()]
    screen, start = Screen(), time.process_time()
    for program, structure in programs:
        screen.check(program, structure)
    return time.process_time() - start


def search(config: RunConfig, workers: int, folder: Path) -> dict[str, float]:
    """Run a search and return what it took, in seconds."""
    task = config.stages[0].task
    floor = Floor(task, max(1, config.search.budget // FLOORS))
    floor.start()
    start, before = time.perf_counter(), time.process_time()
    counted = Counted(make_evaluator(workers, None))
    try:
        with RunStore.create(folder, config, {"numerics": counted.numerics}) as store:
            run_search(config, program_of(config.search.warm_start), Ledger(store, counted), floor)
    finally:
        counted.close()
    wall = time.perf_counter() - start - floor.wall
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall": wall,
        "driver": time.process_time() - before - floor.processor,
        "workers": children.ru_utime + children.ru_stime,
        "training": counted.seconds,
        "gradients": counted.gradients * statistics.median(floor.found),
        "jobs": counted.jobs,
        "runs": counted.runs,
        "milliseconds a floor run": 1e3 * statistics.median(floor.found) * get_task(task).steps,
    }


def shares(found: Sequence[str]) -> dict[str, float]:
    """Return the share of each answer, and of all but training."""
    counts = Counter(found)
    table = {name: count / len(found) for name, count in counts.most_common()}
    return table | {"answered without training": 1.0 - counts["trained"] / len(found)}


def report(found: Sequence[str], took: dict[str, float], workers: int) -> dict[str, Any]:
    """Return the figures."""
    spent = took["workers"] + took["driver"]
    width = max(1, len(found) // FLOORS)
    parts = [found[start : start + width] for start in range(0, len(found), width)]
    return {
        "candidates": len(found),
        "shares": shares(found),
        "answered without training, in turn": [shares(part)["answered without training"] for part in parts],
        "share of gradients": took["gradients"] / spent,
        "share of the driver": took["driver"] / spent,
        "share of screening, part of the driver's": took["screening"] / spent,
        "driver, milliseconds a candidate": 1e3 * took["driver"] / len(found),
        "workers busy, of wall time": took["training"] / (workers * took["wall"]),
        "candidates a second": len(found) / took["wall"],
        "seconds": took,
    }


def _lines(value: Any, indent: str = "") -> None:
    for name, entry in value.items():
        if isinstance(entry, dict):
            print(f"{indent}{name}:")
            _lines(entry, indent + "  ")
        elif isinstance(entry, list):
            print(f"{indent}{name}: {' '.join(f'{number:.3f}' for number in entry)}")
        else:
            print(f"{indent}{name}: {entry:.4g}" if isinstance(entry, float) else f"{indent}{name}: {entry}")


def main() -> None:
    """Run the benchmark."""
    defaults = SearchConfig()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=processors())
    parser.add_argument("--population", type=int, default=defaults.population)
    parser.add_argument("--tournament", type=int, default=defaults.tournament)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", default="digits-mlp")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    config = RunConfig(
        seed=arguments.seed,
        search=SearchConfig(
            budget=arguments.candidates, population=arguments.population, tournament=arguments.tournament
        ),
        stages=(StageConfig(arguments.task),),
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        took = search(config, arguments.workers, folder)
        took["screening"] = screening_seconds(folder)
        figures = report(answers(folder), took, arguments.workers)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"python {' '.join(sys.argv)}")
    print(f"{cpu_class()}, {processors()} processors, {arguments.workers} workers")
    _lines(figures)


if __name__ == "__main__":
    main()
