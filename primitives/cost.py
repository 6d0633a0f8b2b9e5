"""What a program costs, read off its data flow, for parameters of given shapes.

The convention: addition, subtraction, multiplication, division, square root, absolute value, sign, comparison, min and
max are one floating-point operation each. So is a call of a transcendental function (sine, exponential, logarithm, cube
root, general power, …), which is counted separately as well, as it takes a machine many times as long. A sum over n
entries is n operations, a product of matrices 2 m k n; the ops on matrices say for themselves what they take. Only what
can reach an update counts, and a statement counts by the kind of its values: a vector of rows is n times cheaper than
the matrix. The subtraction of the update from the weights is not counted: all programs have it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from evolion.primitives.dataflow import DataFlow, Reference, data_flow, live_statements, reference_kinds
from evolion.primitives.kinds import SIDES, Kind
from evolion.primitives.layout import matrix_sides
from evolion.primitives.op import Matrixwise, Reduction
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program, infer_kinds

__all__ = ["DECOMPOSITIONS", "REFERENCE_SHAPES", "Cost", "cost", "statement_cost"]

Shapes = tuple[tuple[int, ...], ...]

REFERENCE_SHAPES: Shapes = ((1024, 1024),)
"""The parameters of the network for which a cost is stated where no shapes are given: one matrix."""

DECOMPOSITIONS = frozenset(("inverse", "inverse_root", "eigenvectors", "power_iteration"))
"""The ops that factor a matrix: slow and hard to run in parallel, whatever their number of operations says."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one step takes; costs can be added.

    Attributes:
        operations: Floating-point operations per parameter, entry by entry and in sums.
        transcendental: How many of them are calls of transcendental functions.
        matrix_operations: Floating-point operations per parameter in ops on matrices, such as products.
        tensor_operations: Operations per parameter tensor (on values of the kind leaf).
        scalar_operations: Operations per step, whatever the size of the network.
        tensor_reductions: Sums, means and maxima over rows, columns or a whole parameter tensor.
        tree_reductions: Those over the whole tree, such as a global norm; each is communication where a tree is
            sharded.
        decompositions: Factorisations of matrices (see `DECOMPOSITIONS`), for each parameter tensor.
        slots: State slots.
        state: Numbers of state per parameter: the slots, and the initial weights where they are read. A slot with one
            number per tensor, or one in all, counts nothing here: its share of a large tensor is zero.
        workspace: Numbers per parameter that statements have computed and that are still needed, where they are most:
            the update and the next slots among them, weights, gradients and the state of before not. What is run
            statement by statement holds as much; a compiler that fuses statements holds less. Of sums it is the larger.

    """

    operations: float = 0
    transcendental: float = 0
    matrix_operations: float = 0
    tensor_operations: int = 0
    scalar_operations: int = 0
    tensor_reductions: int = 0
    tree_reductions: int = 0
    decompositions: int = 0
    slots: int = 0
    state: float = 0
    workspace: float = 0

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of doing one after the other."""
        return _total([self, other])


_values = attrgetter(*(field.name for field in fields(Cost)))


def _total(costs: Sequence[Cost]) -> Cost:
    # Sums are rounded once, so that the order of statements does not count.
    *sums, spaces = zip(*map(_values, costs), strict=True)
    totals: list[Any] = [_number(math.fsum(column)) for column in sums]
    return Cost(*[*totals, max(spaces)])


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


@cache
def _shares(shapes: Shapes) -> Mapping[Kind, float]:
    """Return how many numbers a value of each kind has per parameter; for leaf and scalar that is next to none."""
    if not shapes or any(size < 1 for shape in shapes for size in shape):
        raise ValueError(f"shapes must be those of tensors that are not empty, at least one; got {shapes!r}")
    sides = [matrix_sides(shape) for shape in shapes]
    parameters = sum(m * n for m, n in sides)
    shares = {}
    for kind, (rows, columns) in SIDES.items():
        lengths = [{"1": 1, "m": m, "n": n} for m, n in sides]
        shares[kind] = sum(length[rows] * length[columns] for length in lengths) / parameters
    return MappingProxyType(shares | {Kind.LEAF: 0.0, Kind.SCALAR: 0.0})


