"""Compiles one program into the training loop: for long runs, and for programs that cannot be interpreted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolion.evaluators.loop import (
    Outcome,
    StepInputs,
    TrainingLoop,
    UpdateRule,
    flat_task,
    tensors_of,
    training_loop,
)
from evolion.primitives.jax_execution import initial_slots, stepper
from evolion.primitives.layout import Layout
from evolion.primitives.program import Program
from evolion.proxies.curvature import Curvature

__all__ = ["KEPT", "CompiledLoops", "compile_and_run", "compiled_loops"]

KEPT = 8
"""So many compiled programs stay in memory, 6 MB each for a small network; those used longest ago are dropped.

Dropping one frees all of it. Measured with jax 0.10.2, a process that hands back what the compiler has freed (see
`compiler_memory`) is as large after 16 programs as after 8. `jax.clear_caches` would drop the interpreter's loop, too,
which takes longer to compile than any program, and even to read again.
"""

ARGUMENTS = ("weight_decay",)
"""Hyperparameters that a compiled loop takes as arguments: what is tuned by many trials shares one compilation."""


class _State(NamedTuple):
    """Weights and slots between steps, arrays for each parameter tensor."""

    weights: Sequence[jax.Array]
    slots: Mapping[str, Any]
    initial_weights: Sequence[jax.Array] | None


def _rule(program: Program, layout: Layout) -> UpdateRule:
    """Return the program as an update rule that works on the tensors."""
    step = stepper(program)
    # Other numbers stay Python's, so that counts such as the steps of an iteration are known when the loop is compiled.
    fixed = {h.name: h.value for h in program.hyperparameters if h.name not in ARGUMENTS}

    def init(_: Any, weights: Sequence[jax.Array]) -> _State:
        slots = initial_slots(program, layout.shapes, jnp.float32)
        return _State(weights, slots, weights if "w0" in program.inputs else None)

    def update(own: Any, state: _State, inputs: StepInputs) -> _State:
        given: dict[str, Any] = own | {"w": state.weights, "g": inputs.gradient, "w0": state.initial_weights}
        given |= {name: inputs.scalars[i] for i, name in enumerate(("lr", "t", "horizon"))} | {"loss": inputs.loss}
        if "noise" in program.inputs:
            given["noise"] = tensors_of(inputs.noise(), layout)
        if "hess" in program.inputs:
            assert inputs.hess is not None
            given["hess"] = tensors_of(inputs.hess, layout)
        given = {name: value for name, value in given.items() if name in program.inputs or name in own}
        updates, slots = step(given | fixed | dict(state.slots), layout.shapes, jnp.float32)
        weights = [weight - update for weight, update in zip(state.weights, updates, strict=True)]
        return _State(weights, slots, state.initial_weights)

    return UpdateRule(init, lambda state: state.weights, update)


def arguments_of(program: Program) -> dict[str, np.float32]:
    """Return what the compiled loop of a program takes as arguments."""
    with np.errstate(over="ignore"):
        return {h.name: np.float32(h.value) for h in program.hyperparameters if h.name in ARGUMENTS}


@dataclass(frozen=True, slots=True)
class CompiledLoops:
    """The training loops compiled for one program each, in this process.

    Attributes:
        kept: How many are in memory now, at most `KEPT`.
        built: How many were built since the process began; one that was dropped and built again counts twice.
        reused: How many runs found theirs in memory.

    """

    kept: int
    built: int
    reused: int


def compiled_loops() -> CompiledLoops:
    """Return how many compiled loops this process holds and has built."""
    info = _compiled.cache_info()
    return CompiledLoops(info.currsize, info.misses, info.hits)


@lru_cache(maxsize=KEPT)
def _compiled(program: Program, task: str, curvature: Curvature | None) -> TrainingLoop:
    flat = flat_task(task)
    return training_loop(flat, _rule(program, flat.layout), curvature)


def compile_and_run(
    program: Program,
    learning_rates: np.ndarray[Any, np.dtype[np.float32]],
    task: str,
    *,
    seed: int,
    split: Any,
    curvature: Curvature,
) -> Outcome:
    """Train `task` with a program compiled for it; `learning_rates` is the rate of every step.

    A program that reads `hess` is given the estimate that `curvature` names; others do not depend on it. Learning
    rates, weight decays and seeds share one compilation; the last `KEPT` programs are kept.
    """
    steps = len(learning_rates)
    table = np.stack(
        [learning_rates, np.arange(1, steps + 1), np.full(steps, steps)], axis=1, dtype=np.float32, casting="same_kind"
    )
    needed = curvature if "hess" in program.inputs else None
    own = arguments_of(program)
    shared = program.with_hyperparameters(**dict.fromkeys(own, 0.0))
    return _compiled(shared, task, needed)(own, table, seed=seed, split=split)
