"""What interpreting and compiling cost: fits the constants of `evaluators/promotion.py` and says how well they fit.

Everything is in processor seconds, which other work on the machine disturbs less than it does the clock. Compilations
are real ones: jax's persistent cache is off. Where a program is interpreted and compiled, the runs alternate.

    python benchmarks/evaluation/promotion.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from evolion.evaluators.environment import cpu_class, prepare, processors

prepare()  # before jax starts: one thread, as in a worker

import jax  # noqa: E402
import numpy as np  # noqa: E402
from scipy.optimize import nnls  # noqa: E402

from evolion.discovered.library import known  # noqa: E402
from evolion.evaluators.compiled import compile_and_run  # noqa: E402
from evolion.evaluators.encoding import encode, scalar_table  # noqa: E402
from evolion.evaluators.interpreter import interpret  # noqa: E402
from evolion.evaluators.promotion import COSTS, Costs, choose, size_of  # noqa: E402
from evolion.evaluators.types import Job  # noqa: E402
from evolion.primitives.dataflow import remove_dead_code  # noqa: E402
from evolion.primitives.parser import parse  # noqa: E402
from evolion.primitives.program import Program  # noqa: E402
from evolion.proxies.curvature import Curvature  # noqa: E402

FIRST = "def train(g):\n    return g\n"
LONG = "def train(g, lr):\n    x = g\n" + "    x = interp(sin(x), sqrt(abs(x)), 0.3)\n" * 20 + "    return lr * x\n"
COMPILED_TASKS = ("noisy-quadratic", "digits-mlp", "text-gru", "zipf-lm", "glyph-vit")
COMPILED: Mapping[str, Program] = {**{name: known()[name] for name in ("sgd", "adamw")}, "80 statements": parse(LONG)}
WIDTHS: Mapping[str, int] = {
    "noisy-quadratic": 500,
    "digits-mlp": 500,
    "digits-mlp:width=4": 300,
    "digits-mlp:width=12": 100,
}
"""Tasks of 0.5, 3, 26 and 177 thousand parameters, with the steps of a timed run."""

NOISE = "def train(g, lr, noise):\n    return lr * g + 0.0001 * noise\n"
INTERPRETED: Mapping[str, Program] = {
    **{name: known()[name] for name in ("sgd", "adamw", "lamb")},
    "noise": parse(NOISE),
}
INSTRUCTION = ("instruction", "entry", "whole_instruction", "whole_entry")
COMPILATION = ("loop", "equation", "statement")
DEARER = 1e-9


def seconds(run: Callable[[], Any]) -> float:
    """Return the processor seconds of one call, all threads."""
    start = time.process_time()
    jax.block_until_ready(run())
    return time.process_time() - start


def job(program: Program, task: str, steps: int = 1) -> Job:
    """Return a job of one run."""
    return Job(0, program, task, steps, (0,), (1e-3,))


def compiled(given: Job) -> Callable[[], Any]:
    """Return one training run by the compiled program; the first call compiles."""
    rates, program = np.full(given.steps, 1e-3, np.float32), remove_dead_code(given.program)
    return lambda: compile_and_run(program, rates, given.task, seed=0, split="validation", curvature=Curvature())


def interpreted(given: Job) -> Callable[[], Any]:
    """Return one training run by the interpreter, without the encoding, which both paths need."""
    rates, encoding = np.full(given.steps, 1e-3, np.float32), encode(given.program)
    table = scalar_table(encoding, rates)
    return lambda: interpret(encoding, table, given.task, seed=0, split="validation", curvature=Curvature())


def parts(given: Job, names: tuple[str, ...], *, compilation: bool) -> list[float]:
    """Return how often each constant enters the cost of a job: its cost where that constant alone is one."""
    size, encoding, found = size_of(given.task), encode(given.program), []
    for name in names:
        zeros = dict.fromkeys((*INSTRUCTION, *COMPILATION, "hessian"), 0.0)
        plan = choose(given, encoding, size, replace(COSTS, **(zeros | {name: 1.0})))
        found.append(plan.compilation_seconds if compilation else plan.interpretation_seconds)
    return found


def fitted(
    rows: list[tuple[str, list[float], float, float]], names: tuple[str, ...], digits: int = 2
) -> dict[str, float]:
    """Fit constants to (label, how often each enters, measured, weight), print how well, and return them rounded."""
    weights = np.array([weight for *_, weight in rows])
    matrix = np.array([entries for _, entries, _, _ in rows])
    measured = np.array([value for *_, value, _ in rows])
    values, _ = nnls(matrix * weights[:, None], measured * weights)
    found = {name: float(f"{value:.{digits - 1}e}") for name, value in zip(names, values, strict=True)}
    for (label, *_), true, model in zip(rows, measured, matrix @ values, strict=True):
        print(f"  {label:44}{true:14.3g} s measured {model:14.3g} s by the fit")
    return found


def compilations() -> dict[str, float]:
    """Compile some programs on some tasks, and fit what that costs."""
    rows = []
    for task in COMPILED_TASKS:
        jax.block_until_ready(compiled(job(parse(FIRST), task))())  # the data and weights of the task, too
        for name, program in COMPILED.items():
            run = compiled(job(program, task))
            value = seconds(run) - seconds(run)
            rows.append((f"{name} on {task}", parts(job(program, task), COMPILATION, compilation=True), value))
    print("\ncompiling")
    found = fitted([(*row, 1 / row[2]) for row in rows], COMPILATION)
    reader = job(known()["sophia_h"], "digits-mlp")
    run = compiled(reader)
    value = seconds(run) - seconds(run)
    costs = replace(COSTS, **found, hessian=0.0)
    without = choose(reader, None, size_of(reader.task), costs).compilation_seconds
    gradient = size_of(reader.task).equations * costs.equation
    print(f"  sophia_h on digits-mlp: {value:.3g} s measured, {without:.3g} s without its estimate of the Hessian")
    return found | {"hessian": max(0.0, round((value - without) / gradient, 1))}


def interpretations(repeats: int) -> dict[str, float]:
    """Time some programs interpreted and compiled, and fit the difference of their steps: that of what follows one."""
    rows = []
    for task, steps in WIDTHS.items():
        for name, program in INTERPRETED.items():
            one, all_steps = job(program, task), job(program, task, steps + 1)
            runs = [path(given) for given in (all_steps, one) for path in (interpreted, compiled)]
            for run in runs:
                seconds(run)
            # A run's start, such as clearing the registers of a large network, is not the instructions'.
            times = [[seconds(run) for run in runs] for _ in range(repeats)]
            difference = statistics.median(a - b - (c - d) for a, b, c, d in times)
            whole = statistics.median(b - d for _, b, _, d in times)
            label = f"{name} on {task}, {steps} steps ({1 + difference / whole:.2f} x)"
            rows.append(
                (label, parts(job(program, task, steps), INSTRUCTION, compilation=False), difference, 1 / whole)
            )
    print("\ninterpreting, above the compiled loop (x: over that loop)")
    return fitted(rows, INSTRUCTION)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"python {' '.join(sys.argv)}")
    print(f"{cpu_class()}, {processors()} processors, jax {jax.__version__}, one thread")
    found = compilations() | interpretations(arguments.repeats)
    print("\nconstants, those in use in brackets")
    for name, value in found.items():
        print(f"  {name:20}{value:10.3g} ({getattr(COSTS, name):.3g})")
    costs: Costs = replace(COSTS, **found)
    print("\nruns of adamw from which it is compiled, at each task's horizon")
    for task in (*WIDTHS, "zipf-lm", "glyph-vit", "ladder-100k", "ladder-1m"):
        print(f"  {task:24}{break_even(task, costs):12,}")


def break_even(task: str, costs: Costs) -> int:
    """Return the number of seeds and learning rates from which AdamW is compiled."""
    from evolion.proxies.registry import get_spec

    given = job(known()["adamw"], task, get_spec(task).steps)
    plan = choose(given, encode(given.program), size_of(task), costs)
    return int(costs.margin * plan.compilation_seconds / max(plan.interpretation_seconds, DEARER)) + 1


if __name__ == "__main__":
    main()
