"""The encoded programs of a batch as arrays that one compiled loop takes. NumPy only.

Rows are numbered anew: 0 the weights, 1 the gradient, 2 the estimate of the Hessian diagonal in a batch that has one,
then what else a program keeps from pass to pass, then scratch rows, which hold within a pass. How many of each there
are, and of columns of the scalar table, is one of a few capacities, so that batches share a compiled loop. The last
column is that of the training loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evolion.evaluators.batch.supersteps import SuperSteps, merge
from evolion.evaluators.encoding import (
    CODE_WIDTH,
    INSTRUCTIONS,
    LOSS,
    PERSISTENT,
    SCALARS,
    SCRATCH,
    CapacityError,
    Encoding,
)
from evolion.evaluators.opcodes import FIRST_OPCODE, OPCODES_OF, is_whole

__all__ = ["CAPACITIES", "Batch", "Capacity", "LaneProgram", "Shape", "arrange", "capacity_of", "lane_program"]

PASSES = 16
"""The most passes of a program of a batch."""

_SCRATCH = 1 << 16
"""Added to the number of a scratch row as long as that of the rows before is not settled."""

_LOSS = -1 << 16
"""The argument that stands for the training loss as long as its column is not settled."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a compiled loop has room for. A program runs in the first of `CAPACITIES` that can take it.

    So which loop runs a program hangs on the program alone, not on what else is in its batch.

    Attributes:
        rows: The rows of the register file that hold from pass to pass.
        scratch: The rows that hold within a pass.
        columns: The columns of the scalar table.
        opcodes: The numbers of the instructions that there may be, in ascending order.

    """

    rows: int
    scratch: int
    columns: int
    opcodes: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """Whether there may be instructions that need a whole tensor at once."""
        return any(map(is_whole, self.opcodes))


_LION, _ALL = (tuple(range(FIRST_OPCODE + OPCODES_OF[vocabulary])) for vocabulary in ("lion", "full"))

CAPACITIES = (
    Capacity(6, 6, 16, tuple(number for number in _LION if not is_whole(number))),
    Capacity(14, SCRATCH, 32, _ALL),
    Capacity(PERSISTENT, SCRATCH, SCALARS, _ALL),
)
"""Most children of Adam fit the first: weights, gradient and four slots, the ops of the Lion paper, no reductions."""


@dataclass(frozen=True, slots=True)
class LaneProgram:
    """One encoded program with its rows numbered anew.

    Attributes:
        code: Instructions, int32 of shape (INSTRUCTIONS, CODE_WIDTH).
        passes: For each pass where its elementwise and where its other instructions end, int32 of shape (PASSES, 2).
        rows: The number of rows that hold from pass to pass.
        scratch: The number of the others.
        columns: The number of columns of the scalar table, that of the loss included.
        initial_weights: The row of the weights of the start, or -1.
        opcodes: The instructions that it uses.

    """

    code: NDArray[np.int32]
    passes: NDArray[np.int32]
    rows: int
    scratch: int
    columns: int
    initial_weights: int
    opcodes: frozenset[int]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a compiled loop is specific to, besides the task.

    Attributes:
        lanes: The number of lanes of one seed.
        seeds: The number of seeds.
        capacity: What it has room for.

    """

    lanes: int
    seeds: int
    capacity: Capacity


class Batch(NamedTuple):
    """The programs of a batch as its loop takes them.

    Attributes:
        code: Instructions, int32 of shape (lanes, INSTRUCTIONS, CODE_WIDTH).
        ranges: For each pass and lane what the kernel is told, int32 of shape (PASSES, lanes, 4).
        passes: How many passes there are, shape ().
        steps: The super-steps: of all instructions in one segment, or for the kernel those of each pass that it leaves.
        initial_weights: The row that takes the weights of the start; -1 in lanes without one, shape (lanes,).
        used: Whether a lane holds a run, shape (lanes,).

    """

    code: Any
    ranges: Any
    passes: Any
    steps: SuperSteps
    initial_weights: Any
    used: Any


