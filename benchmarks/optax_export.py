"""Exported transforms beside Optax's own hand-written ones: time of an update, state, init and first compilation.

    python benchmarks/optax_export.py [NAME ...] [--json] [--repetitions 9] [--leaves 50] [--parameters 10000000]

For each name that both have there are three transforms: Optax's, that of `evolion.to_optax`, and that of the module
that `evolion export --to optax` writes. All figures of the last two are ratios to the first. A repetition takes one
update of each in turn, the state donated, so that what else the machine does falls on all alike; the ratio is the
median over the repetitions. Eager `init`, and tracing and compiling an update, are timed in turn likewise. Traffic is
the bytes that an update reads and writes as XLA counts them, state the bytes of all arrays of the state. Names whose
third update is not Optax's are refused: the rules would differ.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# The CPU, and no compiled program from an earlier run.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

import jax
import jax.numpy as jnp
import numpy as np
import optax

from evolion.discovered.library import known
from evolion.discovered.optax_source import to_source
from evolion.discovered.optax_transform import to_optax

RATE = 1e-3
SIDES = ("optax", "transform", "module")
LARGEST_GAP = 1e-3
"""A rule whose third update differs more, relative to its largest entry, is another rule."""

Make = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """One rule that both have: Optax's transform and the hyperparameters that make the program the same rule."""

    theirs: Make
    hyperparameters: Mapping[str, Any]


def pair(theirs: Make, **hyperparameters: Any) -> Pair:
    return Pair(theirs, hyperparameters)


PAIRS: Mapping[str, Pair] = {
    "sgd": pair(lambda: optax.sgd(RATE)),
    "momentum": pair(lambda: optax.sgd(RATE, 0.9)),
    "nesterov": pair(lambda: optax.sgd(RATE, 0.9, nesterov=True)),
    "signsgd": pair(lambda: optax.sign_sgd(RATE)),
    "signum": pair(lambda: optax.signum(RATE)),
    "lion": pair(lambda: optax.lion(RATE)),
    "rmsprop": pair(lambda: optax.rmsprop(RATE)),
    "rmsprop_centered": pair(lambda: optax.rmsprop(RATE, decay=0.99, eps_in_sqrt=False, centered=True)),
    "adagrad": pair(lambda: optax.adagrad(RATE)),
    "adadelta": pair(lambda: optax.adadelta(RATE)),
    "adam": pair(lambda: optax.adam(RATE)),
    "adamw": pair(lambda: optax.adamw(RATE)),
    "nadam_constant": pair(lambda: optax.nadam(RATE)),
    "nadamw": pair(lambda: optax.nadamw(RATE)),
    "radam": pair(lambda: optax.radam(RATE)),
    "amsgrad": pair(lambda: optax.amsgrad(RATE)),
    "adamax": pair(lambda: optax.adamax(RATE)),
    "yogi": pair(lambda: optax.yogi(RATE)),
    "adabelief": pair(lambda: optax.adabelief(RATE)),
    "adan": pair(lambda: optax.adan(RATE, eps_root=0.0, weight_decay=0.02)),
    "optimistic_adam": pair(lambda: optax.optimistic_adam_v2(RATE, alpha=1.0, beta=1.0, nesterov=False)),
    "novograd": pair(lambda: optax.novograd(RATE)),
    "lamb": pair(lambda: optax.lamb(RATE)),
    "lars": pair(lambda: optax.lars(RATE, 1e-4), eps=0.0),
    "sm3": pair(lambda: optax.sm3(RATE)),
    "adafactor": pair(lambda: optax.adafactor(RATE, momentum=0.9), momentum=0.9),
    "ademamix": pair(lambda: optax.contrib.ademamix(RATE, weight_decay=0.1)),
    "simplified_ademamix": pair(lambda: optax.contrib.simplified_ademamix(RATE, alpha=10.0)),
    "adopt": pair(lambda: optax.contrib.adopt(RATE)),
    "schedule_free_adamw": pair(lambda: optax.contrib.schedule_free_adamw(RATE), weight_decay=0.0),
}


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one name: Optax's time of an update, and the ratios to Optax of each of our two sides."""

    name: str
    milliseconds: float
    time: Mapping[str, float | None]
    traffic: Mapping[str, float | None]
    state: Mapping[str, float | None]
    init: Mapping[str, float | None]
    compile: Mapping[str, float | None]
    gap: Mapping[str, float]


FIGURES = ("time", "traffic", "state", "init", "compile")

Times = dict[str, list[float]]


def tree(leaves: int, parameters: int, seed: int) -> dict[str, jax.Array]:
    """Half the leaves are square matrices, half are vectors of as many entries as a matrix has columns."""
    matrices = leaves // 2
    side = round((parameters / matrices) ** 0.5)
    shapes = [(side, side)] * matrices + [(side,)] * (leaves - matrices)
    rng = np.random.default_rng(seed)
    return {
        f"leaf{i:02}": jnp.asarray(rng.standard_normal(shape, np.float32) * np.float32(0.1))
        for i, shape in enumerate(shapes)
    }


