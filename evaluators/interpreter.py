"""Interprets any program inside one compiled training loop.

The loop holds a register file of shape (REGISTERS, parameters) and, at each step, runs the instructions of the encoded
program (see `encoding`) over it. XLA compiles the loop once per task and horizon; a candidate costs no compilation.
Programs that need nothing beyond the ops of the Lion paper share a loop that knows no others, as the time of its
compilation is that of its instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from evolion.evaluators.encoding import REGISTERS, WEIGHTS, Encoding
from evolion.evaluators.flat_ops import flat_meaning
from evolion.evaluators.loop import Outcome, StepInputs, TrainingLoop, UpdateRule, flat_task, training_loop
from evolion.evaluators.opcodes import OPCODES, OPCODES_OF, RUNTIME_INPUTS, Opcode
from evolion.primitives.layout import Layout
from evolion.primitives.ops import OPS
from evolion.proxies.curvature import Curvature

__all__ = ["interpret"]


class _Code(NamedTuple):
    """The encoded program as the loop takes it: instructions (INSTRUCTIONS, CODE_WIDTH) and four numbers."""

    code: Any
    length: Any
    update: Any
    initial_weights: Any
    hess: Any


Branch = Callable[[jax.Array, jax.Array, StepInputs], jax.Array]
"""(instruction, registers, step inputs) to the value of the instruction, shape (parameters,)."""


def _read(registers: jax.Array, scalars: jax.Array, argument: jax.Array) -> jax.Array:
    # Slices, not indexing: a gather with its bounds check costs four times the whole instruction.
    row = lax.dynamic_slice(registers, (argument, jnp.int32(0)), (1, registers.shape[1]))[0]
    scalar = lax.dynamic_slice(scalars, (-1 - argument,), (1,))
    return jnp.where(argument < 0, scalar, row)


def _branch(opcode: Opcode, layout: Layout) -> Branch:
    outer = flat_meaning(opcode.op, opcode.protected, layout)
    inner = flat_meaning(opcode.inner, opcode.protected, layout) if opcode.inner else None
    inner_arity = OPS[opcode.inner].arity if opcode.inner else 0

    def compute(instruction: jax.Array, registers: jax.Array, inputs: StepInputs) -> jax.Array:
        values = [_read(registers, inputs.scalars, instruction[2 + i]) for i in range(opcode.arity)]
        if inner is not None:
            start, stop = opcode.position, opcode.position + inner_arity
            values[start:stop] = [inner(*values[start:stop])]
        return jnp.broadcast_to(outer(*values), (layout.entries,))

    return compute


def _load_loss(_: jax.Array, registers: jax.Array, inputs: StepInputs) -> jax.Array:
    return jnp.broadcast_to(inputs.loss, registers.shape[1:])


def _load_noise(_: jax.Array, __: jax.Array, inputs: StepInputs) -> jax.Array:
    return inputs.noise()


_LOADERS: dict[str, Branch] = {"loss": _load_loss, "noise": _load_noise}


def _rule(layout: Layout, vocabulary: str) -> UpdateRule:
    opcodes = OPCODES[: OPCODES_OF[vocabulary]]
    branches = [_LOADERS[name] for name in RUNTIME_INPUTS] + [_branch(opcode, layout) for opcode in opcodes]

    def init(program: _Code, weights: jax.Array) -> jax.Array:
        registers = jnp.zeros((REGISTERS, layout.entries), jnp.float32)
        # Row -1 of no program is wanted, so the start goes to row 0, which the first step overwrites.
        return _write(registers, weights, jnp.maximum(program.initial_weights, 0))

    def update(program: _Code, registers: jax.Array, inputs: StepInputs) -> tuple[jax.Array, jax.Array]:
        registers = lax.dynamic_update_slice(
            registers, jnp.stack([inputs.weights, inputs.gradient]), (jnp.int32(WEIGHTS), jnp.int32(0))
        )
        if inputs.hess is not None:
            registers = _write(registers, inputs.hess, program.hess)

        def execute(position: jax.Array, registers: jax.Array) -> jax.Array:
            instruction = lax.dynamic_slice(program.code, (position, 0), (1, program.code.shape[1]))[0]
            value = lax.switch(instruction[0], branches, instruction, registers, inputs)
            return _write(registers, value, instruction[1])

        registers = lax.fori_loop(0, program.length, execute, registers)
        return _read(registers, inputs.scalars, program.update), registers

    return UpdateRule(init, update)


def _write(registers: jax.Array, value: jax.Array, row: jax.Array) -> jax.Array:
    return lax.dynamic_update_slice(registers, value[None], (row, jnp.int32(0)))


def code_of(encoding: Encoding) -> _Code:
    """Return an encoded program as the loop takes it."""
    numbers = (encoding.length, encoding.update, encoding.initial_weights, encoding.hess)
    return _Code(encoding.code, *map(np.int32, numbers))


@lru_cache(maxsize=8)
def _compiled(task: str, vocabulary: str, curvature: Curvature | None) -> TrainingLoop:
    flat = flat_task(task)
    return training_loop(flat, _rule(flat.layout, vocabulary), curvature)


def interpret(
    encoding: Encoding,
    table: np.ndarray[Any, np.dtype[np.float32]],
    task: str,
    *,
    seed: int,
    split: Any,
    curvature: Curvature,
) -> Outcome:
    """Train `task` with an encoded program from one seed, for as many steps as its scalar table has rows.

    Programs that read `hess` share loops of their own, which make the estimate that `curvature` names.
    """
    needed = curvature if encoding.hess >= 0 else None
    return _compiled(task, encoding.vocabulary, needed)(code_of(encoding), table, seed=seed, split=split)
