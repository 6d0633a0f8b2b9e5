"""What mutation, checks and keys cost, and what mutation makes of AdamW.

Run: python benchmarks/language.py [--children N] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from evolion.primitives.keys import behavioural_key, probe, structural_key
from evolion.primitives.parser import parse
from evolion.primitives.program import Program, infer_kinds
from evolion.search.mutation import MUTATIONS, MutationConfig, mutate

ADAMW = parse("""
def train(w, g, m, v, lr, t, *, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01):
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    mhat = m / (1 - b1 ** t)
    vhat = v / (1 - b2 ** t)
    update = mhat / (sqrt(vhat) + eps) + weight_decay * w
    update = lr * update
    return update, m, v
""")
CONFIG = MutationConfig().for_seed(ADAMW)


def median_microseconds(action: Callable[[int], object], count: int) -> float:
    times = []
    for number in range(count):
        start = time.perf_counter()
        action(number)
        times.append(time.perf_counter() - start)
    return round(1e6 * statistics.median(times), 1)


def costs(children: list[Program]) -> dict[str, float]:
    """Median microseconds; `mutate` includes the check of the child and its structural key."""
    count = len(children)
    generators = [np.random.default_rng([0, number]) for number in range(count)]
    texts = [str(child) for child in children]
    return {
        "mutate, check, structural key": median_microseconds(lambda i: mutate(ADAMW, generators[i], CONFIG), count),
        "of which check": median_microseconds(lambda i: infer_kinds(children[i]), count),
        "of which structural key": median_microseconds(lambda i: structural_key(children[i]), count),
        "behavioural key": median_microseconds(lambda i: behavioural_key(children[i]), count),
        "parse": median_microseconds(lambda i: parse(texts[i]), count),
        "print": median_microseconds(lambda i: str(children[i]), count),
    }


def shares(children: list[Program]) -> dict[str, float]:
    """What the children of AdamW are worth; a child that exists is valid and has no dead code."""
    count = len(children)
    structures = {structural_key(child) for child in children}
    status = Counter(probe(child).status for child in children)
    behaviours = {behavioural_key(child) for child in children}
    return {
        "update always zero": status["dead"] / count,
        "update not finite or unbounded": status["unbounded"] / count,
        "repeats of a structure": 1.0 - len(structures) / count,
        "repeats of a behaviour": 1.0 - len(behaviours) / count,
    }


def refused(count: int) -> dict[str, float]:
    """How many single edits lead to no child: the kinds do not fit, or there is nothing to draw."""
    table = {}
    for name in (name for name, weight in CONFIG.weights if weight):
        failed = sum(
            MUTATIONS[name].apply(ADAMW, np.random.default_rng([1, number]), CONFIG) is None for number in range(count)
        )
        table[f"edits refused: {name}"] = failed / count
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--children", type=int, default=2000, help="number of children of AdamW")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    children = [mutate(ADAMW, np.random.default_rng([0, n]), CONFIG)[0] for n in range(options.children)]
    rows = {"microseconds": costs(children), "shares": shares(children) | refused(options.children)}
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for title, table in rows.items():
        print(f"{title} ({options.children} children of AdamW, {len(ADAMW.statements)} statements)")
        for name, value in table.items():
            print(f"  {name:<34}{value:>10.1%}" if title == "shares" else f"  {name:<34}{value:>10.1f}")


if __name__ == "__main__":
    main()
