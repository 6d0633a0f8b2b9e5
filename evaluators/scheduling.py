"""The instructions of a program in the order in which they run: pairs made one, passes over the tiles. NumPy only.

What an instruction costs is a dispatch (about 0.2 microseconds) and the reading and writing of its rows. So:

- Frequent pairs of operations become one instruction (`FUSED`); the subtraction of the update is an instruction too.
- Instructions that work entry by entry are run tile by tile, all of them over one tile before the next, so that what
  lives between them stays in cache. Those that need whole tensors (reductions, noise) come between such passes, and
  passes are as few as what needs what allows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from evolion.evaluators.opcodes import FUSED, NOISE, is_whole, number_of
from evolion.primitives.dataflow import DataFlow, Reference
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program

__all__ = ["Node", "Pass", "fuse", "last_uses", "scheduled", "within_a_pass"]


@dataclass(frozen=True, slots=True)
class Node:
    """One instruction before registers are chosen: an opcode number and the references it reads."""

    number: int
    arguments: tuple[Reference, ...]


Pass = dict[Reference, Node]
"""The instructions of a pass in their order, by what their value is referred to."""


def fuse(program: Program, flow: DataFlow, hoisted: set[Reference]) -> dict[Reference, Node]:
    """Return the instructions by the statement whose value they produce, with frequent pairs made one.

    The last is the subtraction of the update, by the name of the weights. Noise is one, by its own name.
    """
    read = [r for i, references in enumerate(flow.arguments) if i not in hoisted for r in references]
    # Constants are left out: as a key 1.0 would be counted with statement 1.
    uses = Counter(r for r in (*read, flow.update, *flow.next_slots.values()) if not isinstance(r, float))
    nodes: dict[Reference, Node] = {"noise": Node(NOISE, ())} if "noise" in program.inputs else {}
    plain: dict[Reference, str] = {}
    steps: list[tuple[Reference, str, tuple[Reference, ...]]] = [
        (index, statement.op, flow.arguments[index])
        for index, statement in enumerate(program.statements)
        if index not in hoisted
    ]
    for target, op, references in (*steps, ("w", "subtract", ("w", flow.update))):
        fused = None
        for outer, position, inner in FUSED:
            for ordered in _orders(op, references) if op == outer else ():
                candidate = ordered[position]
                if isinstance(candidate, int) and plain.get(candidate) == inner and uses[candidate] == 1:
                    spliced = ordered[:position] + nodes[candidate].arguments + ordered[position + 1 :]
                    fused = Node(number_of(outer, program.protected, inner, position), spliced)
                    del nodes[candidate], plain[candidate]
                    break
            if fused:
                break
        nodes[target] = fused or Node(number_of(op, program.protected), references)
        if not fused:
            plain[target] = op
    return nodes


def _orders(op: str, references: tuple[Reference, ...]) -> tuple[tuple[Reference, ...], ...]:
    return (references, references[::-1]) if OPS[op].commutative else (references,)


def scheduled(nodes: dict[Reference, Node]) -> list[Pass]:
    """Return the instructions by pass: each as early as what it reads allows, those that need whole tensors last.

    A value that needs whole tensors is there from the next pass on. The weights change in the last pass.
    """
    level: dict[Reference, int] = {}
    for target, node in nodes.items():
        inner = [r for r in node.arguments if r in level and not isinstance(r, float)]
        level[target] = max((level[r] + is_whole(nodes[r].number) for r in inner), default=0)
    last = max(level[target] + is_whole(node.number) for target, node in nodes.items())
    level["w"] = last
    passes: list[Pass] = [{} for _ in range(last + 1)]
    for whole in (False, True):
        for target, node in nodes.items():
            if is_whole(node.number) is whole:
                passes[level[target]][target] = node
    return passes


def last_uses(passes: list[Pass], at_end: tuple[Reference, ...]) -> dict[Reference, int]:
    """Return the position of the last instruction that reads each value; those of `at_end` outlast all."""
    last_use: dict[Reference, int] = {}
    position = 0
    for one in passes:
        for node in one.values():
            last_use |= dict.fromkeys([r for r in node.arguments if not isinstance(r, float)], position)
            position += 1
    return last_use | dict.fromkeys([r for r in at_end if not isinstance(r, float)], position)


def within_a_pass(passes: list[Pass], at_end: tuple[Reference, ...]) -> set[Reference]:
    """Return the values that only instructions of the pass that makes them read, entry by entry."""
    made = {
        target: number for number, one in enumerate(passes) for target, node in one.items() if not is_whole(node.number)
    }
    crossing = {
        reference
        for number, one in enumerate(passes)
        for node in one.values()
        for reference in node.arguments
        if not isinstance(reference, float) and (is_whole(node.number) or made.get(reference) != number)
    }
    last = len(passes) - 1
    crossing |= {r for r in at_end if not isinstance(r, float) and made.get(r) != last}
    return set(made) - crossing
