"""Compiles one program into the training loop: for long runs, and for programs too large to interpret."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evolion.evaluators.flat_ops import flat_meaning
from evolion.evaluators.loop import Outcome, StepInputs, TrainingLoop, UpdateRule, flat_task, training_loop
from evolion.primitives.dataflow import Reference, data_flow
from evolion.primitives.layout import Layout
from evolion.primitives.program import Program

__all__ = ["compile_and_run"]


def _constant(value: float) -> jax.Array:
    # A constant such as 1e300 is infinite in single precision; that is no cause for a warning.
    with np.errstate(over="ignore"):
        return jnp.asarray(np.full(1, value, np.float32))


def _rule(program: Program, layout: Layout) -> UpdateRule:
    flow = data_flow(program)
    calls = [flat_meaning(statement.op, program.protected, layout) for statement in program.statements]

    def init(_: Any, weights: jax.Array) -> dict[str, jax.Array]:
        slots = {slot.name: jnp.zeros_like(weights) for slot in program.slots}
        return slots | ({"w0": weights} if "w0" in program.inputs else {})

    def update(_: Any, state: dict[str, jax.Array], inputs: StepInputs) -> tuple[jax.Array, dict[str, jax.Array]]:
        values: dict[Reference, jax.Array] = dict([*state.items(), *_scheduled(inputs).items()])
        values |= {h.name: _constant(h.value) for h in program.hyperparameters}

        def value(reference: Reference) -> jax.Array:
            return _constant(reference) if isinstance(reference, float) else values[reference]

        for index, (call, references) in enumerate(zip(calls, flow.arguments, strict=True)):
            values[index] = call(*map(value, references))
        wide = {name: jnp.broadcast_to(value(r), inputs.weights.shape) for name, r in flow.next_slots.items()}
        return value(flow.update), state | wide

    def _scheduled(inputs: StepInputs) -> dict[str, jax.Array]:
        names = set(program.inputs)
        given = {"w": inputs.weights, "g": inputs.gradient, "loss": inputs.loss[None]}
        given |= {name: inputs.scalars[i : i + 1] for i, name in enumerate(("lr", "t", "horizon"))}
        if "noise" in names:
            given["noise"] = inputs.noise()
        return given

    return UpdateRule(init, update)


@lru_cache(maxsize=8)
def _compiled(program: Program, task: str) -> TrainingLoop:
    flat = flat_task(task)
    return training_loop(flat, _rule(program, flat.layout))


def compile_and_run(
    program: Program,
    learning_rates: np.ndarray[Any, np.dtype[np.float32]],
    task: str,
    *,
    seed: int,
    split: Any,
) -> Outcome:
    """Train `task` with a program compiled for it; `learning_rates` is the rate of every step.

    Learning rates and seeds share one compilation; the last eight programs are kept.
    """
    steps = len(learning_rates)
    table = np.stack(
        [learning_rates, np.arange(1, steps + 1), np.full(steps, steps)], axis=1, dtype=np.float32, casting="same_kind"
    )
    return _compiled(program, task)(None, table, seed=seed, split=split)
