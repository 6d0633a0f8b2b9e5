"""Which statements of a program only one branch of a `where` needs, and in which order to run the rest around them.

`where` takes a choice entry by entry, so both of its branches are values. Where its condition is one number, for all
parameters or for each parameter tensor, what only the other branch reads need not be computed: the decompositions of a
preconditioner that is renewed every tenth step, say. Here such statements are found. How they are left out is the
executor's: it runs a block if all of its guards hold, and may put any number in the place of its results otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from evolion.primitives.cost import statement_cost
from evolion.primitives.dataflow import DataFlow, Reference, data_flow, reference_kinds
from evolion.primitives.kinds import Kind
from evolion.primitives.op import Reduction
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program, infer_kinds

__all__ = ["Block", "Guard", "schedule"]

WORTHWHILE = 12
"""Operations per entry of a matrix (see `statement_cost`) from which a statement is worth a branch.

That is every product of two matrices and every decomposition, but nothing that works entry by entry.
"""


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition, and whether it has to hold or to fail: as in `where`, it fails where it is zero.

    Attributes:
        condition: What the first argument of a `where` refers to; of the kind scalar or leaf.
        holds: Whether its second argument is meant, rather than the third.

    """

    condition: Reference
    holds: bool


@dataclass(frozen=True, slots=True)
class Block:
    """Statements whose results count only if all guards hold.

    Attributes:
        guards: The conditions, in the order of the program; at least one.
        statements: The indices of the statements, in order; each result is a tensor's, none is one number for all.
        reads: The parameters and the other statements that they and the guards refer to.
        results: Those of the statements that statements outside of the block read.
        by_tensor: Whether a guard is of the kind leaf. The statements of the block then work on each parameter tensor
            on its own, and whether they count is decided for each.

    """

    guards: tuple[Guard, ...]
    statements: tuple[int, ...]
    reads: tuple[int | str, ...]
    results: tuple[int, ...]
    by_tensor: bool


def schedule(program: Program) -> tuple[int | Block, ...]:
    """Return the statements of a program in an order in which they can be run, those worth a branch in blocks.

    A program without such statements is run as it is written. Statements of equal guards share a block where their
    arguments allow it.
    """
    flow, kinds = data_flow(program), infer_kinds(program)
    guards = _guards(program, flow, kinds)
    lazy = _worth_a_branch(program, flow, kinds, guards)
    if not lazy:
        return tuple(range(len(program.statements)))
    stages = _stages(flow, lazy)
    kind_of = reference_kinds(program, kinds)
    order: list[int | Block] = []
    for stage in range(max(stages, default=0) + 1):
        here = [index for index, found in enumerate(stages) if found == stage]
        order += [index for index in here if index not in lazy]
        keys = dict.fromkeys(lazy[index] for index in here if index in lazy)
        order += [_block(key, [i for i in here if lazy.get(i) == key], flow, kind_of) for key in keys]
    return tuple(order)


def _guards(program: Program, flow: DataFlow, kinds: Sequence[Kind]) -> list[frozenset[Guard]]:
    """Return for each statement what must hold if its result is to reach the update or a slot; nothing for dead code.

    Every reader asks for what it is guarded by itself; of several readers, what all of them ask for remains.
    """
    kind_of = reference_kinds(program, kinds)
    asked: list[frozenset[Guard] | None] = [None] * len(program.statements)

    def ask(reference: Reference, guards: frozenset[Guard]) -> None:
        if isinstance(reference, int):
            known = asked[reference]
            asked[reference] = guards if known is None else known & guards

    for reference in (flow.update, *flow.next_slots.values()):
        ask(reference, frozenset())
    for index in reversed(range(len(program.statements))):
        own = asked[index]
        if own is None:
            continue  # dead code asks for nothing
        statement, references = program.statements[index], flow.arguments[index]
        meaning = OPS[statement.op].under(program.protected)
        if kinds[index] is Kind.SCALAR or (isinstance(meaning, Reduction) and meaning.scope is Kind.SCALAR):
            # What one tensor reads of all others counts where the condition of any of them holds.
            own = asked[index] = frozenset(guard for guard in own if kind_of(guard.condition) is Kind.SCALAR)
        branches = statement.op == "where" and kind_of(references[0]) in (Kind.SCALAR, Kind.LEAF)
        for position, reference in enumerate(references):
            guard = {Guard(references[0], position == 1)} if branches and position else set()
            ask(reference, own | guard)
    return [guards or frozenset() for guards in asked]


def _worth_a_branch(
    program: Program, flow: DataFlow, kinds: Sequence[Kind], guards: Sequence[frozenset[Guard]]
) -> dict[int, frozenset[Guard]]:
    """Return the guarded statements that cost much, and those of equal guards that lead to them or follow from them."""
    kind_of = reference_kinds(program, kinds)
    able = {i: key for i, key in enumerate(guards) if key and kinds[i] is not Kind.SCALAR}
    before: set[int] = set()
    for index in reversed(able):
        argument_kinds = tuple(map(kind_of, flow.arguments[index]))
        work = statement_cost(program.statements[index].op, argument_kinds, program.protected)
        if work.decompositions or work.matrix_operations >= WORTHWHILE:
            before.add(index)
        if index in before:
            before.update(a for a in flow.arguments[index] if isinstance(a, int) and able.get(a) == able[index])
    chosen = set(before)
    for index, key in able.items():
        if any(isinstance(a, int) and a in chosen and able[a] == key for a in flow.arguments[index]):
            chosen.add(index)
    return {index: able[index] for index in sorted(chosen)}


def _stages(flow: DataFlow, lazy: dict[int, frozenset[Guard]]) -> list[int]:
    """Return for each statement how many blocks have to end, one after the other, before it can run.

    So the statements of equal guards and stage make a block that waits for none that waits for it. A condition may
    stand after what it guards, but never hangs on it: whatever the condition reads is needed to know it.
    """
    needed: dict[int, list[int]] = {}
    for index, references in enumerate(flow.arguments):
        conditions = [guard.condition for guard in lazy.get(index, ())]
        needed[index] = [reference for reference in (*references, *conditions) if isinstance(reference, int)]
    stages = [0] * len(needed)
    for index in TopologicalSorter(needed).static_order():
        ends = [stages[other] + int(other in lazy and lazy[other] != lazy.get(index)) for other in needed[index]]
        stages[index] = max(ends, default=0)
    return stages


def _block(key: frozenset[Guard], inside: list[int], flow: DataFlow, kind_of: Callable[[Reference], Kind]) -> Block:
    # Constants come first, then parameters, then statements: no order of hashes reaches the compiled program.
    guards = sorted(key, key=lambda guard: (isinstance(guard.condition, int), repr(guard.condition), guard.holds))
    used = [*(guard.condition for guard in guards), *(a for index in inside for a in flow.arguments[index])]
    read = {a for index, references in enumerate(flow.arguments) if index not in inside for a in references}
    return Block(
        guards=tuple(guards),
        statements=tuple(inside),
        reads=tuple(dict.fromkeys(r for r in used if not isinstance(r, float) and r not in inside)),
        results=tuple(index for index in inside if index in read),
        by_tensor=any(kind_of(guard.condition) is Kind.LEAF for guard in guards),
    )
