"""Instructions of many programs, merged so that one unbatched switch serves them all.

Under `jax.vmap` a switch computes every branch for every lane. So the programs are merged on the host into super-steps:
up to `slots` lanes whose next instruction has the same opcode. A super-step gathers the rows that its lanes read,
computes, and scatters the rows that they write. Each lane's instructions keep their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from evolion.evaluators.encoding import CODE_WIDTH
from evolion.evaluators.flat_ops import meaning_of
from evolion.evaluators.opcodes import FIRST_OPCODE, OPCODES
from evolion.primitives.layout import Layout

__all__ = ["SuperSteps", "execute", "meaning_of", "merge", "padded"]

SMALLEST_SCHEDULE = 256


class SuperSteps(NamedTuple):
    """A schedule, as arrays whose length is padded.

    Attributes:
        opcodes: The opcode of each super-step, int32 of shape (steps,).
        lanes: The lanes that it serves, int32 of shape (steps, slots); an unused slot names the lane after the last.
        operands: Target row and arguments in each lane, int32 of shape (steps, slots, CODE_WIDTH - 1).
        bounds: Where the super-steps of each segment end, int32 of shape (segments,).

    """

    opcodes: Any
    lanes: Any
    operands: Any
    bounds: Any


def merge(code: NDArray[np.int32], segments: Sequence[NDArray[np.int32]], slots: int) -> SuperSteps:
    """Merge the instructions of all lanes into super-steps.

    Args:
        code: The instructions of each lane, shape (lanes, INSTRUCTIONS, CODE_WIDTH).
        segments: For each segment the first instruction and the one after the last of each lane, shape (lanes, 2). A
            segment is done in all lanes before the next.
        slots: The most lanes that one super-step serves.

    """
    lanes = len(code)
    rows: list[tuple[int, NDArray[np.int64], NDArray[np.int64]]] = []
    bounds = []
    for segment in segments:
        at, stop = segment[:, 0].astype(np.int64), segment[:, 1]
        while (waiting := np.flatnonzero(at < stop)).size:
            heads = code[waiting, at[waiting], 0]
            opcode = int(np.bincount(heads).argmax())
            chosen = waiting[heads == opcode][:slots]
            rows.append((opcode, chosen, at[chosen]))
            at[chosen] += 1
        bounds.append(len(rows))
    return _as_arrays(code, rows, bounds, lanes, slots)


def _as_arrays(
    code: NDArray[np.int32],
    rows: list[tuple[int, NDArray[np.int64], NDArray[np.int64]]],
    bounds: list[int],
    lanes: int,
    slots: int,
) -> SuperSteps:
    capacity = SMALLEST_SCHEDULE
    while capacity < len(rows):
        capacity *= 4
    opcodes = np.zeros(capacity, np.int32)
    served = np.full((capacity, slots), lanes, np.int32)
    operands = np.zeros((capacity, slots, CODE_WIDTH - 1), np.int32)
    for step, (opcode, chosen, at) in enumerate(rows):
        opcodes[step] = opcode
        served[step, : len(chosen)] = chosen
        operands[step, : len(chosen)] = code[chosen, at, 1:]
    return SuperSteps(opcodes, served, operands, np.array(bounds, np.int32))


def execute(
    steps: SuperSteps,
    segment: Any,
    file: jax.Array,
    scalars: jax.Array,
    noise: Callable[[], jax.Array],
    layout: Layout,
    opcodes: Sequence[int],
) -> jax.Array:
    """Run the super-steps of one segment and return the register file.

    Args:
        steps: The schedule.
        segment: The number of the segment.
        file: The register file, shape (rows, seeds, lanes, width); the entries from the parameters' number on are
            padding.
        scalars: The scalars of this step, shape (seeds, lanes, columns).
        noise: Draws the noise of this step, shape (seeds, parameters).
        layout: Where the parameters lie.
        opcodes: The numbers of the instructions that there may be, in ascending order.

    """
    branches = [_draw(noise, layout) if number < FIRST_OPCODE else _branch(number, layout) for number in opcodes]
    place = np.zeros(FIRST_OPCODE + len(OPCODES), np.int32)
    place[list(opcodes)] = np.arange(len(opcodes))

    def advance(step: jax.Array, file: jax.Array) -> jax.Array:
        at = jnp.asarray(steps.lanes)[step]
        operands = jnp.asarray(steps.operands)[step]
        branch = jnp.asarray(place)[jnp.asarray(steps.opcodes)[step]]
        value = lax.switch(branch, branches, file, scalars, at, operands)
        return file.at[operands[:, 0], :, at].set(value, mode="drop")

    bounds = jnp.asarray(steps.bounds)
    start = jnp.where(segment == 0, 0, bounds[jnp.maximum(segment - 1, 0)])
    done: jax.Array = lax.fori_loop(start, bounds[segment], advance, file)
    return done


Branch = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""(register file, scalars, lanes, operands) to the values of a super-step, shape (slots, seeds, width)."""


def _branch(number: int, layout: Layout) -> Branch:
    opcode = OPCODES[number - FIRST_OPCODE]
    meaning = meaning_of(opcode, layout)

    def compute(file: jax.Array, scalars: jax.Array, at: jax.Array, operands: jax.Array) -> jax.Array:
        width = file.shape[-1]
        values = [_read(file, scalars, at, operands[:, 1 + i]) for i in range(opcode.arity)]
        if opcode.whole:
            values = [value[..., : layout.entries] for value in values]
            result = jax.vmap(jax.vmap(lambda *args: jnp.broadcast_to(meaning(*args), (layout.entries,))))(*values)
            return padded(result, width)
        return jnp.broadcast_to(meaning(*values), (len(at), file.shape[1], width))

    return compute


def _read(file: jax.Array, scalars: jax.Array, at: jax.Array, argument: jax.Array) -> jax.Array:
    # Clipped, as an argument is either a row or a column, and unused slots name a lane that is none.
    row = file.at[argument, :, at].get(mode="clip")
    scalar = scalars.at[:, at, -1 - argument].get(mode="clip")
    return jnp.where((argument < 0)[:, None, None], scalar.T[:, :, None], row)


def _draw(noise: Callable[[], jax.Array], layout: Layout) -> Branch:
    def compute(file: jax.Array, _: jax.Array, at: jax.Array, __: jax.Array) -> jax.Array:
        drawn = padded(noise(), file.shape[-1])
        return jnp.broadcast_to(drawn, (len(at), *drawn.shape))

    return compute


def padded(values: jax.Array, width: int) -> jax.Array:
    """Append zeros to the last axis up to a width."""
    missing = width - values.shape[-1]
    return values if missing == 0 else jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
