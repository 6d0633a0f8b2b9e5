"""What one candidate costs: interpreted, compiled on its own, and against a hand-written fused loop.

The floor of an evaluation is its gradients, so each figure is given with that of a loop that does little else (plain
SGD, written by hand). Contestants run in turn in one process; processor seconds of the one thread that computes are
counted, which other work on the machine disturbs less than wall time. Medians, and medians of ratios of pairs.

    python benchmarks/evaluation/interpreter.py [--repeats N] [--children N] [--rivals N]
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
from evolion.discovered.optax_transform import to_optax  # noqa: E402
from evolion.evaluators.compiled import compile_and_run  # noqa: E402
from evolion.evaluators.encoding import encode, scalar_table  # noqa: E402
from evolion.evaluators.interpreter import interpret  # noqa: E402
from evolion.evaluators.loop import flat_task  # noqa: E402
from evolion.primitives.keys import ProbeStatus, probe  # noqa: E402
from evolion.primitives.program import Program  # noqa: E402
from evolion.proxies.curvature import Curvature  # noqa: E402
from evolion.proxies.registry import get_task  # noqa: E402
from evolion.proxies.schedules import multipliers, warmup_cosine  # noqa: E402
from evolion.search.mutation import MutationConfig, mutate  # noqa: E402

RATE = 1e-2
WIDTHS = ("digits-mlp", "digits-mlp:width=4", "digits-mlp:width=13")
"""3,466, 26,122 and 204,682 parameters."""


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
        table = scalar_table(encoding, rates)
        return interpret(encoding, table, task, seed=0, split="validation", curvature=Curvature())

    return run


def compiled(program: Program, task: str, steps: int) -> Callable[[], Any]:
    """Return one training run by the program compiled into the loop; the first call compiles."""
    rates = (RATE * multipliers(steps)).astype(np.float32)
    return lambda: compile_and_run(program, rates, task, seed=0, split="validation", curvature=Curvature())


def gradients_compiled_once(task_name: str, steps: int) -> Callable[[Program], Callable[[], Any]]:
    """Return the loop that compiles the update of each program alone: from Python, two calls a step."""
    task = get_task(task_name)
    data, evaluation = jax.device_put(dict(task.data("train"))), jax.device_put(dict(task.data("validation")))
    order, start = jnp.asarray(task.order(0, steps)), task.init(0)

    @jax.jit
    def gradient(params: Any, step: Any, data: Any, order: Any) -> Any:
        batch = jax.tree.map(lambda leaf: leaf[order[step]], data)
        return jax.value_and_grad(task.loss)(params, batch)

    final = jax.jit(task.loss)

    def of(program: Program) -> Callable[[], Any]:
        tx = to_optax(program, warmup_cosine(RATE, steps) if "lr" in program.inputs else None)

        @jax.jit
        def update(gradients: Any, state: Any, params: Any) -> Any:
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        def run() -> Any:
            params, state, losses = start, tx.init(start), []
            for step in range(steps):
                loss, gradients = gradient(params, step, data, order)
                losses.append(loss)
                params, state = update(gradients, state, params)
            return losses, final(params, evaluation)

        return run

    return of


def seconds(run: Callable[[], Any]) -> float:
    """Return the processor seconds of one call."""
    start = time.process_time()
    jax.block_until_ready(run())
    return time.process_time() - start


def compare(task: str, steps: int, repeats: int) -> None:
    """Print AdamW interpreted and compiled over the hand-written loop on a task."""
    schedule = warmup_cosine(RATE, steps)
    runs = {
        "SGD, hand-written loop (floor)": fused(task, steps, optax.sgd(schedule)),
        "AdamW, hand-written optax loop": fused(task, steps, optax.adamw(schedule, weight_decay=0.01)),
        "AdamW, program compiled": compiled(known()["adamw"], task, steps),
        "AdamW, interpreted": interpreted(known()["adamw"], task, steps),
        "Lion, interpreted": interpreted(known()["lion"], task, steps),
        "SGD, interpreted": interpreted(known()["sgd"], task, steps),
    }
    first = {name: seconds(run) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
    rival = times["AdamW, hand-written optax loop"]
    print(f"\n{task} ({flat_task(task).layout.entries:,} parameters), {steps} steps, {repeats} repeats")
    print(f"  {'':34}{'first call s':>14}{'median ms':>12}{'ratio to hand-written':>24}")
    for name, row in times.items():
        ratio = statistics.median(own / other for own, other in zip(row, rival, strict=True))
        print(f"  {name:34}{first[name]:14.2f}{1e3 * statistics.median(row):12.2f}{ratio:24.2f}")


def children(count: int) -> list[Program]:
    """Return different children of AdamW as the search begins with it, such as it would train."""
    rng, found = np.random.default_rng(0), {}
    config = MutationConfig(maximum_statements=30).for_seed(known()["adamw_seed"])
    while len(found) < count:
        child, _ = mutate(known()["adamw_seed"], rng, config)
        result = probe(child)
        if result.status is ProbeStatus.OK:
            found[result.key] = child
    return list(found.values())


def batch_of_children(task: str, steps: int, count: int) -> None:
    """Print what different children cost over the hand-written AdamW loop; those that diverge end early."""
    rival = fused(task, steps, optax.adamw(warmup_cosine(RATE, steps), weight_decay=0.01))
    runs = [interpreted(program, task, steps) for program in children(count)]
    done = [int(run().steps) for run in runs]
    seconds(rival)
    ratios = [statistics.median(seconds(run) / min(seconds(rival), seconds(rival)) for _ in range(3)) for run in runs]
    finished = [ratio for ratio, steps_done in zip(ratios, done, strict=True) if steps_done == steps]
    print(f"\n{count} different children of adamw_seed over the hand-written AdamW loop, {task}, {steps} steps")
    print(f"  mean {statistics.mean(ratios):.2f}")
    print(f"  the {len(finished)} that train to the end: mean {statistics.mean(finished):.2f}, median "
          f"{statistics.median(finished):.2f}, largest {max(finished):.2f}")  # fmt: skip


def rivals(task: str, steps: int, count: int) -> None:
    """Print the candidates per second interpreted, with the update compiled alone, and compiled one by one."""
    programs = children(count)
    seconds(interpreted(known()["adamw"], task, steps))  # the one compilation of the interpreter
    update_alone = gradients_compiled_once(task, steps)
    seconds(update_alone(known()["adamw"]))  # the one compilation of the gradient
    makers: dict[str, Callable[[Program], Callable[[], Any]]] = {
        "interpreted": lambda program: interpreted(program, task, steps),
        "gradient compiled once, each update compiled": update_alone,
        "each compiled into the loop": lambda program: compiled(program, task, steps),
    }
    times = {name: [seconds(make(program)) for program in programs] for name, make in makers.items()}
    print(f"\n{count} different children of adamw_seed, {task}, {steps} steps, one learning rate and seed each")
    for name, row in times.items():
        ratio = statistics.median(own / fast for own, fast in zip(row, times["interpreted"], strict=True))
        print(f"  {name:46}{1e3 * statistics.median(row):10.1f} ms a candidate{len(row) / sum(row):10.2f} a second"
              f"{ratio:8.1f} times as long")  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--children", type=int, default=64)
    parser.add_argument("--rivals", type=int, default=16)
    arguments = parser.parse_args()
    # What is compiled here shall be compiled, as for a candidate that nobody has seen.
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"jax {jax.__version__} on {jax.devices()[0].platform}, one thread")
    for task in WIDTHS:
        compare(task, 500, arguments.repeats)
    compare("zipf-lm", 200, max(3, arguments.repeats // 3))
    batch_of_children("digits-mlp", 500, arguments.children)
    rivals("digits-mlp", 500, arguments.rivals)


if __name__ == "__main__":
    main()
