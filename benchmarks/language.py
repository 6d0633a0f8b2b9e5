"""The language measured: what mutation, checks, keys, parsing and printing cost, and what programs are worth.

Beside it stand the figures of the published program class (google/automl, folder hero).

Run: python benchmarks/language.py [--programs N] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from evolion.primitives.keys import ProbeStatus, behavioural_key, probe, structural_key
from evolion.primitives.kinds import Kind
from evolion.primitives.ops import LION, VOCABULARIES
from evolion.primitives.parser import parse
from evolion.primitives.program import Program, ProgramError, Statement, infer_kinds
from evolion.primitives.simplify import simplify
from evolion.search.mutation import MutationConfig, breed, mutation_config
from evolion.search.random_search import random_program

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
LENGTHS = (18, 22)
CLASS_FUNCTIONS = 45
"""The functions of the published class; two of them, bitwise `invert` and logical `not`, mean nothing on floats."""

PUBLISHED = {
    "functions usable": "43 of 45",
    "functions that insertion reaches": "44 of 45",
    "kinds of the first argument of interp": "1 (scalar)",
    "identities recognised by its hash": "3 of 10",
    "microseconds an insert": "650,000 to 830,000",
    "microseconds a hash": "125",
}
"""Its figures, measured on the release."""


def config(vocabulary: str, mutations: tuple[str, ...] = ("insert", "delete", "modify")) -> MutationConfig:
    weights = tuple((name, 1.0) for name in mutations)
    return replace(mutation_config(vocabulary, weights, 60), attempts=5000).for_seed(ADAMW)


def median_microseconds(action: Callable[[int], object], count: int) -> float:
    times = []
    for number in range(count):
        start = time.perf_counter()
        action(number)
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def children(vocabulary: str, count: int) -> list[Program]:
    settings = config(vocabulary)
    return [breed(ADAMW, np.random.default_rng([0, number]), settings).program for number in range(count)]


def costs(vocabulary: str, programs: list[Program]) -> dict[str, dict[str, float]]:
    """Median microseconds over the children of AdamW, and each as a multiple of `ast.parse` of the same texts."""
    count = len(programs)
    settings = config(vocabulary)
    generators = [np.random.default_rng([0, number]) for number in range(count)]
    texts = [str(program) for program in programs]
    actions: dict[str, Callable[[int], object]] = {
        "yardstick: ast.parse of the text": lambda i: ast.parse(texts[i]),
        "yardstick: blake2b of the text": lambda i: hashlib.blake2b(texts[i].encode(), digest_size=16).digest(),
        "mutation, check and structural key": lambda i: breed(ADAMW, generators[i], settings),
        "check": lambda i: infer_kinds(programs[i]),
        "structural key": lambda i: structural_key(programs[i]),
        "behavioural key": lambda i: behavioural_key(programs[i]),
        "parse": lambda i: parse(texts[i]),
        "print": lambda i: str(programs[i]),
        "simplify, exact rules": lambda i: simplify(programs[i]),
    }
    for action in actions.values():
        action(0)
    medians = {name: median_microseconds(action, count) for name, action in actions.items()}
    yardstick = next(iter(medians.values()))
    return {
        name: {"microseconds": round(value, 1), "ratio to ast.parse": round(value / yardstick, 2)}
        for name, value in medians.items()
    }


def drawn(vocabulary: str, number: int) -> str:
    return str(random_program(np.random.default_rng([2, number]), config(vocabulary), LENGTHS))


def random_texts(vocabulary: str, count: int) -> list[str]:
    # Drawing a program without dead code of a given length takes many attempts.
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(partial(drawn, vocabulary), range(count), chunksize=20))


def shares(texts: list[str]) -> dict[str, float]:
    """What programs are worth: shares of all of them."""
    programs = []
    for text in texts:
        try:
            programs.append(parse(text))
        except ProgramError:
            continue
    probes = [probe(program) for program in programs]
    status = Counter(found.status for found in probes)
    count = len(texts)
    structures = {structural_key(program) for program in programs}
    return {
        "programs": count,
        "invalid": 1.0 - len(programs) / count,
        "update always zero": status[ProbeStatus.DEAD] / count,
        "update not finite or unbounded": status[ProbeStatus.UNBOUNDED] / count,
        "repeats of a structure": 1.0 - len(structures) / count,
        "repeats of a behaviour": 1.0 - len({found.key for found in probes}) / count,
    }


def of(expression: str) -> Program:
    return parse(f"def train(w, g, lr, m):\n    m = interp(g, m, 0.9)\n    return {expression}, m\n")


def two_slots(first: str, second: str, body: tuple[str, str], slots: str) -> Program:
    head = f"def train(g, lr, {slots}):\n    {body[0]}\n    {body[1]}\n"
    return parse(f"{head}    return lr * {first} / sqrt({second}), {slots}\n")


def identities() -> dict[str, tuple[Program, Program]]:
    """The ten of the comparison with the published class."""
    moments = ("m = interp(g, m, 0.9)", "v = interp(square(g), v, 0.99)")
    plain = two_slots("m", "v", moments, "m, v")
    renamed = two_slots("a", "b", ("b = interp(square(g), b, 0.99)", "a = interp(g, a, 0.9)"), "a, b")
    dead = str(plain).replace("    return", "    z = cos(g)\n    return").replace("(g, lr", "(g, w, lr")
    return {
        "a + b = b + a": (of("w + g"), of("g + w")),
        "a - a = 0": (of("w + (g - g)"), of("w")),
        "x * 1 = x": (of("g * 1"), of("g")),
        "interp(x, y, 0) = x": (of("interp(g, w, 0)"), of("g")),
        "sqrt(square(x)) = abs(x)": (of("sqrt(square(w))"), of("abs(w)")),
        "x / abs(x) = sign(x)": (of("w / abs(w)"), of("sign(w)")),
        "renamed and reordered": (plain, renamed),
        "dead code": (plain, parse(dead)),
        "swapped slots": (plain, two_slots("m", "v", moments, "v, m")),
        "interp(x, y, a) = x + a (y - x)": (of("interp(w, g, lr)"), of("w + lr * (g - w)")),
    }


def recognised(key: Callable[[Program], str]) -> str:
    pairs = identities().values()
    return f"{sum(key(one) == key(other) for one, other in pairs)} of {len(pairs)}"


def inserted(child: Program) -> list[Statement]:
    """The statements of a child of AdamW by insertion that were not there before, names apart."""
    before = Counter(statement.op for statement in ADAMW.statements)
    found = []
    for statement in child.statements:
        before[statement.op] -= 1
        if before[statement.op] < 0:
            found.append(statement)
    return found


def reached(vocabulary: str, limit: int) -> dict[str, object]:
    """Draw insertions until every op was inserted and gave a finite update, or the limit is reached."""
    settings = config(vocabulary, ("insert",))
    seen: set[str] = set()
    usable: set[str] = set()
    first_of_interp: set[Kind] = set()
    times = []
    for number in range(limit):
        rng = np.random.default_rng([3, number])
        start = time.perf_counter()
        child = breed(ADAMW, rng, settings).program
        times.append(time.perf_counter() - start)
        new = inserted(child)
        seen |= {statement.op for statement in new}
        if (
            not usable.issuperset(statement.op for statement in new)
            and probe(child).status is not ProbeStatus.UNBOUNDED
        ):
            usable |= {statement.op for statement in new}
        if "interp" in {statement.op for statement in new}:
            first_of_interp |= interp_kinds(child)
    names = set(VOCABULARIES[vocabulary])
    return {
        "seen": len(seen & names),
        "usable": usable & names,
        "ops": len(names),
        "interp": sorted(map(str, first_of_interp)),
        "insert": 1e6 * statistics.median(times),
    }


def interp_kinds(program: Program) -> set[Kind]:
    scope = {parameter.name: parameter.kind for parameter in program.parameters}
    scope |= dict.fromkeys([h.name for h in program.hyperparameters], Kind.SCALAR)
    found = set()
    for statement, kind in zip(program.statements, infer_kinds(program), strict=True):
        if statement.op == "interp":
            first = statement.args[0]
            found.add(scope[first] if isinstance(first, str) else Kind.SCALAR)
        scope[statement.target] = kind
    return found


def comparison(limit: int, programs: list[Program]) -> dict[str, dict[str, str]]:
    """Our figures beside those of the published class."""
    lion, full = reached("lion", limit), reached("full", limit)
    count = len(programs)
    structural = median_microseconds(lambda i: structural_key(programs[i]), count)
    behavioural = median_microseconds(lambda i: behavioural_key(programs[i]), count)
    # `negative` is one function more than the class's 43 that mean something on floats: there it is `0 - x` as well.
    of_the_class = len(set(lion["usable"]) & set(LION)) - (len(LION) - (CLASS_FUNCTIONS - 2))
    ours = {
        "functions usable": f"{of_the_class} of {CLASS_FUNCTIONS}; full: {len(set(full['usable']))} of {full['ops']}",
        "functions that insertion reaches": f"{lion['seen']} of {lion['ops']}; full: {full['seen']} of {full['ops']}",
        "kinds of the first argument of interp": f"{len(full['interp'])} ({', '.join(full['interp'])})",
        "identities recognised by its hash": (
            f"behavioural {recognised(behavioural_key)}; structural {recognised(structural_key)}, after exact rules "
            f"{recognised(lambda p: structural_key(simplify(p)))}, after approximate ones "
            f"{recognised(lambda p: structural_key(simplify(simplify(p), exact=False)))}"
        ),
        "microseconds an insert": f"{lion['insert']:.0f}; full: {full['insert']:.0f} (checked, with structural key)",
        "microseconds a hash": f"structural {structural:.0f}; behavioural {behavioural:.0f}",
    }
    return {name: {"published class": PUBLISHED[name], "ours": value} for name, value in ours.items()}


def measured(count: int, limit: int) -> dict[str, dict[str, dict[str, object]]]:
    offspring = {vocabulary: children(vocabulary, count) for vocabulary in VOCABULARIES}
    sets = {f"children of AdamW, {name}": [str(child) for child in found] for name, found in offspring.items()}
    drawn_at_random = f"random, {LENGTHS[0]} to {LENGTHS[1]} statements"
    sets |= {f"{drawn_at_random}, {name}": random_texts(name, count) for name in VOCABULARIES}
    tables = {f"cost of children of AdamW, {name}": costs(name, found) for name, found in offspring.items()}
    return tables | {
        "shares": {name: shares(texts) for name, texts in sets.items()},
        "comparison": comparison(limit, offspring["lion"]),
    }


def printed(value: object) -> str:
    return f"{value:.1%}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=2000, help="number of random programs, and of children")
    parser.add_argument("--quick", action="store_true", help="a smoke test: 40 programs of each sort")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    count = 40 if options.quick else options.programs
    tables = measured(count, limit=10 * count if options.quick else 10_000)
    if options.json:
        print(json.dumps(tables, indent=2))
        return
    for title, rows in tables.items():
        columns = list(next(iter(rows.values())))
        print(f"| {title} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
        for name, row in rows.items():
            cells = row.values() if title != "shares" else map(printed, row.values())
            print(f"| {name} | {' | '.join(map(str, cells))} |")
        print()


if __name__ == "__main__":
    main()
