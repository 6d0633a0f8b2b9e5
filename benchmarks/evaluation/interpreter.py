"""What one candidate costs: interpreted, compiled on its own, and against a hand-written fused loop.

The floor of an evaluation is its gradients, so each figure is given with that of a loop that does little else (plain
SGD). All contestants run in turn in one process; medians and ratios of pairs are printed.

    python benchmarks/evaluation.py [--repeats N] [--children N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from evolion.evaluators.environment import prepare

prepare()  # before jax starts: one thread, as in a worker

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from evolion.discovered.library import known  # noqa: E402
from evolion.evaluators.compiled import compile_and_run  # noqa: E402
from evolion.evaluators.encoding import encode, scalar_table  # noqa: E402
from evolion.evaluators.interpreter import interpret  # noqa: E402
from evolion.primitives.keys import ProbeStatus, probe  # noqa: E402
from evolion.primitives.program import Program  # noqa: E402
from evolion.proxies.registry import get_task  # noqa: E402
from evolion.proxies.schedules import multipliers, warmup_cosine  # noqa: E402
from evolion.search.mutation import MutationConfig, mutate  # noqa: E402

RATE = 1e-2


def fused(task_name: str, steps: int, tx: optax.GradientTransformation) -> Callable[[], Any]:
    """Return one training run by a loop that a person would write for one optimizer: everything in one scan."""
    task = get_task(task_name)
    data, evaluation = jax.device_put(dict(task.data("train"))), jax.device_put(dict(task.data("validation")))
    order, params = jnp.asarray(task.order(0, steps)), task.init(0)

    @jax.jit
    def run(params: Any, data: Any, order: Any, evaluation: Any) -> Any:
        def step(carry: Any, rows: Any) -> Any:
            params, state = carry
            batch = jax.tree.map(lambda leaf: leaf[rows], data)
            loss, gradient = jax.value_and_grad(task.loss)(params, batch)
            updates, state = tx.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), loss

        (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), order)
        return losses, task.loss(params, evaluation)

    return lambda: run(params, data, order, evaluation)


def interpreted(program: Program, task: str, steps: int) -> Callable[[], Any]:
    """Return one training run by the interpreter, encoding included."""
    rates = (RATE * multipliers(steps)).astype(np.float32)

    def run() -> Any:
        encoding = encode(program)
        return interpret(encoding, scalar_table(encoding, rates), task, seed=0, split="validation")

    return run


def compiled(program: Program, task: str, steps: int) -> Callable[[], Any]:
    """Return one training run by the program compiled into the loop; the first call compiles."""
    rates = (RATE * multipliers(steps)).astype(np.float32)
    return lambda: compile_and_run(program, rates, task, seed=0, split="validation")


def seconds(run: Callable[[], Any]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def compare(task: str, steps: int, repeats: int) -> None:
    """Print AdamW interpreted and compiled over the hand-written loop on a task."""
    schedule = warmup_cosine(RATE, steps)
    runs = {
        "SGD, hand-written loop (floor)": fused(task, steps, optax.sgd(schedule)),
        "AdamW, hand-written optax loop": fused(task, steps, optax.adamw(schedule, weight_decay=0.01)),
        "AdamW, program compiled": compiled(known()["adamw"], task, steps),
        "AdamW, interpreted": interpreted(known()["adamw"], task, steps),
        "Lion, interpreted": interpreted(known()["lion"], task, steps),
    }
    first = {name: seconds(run) for name, run in runs.items()}
    times = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
    rival = times["AdamW, hand-written optax loop"]
    print(f"\n{task}, {steps} steps, {repeats} repeats")
    print(f"  {'':34}{'first call s':>14}{'median ms':>12}{'ratio to hand-written':>24}")
    for name, row in times.items():
        ratio = statistics.median(own / other for own, other in zip(row, rival, strict=True))
        print(f"  {name:34}{first[name]:14.2f}{1e3 * statistics.median(row):12.2f}{ratio:24.2f}")


def children(count: int) -> list[Program]:
    """Return different children of the warm start that a search would train."""
    rng, found = np.random.default_rng(0), {}
    config = MutationConfig(maximum_statements=30).for_seed(known()["adamw_seed"])
    while len(found) < count:
        child, _ = mutate(known()["adamw_seed"], rng, config)
        result = probe(child)
        if result.status is ProbeStatus.OK:
            found[result.key] = child
    return list(found.values())


def per_candidate(task: str, steps: int, count: int) -> None:
    """Print the time of different candidates interpreted, and compiled one by one."""
    programs = children(count)
    seconds(interpreted(known()["adamw"], task, steps))  # the one compilation of the interpreter
    slow = [seconds(compiled(program, task, steps)) for program in programs]
    fast = [seconds(interpreted(program, task, steps)) for program in programs]
    ratio = statistics.median(a / b for a, b in zip(slow, fast, strict=True))
    print(f"\n{count} different children of adamw_seed, {task}, {steps} steps, one learning rate and seed each")
    for name, row in (("compiled one by one", slow), ("interpreted", fast)):
        median, rate = statistics.median(row), len(row) / sum(row)
        print(f"  {name:24}{1e3 * median:12.1f} ms a candidate, median{rate:12.2f} candidates a second")
    print(f"  interpreting is {ratio:.1f} times as fast (median of pairs)")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--children", type=int, default=16)
    arguments = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].platform}, one thread")
    compare("digits-mlp", 500, arguments.repeats)
    compare("zipf-lm", 200, max(3, arguments.repeats // 3))
    per_candidate("digits-mlp", 500, arguments.children)


if __name__ == "__main__":
    main()
