"""What a program costs, read off its data flow.

The convention: addition, subtraction, multiplication, division, square root, absolute value, sign, comparison, min and
max are one floating-point operation each. So is a call of a transcendental function (sine, exponential, logarithm, cube
root, general power, …), which is counted separately as well, as it takes a machine many times as long. A sum over n
entries is n operations. Only what can reach an update counts, and a statement counts by the kind of its values: per
parameter, per parameter tensor, or once a step. The subtraction of the update from the weights is not counted: all
programs have it.
"""

from __future__ import annotations

from dataclasses import dataclass

from evolion.primitives.dataflow import data_flow, live_statements
from evolion.primitives.kinds import Kind
from evolion.primitives.op import Reduction
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program, Statement, infer_kinds

__all__ = ["Cost", "cost", "statement_cost"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one step takes; costs can be added.

    Attributes:
        operations: Floating-point operations per parameter.
        transcendental: How many of them are calls of transcendental functions.
        tensor_operations: Operations per parameter tensor (on values of the kind leaf).
        scalar_operations: Operations per step, whatever the size of the network.
        tensor_reductions: Sums over each parameter tensor.
        tree_reductions: Sums over the whole tree, such as a global norm; each is communication where a tree is sharded.
        slots: State slots.
        state: Numbers of state per parameter: the slots of kind tensor, and the initial weights where they are read.
            A slot with one number per tensor, or one in all, counts nothing here: its share of a large tensor is zero.

    """

    operations: int = 0
    transcendental: int = 0
    tensor_operations: int = 0
    scalar_operations: int = 0
    tensor_reductions: int = 0
    tree_reductions: int = 0
    slots: int = 0
    state: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of doing both."""
        return Cost(
            self.operations + other.operations,
            self.transcendental + other.transcendental,
            self.tensor_operations + other.tensor_operations,
            self.scalar_operations + other.scalar_operations,
            self.tensor_reductions + other.tensor_reductions,
            self.tree_reductions + other.tree_reductions,
            self.slots + other.slots,
            self.state + other.state,
        )


def statement_cost(statement: Statement, kind: Kind, protected: bool) -> Cost:
    """Return the cost of one statement whose value is of the given kind, in a program that is protected or not."""
    meaning = OPS[statement.op].under(protected)
    if isinstance(meaning, Reduction):
        return Cost(
            meaning.operations,
            meaning.transcendental,
            tensor_reductions=int(meaning.scope is Kind.LEAF),
            tree_reductions=int(meaning.scope is Kind.SCALAR),
        )
    if kind is Kind.TENSOR:
        return Cost(meaning.operations, meaning.transcendental)
    if kind is Kind.LEAF:
        return Cost(tensor_operations=meaning.operations)
    return Cost(scalar_operations=meaning.operations)


def cost(program: Program) -> Cost:
    """Return what one step of a program costs; dead code costs nothing.

    A statement counts as often as it is written: no common subexpression is merged, no constant folded. Of `clip`, its
    few operations on the sum are not counted.
    """
    statements, parameters = live_statements(program, data_flow(program))
    kinds = infer_kinds(program)
    slots = [slot for slot in program.slots if slot.name in parameters]
    kept = sum(slot.kind is Kind.TENSOR for slot in slots) + ("w0" in parameters)
    parts = (statement_cost(program.statements[i], kinds[i], program.protected) for i in statements)
    return sum(parts, start=Cost(slots=len(slots), state=kept))
