"""Data flow: which value each argument refers to, what is live, and programs without what is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from evolion.primitives.kinds import Kind
from evolion.primitives.program import Argument, Parameter, Program, Statement

__all__ = ["Body", "DataFlow", "Reference", "data_flow", "live_statements", "reference_kinds", "remove_dead_code"]

Reference = int | str | float
"""What an argument refers to: the statement of that index, the parameter of that name at entry, or a constant."""


@dataclass(frozen=True, slots=True)
class DataFlow:
    """A program with every name resolved.

    Attributes:
        arguments: For each statement the references of its arguments.
        update: The reference of the update.
        next_slots: For each slot name the reference of its value after the step, in the order of the signature.

    """

    arguments: tuple[tuple[Reference, ...], ...]
    update: Reference
    next_slots: dict[str, Reference]


class Body(Protocol):
    """What has data flow: a program, or the draft of one that nobody has checked yet."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Reserved inputs and state slots."""
        ...

    @property
    def statements(self) -> tuple[Statement, ...]:
        """The operations in order."""
        ...

    @property
    def update(self) -> Argument:
        """What is returned first."""
        ...


def data_flow(program: Body) -> DataFlow:
    """Resolve every name of a program to what it refers to; a rebound name refers to its last binding."""
    bound: dict[Argument, Reference] = {}
    arguments = []
    for index, statement in enumerate(program.statements):
        arguments.append(tuple([bound.get(argument, argument) for argument in statement.args]))
        bound[statement.target] = index
    slots = {slot.name: bound.get(slot.name, slot.name) for slot in program.parameters if slot.slot}
    return DataFlow(tuple(arguments), bound.get(program.update, program.update), slots)


def live_statements(program: Body, flow: DataFlow | None = None) -> tuple[set[int], set[str]]:
    """Return the indices of the statements and the names of the parameters that can reach an update, now or later.

    A slot is live if the update reads it, or a live slot's next value does. Pass the data flow where it is known.
    """
    flow = flow or data_flow(program)
    statements: set[int] = set()
    parameters: set[str] = set()
    pending: list[Reference] = [flow.update]
    while pending:
        reference = pending.pop()
        if reference.__class__ is int:
            if reference not in statements:
                statements.add(reference)
                pending += flow.arguments[reference]
        elif reference.__class__ is str and reference not in parameters:
            parameters.add(reference)
            if reference in flow.next_slots:
                pending.append(flow.next_slots[reference])
    return statements, parameters


def reference_kinds(program: Program, kinds: Sequence[Kind]) -> Callable[[Reference], Kind]:
    """Return the function from a reference to the kind of its value; `kinds` are those of the statements."""
    entry = {p.name: p.kind for p in program.parameters} | {h.name: Kind.SCALAR for h in program.hyperparameters}

    def kind_of(reference: Reference) -> Kind:
        if isinstance(reference, int):
            return kinds[reference]
        return entry[reference] if isinstance(reference, str) else Kind.SCALAR

    return kind_of


def remove_dead_code(program: Program) -> Program:
    """Return the program without the statements, slots, inputs and hyperparameters that no update can depend on.

    Every update of every step stays the same, bit for bit. Comments of removed statements go with them.
    """
    statements, parameters = live_statements(program)
    if len(statements) == len(program.statements) and len(parameters) == len(program.parameters) + len(
        program.hyperparameters
    ):
        return program
    kept = sorted(statements)
    moved = {old: new for new, old in enumerate(kept)} | {-1: -1, len(program.statements): len(kept)}
    return replace(
        program,
        parameters=tuple(p for p in program.parameters if p.name in parameters),
        hyperparameters=tuple(h for h in program.hyperparameters if h.name in parameters),
        statements=tuple(program.statements[index] for index in kept),
        comments=tuple(replace(c, before=moved[c.before]) for c in program.comments if c.before in moved),
    )
