"""Mutations: named rows that turn one program, or two, into another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np

from evolion.primitives.kinds import Kind
from evolion.primitives.ops import LION, OPS, VOCABULARIES
from evolion.primitives.program import RESERVED, Parameter, Program
from evolion.search.crossover import can_cross, crossover
from evolion.search.drafts import free_name, prepared
from evolion.search.edits import always, delete, has_constants, has_room, has_statements, insert, modify, scale
from evolion.search.rearrangements import (
    duplicate_slot,
    has_exchanges,
    has_siblings,
    has_slots_to_duplicate,
    replace_op,
    swap,
)
from evolion.search.types import NoProgramError

__all__ = ["MUTATIONS", "Child", "Mutation", "MutationConfig", "breed", "mutate", "mutation_config"]

_SPARE_SLOTS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.SCALAR: "s",
        Kind.LEAF: "n",
        Kind.ROW: "p",
        Kind.COLUMN: "q",
        Kind.TENSOR: "u",
        Kind.LEFT: "L",
        Kind.RIGHT: "R",
    }
)


@dataclass(frozen=True, slots=True)
class MutationConfig:
    """What mutations may do.

    Attributes:
        weights: (name of a mutation, weight) pairs; a mutation is drawn in proportion to its weight.
        vocabulary: Names of the ops that an edit draws from, each with equal chance.
        inputs: Reserved inputs that an edit may bring into use, besides those that the program takes.
        slots: State slots that an edit may bring (back) into use; None stands for those of the seed.
        spare_slots: Kinds of which `for_seed` adds one more slot each.
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
    spare_slots: tuple[Kind, ...] = ()
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
        """Return the config with the inputs of the seed added and, where no slots are named, the slots of the seed.

        Spare slots get names that the seed does not use.
        """
        inputs = self.inputs + tuple(name for name in seed.inputs if name not in self.inputs)
        slots = seed.slots if self.slots is None else self.slots
        taken = {p.name for p in (*seed.parameters, *slots)} | {h.name for h in seed.hyperparameters}
        taken |= {statement.target for statement in seed.statements}
        for kind in self.spare_slots:
            slots += (Parameter(free_name(_SPARE_SLOTS[kind], taken), kind, slot=True),)
            taken.add(slots[-1].name)
        return replace(self, inputs=inputs, slots=slots, spare_slots=())

    def weight(self, name: str) -> float:
        """Return the weight of a mutation, 0 for one that is not listed."""
        return dict(self.weights).get(name, 0.0)


def mutation_config(vocabulary: str, weights: tuple[tuple[str, float], ...], maximum_statements: int) -> MutationConfig:
    """Return the config for a vocabulary by its name.

    With the vocabulary of the Lion paper, edits draw from what the seed takes besides `w`, `g` and `lr`, as there.
    With any other, they may also bring in every reserved input that all evaluators supply, and one more state slot of
    each kind.

    Raises:
        ValueError: For a vocabulary that does not exist, or what `MutationConfig` refuses.

    """
    _check_names("vocabulary", (vocabulary,), VOCABULARIES)
    if vocabulary == "lion":
        return MutationConfig(weights, maximum_statements=maximum_statements)
    inputs = tuple(name for name in RESERVED if name != "hess")
    return MutationConfig(weights, VOCABULARIES[vocabulary], inputs, None, tuple(Kind), maximum_statements)


