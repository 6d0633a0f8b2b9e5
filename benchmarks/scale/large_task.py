"""A task of ten million parameters: memory and time of `evolion.train` against a loop written by hand.

    python benchmarks/scale/large_task.py [--rounds N]        # two to three minutes on an idle core

Budget: at most 1.3 times the memory and 1.05 times the step time of a loop of some thirty lines in Flax and Optax with
the same module, examples, schedule and AdamW. The task is `ladder-10m` with all of its training examples but 32
sequences a step, not 512: a step takes about a second, and what is not the gradient weighs sixteen times as much. The
validation split is two batches, as the run is short. Sides take turns, each in a process of its own on one thread.
Memory is the peak of the process less what it held after its imports; the time of a step is the processor time between
runs of 1 and of 7 steps, both compiled before. On a busy machine it differs by 5 % between rounds: take more of them.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

TASK = "ladder-10m:batch=0.0625,horizon=16"
SHORT, LONG = 1, 7
SIDES = ("train", "by hand")
MEMORY, TIME = 1.3, 1.05


@dataclass(frozen=True, slots=True)
class Shortened:
    """A source with few examples to score on."""

    whole: Any
    scored: int

    @property
    def info(self) -> Any:
        """Without an end for training alone."""
        return replace(self.whole.info, examples={"train": None, "validation": self.scored, "test": self.scored})

    def gather(self, split: Any, indices: Any) -> Any:
        """The same examples."""
        return self.whole.gather(split, indices)


def the_task() -> Any:
    from evolion.proxies.data.uri import open_source
    from evolion.proxies.registry import get_spec
    from evolion.proxies.task import ModelTask

    spec = get_spec(TASK)
    return ModelTask(spec, source=Shortened(open_source(spec.data), 2 * spec.batch_size))


def transform(task: Any, steps: int) -> Any:
    import optax

    from evolion.proxies.schedules import warmup_cosine

    return optax.adamw(warmup_cosine(task.learning_rates[1], steps), weight_decay=0.1)


def trained(task: Any, steps: int) -> Callable[[], float]:
    """A run by `evolion.train`; gives the final loss."""
    from evolion import train

    tx = transform(task, steps)
    return lambda: train(task, tx, steps=steps).loss or float("nan")


def by_hand(task: Any, steps: int) -> Callable[[], float]:
    """The same run as a person would write it."""
    import jax
    import jax.numpy as jnp
    import optax

    model, size, tx = task.model, task.batch_size, transform(task, steps)

    def loss(params: Any, batch: Any) -> Any:
        logits = model.apply({"params": params}, batch["inputs"])
        return optax.softmax_cross_entropy(logits, jax.nn.one_hot(batch["targets"], logits.shape[-1])).mean()

    def run(params: Any, data: Any, order: Any, scored: Any) -> Any:
        def step(carry: Any, rows: Any) -> Any:
            params, state = carry
            batch = {name: leaf[rows] for name, leaf in data.items()}
            value, gradient = jax.value_and_grad(loss)(params, batch)
            with jax.numpy_dtype_promotion("standard"):
                updates, state = tx.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), value

        (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), order)
        parts = {name: leaf.reshape(-1, size, *leaf.shape[1:]) for name, leaf in scored.items()}
        return params, losses, jnp.mean(jax.lax.map(lambda batch: loss(params, batch), parts))

    compiled = jax.jit(run, donate_argnums=0)
    data, scored = dict(task.data("train")), dict(task.data("validation"))
    return lambda: float(compiled(task.init(0), data, task.order(0, steps), scored)[2])


def peak() -> int:
    """Bytes that this process held at most (Linux counts in units of 1,024)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def timed(run: Callable[[], float]) -> tuple[float, float]:
    """Processor time of a second run, which hangs less on what else the machine does, and its loss."""
    run()
    started = time.process_time()
    loss = run()
    return time.process_time() - started, loss


def one_side(side: str) -> dict[str, float]:
    from evolion.evaluators.environment import prepare

    prepare()
    import jax.numpy as jnp

    make = trained if side == "train" else by_hand
    task = the_task()
    (jnp.zeros((256, 256)) @ jnp.zeros((256, 256))).block_until_ready()
    import flax.linen  # noqa: F401
    import optax  # noqa: F401

    import evolion.proxies.training  # noqa: F401

    before = peak()
    short, _ = timed(make(task, SHORT))
    long, loss = timed(make(task, LONG))
    return {"step": (long - short) / (LONG - SHORT), "memory": peak() - before, "base": before, "loss": loss}


def floor() -> dict[str, float]:
    """What no loop gets below; makes the examples if they are not in the cache."""
    from evolion.evaluators.environment import prepare

    prepare()
    import jax
    import jax.numpy as jnp

    task = the_task()
    data = {name: leaf[: task.batch_size] for name, leaf in task.data("train").items()}
    params = task.init(0)
    cost: Any = jax.jit(jax.grad(task.loss)).lower(params, data).cost_analysis()
    square = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)
    product(square, square).block_until_ready()
    started = time.perf_counter()
    for _ in range(3):
        product(square, square).block_until_ready()
    rate = 3 * 2 * 2048**3 / (time.perf_counter() - started)
    pool = sum(leaf.nbytes for leaf in task.data("train").values())
    return {"parameters": float(task.parameters), "flops": float(cost["flops"]), "rate": rate, "pool": float(pool)}


def elsewhere(what: str) -> dict[str, float]:
    """The figures of a fresh process: this one stays small, as a child begins with the peak of its parent."""
    done = subprocess.run([sys.executable, __file__, "--one", what], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def median_ratio(rounds: Sequence[dict[str, dict[str, float]]], name: str) -> float:
    return statistics.median(found["train"][name] / found["by hand"][name] for found in rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(floor() if arguments.one == "floor" else one_side(arguments.one)))
        return
    least = elsewhere("floor")
    state = 3 * 4 * least["parameters"]
    print(f"floor: {least['parameters']:,.0f} parameters, {state / 1e6:.0f} MB with AdamW's state, examples "
          f"{least['pool'] / 1e6:.0f} MB; gradient {least['flops'] / 1e9:.1f} Gflop, at {least['rate'] / 1e9:.0f} "
          f"Gflop/s of a matrix product {least['flops'] / least['rate']:.2f} s", flush=True)  # fmt: skip
    rounds = []
    for number in range(arguments.rounds):
        rounds.append({side: elsewhere(side) for side in SIDES})
        for side, found in rounds[-1].items():
            print(f"{number + 1} {side:8}  step {found['step']:.3f} s  memory {found['memory'] / 1e6:.0f} MB over "
                  f"{found['base'] / 1e6:.0f}  loss {found['loss']:.4f}", flush=True)  # fmt: skip
    memory, step = median_ratio(rounds, "memory"), median_ratio(rounds, "step")
    print(f"train over by hand: memory {memory:.2f} (budget {MEMORY}), step {step:.3f} (budget {TIME})")
    sys.exit(memory > MEMORY or step > TIME)


if __name__ == "__main__":
    main()