@lru_cache(maxsize=4096)
def statement_cost(
    op: str,
    kinds: tuple[Kind, ...],
    protected: bool,
    *,
    args: tuple[Reference, ...] = (),
    shapes: Shapes = REFERENCE_SHAPES,
) -> Cost:
    """Return the cost of one operation on arguments of given kinds, in a program that is protected or not.

    Args:
        op: Its name.
        kinds: The kinds of its arguments.
        protected: As in `Program`.
        args: The arguments of an op on matrices; where its cost depends on them, numbers are read, all else is guessed.
        shapes: Those of the parameter tensors.

    """
    meaning, kind = OPS[op].under(protected), OPS[op].signatures[kinds]
    if isinstance(meaning, Matrixwise):
        sides = [matrix_sides(shape) for shape in shapes]
        values = args or ("unknown",) * len(kinds)
        work = sum(meaning.operations(m, n, kinds, values) for m, n in sides) / sum(m * n for m, n in sides)
        return Cost(matrix_operations=work, decompositions=int(op in DECOMPOSITIONS))
    tree = tensor = 0
    if isinstance(meaning, Reduction):
        kind = kinds[0]
        tree = int(meaning.scope is Kind.SCALAR)
        tensor = 1 - tree
    if kind is Kind.SCALAR or kind is Kind.LEAF:
        single = kind is Kind.SCALAR
        return Cost(
            tensor_operations=0 if single else meaning.operations,
            scalar_operations=meaning.operations if single else 0,
            tensor_reductions=tensor,
            tree_reductions=tree,
        )
    share = _shares(shapes)[kind]
    return Cost(
        _number(share * meaning.operations),
        _number(share * meaning.transcendental),
        tensor_reductions=tensor,
        tree_reductions=tree,
    )


def cost(program: Program, shapes: Sequence[Sequence[int]] | None = None) -> Cost:
    """Return what one step of a program costs; dead code costs nothing.

    A statement counts as often as it is written: no common subexpression is merged, no constant folded. Of `clip`, its
    few operations on the sum are not counted.

    Args:
        program: The program.
        shapes: The shapes of the parameter tensors; `REFERENCE_SHAPES` where none are given.

    Raises:
        ValueError: If there are no shapes, or one has an axis without entries.

    """
    sizes = REFERENCE_SHAPES if shapes is None else tuple(tuple(shape) for shape in shapes)
    shares = _shares(sizes)
    flow, kinds = data_flow(program), infer_kinds(program)
    statements, parameters = live_statements(program, flow)
    kind_of = reference_kinds(program, kinds)
    numbers = {h.name: h.value for h in program.hyperparameters}
    slots = [slot for slot in program.slots if slot.name in parameters]
    state = math.fsum([*[shares[slot.kind] for slot in slots], float("w0" in parameters)])
    parts = [
        Cost(slots=len(slots), state=_number(state), workspace=_workspace(program, flow, statements, kinds, shares))
    ]
    for index in statements:
        references = flow.arguments[index]
        op, found = program.statements[index].op, tuple(map(kind_of, references))
        args: tuple[Reference, ...] = ()
        if isinstance(OPS[op].meaning, Matrixwise):
            # Only there do values count; without them, costs are computed once and for all.
            args = tuple([numbers.get(r, r) if isinstance(r, str) else r for r in references])
        parts.append(statement_cost(op, found, program.protected, args=args, shapes=sizes))
    return _total(parts)


def _workspace(
    program: Program, flow: DataFlow, live: set[int], kinds: Sequence[Kind], shares: Mapping[Kind, float]
) -> float:
    """Return the most numbers per parameter that are computed and still needed after any live statement."""
    own: dict[Reference, Reference] = {}  # an assignment makes no number of its own
    for index in sorted(live):
        if program.statements[index].op == "identity":
            own[index] = own.get(flow.arguments[index][0], flow.arguments[index][0])
    last: dict[Reference, int] = {}
    for index in sorted(live):
        last |= {own.get(reference, reference): index for reference in flow.arguments[index]}
    ends = (flow.update, *flow.next_slots.values())
    last |= {own.get(reference, reference): len(program.statements) for reference in ends if reference in live}
    held: dict[int, float] = {}
    most = 0.0
    for index in sorted(live):
        if index not in own:
            held[index] = shares[kinds[index]]
        most = max(most, sum(held.values()))
        held = {i: share for i, share in held.items() if last.get(i, -1) > index}
    return _number(most)
