"""A program as numbers that one compiled loop can interpret. NumPy only.

Scalars that depend on nothing but constants, the learning rate, the step and the horizon are worked out for all steps
at once (bias corrections, decayed rates) and stand in a table with one row a step; the loss of a step joins them. Names
are resolved to rows of a register file by linear-scan allocation. What the pass over a tile alone needs is in scratch
rows, one tile wide, that all tiles share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evolion.evaluators.opcodes import (
    FIRST_OPCODE,
    MAXIMUM_ARGUMENTS,
    OPCODES_OF,
    has_instruction,
    is_whole,
    number_of,
)
from evolion.evaluators.scheduling import Pass, fuse, last_uses, scheduled, within_a_pass
from evolion.primitives.dataflow import DataFlow, Reference, data_flow, remove_dead_code
from evolion.primitives.kinds import Kind
from evolion.primitives.op import Elementwise
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program, infer_kinds

__all__ = [
    "CODE_WIDTH",
    "FEW_ROWS",
    "GRADIENT",
    "INSTRUCTIONS",
    "LOSS",
    "PERSISTENT",
    "SCALARS",
    "SCRATCH",
    "WEIGHTS",
    "CapacityError",
    "Encoding",
    "Loop",
    "encode",
    "loop_of",
    "rows_of",
    "scalar_table",
]

PERSISTENT = 40
"""Rows as wide as the parameters, which hold for a whole step."""

FEW_ROWS = 16
"""Programs that use no more rows share a loop whose register file has as many: one of 32 MB or more, as all rows would
take from 200,000 parameters on, is mapped anew by the C library in each run, page by page."""

SCRATCH = 16
"""Rows as wide as a tile, numbered from `PERSISTENT` on, which hold within one pass over a tile."""

INSTRUCTIONS = 128
SCALARS = 64
CODE_WIDTH = 2 + MAXIMUM_ARGUMENTS
"""An instruction is (opcode, target row, arguments …); an argument below 0 is column -1 - argument of the table."""

WEIGHTS, GRADIENT = 0, 1
"""The rows of the register file that hold the weights and the gradient."""

LOSS = SCALARS - 1
"""The column of the table that the loop writes at each step: the training loss."""

_SCHEDULED = ("lr", "t", "horizon")


class CapacityError(ValueError):
    """A program does not fit the interpreter; it has to be compiled instead."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """A program ready to be interpreted.

    Attributes:
        code: Instructions, int32 of shape (INSTRUCTIONS, CODE_WIDTH), in the order of the passes; rows from `length` on
            are unused. The last ones subtract the update from the weights and move the next values of slots.
        passes: Where the instructions of a pass end, int32 of shape (INSTRUCTIONS, 2): pass k runs those that work
            entry by entry from the end of pass k - 1 to `passes[k, 0]`, tile by tile, and then those that need whole
            tensors, up to `passes[k, 1]`.
        pass_count: The number of passes, at least 1; the last one has no instruction that needs whole tensors.
        length: The number of instructions.
        rows: The number of rows as wide as the parameters that it uses: its rows below `PERSISTENT` are the first ones.
        initial_weights: The row that holds the weights of the start, or -1.
        hess: The row that holds the estimate of the Hessian diagonal at the start of each step, or -1.
        vocabulary: "lion" or "full": the smallest that has every instruction of the code.
        program: What `scalar_table` computes: the program without dead code.
        columns: For each column of the table what it holds: a constant, a scheduled input or a hoisted statement.
        hoisted: The statements that are worked out for all steps, in their order, with what they read.

    """

    code: NDArray[np.int32]
    passes: NDArray[np.int32]
    pass_count: int
    length: int
    rows: int
    initial_weights: int
    hess: int
    vocabulary: str
    program: Program
    columns: tuple[Reference, ...]
    hoisted: tuple[tuple[int, tuple[Reference, ...]], ...]


@dataclass
class _Columns:
    """Gives each scheduled scalar that the loop needs a column of the table."""

    index: dict[str, int] = field(default_factory=dict)
    references: list[Reference] = field(default_factory=list)

    def argument(self, reference: Reference) -> int:
        if reference == "loss":
            return -1 - LOSS
        # By text: 1 (a statement) equals 1.0 (a constant) as a key, and 0.0 equals -0.0.
        column = self.index.setdefault(repr(reference), len(self.index))
        if column >= LOSS:
            raise CapacityError(f"the program needs more than {LOSS} scalars per step")
        if column == len(self.references):
            self.references.append(reference)
        return -1 - column


def encode(program: Program) -> Encoding:
    """Encode a program for the interpreter.

    Raises:
        CapacityError: If it needs more instructions, registers or scalars than there are, or works on matrices, or on
            rows and columns in a way that their numbers at each entry cannot give.

    """
    program = remove_dead_code(program)
    flow = data_flow(program)
    _check_instructions(program, flow)
    hoisted = _hoisted(program)
    nodes = scheduled(fuse(program, flow, hoisted))
    return _allocate(program, nodes, flow, hoisted)


class Loop(NamedTuple):
    """Which of a task's compiled loops interprets a program.

    Attributes:
        vocabulary: "lion" or "full", as in `Encoding`.
        rows: How many rows its register file has.
        hess: Whether it makes an estimate of the Hessian diagonal.

    """

    vocabulary: str
    rows: int
    hess: bool


def rows_of(encoding: Encoding) -> int:
    """Return how many rows the register file of a program's loop has."""
    return FEW_ROWS if encoding.rows <= FEW_ROWS else PERSISTENT


