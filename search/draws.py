"""Random draws that fit: ops and arguments are drawn by kind, so that what is drawn has a signature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TypeVar

import numpy as np

from evolion.primitives.kinds import Kind
from evolion.primitives.op import Op
from evolion.primitives.ops import OPS, fitting_kinds
from evolion.primitives.program import Argument

__all__ = [
    "draw_argument",
    "draw_arguments",
    "draw_maker",
    "draw_reader",
    "drawable_ops",
    "pick",
    "scaled",
    "shuffled",
]

Item = TypeVar("Item")


def pick(items: Sequence[Item], rng: np.random.Generator) -> Item:
    """Draw one of the items, each with equal chance."""
    return items[int(rng.random() * len(items))]


def shuffled(items: Sequence[Item], rng: np.random.Generator) -> list[Item]:
    """Return the items in a random order."""
    return [items[index] for index in rng.permutation(len(items))]


def scaled(constant: float, rng: np.random.Generator) -> float | None:
    """Return the constant times 2^N(0, 1), or None if that is not finite."""
    value = constant * 2.0 ** float(rng.standard_normal())
    return value if math.isfinite(value) else None


@cache
def drawable_ops(vocabulary: tuple[str, ...], available: frozenset[Kind]) -> tuple[str, ...]:
    """Return the ops of a vocabulary whose arguments can be drawn from values of the available kinds."""
    return tuple(name for name in vocabulary if not OPS[name].arity or fitting_kinds(name, (), available))


def draw_arguments(
    op: Op, scope: Mapping[str, Kind], rng: np.random.Generator, new_constant_share: float
) -> tuple[Argument, ...] | None:
    """Draw an argument for each position of an op so that all go together; None where the scope has none.

    Args:
        op: The op.
        scope: The kinds of the names in scope.
        rng: The source of randomness.
        new_constant_share: How often an argument that may be a scalar is a new constant from N(0, 1).

    """
    args: list[Argument] = []
    available = frozenset([*scope.values(), Kind.SCALAR])
    chosen: tuple[Kind, ...] = ()
    for _ in range(op.arity):
        argument = draw_argument(fitting_kinds(op.name, chosen, available), scope, rng, new_constant_share)
        if argument is None:
            return None
        args.append(argument)
        chosen = (*chosen, Kind.SCALAR if isinstance(argument, float) else scope[argument])
    return tuple(args)


def draw_argument(
    accepted: frozenset[Kind], scope: Mapping[str, Kind], rng: np.random.Generator, new_constant_share: float
) -> Argument | None:
    """Draw a name of an accepted kind, or a constant from N(0, 1) where a scalar is accepted; None if there is none."""
    constant = Kind.SCALAR in accepted
    if constant and rng.random() < new_constant_share:
        return float(rng.standard_normal())
    names = [name for name, kind in scope.items() if kind in accepted]
    if names:
        return pick(names, rng)
    return float(rng.standard_normal()) if constant else None


@cache
def _signatures(
    vocabulary: tuple[str, ...], result: Kind, reads: Kind | None, available: frozenset[Kind]
) -> tuple[tuple[str, tuple[tuple[Kind, ...], ...]], ...]:
    """Return by op the kinds of arguments that give a result of this kind and, if asked for, read a value of another.

    All other arguments are of available kinds.
    """
    within = available if reads is None else available | {reads}
    rows = []
    for name in vocabulary:
        fitting = tuple(
            kinds
            for kinds, kind in OPS[name].signatures.items()
            if kind is result and within.issuperset(kinds) and (reads is None or reads in kinds)
        )
        if fitting:
            rows.append((name, fitting))
    return tuple(rows)


def draw_maker(
    vocabulary: tuple[str, ...], kind: Kind, scope: Mapping[str, Kind], rng: np.random.Generator
) -> tuple[str, tuple[Argument, ...]] | None:
    """Draw an op and arguments that give a value of a kind, such as `left_gram(g)` for a left matrix."""
    rows = _signatures(vocabulary, kind, None, frozenset([*scope.values(), Kind.SCALAR]))
    if not rows:
        return None
    name, signatures = pick(rows, rng)
    return name, tuple([_of_kind(kind, scope, rng) for kind in pick(signatures, rng)])


def draw_reader(
    vocabulary: tuple[str, ...],
    value: tuple[str, Kind],
    result: Kind,
    scope: Mapping[str, Kind],
    rng: np.random.Generator,
    old: Argument | None = None,
) -> tuple[str, tuple[Argument, ...]] | None:
    """Draw an op and arguments that make of a new value one of another kind: of a left matrix `matmul(new, old)`.

    With `old`, a value of the kind of the result, that is read wherever the op has an argument of its kind.
    """
    rows = _signatures(vocabulary, result, value[1], frozenset([*scope.values(), Kind.SCALAR]))
    if not rows:
        return None
    name, signatures = pick(rows, rng)
    kinds = pick(signatures, rng)
    at = pick([place for place, kind in enumerate(kinds) if kind is value[1]], rng)
    args: list[Argument] = []
    for place, kind in enumerate(kinds):
        if place == at:
            args.append(value[0])
        else:
            args.append(old if kind is result and old is not None else _of_kind(kind, scope, rng, value))
    return name, tuple(args)


def _of_kind(
    kind: Kind, scope: Mapping[str, Kind], rng: np.random.Generator, spare: tuple[str, Kind] | None = None
) -> Argument:
    names = [name for name, found in scope.items() if found is kind]
    if not names and spare is not None and spare[1] is kind:
        return spare[0]
    return pick(names, rng) if names else float(rng.standard_normal())
