"""Interprets any program inside one compiled training loop.

The loop holds a register file and, at each step, runs the instructions of the encoded program (see `encoding`) over it.
XLA compiles the loop once per task and horizon; a candidate costs no compilation. Programs that need nothing beyond the
ops of the Lion paper share a loop that knows no others, as the time of its compilation is that of its instructions.

The register file is one vector: `PERSISTENT` rows as wide as the parameters, padded to whole tiles, then `SCRATCH` rows
as wide as one tile. The weights are a row of it and stay there from step to step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from evolion.evaluators.encoding import GRADIENT, LOSS, PERSISTENT, SCRATCH, WEIGHTS, Encoding, rows_of
from evolion.evaluators.flat_ops import meaning_of
from evolion.evaluators.loop import (
    Outcome,
    StepInputs,
    TrainingLoop,
    UpdateRule,
    flat_task,
    tensors_of,
    training_loop,
)
from evolion.evaluators.opcodes import FIRST_OPCODE, OPCODES, OPCODES_OF, Opcode
from evolion.primitives.layout import Layout
from evolion.proxies.curvature import Curvature

__all__ = ["code_of", "interpret"]

TILE = 2048
"""Entries of a tile: small enough that the rows which a program touches stay near the core, large enough that a
dispatch is a small part of an instruction. Networks of up to two tiles are one tile."""

_VECTOR = 16


class Code(NamedTuple):
    """The encoded program as the loop takes it; opcodes are numbered within their class, by tile or whole."""

    code: Any
    passes: Any
    pass_count: Any
    initial_weights: Any
    hess: Any


class _File(NamedTuple):
    """Where the rows of the register file of `entries` parameters lie: `rows` of them, then those of a tile."""

    entries: int
    rows: int
    tile: int
    tiles: int

    @property
    def width(self) -> int:
        return self.tile * self.tiles

    @property
    def size(self) -> int:
        return self.rows * self.width + SCRATCH * self.tile

    def place(self, row: jax.Array, tile: jax.Array) -> jax.Array:
        """Return where a tile of a row starts."""
        scratch = self.rows * self.width + (row - PERSISTENT) * self.tile
        return jnp.where(row < PERSISTENT, row * self.width + tile * self.tile, scratch)


class _Registers(NamedTuple):
    """The state between steps: the register file, and the weights in it once more as tensors.

    The gradient reads the tensors. Read from the file they would have to outlive its next change, and XLA would copy
    the whole file at every step.
    """

    file: jax.Array
    weights: Sequence[jax.Array]


Branch = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, StepInputs], jax.Array]
"""(code, position, register file, tile, step inputs) to the value of the instruction, as wide as a tile or a row."""


def _file_of(entries: int, rows: int) -> _File:
    tiles = 1 if entries <= 2 * TILE else -(-entries // TILE)
    tile = -(-entries // (tiles * _VECTOR)) * _VECTOR
    if (rows + 1) * tile * tiles > np.iinfo(np.int32).max:
        raise ValueError(f"a network of {entries:,} parameters is too large to be interpreted: compile its programs")
    return _File(entries, rows, tile, tiles)


def _branch(opcode: Opcode, layout: Layout, file: _File) -> Branch:
    meaning = meaning_of(opcode, layout)
    width = file.entries if opcode.whole else file.tile

    def compute(
        code: jax.Array, position: jax.Array, registers: jax.Array, tile: jax.Array, inputs: StepInputs
    ) -> jax.Array:
        def read(number: int) -> jax.Array:
            argument = _entry(code, position, 2 + number)
            # Slices, not indexing: a gather with its bounds check costs four times the whole instruction.
            start = argument * file.width if opcode.whole else file.place(argument, tile)
            row = lax.dynamic_slice(registers, (start,), (width,))
            return jnp.where(argument < 0, lax.dynamic_slice(inputs.scalars, (-1 - argument,), (1,)), row)

        return jnp.broadcast_to(meaning(*map(read, range(opcode.arity))), (width,))

    return compute


def _noise(_: jax.Array, __: jax.Array, ___: jax.Array, ____: jax.Array, inputs: StepInputs) -> jax.Array:
    return inputs.noise()


def _rule(layout: Layout, vocabulary: str, rows: int) -> UpdateRule:
    file = _file_of(layout.entries, rows)
    execute = _executor(layout, file, vocabulary)

    def init(program: Code, weights: Sequence[jax.Array]) -> _Registers:
        registers = jnp.zeros(file.size, jnp.float32)
        # Row -1 of no program is wanted: the start then goes to where the weights stand anyway.
        for row in (WEIGHTS, jnp.maximum(program.initial_weights, 0)):
            registers = _write_tensors(registers, weights, row * file.width)
        return _Registers(registers, list(weights))

    def update(program: Code, state: _Registers, inputs: StepInputs) -> _Registers:
        registers = _write_tensors(state.file, inputs.gradient, GRADIENT * file.width)
        if inputs.hess is not None:
            registers = _write(registers, inputs.hess, program.hess * file.width)
        loss = lax.dynamic_update_slice(inputs.scalars, jnp.reshape(inputs.loss, (1,)), (LOSS,))
        registers = execute(program, registers, inputs._replace(scalars=loss))
        return _Registers(registers, tensors_of(registers, layout, WEIGHTS * file.width))

    return UpdateRule(init, lambda state: state.weights, update)


def _executor(layout: Layout, file: _File, vocabulary: str) -> Callable[[Code, jax.Array, StepInputs], jax.Array]:
    """Return the function that runs the instructions of a program over a register file."""
    opcodes = OPCODES[: OPCODES_OF[vocabulary]]
    by_tile = [_branch(opcode, layout, file) for opcode in opcodes if not opcode.whole]
    whole = [_noise, *(_branch(opcode, layout, file) for opcode in opcodes if opcode.whole)]

    def run(program: Code, registers: jax.Array, inputs: StepInputs) -> jax.Array:
        def value(branches: list[Branch], position: jax.Array, registers: jax.Array, tile: jax.Array) -> jax.Array:
            opcode = _entry(program.code, position, 0)
            found: jax.Array = lax.switch(opcode, branches, program.code, position, registers, tile, inputs)
            return found

        def on_tile(position: jax.Array, registers: jax.Array, tile: jax.Array) -> jax.Array:
            target = file.place(_entry(program.code, position, 1), tile)
            return _write(registers, value(by_tile, position, registers, tile), target)

        def on_rows(position: jax.Array, registers: jax.Array) -> jax.Array:
            target = _entry(program.code, position, 1) * file.width
            return _write(registers, value(whole, position, registers, jnp.int32(0)), target)

        def one_pass(number: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            start, registers = carry
            middle, end = _entry(program.passes, number, 0), _entry(program.passes, number, 1)

            def one_tile(tile: jax.Array, registers: jax.Array) -> jax.Array:
                done: jax.Array = lax.fori_loop(start, middle, lambda at, file: on_tile(at, file, tile), registers)
                return done

            if file.tiles == 1:
                registers = one_tile(jnp.int32(0), registers)
            else:
                registers = lax.fori_loop(0, file.tiles, one_tile, registers)
            return end, lax.fori_loop(middle, end, on_rows, registers)

        _, registers = lax.fori_loop(0, program.pass_count, one_pass, (jnp.int32(0), registers))
        return registers

    return run


def _entry(table: jax.Array, row: jax.Array, column: int) -> jax.Array:
    return lax.dynamic_slice(table, (row, jnp.int32(column)), (1, 1))[0, 0]


def _write(registers: jax.Array, value: jax.Array, start: jax.Array | int) -> jax.Array:
    return lax.dynamic_update_slice(registers, value, (jnp.int32(start),))


def _write_tensors(registers: jax.Array, tensors: Sequence[jax.Array], start: jax.Array | int) -> jax.Array:
    for tensor in tensors:
        registers = _write(registers, jnp.ravel(tensor), start)
        start = start + tensor.size
    return registers


_CLASSES = np.array([True] * FIRST_OPCODE + [opcode.whole for opcode in OPCODES])
_PLACES = np.where(_CLASSES, np.cumsum(_CLASSES), np.cumsum(~_CLASSES)).astype(np.int32) - 1
"""The place of each opcode among those of its class; noise is the first of those that need whole tensors."""


def code_of(encoding: Encoding) -> Code:
    """Return an encoded program as the loop takes it."""
    code = np.concatenate([_PLACES[encoding.code[:, :1]], encoding.code[:, 1:]], axis=1)
    numbers = (encoding.pass_count, encoding.initial_weights, encoding.hess)
    return Code(code, encoding.passes, *map(np.int32, numbers))


# A task needs up to four loops, eight with curvature.
@lru_cache(maxsize=16)
def _compiled(task: str, vocabulary: str, rows: int, curvature: Curvature | None) -> TrainingLoop:
    flat = flat_task(task)
    return training_loop(flat, _rule(flat.layout, vocabulary, rows), curvature)


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
    return _compiled(task, encoding.vocabulary, rows_of(encoding), needed)(
        code_of(encoding), table, seed=seed, split=split
    )
