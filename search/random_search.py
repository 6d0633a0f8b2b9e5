"""The control that does not learn: programs drawn at random, each on its own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import final

import numpy as np

from evolion.primitives.dataflow import live_statements
from evolion.primitives.keys import structural_key
from evolion.primitives.kinds import Kind, widens
from evolion.primitives.op import Op, result_kind
from evolion.primitives.ops import OPS
from evolion.primitives.program import RESERVED, Argument, Parameter, Program, Statement
from evolion.search.drafts import Draft, finish, fresh_names
from evolion.search.draws import draw_arguments, draw_reader, drawable_ops, pick
from evolion.search.mutation import MutationConfig
from evolion.search.streams import stream
from evolion.search.types import SEED, Candidate, Fitness, NoProgramError, Programs

__all__ = ["NothingLearned", "RandomSearch", "random_program"]

UNUSED_SHARE = 0.7
"""How often an argument is drawn among the values that no statement reads yet, which keeps most statements alive."""

SLOT_SHARE = 0.5
"""How often a statement binds a slot that has no next value yet, where one is left."""


def random_program(
    rng: np.random.Generator, config: MutationConfig, lengths: tuple[int, int], *, protected: bool = False
) -> Program:
    """Return a valid program without dead code.

    Args:
        rng: The source of randomness.
        config: Gives vocabulary, inputs, slots, the share of constants and the number of attempts.
        lengths: The least and the largest number of statements, both at least 1; each number is tried equally often.
        protected: As in `Program`.

    Raises:
        NoProgramError: If none of the attempts gave a program of such a length.

    """
    lowest, highest = lengths
    for _ in range(config.attempts):
        length = lowest + int(rng.random() * (highest + 1 - lowest))
        program = finish(_random_draft(rng, config, length, protected), rng, config.vocabulary)
        if program is not None and lowest <= len(program.statements) <= highest:
            return program
    raise NoProgramError(f"no random program of {lowest} to {highest} statements in {config.attempts} attempts")


def _random_draft(rng: np.random.Generator, config: MutationConfig, length: int, protected: bool) -> Draft:
    slots = config.slots or ()
    inputs = [Parameter(name, RESERVED[name], slot=False) for name in config.inputs]
    draft = Draft((*inputs, *slots), (), (), "update", protected, frozenset([slot.name for slot in slots]))
    names = fresh_names(draft)
    scope = {parameter.name: parameter.kind for parameter in draft.parameters}
    unused: dict[str, Kind] = {}
    unbound = {slot.name: slot.kind for slot in slots}
    statements: list[Statement] = []
    for index in range(length):
        ops = drawable_ops(config.vocabulary, frozenset([*scope.values(), Kind.SCALAR]))
        if not ops:
            continue
        op = OPS[pick(ops, rng)]
        drawn = draw_arguments(op, scope, rng, config.new_constant_share)
        assert drawn is not None
        args = _with_unused(op, drawn, scope, unused, rng)
        kind = _result(op, args, scope)
        fitting = [name for name, widest in unbound.items() if widens(kind, widest)]
        if index == length - 1:
            target = "update"
        elif fitting and rng.random() < SLOT_SHARE:
            target = pick(fitting, rng)
            del unbound[target]
        else:
            target = next(names)
        statements.append(Statement(target, op.name, args))
        scope[target] = unused[target] = kind
    return _ended(replace(draft, statements=tuple(statements)), scope, rng, config)


def _ended(draft: Draft, scope: dict[str, Kind], rng: np.random.Generator, config: MutationConfig) -> Draft:
    """Return the draft with an update, which needs one more statement where the last value is a square matrix."""
    if not draft.statements:
        return replace(draft, update=draft.parameters[0].name)
    last = draft.statements[-1].target
    if widens(scope[last], Kind.TENSOR):
        return draft
    wide = [name for name, kind in scope.items() if kind is Kind.TENSOR]
    if not wide:
        return draft
    reader = draw_reader(config.vocabulary, (last, scope[last]), Kind.TENSOR, scope, rng)
    if reader is None:
        return replace(draft, update=pick(wide, rng))
    return replace(draft, statements=(*draft.statements, Statement("update", *reader)))


def _result(op: Op, args: tuple[Argument, ...], scope: dict[str, Kind]) -> Kind:
    kind = result_kind(op, [scope[arg] if isinstance(arg, str) else Kind.SCALAR for arg in args])
    assert kind is not None
    return kind


def _with_unused(
    op: Op, drawn: tuple[Argument, ...], scope: dict[str, Kind], unused: dict[str, Kind], rng: np.random.Generator
) -> tuple[Argument, ...]:
    """Let arguments be values that no statement reads yet, where those go with the other arguments."""
    args = list(drawn)
    kinds = [scope[arg] if isinstance(arg, str) else Kind.SCALAR for arg in args]
    for place in range(op.arity):
        names = [name for name, kind in unused.items() if (*kinds[:place], kind, *kinds[place + 1 :]) in op.signatures]
        if names and rng.random() < UNUSED_SHARE:
            args[place] = pick(names, rng)
            kinds[place] = unused[str(args[place])]
        unused.pop(str(args[place]), None)
    return tuple(args)


@dataclass(frozen=True, slots=True)
class NothingLearned:
    """The state of a search that does not learn."""


@final
@dataclass(frozen=True, slots=True)
class RandomSearch:
    """Random programs from the vocabulary, inputs and slots of a search, about as long as its seed.

    Lengths are between half and one and a half times the number of live statements of the seed program.

    Attributes:
        seed_program: Candidate 0, and the measure of length.
        seed: The random seed, not negative.
        mutation: What programs may hold; completed by what the seed program has, see `MutationConfig.for_seed`.

    """

    seed_program: Program
    seed: int = 0
    mutation: MutationConfig = field(default_factory=MutationConfig)

    def __post_init__(self) -> None:
        """Check the range of the seed."""
        if self.seed < 0:
            raise ValueError(f"the random seed must not be negative, got {self.seed}")

        object.__setattr__(self, "mutation", self.mutation.for_seed(self.seed_program))

    def initial(self) -> NothingLearned:
        """Return the state, which stays as it is."""
        return NothingLearned()

    def ask(self, state: NothingLearned, number: int, programs: Programs) -> Candidate:
        """Return the seed program as number 0, later a random program."""
        if number == 0:
            return Candidate(0, self.seed_program, None, SEED, structural_key(self.seed_program))
        rng = stream(self.seed, number)
        length = len(live_statements(self.seed_program)[0])
        lengths = (max(1, length // 2), max(1, length + length // 2))
        program = random_program(rng, self.mutation, lengths, protected=self.seed_program.protected)
        return Candidate(number, program, None, "random", structural_key(program))

    def tell(self, state: NothingLearned, candidate: Candidate, fitness: Fitness | None) -> NothingLearned:
        """Learn nothing."""
        return state

    def revise(self, state: NothingLearned, number: int, fitness: Fitness | None) -> NothingLearned:
        """Learn nothing."""
        return state
