"""Memory of a worker: how large one process is after some and after ten times as many distinct candidates.

Candidates are mutations of known programs, some steps away, with texts that never repeat; each is encoded and
interpreted on a short schedule in this process, as in a worker. `--compile-every N` compiles each N-th of them, as
happens to survivors. The resident size is given at both counts, and on the way.

    python benchmarks/evaluation/memory.py [--candidates 20000] [--steps 20] [--task NAME] [--compile-every N]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from evolion.evaluators.environment import cpu_class, prepare, processors

prepare()  # before jax starts: one thread, as in a worker

import jax  # noqa: E402
import numpy as np  # noqa: E402

from evolion.discovered.library import known  # noqa: E402
from evolion.evaluators.compiled import compiled_loops  # noqa: E402
from evolion.evaluators.encoding import CapacityError, encode  # noqa: E402
from evolion.evaluators.evaluate import evaluate_compiled, evaluate_job  # noqa: E402
from evolion.evaluators.types import Job  # noqa: E402
from evolion.primitives.keys import ProbeStatus, probe  # noqa: E402
from evolion.primitives.program import Program  # noqa: E402
from evolion.search.mutation import MutationConfig, mutate  # noqa: E402

SHARE = 10
"""The first figure is taken after the candidates divided by this."""


def resident() -> float:
    """Return the resident size of this process in megabytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def candidates() -> Iterator[Program]:
    """Yield distinct programs that can be interpreted and stay within bounds on the probe."""
    rng, seen = np.random.default_rng(0), set()
    seeds = [known()[name] for name in ("adamw_seed", "adamw", "lion")]
    while True:
        for seed in seeds:
            child, config = seed, MutationConfig(maximum_statements=30).for_seed(seed)
            for _ in range(int(rng.integers(1, 8))):
                child, _ = mutate(child, rng, config)
            text = hash(str(child))  # 64 bits: the texts themselves would be what grows
            if text not in seen and probe(child).status is ProbeStatus.OK and fits(child):
                seen.add(text)
                yield child


def fits(program: Program) -> bool:
    """Say whether a program can be interpreted."""
    try:
        encode(program)
    except CapacityError:
        return False
    return True


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--task", default="digits-mlp")
    parser.add_argument("--compile-every", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    print(f"python {' '.join(sys.argv)}")
    print(f"{cpu_class()}, {processors()} processors, jax {jax.__version__}, one thread", flush=True)
    early, started, sizes = arguments.candidates // SHARE, time.perf_counter(), {}
    source = candidates()
    for number in range(1, arguments.candidates + 1):
        compiles = arguments.compile_every and number % arguments.compile_every == 0
        job = Job(number, next(source), arguments.task, arguments.steps, (0,), (1e-3,))
        (evaluate_compiled if compiles else evaluate_job)(job)
        if number % max(1, early) == 0 or number == arguments.candidates:
            gc.collect()
            sizes[number] = resident()
            seconds = time.perf_counter() - started
            print(f"  after {number:7,} candidates {sizes[number]:8.1f} MB {seconds:8.0f} s", flush=True)
    ratio = sizes[arguments.candidates] / sizes[max(1, early)]
    print(f"resident size after {arguments.candidates:,} over that after {early:,}: {ratio:.3f}")
    print(f"compiled for one program each: {compiled_loops()}")


if __name__ == "__main__":
    main()
