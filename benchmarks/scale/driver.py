"""What the driver of a search takes for a candidate, where evaluations return at once.

    python benchmarks/scale/driver.py [--candidates 10000] [--length 15] [--vocabulary lion] [--seed 0] [--json]

A search as a configuration runs it, on one core, with an evaluator that trains nothing: its loss is lowest for
programs of so many statements as `--length` says. AdamW in full has 15, the warm start 8; candidates of the searches
in docs/search.md have 7 on average. Twice: with the structural key alone, where every program with a new one gets a
score of its own, and with the behavioural key and the trial of descent. Then the parts by themselves on the candidates
of the first search, and the floor: drawing a generator, the digests of the key, the text and the rows in the store,
written by a loop that does nothing else. Processor seconds, of which a busy machine takes up to twice as many; the
budget is 3,000 candidates a second with the structural key, 600 with the behavioural one, and 2 kB of store for a
candidate.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from evolion.config import ConfirmationConfig, RunConfig, SearchConfig, StageConfig, program_of
from evolion.evaluators.types import Job, PoolStatus
from evolion.funnel import run_search
from evolion.ledger import Ledger
from evolion.primitives.descent import descent
from evolion.primitives.keys import ProbeStatus, probe, structural_key
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.primitives.screening import Screened
from evolion.progress import silent
from evolion.proxies.registry import get_task
from evolion.proxies.score import Run, Score, Status
from evolion.records import CandidateRecord
from evolion.search.mutation import breed, mutation_config
from evolion.store import RunStore

BUDGETS = {"structural key": 3000.0, "behavioural key": 600.0}
BYTES = 2048
SAMPLE = 2000
"""The parts are measured on so many candidates, the last ones."""


@dataclass(slots=True)
class AtOnce:
    """An evaluator that trains nothing."""

    workers: int = 1
    numerics: str = "at once"
    length: int = 15
    jobs: list[Job] = field(default_factory=list)

    @property
    def status(self) -> PoolStatus:
        """One worker that is never busy."""
        return PoolStatus(1, 1)

    def numerics_of(self, device: str) -> str:
        """One class alone."""
        return self.numerics

    def submit(self, job: Job) -> None:
        """Keep a job for the next `collect`."""
        self.jobs.append(job)

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        """Answer what was submitted."""
        jobs, self.jobs = self.jobs, []
        return [(job, score_of(job, self.length)) for job in jobs]

    def close(self) -> None:
        """Nothing to close."""


@cache
def _code(word: str) -> int:
    """A number for a word that is the same in every process, as hashes of texts are not."""
    return crc32(word.encode())


def score_of(job: Job, length: int = 15) -> Score:
    """A score that hangs on the program alone: the loss is lowest at a length."""
    program = job.program
    # Hardly two alike: with many equally good ones the search would confirm them all.
    words = [word for statement in program.statements for word in (statement.op, *statement.args)]
    noise = hash(tuple([_code(word) if isinstance(word, str) else word for word in words])) % 2**32 / 2**32
    loss = 1.0 + abs(len(program.statements) - length) / length + 0.1 * noise
    runs = tuple(Run(rate, seed, Status.OK, loss, loss, job.steps) for rate in job.learning_rates for seed in job.seeds)
    return Score(Status.OK, loss, (loss,) * 20, job.steps, 0.0, loss, job.learning_rates[0], runs)


@dataclass(frozen=True, slots=True)
class ByStructure:
    """A screen that lets every program pass under its structural key."""

    def check(self, program: Program, structure: str) -> Screened:
        """Look at nothing."""
        return Screened(program, structure, ProbeStatus.OK)


def search(config: RunConfig, folder: Path, screen: Any, length: int) -> tuple[dict[str, float], list[CandidateRecord]]:
    """Run a search and return what it took, and its candidates."""
    for stage in config.stages:
        # Opening the data is no part of a candidate; the digest is what asks for them.
        _ = get_task(stage.task).digest
    gc.collect()
    with RunStore.create(folder, config, {"numerics": AtOnce().numerics}) as store:
        ledger, seed_program = Ledger(store, AtOnce(length=length)), program_of(config.search.warm_start)
        wall, processor = time.perf_counter(), time.process_time()
        run_search(config, seed_program, ledger, silent(), screen=screen)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        records = list(store.candidates())
    written = sum(path.stat().st_size for path in folder.iterdir() if path.name.startswith("run.sqlite"))
    count = len(records)
    figures = {
        "candidates a second of processor time": count / processor,
        "candidates a second of wall time": count / wall,
        "milliseconds a candidate": 1e3 * processor / count,
        "bytes of store a candidate": written / count,
        "mean statements": sum(record.text.count("\n") for record in records) / count - 2.0,
    }
    return figures, records


def microseconds(action: Callable[[int], object], count: int) -> float:
    """Return the processor time of an action on each of so many things, the least of three rounds."""
    rounds = []
    for _ in range(3):
        start = time.process_time()
        for number in range(count):
            action(number)
        rounds.append(1e6 * (time.process_time() - start) / count)
    return min(rounds)


def parts(config: RunConfig, records: Sequence[CandidateRecord]) -> dict[str, float]:
    """Return the microseconds of what is done for a candidate, each by itself."""
    known = {record.number: record.text for record in records}
    sample = [record for record in records if record.parent is not None][-SAMPLE:]
    parents = {number: parse(known[number]) for number in {record.parent for record in sample if record.parent}}
    start = parse(known[0])
    bred_from = [parents.get(record.parent or 0, start) for record in sample]
    programs, count = [parse(record.text) for record in sample], len(sample)
    settings = mutation_config(
        config.search.vocabulary, tuple(asdict(config.search.mutations).items()), config.search.maximum_statements
    ).for_seed(start)
    seeds = itertools.count()  # other children in every round, as those of the round before are remembered
    descending = [program for program in programs if probe(program).status is ProbeStatus.OK]
    return {
        "breed, a child and its structural key": microseconds(
            lambda i: breed(bred_from[i], np.random.default_rng([1, next(seeds)]), settings), count
        ),
        "structural key": microseconds(lambda i: structural_key(programs[i]), count),
        "print": microseconds(lambda i: str(programs[i]), count),
        "parse": microseconds(lambda i: parse(sample[i].text), count),
        "behavioural key": microseconds(lambda i: probe(programs[i]), count),
        "trial of descent": microseconds(lambda i: descent(descending[i]), len(descending)),
    }


def floor(records: Sequence[CandidateRecord], folder: Path) -> float:
    """Return the microseconds of what no driver can do without."""
    programs = [parse(record.text) for record in records[-SAMPLE:]]
    rows = [(r.number, r.parent, r.mutation, r.text, r.structural_key, r.behaviour_key) for r in records[-SAMPLE:]]
    database = sqlite3.connect(folder / "floor.sqlite")
    database.execute("CREATE TABLE candidates (number INTEGER PRIMARY KEY, parent, mutation, text, one, other)")
    database.execute("CREATE TABLE outcomes (number INTEGER PRIMARY KEY, fitness)")

    def once(number: int) -> None:
        np.random.default_rng([1, number])
        for statement in programs[number].statements:
            blake2b(statement.op.encode() + b"0123456789abcdef" * len(statement.args), digest_size=16).digest()
        "\n".join([statement.target for statement in programs[number].statements])
        database.execute("INSERT OR REPLACE INTO candidates VALUES (?, ?, ?, ?, ?, ?)", rows[number])
        database.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?)", (number, "[1.0]"))

    try:
        return microseconds(once, len(programs))
    finally:
        database.close()


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return all figures."""
    config = RunConfig(
        seed=arguments.seed,
        search=SearchConfig(budget=arguments.candidates, vocabulary=arguments.vocabulary),
        stages=(StageConfig("digits-mlp"),),
        confirmation=ConfirmationConfig(share=0.0),
    )
    structural, records = search(config, folder / "structural", ByStructure(), arguments.length)
    # So many that the slower search takes no longer than the other.
    fewer = replace(config, search=replace(config.search, budget=max(100, arguments.candidates // 4)))
    behavioural, _ = search(fewer, folder / "behavioural", None, arguments.length)
    least = floor(records, folder)
    return {
        "structural key": structural | {"times the floor": 1e3 * structural["milliseconds a candidate"] / least},
        "behavioural key": behavioural,
        "microseconds": parts(config, records) | {"floor": least},
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--length", type=int, default=15)
    parser.add_argument("--vocabulary", choices=("lion", "full"), default="lion")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments, Path(folder))
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"python {' '.join(sys.argv)}")
    for part, table in figures.items():
        print(f"{part}:")
        for name, value in table.items():
            print(f"  {name:40s} {value:10.1f}")
    for name, budget in BUDGETS.items():
        rate, size = (figures[name][f] for f in ("candidates a second of processor time", "bytes of store a candidate"))
        print(f"{name}: {rate / budget:.2f} of the rate asked for, {size / BYTES:.2f} of the store allowed")


if __name__ == "__main__":
    main()
