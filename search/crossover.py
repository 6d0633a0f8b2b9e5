"""Crossover by data-flow cut: a value of one program, with all that it is made from, in the place of one of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from evolion.primitives.dataflow import Reference, data_flow
from evolion.primitives.kinds import Kind, widens
from evolion.primitives.program import Hyperparameter, Parameter, Program, Statement
from evolion.search.drafts import (
    Draft,
    draft_of,
    finish,
    free_name,
    fresh_names,
    offer,
    prepared,
    with_body,
    without_statement,
)
from evolion.search.draws import shuffled

if TYPE_CHECKING:
    from evolion.search.mutation import MutationConfig

__all__ = ["can_cross", "crossover"]


def can_cross(program: Program, config: MutationConfig, mate: Program | None = None) -> bool:
    """Say whether there is another program with a value that the first can take; their arithmetic must be the same."""
    if mate is None:
        return False
    return next(_children(program, mate, config, list), None) is not None


def crossover(
    program: Program, rng: np.random.Generator, config: MutationConfig, mate: Program | None = None
) -> Program | None:
    """Put a value of the mate in the place of a value of the program that is of the same kind or a wider one.

    What the value is made from comes along, state slots with their updates included, under names of its own. Shared are
    inputs, hyperparameters with the same name and value, and slots with the same name and update, as relatives have.
    """
    if mate is None:
        return None
    return next(_children(program, mate, config, lambda items: shuffled(items, rng)), None)


def _children(
    program: Program, mate: Program, config: MutationConfig, order: Callable[[Sequence[int]], list[int]]
) -> Iterator[Program]:
    """Yield the children that are new and not too long, for values and places in an order."""
    if mate == program or mate.protected != program.protected:
        return
    longest = max(config.maximum_statements, len(program.statements))
    own = prepared(program)[1]
    kinds = offer(mate).results
    for root in order(range(len(kinds))):
        targets = _targets(program, kinds[root])
        graft = _graft(program, mate, root) if targets else None
        for target in order(targets):
            child = None if graft is None else _planted(program, graft, target)
            if child is not None and len(child.statements) <= longest and prepared(child)[1] != own:
                yield child


def _targets(program: Program, kind: Kind) -> list[int]:
    """Return the statements whose value one of a kind could stand for; the number of statements stands for the update.

    Where the value gets narrower, its readers may still refuse it.
    """
    targets = [index for index, wide in enumerate(offer(program).results) if widens(kind, wide)]
    return [*targets, len(program.statements)] if widens(kind, Kind.TENSOR) else targets


@dataclass(frozen=True, slots=True)
class _Graft:
    """A value with all that it is made from, in names that are free in the program that takes it.

    Attributes:
        inputs: Reserved inputs that it reads.
        slots: State slots.
        hyperparameters: Named constants that the program does not have.
        statements: What computes the value and the next values of the slots.
        root: The name of the value.

    """

    inputs: tuple[str, ...]
    slots: tuple[Parameter, ...]
    hyperparameters: tuple[Hyperparameter, ...]
    statements: tuple[Statement, ...]
    root: str


def _graft(program: Program, mate: Program, root: int) -> _Graft:
    flow = data_flow(mate)
    shared = _shared_slots(program, mate)
    needed: set[Reference] = set()
    pending: list[Reference] = [root]
    while pending:
        reference = pending.pop()
        if isinstance(reference, float) or reference in needed:
            continue
        needed.add(reference)
        if isinstance(reference, int):
            pending += flow.arguments[reference]
        elif reference in flow.next_slots and reference not in shared:
            pending.append(flow.next_slots[reference])
    cone = sorted(index for index in needed if isinstance(index, int))
    renamed, slots, hyperparameters = _renamed_entries(program, mate, needed, shared)
    draft = offer(program).draft
    fresh = fresh_names(draft)
    taken = {slot.name for slot in slots} | {h.name for h in hyperparameters}
    for index in cone:
        renamed[index] = next(name for name in fresh if name not in taken)
    for slot, reference in flow.next_slots.items():
        if slot in needed and slot not in shared and isinstance(reference, int):
            renamed[reference] = renamed[slot]
    statements = []
    for index in cone:
        args = [ref if isinstance(ref, float) else renamed[ref] for ref in flow.arguments[index]]
        statements.append(Statement(renamed[index], mate.statements[index].op, tuple(args)))
    inputs = tuple(name for name in mate.inputs if name in needed)
    return _Graft(inputs, tuple(slots), tuple(hyperparameters), tuple(statements), renamed[root])


def _shared_slots(program: Program, mate: Program) -> set[str]:
    """Return the slots of both programs that go through the same values: the most that can be assumed to."""
    shared = {slot.name for slot in mate.slots if slot in program.slots}
    while True:
        numbers: dict[object, int] = {}
        first, second = _numbered(program, shared, numbers), _numbered(mate, shared, numbers)
        same = {name for name in shared if first[name] == second[name]}
        if same == shared:
            return shared
        shared = same


def _numbered(program: Program, shared: set[str], numbers: dict[object, int]) -> dict[str, int]:
    """Return by slot the number of its next value; values of two programs that are made in the same way share one."""
    flow = data_flow(program)
    constants = {h.name: h.value for h in program.hyperparameters}
    own: dict[Reference, int] = {}

    def number(reference: Reference) -> int:
        if isinstance(reference, int):
            return own[reference]
        if isinstance(reference, str) and reference not in constants:
            unlike = reference in flow.next_slots and reference not in shared
            return numbers.setdefault((reference, id(program) if unlike else 0), len(numbers))
        value = constants[reference] if isinstance(reference, str) else reference
        return numbers.setdefault(repr(value), len(numbers))

    for index, statement in enumerate(program.statements):
        key = (statement.op, tuple([number(reference) for reference in flow.arguments[index]]))
        own[index] = numbers.setdefault(key, len(numbers))
    return {name: number(reference) for name, reference in flow.next_slots.items()}


def _renamed_entries(
    program: Program, mate: Program, needed: set[Reference], shared: set[str]
) -> tuple[dict[Reference, str], list[Parameter], list[Hyperparameter]]:
    """Return the names of what the value starts from, and the slots and hyperparameters that are new."""
    renamed: dict[Reference, str] = {name: name for name in (*mate.inputs, *shared)}
    own: Mapping[str, float] = {h.name: h.value for h in program.hyperparameters}
    taken = {statement.target for statement in program.statements} | set(own)
    taken |= {parameter.name for parameter in program.parameters}
    slots, hyperparameters = [], []
    for slot in mate.slots:
        if slot.name in needed and slot.name not in shared:
            renamed[slot.name] = free_name(slot.name, taken)
            slots.append(replace(slot, name=renamed[slot.name]))
            taken.add(renamed[slot.name])
    for hyperparameter in mate.hyperparameters:
        name, value = hyperparameter.name, hyperparameter.value
        if name in needed:
            renamed[name] = name if own.get(name) == value else free_name(name, taken)
            taken.add(renamed[name])
            if renamed[name] not in own:
                hyperparameters.append(Hyperparameter(renamed[name], value))
    return renamed, slots, hyperparameters


def _planted(program: Program, graft: _Graft, target: int) -> Program | None:
    draft = draft_of(program, graft.inputs, graft.slots)
    # At the start of the body every input still has its own value, whatever the program binds its name to later.
    count = len(graft.statements)
    draft = Draft(
        draft.parameters,
        draft.hyperparameters + graft.hyperparameters,
        graft.statements + draft.statements,
        graft.root if target == len(program.statements) else draft.update,
        draft.protected,
        draft.dormant,
    )
    if target == len(program.statements):
        return finish(draft)
    name = program.statements[target].target
    if name in {slot.name for slot in program.slots}:
        copied = Statement(name, "identity", (graft.root,))
        at = count + target
        return finish(with_body(draft, (*draft.statements[:at], copied, *draft.statements[at + 1 :]), draft.update))
    shorter = without_statement(draft, count + target, graft.root)
    return None if shorter is None else finish(shorter)
