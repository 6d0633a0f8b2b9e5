"""Edits that rearrange what a program has: its order, its ops and its slots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from evolion.primitives.dataflow import DataFlow, Reference, data_flow
from evolion.primitives.kinds import Kind
from evolion.primitives.ops import OPS
from evolion.primitives.program import Argument, Parameter, Program, Statement
from evolion.search.drafts import (
    Place,
    constants_of,
    finish,
    free_name,
    fresh_names,
    offer,
    prepared,
    with_argument,
    with_body,
)
from evolion.search.draws import pick, scaled, shuffled

if TYPE_CHECKING:
    from evolion.search.mutation import MutationConfig

__all__ = ["duplicate_slot", "has_exchanges", "has_siblings", "has_slots_to_duplicate", "replace_op", "swap"]


def has_exchanges(program: Program, config: MutationConfig, mate: Program | None = None) -> bool:
    """Say whether two statements can change places so that another program comes out."""
    return next(_swapped(program, _exchanges(program)), None) is not None


def swap(
    program: Program, rng: np.random.Generator, config: MutationConfig, mate: Program | None = None
) -> Program | None:
    """Let two statements change places; names keep their meaning by position, so what is read changes."""
    return next(_swapped(program, shuffled(list(_exchanges(program)), rng)), None)


def _swapped(program: Program, pairs: Iterable[tuple[int, int]]) -> Iterator[Program]:
    draft = offer(program).draft
    own = prepared(program)[1]
    for first, second in pairs:
        statements = list(draft.statements)
        statements[first], statements[second] = statements[second], statements[first]
        child = finish(with_body(draft, tuple(statements), draft.update))
        if child is not None and prepared(child)[1] != own:
            yield child


def _exchanges(program: Program) -> Iterator[tuple[int, int]]:
    """Yield pairs of statements that leave every name bound when they change places, and change what some name means.

    The kinds may not fit.
    """
    bound: dict[Argument, int] = {p.name: -1 for p in program.parameters}
    bound |= {h.name: -1 for h in program.hyperparameters}
    for index, statement in enumerate(program.statements):
        bound.setdefault(statement.target, index)
    for first, one in enumerate(program.statements):
        between: set[Argument] = set()
        for second in range(first + 1, len(program.statements)):
            other = program.statements[second]
            moved_up = all(bound[arg] < first for arg in other.args if isinstance(arg, str))
            still_bound = bound[one.target] < first or one.target == other.target or one.target not in between
            changes = one.target in between or one.target in other.args or one.target == other.target
            changes = changes or other.target in between or other.target in one.args
            if moved_up and still_bound and changes:
                yield first, second
            between |= {*other.args, other.target}


@cache
def _siblings(vocabulary: tuple[str, ...], name: str, kinds: tuple[Kind, ...]) -> tuple[str, ...]:
    """Return the other ops of a vocabulary that take arguments of these kinds and give a value of the same kind."""
    result = OPS[name].signatures[kinds]
    return tuple(other for other in vocabulary if other != name and OPS[other].signatures.get(kinds) is result)


@lru_cache(maxsize=16)
def _replaceable(program: Program, vocabulary: tuple[str, ...]) -> list[tuple[int, tuple[str, ...]]]:
    rows = zip(program.statements, offer(program).arguments, strict=True)
    siblings = [(index, _siblings(vocabulary, old.op, kinds)) for index, (old, kinds) in enumerate(rows)]
    return [(index, names) for index, names in siblings if names]


def has_siblings(program: Program, config: MutationConfig, mate: Program | None = None) -> bool:
    """Say whether the vocabulary has another op for one of the statements."""
    return len(_replaceable(program, config.vocabulary)) > 0


def replace_op(
    program: Program, rng: np.random.Generator, config: MutationConfig, mate: Program | None = None
) -> Program | None:
    """Change the op of a statement for another that takes and gives the same kinds."""
    index, names = pick(_replaceable(program, config.vocabulary), rng)
    draft = offer(program).draft
    old = draft.statements[index]
    changed = Statement(old.target, pick(names, rng), old.args)
    return finish(with_body(draft, (*draft.statements[:index], changed, *draft.statements[index + 1 :]), draft.update))


@dataclass(frozen=True, slots=True)
class _Copyable:
    """A slot that can be duplicated.

    Attributes:
        slot: The slot.
        path: The statements that lead from the slot's value to its next one, in order; the last binds it.
        constants: Places of constants in the path.
        uses: Places that read the slot's value or one of the path.

    """

    slot: Parameter
    path: tuple[int, ...]
    constants: tuple[Place, ...]
    uses: tuple[Place, ...]


@lru_cache(maxsize=16)
def _copyable(program: Program) -> list[_Copyable]:
    flow = data_flow(program)
    values = constants_of(program)
    found = []
    for slot in program.slots:
        last = flow.next_slots[slot.name]
        if not isinstance(last, int):
            continue
        path = _path(flow, slot.name, last)
        constants = tuple([place for place, value in values.items() if place[0] in path and value])
        uses = _uses(flow, {slot.name, *path})
        others = [use for use in uses if use[0] not in path]
        # Without its only other use the old slot would be dead, and the copy nothing but the slot with a new constant.
        uses = uses if len(others) > 1 else [use for use in uses if use[0] in path]
        if constants and uses:
            found.append(_Copyable(slot, path, constants, tuple(uses)))
    return found


def _path(flow: DataFlow, slot: str, last: int) -> tuple[int, ...]:
    readers: set[Reference] = {slot}
    for index in range(last + 1):
        if not readers.isdisjoint(flow.arguments[index]):
            readers.add(index)
    needed: set[Reference] = {last}
    for index in range(last, -1, -1):
        if index in needed:
            needed.update(flow.arguments[index])
    return (*[index for index in range(last) if index in readers and index in needed], last)


def _uses(flow: DataFlow, values: set[Reference]) -> list[Place]:
    places = [
        (index, place)
        for index, references in enumerate(flow.arguments)
        for place, reference in enumerate(references)
        if not isinstance(reference, float) and reference in values
    ]
    return [*places, (len(flow.arguments), 0)] if flow.update in values else places


def has_slots_to_duplicate(program: Program, config: MutationConfig, mate: Program | None = None) -> bool:
    """Say whether there is a slot whose update has a constant, and a use that can read a copy."""
    return len(_copyable(program)) > 0


def duplicate_slot(
    program: Program, rng: np.random.Generator, config: MutationConfig, mate: Program | None = None
) -> Program | None:
    """Give a state slot a twin: its update with one constant scaled; one use of the slot reads the twin's value.

    From Adam's slot `m` it makes `m2 = interp(g, m2, 0.99)` beside `m = interp(g, m2, 0.9)`, which is Lion's pair.
    """
    row = pick(_copyable(program), rng)
    flow = data_flow(program)
    draft = offer(program).draft
    names = fresh_names(draft)
    taken = {statement.target for statement in program.statements} | {p.name for p in program.parameters}
    taken |= {h.name for h in program.hyperparameters} | {slot.name for slot in config.slots or ()}
    twin = free_name(row.slot.name, taken)
    copies: dict[Reference, str] = {row.slot.name: twin}
    copies |= {index: next(name for name in names if name != twin) for index in row.path}
    copies[row.path[-1]] = twin
    constant = pick(row.constants, rng)
    new = scaled(constants_of(program)[constant], rng)
    if new is None:
        return None
    use = pick(row.uses, rng)
    reference = flow.update if use[0] == len(flow.arguments) else flow.arguments[use[0]][use[1]]
    rewired = with_argument(draft, use, copies[reference]).statements
    update = copies[reference] if use[0] == len(flow.arguments) else draft.update
    statements: list[Statement] = []
    for index, (old, statement) in enumerate(zip(draft.statements, rewired, strict=True)):
        if index not in row.path:
            statements.append(statement)
            continue
        own = enumerate(zip(old.args, flow.arguments[index], strict=True))
        args = [new if (index, at) == constant else copies.get(ref, arg) for at, (arg, ref) in own]
        copy = Statement(copies[index], old.op, tuple(args))
        # After the statement, so that a use in it reads the twin's old value; before it where it hides what is read.
        statements += [copy, statement] if old.target in args or index != row.path[-1] else [statement, copy]
    parameters = list(draft.parameters)
    parameters.insert(parameters.index(row.slot) + 1, Parameter(twin, row.slot.kind, slot=True))
    return finish(replace(draft, parameters=tuple(parameters), statements=tuple(statements), update=update))