@lru_cache(maxsize=4096)
def loop_of(program: Program) -> Loop | None:
    """Return the loop that interprets a program, None if it can only be compiled."""
    try:
        encoding = encode(program)
    except CapacityError:
        return None
    return Loop(encoding.vocabulary, rows_of(encoding), encoding.hess >= 0)


def _check_instructions(program: Program, flow: DataFlow) -> None:
    kinds, entry = infer_kinds(program), {parameter.name: parameter.kind for parameter in program.parameters}
    missing: dict[str, None] = {}
    for statement, references in zip(program.statements, flow.arguments, strict=True):
        # What is no parameter is a constant or a hyperparameter.
        given = [kinds[r] if isinstance(r, int) else entry.get(str(r), Kind.SCALAR) for r in references]
        if not has_instruction(statement.op, given):
            missing[f"{statement.op} of {' and '.join(map(str, given))}"] = None
    if missing:
        raise CapacityError(f"the interpreter has no instruction for {', '.join(missing)}")


def _hoisted(program: Program) -> set[Reference]:
    """Return the references that are known for all steps before the first: constants of a schedule."""
    flow = data_flow(program)
    known: set[Reference] = {*_SCHEDULED, *(h.name for h in program.hyperparameters)}
    for index, kind in enumerate(infer_kinds(program)):
        elementwise = isinstance(OPS[program.statements[index].op].meaning, Elementwise)
        scheduled = all(isinstance(r, float) or r in known for r in flow.arguments[index])
        if kind is Kind.SCALAR and elementwise and scheduled:
            known.add(index)
    return known


_NO_REGISTER = f"the program needs more than {PERSISTENT} registers, and {SCRATCH} of a tile"


