"""Edits of programs before they are checked: what is in scope where, what is used later, and how a draft ends."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from evolion.primitives.dataflow import DataFlow, data_flow, live_statements
from evolion.primitives.keys import structural_key
from evolion.primitives.kinds import Kind
from evolion.primitives.ops import OPS
from evolion.primitives.program import (
    RESERVED,
    Argument,
    Hyperparameter,
    Parameter,
    Program,
    Statement,
    statement_kinds,
    valid_program,
)
from evolion.search.draws import draw_maker, pick
from evolion.search.live_programs import prepared, remember

__all__ = [
    "Draft",
    "Offer",
    "Place",
    "argument_at",
    "constants_of",
    "draft_of",
    "finish",
    "free_name",
    "fresh_names",
    "offer",
    "places_of",
    "prepared",
    "scope_at",
    "used_later",
    "with_argument",
    "with_body",
    "without_statement",
]

_SCALAR = Kind.SCALAR  # a member under a name of its own is found faster than by its class

Place = tuple[int, int]
"""The index of a statement and the position of one of its arguments; the number of statements stands for the update."""


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


@dataclass(frozen=True, slots=True)
class Offer:
    """A valid draft with its kinds.

    Attributes:
        draft: The draft.
        arguments: The kinds of the arguments of each statement.
        results: The kind of the value of each statement.

    """

    draft: Draft
    arguments: tuple[tuple[Kind, ...], ...]
    results: tuple[Kind, ...]

    def scope(self, position: int) -> dict[str, Kind]:
        """Return the kind of every name that is bound before the statement at `position`, in the order of binding."""
        scope = _entry_scope(self.draft)
        for statement, kind in zip(self.draft.statements[:position], self.results, strict=False):
            scope[statement.target] = kind
        return scope

    def kind_at(self, place: Place) -> Kind:
        """Return the kind of the argument at a place."""
        index, position = place
        if index < len(self.arguments):
            return self.arguments[index][position]
        update = self.draft.update
        return self.scope(index)[update] if isinstance(update, str) else Kind.SCALAR


@lru_cache(maxsize=1024)
def offer(program: Program, inputs: tuple[str, ...] = (), slots: tuple[Parameter, ...] = ()) -> Offer:
    """Return a program as a draft that also offers further reserved inputs and state slots, with its kinds."""
    draft = draft_of(program, inputs, slots)
    kinds = _kinds(draft)
    assert kinds is not None
    return Offer(draft, *kinds)


def _entry_scope(draft: Draft) -> dict[str, Kind]:
    scope = {parameter.name: parameter.kind for parameter in draft.parameters}
    for hyperparameter in draft.hyperparameters:
        scope[hyperparameter.name] = _SCALAR
    return scope


def _kinds(draft: Draft) -> tuple[tuple[tuple[Kind, ...], ...], tuple[Kind, ...]] | None:
    """Return the kinds of arguments and results, or None if they do not go together."""
    inferred = statement_kinds(draft.statements, _entry_scope(draft))
    return None if inferred is None else (tuple(inferred[0]), tuple(inferred[1]))


def scope_at(draft: Draft, position: int) -> dict[str, Kind] | None:
    """Return the kind of every name that is bound before the statement at `position`, in the order of binding.

    It is None if the kinds of what stands before do not go together.
    """
    kinds = _kinds(with_body(draft, draft.statements[:position], draft.update))
    return None if kinds is None else Offer(draft, *kinds).scope(position)


def argument_at(body: Draft | Program, place: Place) -> Argument:
    """Return the argument at a place."""
    return body.update if place[0] == len(body.statements) else body.statements[place[0]].args[place[1]]


def with_body(draft: Draft, statements: tuple[Statement, ...], update: Argument) -> Draft:
    """Return the draft with other statements and another update."""
    return Draft(draft.parameters, draft.hyperparameters, statements, update, draft.protected, draft.dormant)


def with_argument(draft: Draft, place: Place, argument: Argument) -> Draft:
    """Return the draft with another argument at a place."""
    index, position = place
    if index == len(draft.statements):
        return with_body(draft, draft.statements, argument)
    old = draft.statements[index]
    changed = Statement(old.target, old.op, (*old.args[:position], argument, *old.args[position + 1 :]))
    return with_body(draft, (*draft.statements[:index], changed, *draft.statements[index + 1 :]), draft.update)


def places_of(body: Draft | Program, start: int = 0) -> list[Place]:
    """Return the places of all arguments from the statement `start` on, that of the update last."""
    end = len(body.statements)
    places = [(at, place) for at in range(start, end) for place in range(len(body.statements[at].args))]
    return [*places, (end, 0)]


def constants_of(program: Program) -> dict[Place, float]:
    """Return the places that read a literal or a hyperparameter's default, with its value.

    A hyperparameter's name that a statement binds anew is taken for a variable.
    """
    bound = {statement.target for statement in program.statements}
    named = {h.name: h.value for h in program.hyperparameters if h.name not in bound}
    found: dict[Place, float] = {}
    for index, statement in enumerate(program.statements):
        for place, argument in enumerate(statement.args):
            if isinstance(argument, float):
                found[index, place] = argument
            elif argument in named:
                found[index, place] = named[argument]
    if isinstance(program.update, float):
        found[len(program.statements), 0] = program.update
    elif program.update in named:
        found[len(program.statements), 0] = named[program.update]
    return found


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


def _names(draft: Draft) -> set[str]:
    taken = {statement.target for statement in draft.statements} | {parameter.name for parameter in draft.parameters}
    return taken | {hyperparameter.name for hyperparameter in draft.hyperparameters}


def fresh_names(draft: Draft) -> Iterator[str]:
    """Yield v1, v2, … without the names that the draft uses or offers."""
    taken = _names(draft)
    number = 0
    while True:
        number += 1
        if f"v{number}" not in taken:
            yield f"v{number}"


def free_name(name: str, taken: Collection[str]) -> str:
    """Return the name, or where it is taken one that says where it comes from: m2 for m, b3 for b1 beside b2."""
    stem = (name.rstrip("0123456789") or name)[:50]
    number = 1
    while name in taken or name in RESERVED or name in OPS:
        number += 1
        name = f"{stem}{number}"
    return name


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
        return with_body(draft, statements, draft.update)
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
            return with_body(draft, tuple(changed), update)
        captured = captured or statement.target == replacement
    if update == target:
        if captured:
            return None
        update = replacement
    return with_body(draft, tuple(changed), update)


def finish(draft: Draft, rng: np.random.Generator | None = None, vocabulary: tuple[str, ...] = ()) -> Program | None:
    """Return the program of a draft without dead code, or None if it is not valid.

    A dormant slot that has come into use and that no statement binds would stay zero for ever. It becomes a running
    average of a value in scope: `slot = interp(value, slot, constant)`, the value drawn among those of the slot's kind
    and the constant uniformly from [0, 1), which keeps the average stable. Where all such values are made from the
    slot itself, another is made first, such as `left_gram(g)` for a slot that holds a left matrix.

    Args:
        draft: The draft; its statements before the first edit are valid.
        rng: Needed where dormant slots are on offer.
        vocabulary: The ops that may make a value for a slot that comes into use.

    """
    flow = data_flow(draft)
    statements, parameters = live_statements(draft, flow)
    if rng is not None and not parameters.isdisjoint(draft.dormant):
        unbound = [
            slot
            for slot in draft.parameters
            if slot.name in draft.dormant and slot.name in parameters and flow.next_slots.get(slot.name) == slot.name
        ]
        if unbound:
            # A statement that the edit left dead may no longer be valid: the new ones must not read it.
            body = tuple([statement for index, statement in enumerate(draft.statements) if index in statements])
            bound = _bind_slots(with_body(draft, body, draft.update), unbound, rng, vocabulary)
            if bound is None:
                return None
            draft, flow = bound, data_flow(bound)
            statements, parameters = live_statements(draft, flow)
    body = draft.statements
    if len(statements) < len(body):
        body = tuple([statement for index, statement in enumerate(body) if index in statements])
    program = valid_program(
        tuple([parameter for parameter in draft.parameters if parameter.name in parameters]),
        tuple([h for h in draft.hyperparameters if h.name in parameters]),
        body,
        draft.update,
        draft.protected,
    )
    if program is not None:
        if body is draft.statements:
            slots = {name: reference for name, reference in flow.next_slots.items() if name in parameters}
            flow = DataFlow(flow.arguments, flow.update, slots)
        else:
            flow = data_flow(program)
        remember(program, program, structural_key(program, flow))
    return program


def _bind_slots(
    draft: Draft, unbound: list[Parameter], rng: np.random.Generator, vocabulary: tuple[str, ...]
) -> Draft | None:
    """Return the draft with a running average for each of the slots, or None if that is not possible."""
    statements = draft.statements
    scope = scope_at(draft, len(statements))
    if scope is None:
        return None
    slots = {slot.name for slot in draft.parameters if slot.slot and slot.name in draft.dormant}
    from_slots = _made_from(statements, slots)
    names = fresh_names(draft)
    for slot in unbound:
        values = [name for name, kind in scope.items() if kind is slot.kind and name not in draft.dormant]
        if from_slots.issuperset(values):
            sources = {name: kind for name, kind in scope.items() if name not in from_slots}
            inputs = [name for name, kind in sources.items() if kind is slot.kind]
            made = None if inputs else draw_maker(vocabulary, slot.kind, sources, rng)
            values = inputs or values
            if made is not None:
                values = [next(names)]
                statements += (Statement(values[0], *made),)
        if not values:
            return None
        statements += (Statement(slot.name, "interp", (pick(values, rng), slot.name, rng.random())),)
    return with_body(draft, statements, draft.update)


def _made_from(statements: tuple[Statement, ...], slots: set[str]) -> set[str]:
    """Return the names whose last value reads one of the slots, directly or not."""
    made = set(slots)
    for statement in statements:
        if made.isdisjoint(statement.args):
            made.discard(statement.target)
        else:
            made.add(statement.target)
    return made
