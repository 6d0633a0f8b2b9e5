"""Edits of programs before they are checked: what is in scope where, what is used later, and how a draft ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from evolion.primitives.dataflow import data_flow, live_statements
from evolion.primitives.kinds import Kind
from evolion.primitives.op import result_kind
from evolion.primitives.ops import OPS
from evolion.primitives.program import RESERVED, Argument, Hyperparameter, Parameter, Program, ProgramError, Statement

__all__ = ["Draft", "draft_of", "finish", "fresh_names", "pick", "scope_at", "used_later", "without_statement"]

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Draft:
    """A program that nobody has checked. Its signature may offer more inputs and slots than the statements read.

    Attributes:
        parameters: Inputs and slots that arguments may name; `finish` keeps those in use.
        hyperparameters: Named constants; `finish` keeps those in use.
        statements: The body.
        update: What is returned first.
        protected: As in `Program`.
        dormant: The names among `parameters` that the program before the edit does not take.

    """

    parameters: tuple[Parameter, ...]
    hyperparameters: tuple[Hyperparameter, ...]
    statements: tuple[Statement, ...]
    update: Argument
    protected: bool
    dormant: frozenset[str] = frozenset()


def pick(items: Sequence[Item], rng: np.random.Generator) -> Item:
    """Draw one of the items, each with equal chance."""
    return items[int(rng.random() * len(items))]


def draft_of(program: Program, inputs: tuple[str, ...] = (), slots: tuple[Parameter, ...] = ()) -> Draft:
    """Return a program as a draft that also offers further reserved inputs and state slots.

    The signature reads `w`, `g`, slots, other inputs, whatever the order in which they came into use.
    """
    taken = {parameter.name for parameter in program.parameters}
    closed = taken | {hyperparameter.name for hyperparameter in program.hyperparameters}
    offered = [Parameter(name, RESERVED[name], slot=False) for name in inputs if name not in closed]
    offered += [slot for slot in slots if slot.name not in closed]
    parameters = program.parameters
    if offered:
        parameters = tuple(sorted((*parameters, *offered), key=_signature_rank))
    return Draft(
        parameters,
        program.hyperparameters,
        program.statements,
        program.update,
        program.protected,
        frozenset([parameter.name for parameter in offered]),
    )


def _signature_rank(parameter: Parameter) -> int:
    if parameter.slot:
        return 2
    return {"w": 0, "g": 1}.get(parameter.name, 3)


def scope_at(draft: Draft, position: int) -> dict[str, Kind]:
    """Return the kind of every name that is bound before the statement at `position`, in the order of binding.

    The statements before `position` must be valid.
    """
    scope = {parameter.name: parameter.kind for parameter in draft.parameters}
    for hyperparameter in draft.hyperparameters:
        scope[hyperparameter.name] = Kind.SCALAR
    for statement in draft.statements[:position]:
        op = OPS[statement.op]
        kinds = [scope[argument] if isinstance(argument, str) else Kind.SCALAR for argument in statement.args]
        kind = result_kind(op, kinds)
        assert kind is not None
        scope[statement.target] = kind
    return scope


def used_later(draft: Draft, position: int) -> list[str]:
    """Return the names whose value before the statement at `position` is read there or later, in order of first use.

    A slot's next value counts as a use at the end, unless the slot is dormant.
    """
    used: dict[str, None] = {}
    rebound: set[str] = set()
    for statement in draft.statements[position:]:
        for argument in statement.args:
            if isinstance(argument, str) and argument not in rebound:
                used[argument] = None
        rebound.add(statement.target)
    if isinstance(draft.update, str) and draft.update not in rebound:
        used[draft.update] = None
    for parameter in draft.parameters:
        if parameter.slot and parameter.name not in rebound and parameter.name not in draft.dormant:
            used[parameter.name] = None
    return list(used)


def fresh_names(draft: Draft) -> Iterator[str]:
    """Yield v1, v2, … without the names that the draft uses or offers."""
    taken = {statement.target for statement in draft.statements} | {parameter.name for parameter in draft.parameters}
    taken |= {hyperparameter.name for hyperparameter in draft.hyperparameters}
    number = 0
    while True:
        number += 1
        if f"v{number}" not in taken:
            yield f"v{number}"


def without_statement(draft: Draft, index: int, replacement: Argument | None) -> Draft | None:
    """Return the draft without one statement.

    Args:
        draft: The draft.
        index: The statement to remove.
        replacement: What later uses read in its place: a name bound before the statement, a constant, or None for the
            earlier binding of the statement's own name. A slot that is left with no later binding keeps the earlier
            one of its own name in either case.

    Returns:
        The shorter draft, or None if the replacement's name is bound anew before a use that would read it.

    """
    target = draft.statements[index].target
    statements = draft.statements[:index] + draft.statements[index + 1 :]
    if replacement is None or replacement == target:
        return replace(draft, statements=statements)
    changed = list(statements)
    update = draft.update
    captured = False
    for position in range(index, len(changed)):
        statement = changed[position]
        if target in statement.args:
            if captured:
                return None
            args = tuple([replacement if argument == target else argument for argument in statement.args])
            changed[position] = Statement(statement.target, statement.op, args)
        if statement.target == target:
            return replace(draft, statements=tuple(changed))
        captured = captured or statement.target == replacement
    if update == target:
        if captured:
            return None
        update = replacement
    return replace(draft, statements=tuple(changed), update=update)


def finish(draft: Draft, rng: np.random.Generator | None = None) -> Program | None:
    """Return the program of a draft without dead code, or None if it is not valid.

    A dormant slot that has come into use and that no statement binds would stay zero for ever. It becomes a running
    average of a value in scope: `slot = interp(value, slot, constant)`, the value drawn among those of the slot's kind
    and the constant uniformly from [0, 1), which keeps the average stable.

    Args:
        draft: The draft; its statements before the first edit are valid.
        rng: Needed where dormant slots are on offer.

    """
    statements, parameters = live_statements(draft)
    if rng is not None and not parameters.isdisjoint(draft.dormant):
        bound = _bind_woken_slots(draft, parameters, rng)
        if bound is None:
            return None
        if bound is not draft:
            draft = bound
            statements, parameters = live_statements(draft)
    body = draft.statements
    if len(statements) < len(body):
        body = tuple([statement for index, statement in enumerate(body) if index in statements])
    try:
        return Program(
            parameters=tuple([parameter for parameter in draft.parameters if parameter.name in parameters]),
            hyperparameters=tuple([h for h in draft.hyperparameters if h.name in parameters]),
            statements=body,
            update=draft.update,
            protected=draft.protected,
        )
    except ProgramError:
        return None


def _bind_woken_slots(draft: Draft, live: set[str], rng: np.random.Generator) -> Draft | None:
    next_slots = data_flow(draft).next_slots
    woken = [slot for slot in draft.parameters if slot.slot and slot.name in live and slot.name in draft.dormant]
    unbound = [slot for slot in woken if next_slots[slot.name] == slot.name]
    if not unbound:
        return draft
    # A statement that the edit left dead may no longer be valid: the new ones must not read it.
    indices, _ = live_statements(draft)
    statements = tuple([statement for index, statement in enumerate(draft.statements) if index in indices])
    scope = scope_at(replace(draft, statements=statements), len(statements))
    for slot in unbound:
        values = [name for name, kind in scope.items() if kind is slot.kind and name not in draft.dormant]
        if not values:
            return None
        statements += (Statement(slot.name, "interp", (pick(values, rng), slot.name, rng.random())),)
    return replace(draft, statements=statements)
