"""The edits of the Lion paper, insertion, deletion and modification, and the scaling of a constant.

They are those of Chen et al., "Symbolic Discovery of Optimization Algorithms" (arXiv:2302.06675), section 2.2, with one
difference: there most inserted statements are dead code; here every child differs from its parent in what it computes
from its inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from evolion.primitives.kinds import Kind, widens
from evolion.primitives.op import result_kind
from evolion.primitives.ops import OPS
from evolion.primitives.program import Argument, Hyperparameter, Program, Statement
from evolion.search.drafts import (
    Draft,
    Offer,
    Place,
    argument_at,
    constants_of,
    finish,
    fresh_names,
    offer,
    places_of,
    used_later,
    with_argument,
    with_body,
    without_statement,
)
from evolion.search.draws import (
    draw_argument,
    draw_arguments,
    draw_reader,
    drawable_ops,
    pick,
    scaled,
    shuffled,
)

if TYPE_CHECKING:
    from evolion.search.mutation import MutationConfig

__all__ = [
    "always",
    "delete",
    "has_constants",
    "has_room",
    "has_statements",
    "insert",
    "modify",
    "scale",
    "scale_at",
]

_WHOLE_UPDATES = frozenset([kind for kind in Kind if widens(kind, Kind.TENSOR)])

SCALED_SHARE = 0.5
"""How often a modification of a constant scales it; otherwise it draws a new argument."""

REBINDING_SHARE = 0.5
"""How often an insertion rebinds a name that is used later, where there is one; otherwise it rewires one use."""


def always(program: Program, config: MutationConfig, mate: Program | None = None) -> bool:
    """Say that an edit applies to every program."""
    return True


def has_room(program: Program, config: MutationConfig, mate: Program | None = None) -> bool:
    """Say whether a child may be longer."""
    return len(program.statements) < config.maximum_statements


def has_statements(program: Program, config: MutationConfig, mate: Program | None = None) -> bool:
    """Say whether there is a statement."""
    return len(program.statements) > 0


def has_constants(program: Program, config: MutationConfig, mate: Program | None = None) -> bool:
    """Say whether there is a constant other than zero."""
    return len(_scalable(program)) > 0


def insert(
    program: Program, rng: np.random.Generator, config: MutationConfig, mate: Program | None = None
) -> Program | None:
    """Insert a statement whose value is used: it rebinds a name that is read later, or one later use is rewired.

    Where no use takes a value of its kind, a second statement brings it there (see `draw_reader`).
    """
    offered = offer(program, config.inputs, config.slots or ())
    draft = offered.draft
    position = int(rng.random() * (len(draft.statements) + 1))
    scope = offered.scope(position)
    ops = drawable_ops(config.vocabulary, frozenset([*scope.values(), Kind.SCALAR]))
    if not ops:
        return None
    op = OPS[pick(ops, rng)]
    args = draw_arguments(op, scope, rng, config.new_constant_share)
    assert args is not None
    kind = result_kind(op, [scope[arg] if isinstance(arg, str) else Kind.SCALAR for arg in args])
    assert kind is not None
    used = used_later(draft, position)
    if used and rng.random() < REBINDING_SHARE:
        child = finish(_inserted(draft, position, Statement(pick(used, rng), op.name, args)), rng, config.vocabulary)
        if child is not None:
            return child
    statement = Statement(next(fresh_names(draft)), op.name, args)
    return _insert_at_a_use(offered, position, statement, kind, rng, config)


def _inserted(draft: Draft, position: int, *statements: Statement) -> Draft:
    return with_body(draft, (*draft.statements[:position], *statements, *draft.statements[position:]), draft.update)


def _insert_at_a_use(
    offered: Offer,
    position: int,
    statement: Statement,
    kind: Kind,
    rng: np.random.Generator,
    config: MutationConfig,
) -> Program | None:
    """Insert a statement with a name of its own and let one use read it, the first in a random order that can."""
    draft = offered.draft
    places = places_of(draft, position)
    first = pick(places, rng)
    if _takes(offered, first, kind):
        child = finish(
            _inserted(with_argument(draft, first, statement.target), position, statement), rng, config.vocabulary
        )
        if child is not None:
            return child
    order = shuffled(places, rng)
    for place in order:
        if _takes(offered, place, kind):
            rewired = with_argument(draft, place, statement.target)
            child = finish(_inserted(rewired, position, statement), rng, config.vocabulary)
            if child is not None:
                return child
    for place in order:
        reader = _reader(offered, place, (statement.target, kind), rng, config)
        if reader is not None:
            target = next(fresh_names(_inserted(draft, position, statement)))
            rewired = _inserted(with_argument(draft, place, target), place[0], Statement(target, *reader))
            child = finish(_inserted(rewired, position, statement), rng, config.vocabulary)
            if child is not None:
                return child
    return None


def _reader(
    offered: Offer, place: Place, value: tuple[str, Kind], rng: np.random.Generator, config: MutationConfig
) -> tuple[str, tuple[Argument, ...]] | None:
    """Draw what brings a value to a place: of the kind of what is read there, or for the update at least a tensor."""
    old, kind, scope = argument_at(offered.draft, place), offered.kind_at(place), offered.scope(place[0])
    reader = draw_reader(config.vocabulary, value, kind, scope, rng, old)
    if reader is None and place[0] == len(offered.arguments):
        reader = draw_reader(config.vocabulary, value, Kind.TENSOR, scope, rng)
    return reader


def _takes(offered: Offer, place: Place, kind: Kind) -> bool:
    """Say whether the argument at a place may be of a kind, the others being as they are."""
    index, position = place
    if index == len(offered.arguments):
        return kind in _WHOLE_UPDATES
    return kind in _accepted(offered.draft.statements[index].op, offered.arguments[index], position)


@cache
def _accepted(op: str, kinds: tuple[Kind, ...], position: int) -> frozenset[Kind]:
    """Return the kinds that the argument at a position of an op may have, the others being as they are."""
    signatures = OPS[op].signatures
    return frozenset([kind for kind in Kind if (*kinds[:position], kind, *kinds[position + 1 :]) in signatures])


def delete(
    program: Program, rng: np.random.Generator, config: MutationConfig, mate: Program | None = None
) -> Program | None:
    """Delete a statement; what is read in its place is tried in the order of the summary in `MUTATIONS`."""
    count = len(program.statements)
    start = int(rng.random() * count)
    for index in range(start, start + count):
        child = _delete_at(program, index % count, rng)
        if child is not None:
            return child
    return None


def _delete_at(program: Program, index: int, rng: np.random.Generator) -> Program | None:
    offered = offer(program)
    for replacement in _replacements(offered, index, rng):
        shorter = without_statement(offered.draft, index, replacement)
        child = None if shorter is None else finish(shorter)
        if child is not None:
            return child
    return None


def _replacements(offered: Offer, index: int, rng: np.random.Generator) -> Iterator[Argument | None]:
    """Yield what may be read in a statement's place; None stands for the earlier binding of its name."""
    statement = offered.draft.statements[index]
    scope = offered.scope(index)
    if statement.target in scope:
        yield None
    own = list(dict.fromkeys(statement.args))
    yield from shuffled(own, rng)
    yield from shuffled([name for name in scope if name not in own], rng)


