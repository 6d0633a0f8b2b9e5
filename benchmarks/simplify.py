"""What simplification costs and removes, on children of AdamW and on random programs, and what a search would save.

Run: python benchmarks/simplify.py [--programs N] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evolion.discovered.library import known, load
from evolion.primitives.keys import behavioural_key, structural_key
from evolion.primitives.program import Program
from evolion.primitives.simplify import simplify
from evolion.search.mutation import MutationConfig, mutate
from evolion.search.random_search import random_program

ADAMW = known()["adamw_seed"]
CONFIG = MutationConfig().for_seed(ADAMW)
LION_RAW = load(str(Path(__file__).parent / "lion_raw.txt"))


def lineage(count: int, generations: int) -> Iterator[Program]:
    """Yield descendants of AdamW; every line starts anew after so many generations."""
    program = ADAMW
    for number in range(count):
        program, _ = mutate(ADAMW if number % generations == 0 else program, np.random.default_rng([0, number]), CONFIG)
        yield program


def figures(programs: list[Program], exact: bool) -> dict[str, float]:
    """Milliseconds a program, and the share of live statements and of distinct structures that goes."""
    times, shorter = [], []
    for program in programs:
        start = time.perf_counter()
        shorter.append(simplify(program, exact=exact))
        times.append(1e3 * (time.perf_counter() - start))
    before = sum(len(program.statements) for program in programs)
    structures = len({structural_key(program) for program in programs})
    return {
        "milliseconds, median": statistics.median(times),
        "milliseconds, 99 %": float(np.quantile(times, 0.99)),
        "live statements": before / len(programs),
        "statements removed": 1.0 - sum(len(program.statements) for program in shorter) / before,
        "programs made shorter": float(
            np.mean([len(b.statements) < len(a.statements) for a, b in zip(programs, shorter, strict=True)])
        ),
        "distinct structures": structures,
        "distinct structures after": len({structural_key(program) for program in shorter}),
        "distinct behaviours": len({behavioural_key(program) for program in programs}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=2000, help="number of programs of each sort")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    count = options.programs
    sorts = {
        "children of AdamW": list(lineage(count, 1)),
        "descendants of AdamW, up to 50 generations": list(lineage(count, 50)),
        "random, 20 statements": [
            random_program(np.random.default_rng([1, n]), CONFIG, (20, 20), protected=n % 2 == 0) for n in range(count)
        ],
        "Lion's raw program": [LION_RAW] * 50,
    }
    simplify(LION_RAW, exact=True)  # the rules are read at their first use
    simplify(LION_RAW, exact=False)
    rows = {
        f"{name}, {'exact' if exact else 'approximate'}": figures(programs, exact)
        for name, programs in sorts.items()
        for exact in (True, False)
    }
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for title, table in rows.items():
        print(title)
        for name, value in table.items():
            share = name in ("statements removed", "programs made shorter")
            print(f"  {name:<28}{value:>10.1%}" if share else f"  {name:<28}{value:>10.2f}")


if __name__ == "__main__":
    main()
