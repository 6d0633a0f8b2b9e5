"""A program as numbers that one compiled loop can interpret. NumPy only.

Three things are taken out of the inner loop before it starts. Scalars that depend on nothing but constants, the
learning rate, the step and the horizon are worked out for all steps at once (bias corrections, decayed rates) and stand
in a table with one row a step. Names are resolved to rows of a register file by linear-scan allocation. Frequent pairs
of operations become one instruction (`FUSED`), as the cost of an instruction is that of reading and writing a row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evolion.evaluators.opcodes import (
    FIRST_OPCODE,
    FUSED,
    MAXIMUM_ARGUMENTS,
    OPCODES_OF,
    RUNTIME_INPUTS,
    has_instruction,
    number_of,
)
from evolion.primitives.dataflow import DataFlow, Reference, data_flow, remove_dead_code
from evolion.primitives.kinds import Kind
from evolion.primitives.op import Elementwise
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program, infer_kinds

__all__ = [
    "CODE_WIDTH",
    "INSTRUCTIONS",
    "REGISTERS",
    "SCALARS",
    "CapacityError",
    "Encoding",
    "encode",
    "scalar_table",
]

REGISTERS = 32
INSTRUCTIONS = 128
SCALARS = 64
CODE_WIDTH = 2 + MAXIMUM_ARGUMENTS
"""An instruction is (opcode, target row, arguments …); an argument below 0 is column -1 - argument of the table."""

WEIGHTS, GRADIENT = 0, 1
"""The rows of the register file that hold the weights and the gradient."""

_SCHEDULED = ("lr", "t", "horizon")


class CapacityError(ValueError):
    """A program does not fit the interpreter; it has to be compiled instead."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """A program ready to be interpreted.

    Attributes:
        code: Instructions, int32 of shape (INSTRUCTIONS, CODE_WIDTH); rows from `length` on are unused.
        length: The number of instructions.
        update: The argument that is subtracted from the weights after the last instruction.
        initial_weights: The row that holds the weights of the start, or -1.
        hess: The row that holds the estimate of the Hessian diagonal at the start of each step, or -1.
        vocabulary: "lion" or "full": the smallest that has every instruction of the code.
        program: What `scalar_table` computes: the program without dead code.
        columns: For each column of the table what it holds: a constant, a scheduled input or a hoisted statement.

    """

    code: NDArray[np.int32]
    length: int
    update: int
    initial_weights: int
    hess: int
    vocabulary: str
    program: Program
    columns: tuple[Reference, ...]


@dataclass
class _Node:
    """One instruction before registers are chosen: an opcode number and the references it reads."""

    number: int
    arguments: tuple[Reference, ...]


@dataclass
class _Columns:
    """Gives each scheduled scalar that the loop needs a column of the table."""

    index: dict[str, int] = field(default_factory=dict)
    references: list[Reference] = field(default_factory=list)

    def argument(self, reference: Reference) -> int:
        # By text: 1 (a statement) equals 1.0 (a constant) as a key, and 0.0 equals -0.0.
        column = self.index.setdefault(repr(reference), len(self.index))
        if column >= SCALARS:
            raise CapacityError(f"the program needs more than {SCALARS} scalars per step")
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
    nodes = _fuse(program, flow.arguments, flow.update, tuple(flow.next_slots.values()), hoisted)
    return _allocate(program, nodes, flow.update, flow.next_slots, hoisted)


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


def _fuse(
    program: Program,
    arguments: tuple[tuple[Reference, ...], ...],
    update: Reference,
    next_slots: tuple[Reference, ...],
    hoisted: set[Reference],
) -> dict[int, _Node]:
    """Return the instructions by the statement whose value they produce, with frequent pairs made one."""
    read = [r for i, references in enumerate(arguments) if i not in hoisted for r in references]
    # Constants are left out: as a key 1.0 would be counted with statement 1.
    uses = Counter(r for r in (*read, update, *next_slots) if not isinstance(r, float))
    nodes: dict[int, _Node] = {}
    plain: dict[int, str] = {}
    for index, statement in enumerate(program.statements):
        if index in hoisted:
            continue
        references = arguments[index]
        fused = None
        for outer, position, inner in FUSED:
            for ordered in _orders(statement.op, references) if statement.op == outer else ():
                candidate = ordered[position]
                if isinstance(candidate, int) and plain.get(candidate) == inner and uses[candidate] == 1:
                    spliced = ordered[:position] + nodes[candidate].arguments + ordered[position + 1 :]
                    fused = _Node(number_of(outer, program.protected, inner, position), spliced)
                    del nodes[candidate], plain[candidate]
                    break
            if fused:
                break
        nodes[index] = fused or _Node(number_of(statement.op, program.protected), references)
        if not fused:
            plain[index] = statement.op
    return nodes


def _orders(op: str, references: tuple[Reference, ...]) -> tuple[tuple[Reference, ...], ...]:
    return (references, references[::-1]) if OPS[op].commutative else (references,)


@dataclass
class _Registers:
    """Linear-scan allocation: a row is free again after the last use of what it holds."""

    reserved: int
    last_use: dict[Reference, int]
    free: list[int] = field(default_factory=list)
    high: int = 0
    rows: dict[Reference, int] = field(default_factory=dict)
    temporary: set[Reference] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.high = self._checked(self.reserved)

    def release(self, position: int) -> None:
        for reference in [r for r in self.temporary if self.last_use.get(r, -1) <= position]:
            self.temporary.discard(reference)
            self.free.append(self.rows[reference])
        self.free.sort(reverse=True)

    def take(self) -> int:
        if self.free:
            return self.free.pop()
        self.high = self._checked(self.high + 1)
        return self.high - 1

    @staticmethod
    def _checked(count: int) -> int:
        if count > REGISTERS:
            raise CapacityError(f"the program needs more than {REGISTERS} registers")
        return count


def _allocate(
    program: Program,
    nodes: dict[int, _Node],
    update: Reference,
    next_slots: dict[str, Reference],
    hoisted: set[Reference],
) -> Encoding:
    columns = _Columns()
    rows: dict[Reference, int] = {"w": WEIGHTS, "g": GRADIENT}
    loaded = [name for name in ("w0", "hess", *RUNTIME_INPUTS) if name in program.inputs]
    for name in (*next_slots, *loaded):
        rows[name] = len(rows)
    last_use = _last_uses(nodes, (update, *next_slots.values()), len(program.statements))
    registers = _Registers(len(rows), last_use, rows=rows)

    def argument(reference: Reference) -> int:
        return columns.argument(reference) if isinstance(reference, float) or reference in hoisted else rows[reference]

    code: list[tuple[int, ...]] = [
        (RUNTIME_INPUTS.index(name), rows[name]) for name in loaded if name in RUNTIME_INPUTS
    ]
    homes = _homes(next_slots, last_use, nodes)
    for index, node in nodes.items():
        read = tuple(argument(reference) for reference in node.arguments)
        registers.release(index)
        if index in homes:
            rows[index] = rows[homes[index]]
        else:
            rows[index] = registers.take()
            registers.temporary.add(index)
        code.append((node.number, rows[index], *read))
    # The next value of a slot is the slot itself or the value of a statement, never another slot: no copy that ends a
    # step reads a row that another one writes.
    copies = [(rows[slot], argument(reference)) for slot, reference in next_slots.items()]
    code += [(number_of("identity", False), target, source) for target, source in copies if target != source]
    last = max((number for number, *_ in code), default=0)
    return Encoding(
        code=_as_array(code),
        length=len(code),
        update=argument(update),
        initial_weights=rows.get("w0", -1),
        hess=rows.get("hess", -1),
        vocabulary=next(name for name, count in OPCODES_OF.items() if last < FIRST_OPCODE + count),
        program=program,
        columns=tuple(columns.references),
    )


def _as_array(code: list[tuple[int, ...]]) -> NDArray[np.int32]:
    if len(code) > INSTRUCTIONS:
        raise CapacityError(f"the program needs more than {INSTRUCTIONS} instructions")
    table = np.zeros((INSTRUCTIONS, CODE_WIDTH), np.int32)
    for position, row in enumerate(code):
        table[position, : len(row)] = row
    return table


def _last_uses(nodes: dict[int, _Node], at_end: tuple[Reference, ...], end: int) -> dict[Reference, int]:
    last_use: dict[Reference, int] = {}
    for index, node in nodes.items():
        last_use |= dict.fromkeys([r for r in node.arguments if not isinstance(r, float)], index)
    return last_use | dict.fromkeys([r for r in at_end if not isinstance(r, float)], end)


def _homes(next_slots: dict[str, Reference], last_use: dict[Reference, int], nodes: dict[int, _Node]) -> dict[int, str]:
    """Return the statements whose value can be written straight into the row of the slot that it becomes."""
    homes: dict[int, str] = {}
    for slot, reference in next_slots.items():
        if not isinstance(reference, int) or reference not in nodes or reference in homes:
            continue
        if last_use.get(slot, -1) <= reference:
            homes[reference] = slot
    return homes


def scalar_table(encoding: Encoding, learning_rates: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scalars of every step, float32 of shape (steps, SCALARS).

    Args:
        encoding: The encoded program.
        learning_rates: The learning rate of every step, shape (steps,).

    """
    program, steps = encoding.program, len(learning_rates)
    flow = data_flow(program)
    hoisted = _hoisted(program)
    values: dict[Reference, NDArray[np.float32] | np.float32] = {
        "lr": learning_rates.astype(np.float32),
        "t": np.arange(1, steps + 1, dtype=np.float32),
        "horizon": np.float32(steps),
    }
    table = np.zeros((steps, SCALARS), np.float32)
    # A constant such as 1e300 is infinite in single precision; that is no cause for a warning either.
    with np.errstate(all="ignore"):
        values |= {h.name: np.float32(h.value) for h in program.hyperparameters}
        for index, statement in enumerate(program.statements):
            if index in hoisted:
                meaning = OPS[statement.op].under(program.protected)
                assert isinstance(meaning, Elementwise)
                arguments = [np.float32(r) if isinstance(r, float) else values[r] for r in flow.arguments[index]]
                # Ops without arguments give a Python float, and two of those would be added in double precision.
                values[index] = np.asarray(meaning.numpy(*arguments), np.float32)[()]
        for column, reference in enumerate(encoding.columns):
            table[:, column] = np.float32(reference) if isinstance(reference, float) else values[reference]
    return table