def makers(name: str, shared: Pair, folder: Path) -> dict[str, Make]:
    """Return what makes a fresh transform, for each side."""
    program = known()[name]
    path = folder / f"{name}.py"
    path.write_text(to_source(program, "optax", name="optimizer", **shared.hyperparameters), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {
        "optax": shared.theirs,
        "transform": lambda: to_optax(program, RATE, **shared.hyperparameters),
        "module": lambda: module.optimizer(RATE),
    }


def in_turn(work: Callable[[str], Any], repetitions: int) -> Times:
    """Return milliseconds for each side, in another order every time; the first two rounds only warm up."""
    times: Times = {side: [] for side in SIDES}
    orders = itertools.cycle(itertools.permutations(SIDES))
    for repetition in range(repetitions + 2):
        for side in next(orders):
            start = time.perf_counter()
            jax.block_until_ready(work(side))
            if repetition > 1:
                times[side].append(1e3 * (time.perf_counter() - start))
    return times


def ratio(times: Times, side: str) -> float:
    return statistics.median(ours / theirs for ours, theirs in zip(times[side], times["optax"], strict=True))


def shapes(values: Any) -> Any:
    return jax.eval_shape(lambda: values)


def traffic(make: Make, params: Any) -> float:
    """Return the bytes that a compiled update reads and writes, as XLA counts them: free of the machine's noise."""
    tx = make()
    arguments = shapes(params), jax.eval_shape(tx.init, params), shapes(params)
    cost: Any = jax.jit(tx.update, donate_argnums=1).lower(*arguments).compile().cost_analysis()
    return float(cost["bytes accessed"])


def gaps(last: Mapping[str, Any]) -> dict[str, float]:
    """Return how far updates are from Optax's, relative to the largest entry."""
    flat = {
        side: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(updates)]) for side, updates in last.items()
    }
    scale = np.max(np.abs(flat["optax"]))
    return {side: float(np.max(np.abs(values - flat["optax"])) / scale) for side, values in flat.items()}


def update_times(make: Mapping[str, Make], trees: tuple[Any, Any], repetitions: int) -> tuple[Times, dict[str, float]]:
    """Time updates in turn; before that, compare the third ones."""
    params, gradients = trees
    updates = {side: jax.jit(m().update, donate_argnums=1) for side, m in make.items()}
    # Copies, as some states share arrays among themselves or with the parameters: none may be donated twice.
    state = {side: jax.tree.map(jnp.copy, m().init(params)) for side, m in make.items()}

    def step(side: str) -> Any:
        change, state[side] = updates[side](gradients, state[side], params)
        return change

    gap = gaps({side: [step(side) for _ in range(3)][-1] for side in SIDES})
    return in_turn(step, repetitions), gap


def measure(name: str, shared: Pair, folder: Path, trees: tuple[Any, Any], options: argparse.Namespace) -> Row:
    """Take all figures of one name."""
    params, gradients = trees
    make = makers(name, shared, folder)
    inits = in_turn(lambda side: make[side]().init(params), options.repetitions)
    states = {side: shapes(m().init(params)) for side, m in make.items()}
    abstract = shapes(gradients), shapes(params)

    def first_call(side: str) -> None:
        jax.jit(make[side]().update).lower(abstract[0], states[side], abstract[1]).compile()

    compilations = in_turn(first_call, options.compiles)
    size = {
        side: float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)))
        for side, state in states.items()
    }
    times, gap = update_times(make, trees, options.repetitions)
    return Row(
        name=name,
        milliseconds=statistics.median(times["optax"]),
        time={side: ratio(times, side) for side in SIDES[1:]},
        traffic=quotients({side: traffic(m, params) for side, m in make.items()}),
        state=quotients(size),
        init=quotients({side: statistics.median(values) for side, values in inits.items()}),
        compile=quotients({side: statistics.median(values) for side, values in compilations.items()}),
        gap=gap,
    )


def quotients(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return ours by Optax's; None where Optax's is nothing."""
    return {side: values[side] / values["optax"] if values["optax"] else None for side in SIDES[1:]}


def summary(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return the median ratio over the names, for each side and figure."""
    return {
        side: {
            figure: statistics.median(value for row in rows if (value := getattr(row, figure)[side]) is not None)
            for figure in FIGURES
        }
        for side in SIDES[1:]
    }


def line(name: str, milliseconds: str, cells: Mapping[str, Sequence[Any]]) -> str:
    """Lay out one line of the table."""
    text = f"{name:20} {milliseconds:>8}"
    for side in SIDES[1:]:
        text += "  |" + "".join(
            f"{cell:8.2f}" if isinstance(cell, float) else f"{'-' if cell is None else cell:>8}" for cell in cells[side]
        )
    return text


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(PAIRS)}")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--compiles", type=int, default=3)
    parser.add_argument("--leaves", type=int, default=50)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in PAIRS]
    if unknown:
        parser.error(f"no shared name {unknown[0]!r}; there are: {', '.join(PAIRS)}")
    trees = tree(options.leaves, options.parameters, 0), tree(options.leaves, options.parameters, 1)
    rows = []
    if not options.json:
        print(line("", "optax ms", {side: [side, "", "", "", ""] for side in SIDES[1:]}))
        print(line("", "", dict.fromkeys(SIDES[1:], FIGURES)))
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names or PAIRS:
            rows.append(measure(name, PAIRS[name], Path(folder), trees, options))
            row = rows[-1]
            far = max(row.gap.values())
            if far > LARGEST_GAP:
                sys.exit(f"{name}: updates differ from Optax's by {far:.1e} of the largest: not the same rule")
            if not options.json:
                cells = {side: [getattr(row, figure)[side] for figure in FIGURES] for side in SIDES[1:]}
                print(line(name, f"{row.milliseconds:.1f}", cells), flush=True)
    medians = summary(rows)
    if options.json:
        json.dump({"rows": [asdict(row) for row in rows], "medians": medians}, sys.stdout, indent=1)
    else:
        print(line("median", "", {side: list(medians[side].values()) for side in SIDES[1:]}))


if __name__ == "__main__":
    main()