def _check_names(what: str, names: list[str] | tuple[str, ...], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; known are {', '.join(known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"each {what} may be named once, got {', '.join(names)}")


class Condition(Protocol):
    """Whether a program, and perhaps a mate, can be mutated in some way at all."""

    def __call__(self, program: Program, config: MutationConfig, mate: Program | None = None) -> bool:
        """Say so; neither program has dead code."""
        ...


class Edit(Protocol):
    """One random edit."""

    def __call__(
        self, program: Program, rng: np.random.Generator, config: MutationConfig, mate: Program | None = None
    ) -> Program | None:
        """Return the edited program, or None where the draw led nowhere; neither program has dead code."""
        ...


@dataclass(frozen=True, slots=True)
class Mutation:
    """One row of `MUTATIONS`.

    Attributes:
        name: As in `MutationConfig.weights`.
        summary: One line for people.
        applies: Whether the program can be mutated this way at all; if not, the mutation is not drawn.
        apply: The edit.
        thorough: Whether the edit finds a child wherever the mutation applies, so that trying it is how to know.

    """

    name: str
    summary: str
    applies: Condition
    apply: Edit
    thorough: bool = False


class Child(NamedTuple):
    """A mutated program, the name of the mutation that made it, and its structural key."""

    program: Program
    mutation: str
    key: str


def mutate(
    program: Program, rng: np.random.Generator, config: MutationConfig, mate: Program | None = None
) -> tuple[Program, str]:
    """Return a child and the name of the mutation that made it; see `breed`."""
    return breed(program, rng, config, mate)[:2]


def breed(program: Program, rng: np.random.Generator, config: MutationConfig, mate: Program | None = None) -> Child:
    """Return a child of a program, and of a mate if one is given and crossover is drawn.

    Dead code of the parents does not count. The child is valid, has no dead code, no docstring and no comments, and its
    structural key is not the parent's.

    Raises:
        NoProgramError: If no mutation applies, or none of the attempts led to such a child.

    """
    program, key = prepared(program)
    mate = None if mate is None else prepared(mate)[0]
    rows = [(MUTATIONS[name], weight) for name, weight in config.weights if weight > 0.0]
    longest = max(config.maximum_statements, len(program.statements))
    checked: set[str] = set()
    for _ in range(config.attempts):
        applies, child = False, None
        while not applies:
            if not rows:
                names = ", ".join(name for name, _ in config.weights)
                raise NoProgramError(f"none of the mutations ({names}) applies to this program:\n{program}")
            row = _weighted(rows, rng)
            applies, child = _tried(row, row.name in checked, program, rng, config, mate)
            # As if it had not been on the list; most rows are never asked, and some take long to say.
            rows = rows if applies else [other for other in rows if other[0] is not row]
        checked.add(row.name)
        if child is not None and len(child.statements) <= longest:
            own = prepared(child)[1]
            if own != key:
                return Child(child, row.name, own)
    raise NoProgramError(
        f"no child in {config.attempts} attempts; widen the mutation config for this program:\n{program}"
    )


def _tried(
    row: Mutation,
    applies: bool,
    program: Program,
    rng: np.random.Generator,
    config: MutationConfig,
    mate: Program | None,
) -> tuple[bool, Program | None]:
    """Return whether a mutation applies, which may be known, and if so a child; else nothing is drawn."""
    if row.thorough and not applies:
        before = rng.bit_generator.state
        child = row.apply(program, rng, config, mate)
        if child is None:
            rng.bit_generator.state = before
        return child is not None, child
    if applies or row.applies(program, config, mate):
        return True, row.apply(program, rng, config, mate)
    return False, None


def _weighted(rows: list[tuple[Mutation, float]], rng: np.random.Generator) -> Mutation:
    point = rng.random() * sum([weight for _, weight in rows])
    for row, weight in rows:
        point -= weight
        if point < 0.0:
            return row
    return rows[-1][0]


_ROWS = (
    Mutation(
        "insert", "a statement at a random place, with random op and arguments, whose value is used", has_room, insert
    ),
    Mutation(
        "delete",
        "a statement; uses of it read the earlier binding of its name if valid, else an argument of it, else any name",
        has_statements,
        delete,
    ),
    Mutation(
        "modify",
        "an argument becomes another variable or a constant from N(0, 1), or a constant is scaled by 2^N(0, 1)",
        always,
        modify,
    ),
    Mutation("scale", "a literal or a hyperparameter's default is scaled by 2^N(0, 1)", has_constants, scale),
    Mutation("swap", "two statements change places, so that names mean other values", has_exchanges, swap, True),
    Mutation(
        "replace_op",
        "the op of a statement becomes another that takes and gives the same kinds",
        has_siblings,
        replace_op,
    ),
    Mutation(
        "duplicate_slot",
        "a state slot gets a twin with a scaled constant, and one use of the slot reads the twin",
        has_slots_to_duplicate,
        duplicate_slot,
    ),
    Mutation(
        "crossover",
        "a value of a second program, with all that it is made from, takes the place of one that is as wide or wider",
        can_cross,
        crossover,
        True,
    ),
)

MUTATIONS: Mapping[str, Mutation] = MappingProxyType({row.name: row for row in _ROWS})
"""Every mutation by name. The paper's three have weight in the default config; `scale` alone is a control."""