@dataclass
class _Rows:
    """Linear-scan allocation: a row is free again after the last use of what it holds."""

    first: int
    limit: int
    free: list[int] = field(default_factory=list)
    held: dict[Reference, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.first > self.limit:
            raise CapacityError(_NO_REGISTER)

    @property
    def left(self) -> bool:
        return bool(self.free) or self.first < self.limit

    def release(self, position: int, last_use: Mapping[Reference, int]) -> None:
        for reference in [r for r in self.held if last_use.get(r, -1) <= position]:
            self.free.append(self.held.pop(reference))
        self.free.sort(reverse=True)

    def take(self, reference: Reference) -> int:
        if not self.left:
            raise CapacityError(_NO_REGISTER)
        row = self.free.pop() if self.free else self.first
        self.first = max(self.first, row + 1)
        self.held[reference] = row
        return row


@dataclass
class _File:
    """Chooses the row of each value."""

    rows: dict[Reference, int]
    homes: Mapping[Reference, str]
    within: Set[Reference]
    last_use: Mapping[Reference, int]
    wide: _Rows
    narrow: _Rows

    @staticmethod
    def of(passes: list[Pass], entry: Sequence[str], next_slots: Mapping[str, Reference]) -> _File:
        """Begin with the inputs that have rows from the start of a step."""
        rows: dict[Reference, int] = {name: row for row, name in enumerate(entry)}
        at_end = tuple(next_slots.values())
        last_use = last_uses(passes, at_end)
        order = [target for one in passes for target in one]
        homes = _homes(next_slots, last_use, {target: position for position, target in enumerate(order)})
        wide, narrow = _Rows(len(rows), PERSISTENT), _Rows(PERSISTENT, PERSISTENT + SCRATCH)
        return _File(rows, homes, within_a_pass(passes, at_end), last_use, wide, narrow)

    def place(self, target: Reference, position: int) -> int:
        """Return the row for the value of the instruction at a position, once its arguments were read."""
        self.wide.release(position, self.last_use)
        self.narrow.release(position, self.last_use)
        if target in self.homes:
            self.rows[target] = self.rows[self.homes[target]]
        elif target not in self.rows:  # the weights have their row
            narrow = target in self.within and self.narrow.left
            self.rows[target] = (self.narrow if narrow else self.wide).take(target)
        return self.rows[target]


def _allocate(program: Program, passes: list[Pass], flow: DataFlow, hoisted: Set[Reference]) -> Encoding:
    columns, next_slots, arguments = _Columns(), flow.next_slots, flow.arguments
    given = [name for name in ("w0", "hess") if name in program.inputs]
    file = _File.of(passes, ("w", "g", *next_slots, *given), next_slots)

    def argument(reference: Reference) -> int:
        scalar = isinstance(reference, float) or reference in hoisted or reference == "loss"
        return columns.argument(reference) if scalar else file.rows[reference]

    code: list[tuple[int, ...]] = []
    ends: list[tuple[int, int]] = []
    for one in passes:
        for target, node in one.items():
            read = tuple(argument(reference) for reference in node.arguments)
            code.append((node.number, file.place(target, len(code)), *read))
        ends.append((len(code) - sum(is_whole(node.number) for node in one.values()), len(code)))
    # The next value of a slot is the slot itself or the value of a statement, never another slot: no copy that ends a
    # step reads a row that another one writes.
    copies = [(file.rows[slot], argument(reference)) for slot, reference in next_slots.items()]
    code += [(number_of("identity", False), target, source) for target, source in copies if target != source]
    ends[-1] = (len(code), len(code))
    highest = max(number for number, *_ in code)
    return Encoding(
        code=_as_array(code, CODE_WIDTH),
        passes=_as_array(ends, 2),
        pass_count=len(ends),
        length=len(code),
        rows=file.wide.first,
        initial_weights=file.rows.get("w0", -1),
        hess=file.rows.get("hess", -1),
        vocabulary=next(name for name, count in OPCODES_OF.items() if highest < FIRST_OPCODE + count),
        program=program,
        columns=tuple(columns.references),
        hoisted=tuple((i, read) for i, read in enumerate(arguments) if i in hoisted),
    )


def _as_array(rows: Sequence[tuple[int, ...]], width: int) -> NDArray[np.int32]:
    if len(rows) > INSTRUCTIONS:
        raise CapacityError(f"the program needs more than {INSTRUCTIONS} instructions")
    table = np.zeros((INSTRUCTIONS, width), np.int32)
    for position, row in enumerate(rows):
        table[position, : len(row)] = row
    return table


def _homes(
    next_slots: Mapping[str, Reference], last_use: Mapping[Reference, int], position: Mapping[Reference, int]
) -> dict[Reference, str]:
    """Return the statements whose value can be written straight into the row of the slot that it becomes."""
    homes: dict[Reference, str] = {}
    for slot, reference in next_slots.items():
        if not isinstance(reference, int) or reference not in position or reference in homes:
            continue
        if last_use.get(slot, -1) <= position[reference]:
            homes[reference] = slot
    return homes


def scalar_table(encoding: Encoding, learning_rates: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scalars of every step, float32 of shape (steps, SCALARS).

    Args:
        encoding: The encoded program.
        learning_rates: The learning rate of every step, shape (steps,).

    """
    program, steps = encoding.program, len(learning_rates)
    values: dict[Reference, NDArray[np.float32] | np.float32] = {
        "lr": learning_rates.astype(np.float32),
        "t": np.arange(1, steps + 1, dtype=np.float32),
        "horizon": np.float32(steps),
    }
    table = np.zeros((steps, SCALARS), np.float32)
    # A constant such as 1e300 is infinite in single precision; that is no cause for a warning either.
    with np.errstate(all="ignore"):
        values |= {h.name: np.float32(h.value) for h in program.hyperparameters}
        for index, references in encoding.hoisted:
            meaning = OPS[program.statements[index].op].under(program.protected)
            assert isinstance(meaning, Elementwise)
            arguments = [np.float32(r) if isinstance(r, float) else values[r] for r in references]
            # Ops without arguments give a Python float, and two of those would be added in double precision.
            values[index] = np.asarray(meaning.numpy(*arguments), np.float32)[()]
        for column, reference in enumerate(encoding.columns):
            table[:, column] = np.float32(reference) if isinstance(reference, float) else values[reference]
    return table
