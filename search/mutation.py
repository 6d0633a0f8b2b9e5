"""Mutations: named rows that turn one program into another.

Insertion, deletion and modification are those of Chen et al., "Symbolic Discovery of Optimization Algorithms"
(arXiv:2302.06675), section 2.2, with one difference: there most inserted statements are dead code; here every child
differs from its parent in what it computes from its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.keys import structural_key
from evolion.primitives.kinds import Kind
from evolion.primitives.op import Op
from evolion.primitives.ops import LION, OPS, accepted_kinds, fitting_kinds
from evolion.primitives.program import RESERVED, Argument, Hyperparameter, Parameter, Program, Statement
from evolion.search.drafts import (
    Draft,
    draft_of,
    finish,
    fresh_names,
    pick,
    scope_at,
    used_later,
    without_statement,
)
from evolion.search.types import NoProgramError

__all__ = ["MUTATIONS", "Mutation", "MutationConfig", "draw_arguments", "mutate"]

SCALED_SHARE = 0.5
"""How often a modification of a constant scales it; otherwise it draws a new argument."""

REBINDING_SHARE = 0.5
"""How often an insertion rebinds a name that is used later, where there is one; otherwise it rewires one use."""


@dataclass(frozen=True, slots=True)
class MutationConfig:
    """What mutations may do.

    Attributes:
        weights: (name of a mutation, weight) pairs; a mutation is drawn in proportion to its weight.
        vocabulary: Names of the ops that an insertion draws from, each with equal chance.
        inputs: Reserved inputs that an edit may bring into use, besides those that the program takes.
        slots: State slots that an edit may bring (back) into use; None stands for those of the seed.
        maximum_statements: The longest child; a longer parent has children that are no longer than itself.
        new_constant_share: How often an argument that may be a scalar is a new constant from N(0, 1).
        attempts: How many edits are tried for one child before `mutate` gives up.

    Raises:
        ValueError: At construction, for a value that is unknown or out of its range.

    """

    weights: tuple[tuple[str, float], ...] = (("insert", 1.0), ("delete", 1.0), ("modify", 1.0))
    vocabulary: tuple[str, ...] = LION
    inputs: tuple[str, ...] = ("w", "g", "lr")
    slots: tuple[Parameter, ...] | None = None
    maximum_statements: int = 60
    new_constant_share: float = 0.25
    attempts: int = 200

    def __post_init__(self) -> None:
        """Check names and ranges."""
        _check_names("mutation", [name for name, _ in self.weights], MUTATIONS)
        _check_names("op", self.vocabulary, OPS)
        _check_names("reserved input", self.inputs, RESERVED)
        weights = [weight for _, weight in self.weights]
        if not all(math.isfinite(weight) and weight >= 0.0 for weight in weights) or not sum(weights) > 0.0:
            raise ValueError(f"weights of mutations must be finite, not negative and not all zero; got {weights}")
        if not self.vocabulary:
            raise ValueError("the vocabulary is empty; name at least one op")
        if any(not slot.slot for slot in self.slots or ()):
            raise ValueError("slots must be state slots: Parameter(name, kind, slot=True)")
        if self.maximum_statements < 1 or self.attempts < 1:
            raise ValueError("maximum_statements and attempts must be at least 1")
        if not 0.0 <= self.new_constant_share <= 1.0:
            raise ValueError(f"new_constant_share must lie in [0, 1], got {self.new_constant_share}")

    def for_seed(self, seed: Program) -> MutationConfig:
        """Return the config with the inputs of the seed added and, where no slots are named, the slots of the seed."""
        inputs = self.inputs + tuple(name for name in seed.inputs if name not in self.inputs)
        return replace(self, inputs=inputs, slots=seed.slots if self.slots is None else self.slots)


def _check_names(what: str, names: list[str] | tuple[str, ...], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; known are {', '.join(known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"each {what} may be named once, got {', '.join(names)}")


@dataclass(frozen=True, slots=True)
class Mutation:
    """One row of `MUTATIONS`.

    Attributes:
        name: As in `MutationConfig.weights`.
        summary: One line for people.
        applies: Whether the program can be mutated this way at all; if not, the mutation is not drawn.
        apply: One random edit, or None where the draw led nowhere.

    """

    name: str
    summary: str
    applies: Callable[[Program, MutationConfig], bool]
    apply: Callable[[Program, np.random.Generator, MutationConfig], Program | None]


def mutate(program: Program, rng: np.random.Generator, config: MutationConfig) -> tuple[Program, str]:
    """Return a child and the name of the mutation that made it.

    Dead code of the parent does not count. The child is valid, has no dead code, no docstring and no comments, and its
    structural key is not the parent's.

    Raises:
        NoProgramError: If no mutation applies, or none of the attempts led to such a child.

    """
    program = remove_dead_code(program)
    rows = [(MUTATIONS[name], weight) for name, weight in config.weights if weight > 0.0]
    rows = [(row, weight) for row, weight in rows if row.applies(program, config)]
    if not rows:
        names = ", ".join(name for name, _ in config.weights)
        raise NoProgramError(f"none of the mutations ({names}) applies to this program:\n{program}")
    longest = max(config.maximum_statements, len(program.statements))
    total = sum(weight for _, weight in rows)
    key = structural_key(program)
    for _ in range(config.attempts):
        row = _weighted(rows, rng.random() * total)
        child = row.apply(program, rng, config)
        if child is not None and len(child.statements) <= longest and structural_key(child) != key:
            return child, row.name
    raise NoProgramError(
        f"no child in {config.attempts} attempts; widen the mutation config for this program:\n{program}"
    )


def _weighted(rows: list[tuple[Mutation, float]], point: float) -> Mutation:
    for row, weight in rows:
        point -= weight
        if point < 0.0:
            return row
    return rows[-1][0]


def _draft(program: Program, config: MutationConfig) -> Draft:
    return draft_of(program, config.inputs, config.slots or ())


def _new_constant(rng: np.random.Generator) -> float:
    return float(rng.standard_normal())


def _scaled(constant: float, rng: np.random.Generator) -> float | None:
    scaled = constant * 2.0 ** float(rng.standard_normal())
    return scaled if math.isfinite(scaled) else None


def draw_arguments(
    op: Op, scope: Mapping[str, Kind], rng: np.random.Generator, new_constant_share: float
) -> tuple[Argument, ...] | None:
    """Draw an argument of an accepted kind for each position, or return None where the scope has none."""
    args: list[Argument] = []
    available = frozenset([*scope.values(), Kind.SCALAR])
    chosen: tuple[Kind, ...] = ()
    for _ in range(op.arity):
        accepted = fitting_kinds(op.name, chosen, available)
        argument = _draw_argument(accepted, scope, rng, new_constant_share)
        if argument is None:
            return None
        args.append(argument)
        chosen = (*chosen, Kind.SCALAR if isinstance(argument, float) else scope[argument])
    return tuple(args)


def _draw_argument(
    accepted: frozenset[Kind], scope: Mapping[str, Kind], rng: np.random.Generator, new_constant_share: float
) -> Argument | None:
    constant = Kind.SCALAR in accepted
    if constant and rng.random() < new_constant_share:
        return _new_constant(rng)
    names = [name for name, kind in scope.items() if kind in accepted]
    if names:
        return pick(names, rng)
    return _new_constant(rng) if constant else None


def _has_room(program: Program, config: MutationConfig) -> bool:
    return len(program.statements) < config.maximum_statements


def _insert(program: Program, rng: np.random.Generator, config: MutationConfig) -> Program | None:
    """Insert a statement whose value is used: it rebinds a name that is read later, or one later use is rewired."""
    draft = _draft(program, config)
    position = int(rng.random() * (len(draft.statements) + 1))
    op = OPS[pick(config.vocabulary, rng)]
    args = draw_arguments(op, scope_at(draft, position), rng, config.new_constant_share)
    if args is None:
        return None
    before, after = draft.statements[:position], draft.statements[position:]
    used = used_later(draft, position)
    if used and rng.random() < REBINDING_SHARE:
        statement = Statement(pick(used, rng), op.name, args)
        return finish(replace(draft, statements=(*before, statement, *after)), rng)
    target = next(fresh_names(draft))
    statement = Statement(target, op.name, args)
    uses = [(index, place) for index, later in enumerate(after) for place in range(len(later.args))]
    chosen = int(rng.random() * (len(uses) + 1))
    if chosen == len(uses):
        return finish(replace(draft, statements=(*before, statement, *after), update=target), rng)
    index, place = uses[chosen]
    rewired = _with_argument(after[index], place, target)
    return finish(replace(draft, statements=(*before, statement, *after[:index], rewired, *after[index + 1 :])), rng)


def _with_argument(statement: Statement, place: int, argument: Argument) -> Statement:
    args = (*statement.args[:place], argument, *statement.args[place + 1 :])
    return Statement(statement.target, statement.op, args)


def _has_statements(program: Program, _: MutationConfig) -> bool:
    return len(program.statements) > 0


def _delete(program: Program, rng: np.random.Generator, _: MutationConfig) -> Program | None:
    """Delete a statement; what is read in its place is tried in the order of the summary in `MUTATIONS`."""
    draft = draft_of(program)
    index = int(rng.random() * len(draft.statements))
    scope = scope_at(draft, index)
    statement = draft.statements[index]
    own = list(dict.fromkeys(statement.args))
    others = [name for name in scope if name not in own]
    replacements: list[Argument | None] = [None] if statement.target in scope else []
    replacements += [own[choice] for choice in rng.permutation(len(own))]
    replacements += [others[choice] for choice in rng.permutation(len(others))]
    for replacement in replacements:
        shorter = without_statement(draft, index, replacement)
        child = None if shorter is None else finish(shorter)
        if child is not None:
            return child
    return None


def _always(_: Program, __: MutationConfig) -> bool:
    return True


def _places(program: Program) -> list[tuple[int, int]]:
    places = [
        (index, place) for index, statement in enumerate(program.statements) for place in range(len(statement.args))
    ]
    return [*places, (len(program.statements), 0)]


def _modify(program: Program, rng: np.random.Generator, config: MutationConfig) -> Program | None:
    """Change one argument; the update counts as one, but never becomes a new constant."""
    draft = _draft(program, config)
    index, place = pick(_places(program), rng)
    at_end = index == len(program.statements)
    old = program.update if at_end else program.statements[index].args[place]
    if _constant_value(program, old) is not None and rng.random() < SCALED_SHARE:
        return _scale_at(program, index, place, rng)
    scope = scope_at(draft, index)
    if isinstance(old, str):
        del scope[old]
    if at_end:
        # A constant update learns nothing.
        new: Argument | None = pick(list(scope), rng) if scope else None
    else:
        accepted = accepted_kinds(program.statements[index].op)[place]
        new = _draw_argument(accepted, scope, rng, config.new_constant_share)
    return None if new is None else finish(_replaced(draft, index, place, new), rng)


def _replaced(draft: Draft, index: int, place: int, argument: Argument) -> Draft:
    if index == len(draft.statements):
        return replace(draft, update=argument)
    changed = _with_argument(draft.statements[index], place, argument)
    return replace(draft, statements=(*draft.statements[:index], changed, *draft.statements[index + 1 :]))


def _constant_value(program: Program, argument: Argument) -> float | None:
    """Return the value of a literal or of a hyperparameter's default, None for any other argument.

    A hyperparameter's name that a statement binds anew is taken for a variable.
    """
    if isinstance(argument, float):
        return argument
    if any(statement.target == argument for statement in program.statements):
        return None
    return next((h.value for h in program.hyperparameters if h.name == argument), None)


def _scale_at(program: Program, index: int, place: int, rng: np.random.Generator) -> Program | None:
    draft = draft_of(program)
    old = program.update if index == len(program.statements) else program.statements[index].args[place]
    value = _constant_value(program, old)
    scaled = None if value is None else _scaled(value, rng)
    if scaled is None:
        return None
    if isinstance(old, float):
        return finish(_replaced(draft, index, place, scaled))
    changed = tuple(Hyperparameter(h.name, scaled) if h.name == old else h for h in program.hyperparameters)
    return finish(replace(draft, hyperparameters=changed))


def _scalable(program: Program) -> list[tuple[int, int]]:
    def argument(index: int, place: int) -> Argument:
        return program.update if index == len(program.statements) else program.statements[index].args[place]

    # Zero times anything stays zero.
    return [at for at in _places(program) if _constant_value(program, argument(*at))]


def _has_constants(program: Program, _: MutationConfig) -> bool:
    return len(_scalable(program)) > 0


def _scale(program: Program, rng: np.random.Generator, _: MutationConfig) -> Program | None:
    """Scale the constant at one argument; a hyperparameter is scaled wherever it is used."""
    return _scale_at(program, *pick(_scalable(program), rng), rng)


_ROWS = (
    Mutation(
        "insert", "a statement at a random place, with random op and arguments, whose value is used", _has_room, _insert
    ),
    Mutation(
        "delete",
        "a statement; uses of it read the earlier binding of its name if valid, else an argument of it, else any name",
        _has_statements,
        _delete,
    ),
    Mutation(
        "modify",
        "an argument becomes another variable or a constant from N(0, 1), or a constant is scaled by 2^N(0, 1)",
        _always,
        _modify,
    ),
    Mutation("scale", "a literal or a hyperparameter's default is scaled by 2^N(0, 1)", _has_constants, _scale),
)

MUTATIONS: Mapping[str, Mutation] = MappingProxyType({row.name: row for row in _ROWS})
"""Every mutation by name. The paper's three have weight in the default config; `scale` alone is a control."""