def modify(
    program: Program, rng: np.random.Generator, config: MutationConfig, mate: Program | None = None
) -> Program | None:
    """Change one argument; the update counts as one, but never becomes a new constant."""
    offered = offer(program, config.inputs, config.slots or ())
    places = places_of(program)
    first = pick(places, rng)
    if first in constants_of(program) and rng.random() < SCALED_SHARE:
        return scale_at(program, first, rng)
    child = _modify_at(offered, first, rng, config)
    if child is not None:
        return child
    attempts = (_modify_at(offered, place, rng, config) for place in shuffled(places, rng))
    return next((child for child in attempts if child is not None), None)


def _modify_at(offered: Offer, place: Place, rng: np.random.Generator, config: MutationConfig) -> Program | None:
    draft = offered.draft
    old = argument_at(draft, place)
    scope = offered.scope(place[0])
    if isinstance(old, str):
        del scope[old]
    accepted = _WHOLE_UPDATES
    if place[0] < len(draft.statements):
        accepted = _accepted(draft.statements[place[0]].op, offered.arguments[place[0]], place[1])
    # A constant update learns nothing.
    share = config.new_constant_share if place[0] < len(draft.statements) else 0.0
    while True:
        if place[0] == len(draft.statements):
            names = [name for name, kind in scope.items() if kind in accepted]
            new: Argument | None = pick(names, rng) if names else None
        else:
            new = draw_argument(accepted, scope, rng, share)
        if new is None:
            return None
        child = finish(with_argument(draft, place, new), rng, config.vocabulary)
        if child is not None or isinstance(new, float):
            return child
        # A reader of the statement's value does not take what it has become.
        del scope[new]


def scale(
    program: Program, rng: np.random.Generator, config: MutationConfig, mate: Program | None = None
) -> Program | None:
    """Scale the constant at one argument; a hyperparameter is scaled wherever it is used."""
    return scale_at(program, pick(_scalable(program), rng), rng)


def scale_at(program: Program, place: Place, rng: np.random.Generator) -> Program | None:
    """Scale the constant at a place by 2^N(0, 1); None if it gets out of range."""
    draft = offer(program).draft
    old = argument_at(program, place)
    new = scaled(constants_of(program)[place], rng)
    if new is None:
        return None
    if isinstance(old, float):
        return finish(with_argument(draft, place, new))
    changed = tuple(Hyperparameter(h.name, new) if h.name == old else h for h in program.hyperparameters)
    return finish(replace(draft, hyperparameters=changed))


def _scalable(program: Program) -> list[Place]:
    # Zero times anything stays zero.
    return [place for place, value in constants_of(program).items() if value]