def lane_program(encoding: Encoding) -> LaneProgram:
    """Return an encoded program with its rows numbered anew.

    Raises `CapacityError` if it has more than `PASSES` passes.
    """
    if encoding.pass_count > PASSES:
        raise CapacityError(f"the program needs more than {PASSES} passes in a batch")
    used = encoding.code[: encoding.length]
    rows = {int(row) for row in np.unique(used[:, 1:]) if row >= 0}
    fixed = [0, 1, *([encoding.hess] if encoding.hess >= 0 else [])]
    kept = fixed + sorted({row for row in rows if row < PERSISTENT} - {*fixed})
    scratch = sorted(row for row in rows if row >= PERSISTENT)
    table = np.zeros(PERSISTENT + SCRATCH, np.int32)
    table[kept] = np.arange(len(kept))
    table[scratch] = _SCRATCH + np.arange(len(scratch))
    operands = np.where(used[:, 1:] < 0, used[:, 1:], table[np.maximum(used[:, 1:], 0)])
    code = np.zeros((INSTRUCTIONS, CODE_WIDTH), np.int32)
    code[: encoding.length, 0] = used[:, 0]
    code[: encoding.length, 1:] = np.where(operands == -1 - LOSS, _LOSS, operands)
    passes = np.full((PASSES, 2), encoding.length, np.int32)
    passes[: encoding.pass_count] = encoding.passes[: encoding.pass_count]
    return LaneProgram(
        code=code,
        passes=passes,
        rows=len(kept),
        scratch=len(scratch),
        columns=len(encoding.columns) + 1,
        initial_weights=kept.index(encoding.initial_weights) if encoding.initial_weights in kept else -1,
        opcodes=frozenset(used[:, 0].tolist()),
    )


def capacity_of(program: LaneProgram, capacities: Sequence[Capacity]) -> Capacity:
    """Return the first capacity that can take a program.

    Raises `CapacityError` if none can.
    """
    for capacity in capacities:
        sizes = (capacity.rows, capacity.scratch, capacity.columns)
        fits = all(a <= b for a, b in zip((program.rows, program.scratch, program.columns), sizes, strict=True))
        if fits and program.opcodes.issubset(capacity.opcodes):
            return capacity
    raise CapacityError("no loop for batches has room for the program")


def arrange(programs: Sequence[LaneProgram], lanes: int, capacity: Capacity, slots: int, *, kernel: bool) -> Batch:
    """Lay programs, one for each lane, into arrays; lanes left over do nothing.

    Args:
        programs: The program of each lane, at most `lanes`.
        lanes: The number of lanes of one seed.
        capacity: What the loop has room for.
        slots: The most lanes that one super-step serves.
        kernel: Whether elementwise instructions are left to the kernel.

    """
    code = np.zeros((lanes, INSTRUCTIONS, CODE_WIDTH), np.int32)
    ends = np.zeros((lanes, PASSES, 2), np.int32)
    initial_weights = np.full(lanes, -1, np.int32)
    code[: len(programs)] = [program.code for program in programs]
    code[:, :, 1:] -= np.where(code[:, :, 1:] >= _SCRATCH, np.int32(_SCRATCH - capacity.rows), np.int32(0))
    code[:, :, 1:] = np.where(code[:, :, 1:] == _LOSS, -capacity.columns, code[:, :, 1:])
    ends[: len(programs)] = [program.passes for program in programs]
    initial_weights[: len(programs)] = [program.initial_weights for program in programs]
    starts = np.concatenate([np.zeros((lanes, 1), np.int32), ends[:, :-1, 1]], axis=1)
    count = int((ends[:, :, 1] > starts).any(axis=0).sum())
    segments = [ends[:, k] for k in range(PASSES)] if kernel else [np.stack([starts[:, 0], ends[:, -1, 1]], axis=1)]
    return Batch(
        code=code,
        ranges=_ranges(code, starts, ends, capacity.rows, count if kernel else 0),
        passes=np.int32(count),
        steps=merge(code, segments, slots),
        initial_weights=initial_weights,
        used=np.arange(lanes) < len(programs),
    )


def _ranges(
    code: NDArray[np.int32], starts: NDArray[np.int32], ends: NDArray[np.int32], rows: int, count: int
) -> NDArray[np.int32]:
    """Return for each pass and lane the first elementwise instruction, the end, and bits of rows read and written."""
    ranges = np.zeros((PASSES, len(code), 4), np.int32)
    longest = int(ends.max(initial=0))
    operands, position = code[:, :longest, 1:], np.arange(longest)
    bits = np.where((operands >= 0) & (operands < rows), 1 << (operands & 31), 0).astype(np.int32)
    for k in range(count):
        start, stop = starts[:, k], ends[:, k, 0]
        inside = (position >= start[:, None]) & (position < stop[:, None])
        masked = np.where(inside[:, :, None], bits, 0)
        written = np.bitwise_or.reduce(masked[:, :, 0], axis=1)
        # An unused argument reads as row 0; a row that is written before it is read is loaded in vain.
        read = np.bitwise_or.reduce(np.bitwise_or.reduce(masked[:, :, 1:], axis=1), axis=1)
        ranges[k] = np.stack([start, stop, read, written], axis=1)
    return ranges
