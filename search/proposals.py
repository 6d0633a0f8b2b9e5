"""Programs from elsewhere: whoever is shown parents may propose children as texts, and a text is data until checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from evolion.primitives.parser import parse
from evolion.primitives.program import Program, ProgramError
from evolion.search.drafts import prepared
from evolion.search.mutation import MutationConfig
from evolion.search.types import Fitness

__all__ = [
    "MAXIMUM_CHARACTERS",
    "PROPOSAL",
    "Parent",
    "Proposed",
    "Proposer",
    "ProposerError",
    "Refusal",
    "Rules",
    "checked",
]

PROPOSAL = "proposal"
"""The mutation that is written down for a candidate that was proposed."""

MAXIMUM_CHARACTERS = 20_000
"""A text as long as this, or longer, is not read: neither checking nor keeping it may hold up a search."""


class ProposerError(RuntimeError):
    """No answer came; the message says why in one line and holds no secret."""


@dataclass(frozen=True, slots=True)
class Parent:
    """A program that a proposer is shown.

    Attributes:
        number: The candidate.
        text: Its program text.
        fitness: Smaller is better, compared from the left.

    """

    number: int
    text: str
    fitness: Fitness


class Proposer(Protocol):
    """Proposes programs. It may take its time, and nothing that it answers is trusted."""

    def propose(self, parents: Sequence[Parent], count: int) -> tuple[str, ...]:
        """Return texts, `count` of them if all goes well; is called in a thread of its own.

        Args:
            parents: Best first, at least one.
            count: How many are wanted.

        Raises:
            ProposerError: If no answer came.

        """
        ...


class Refusal(StrEnum):
    """Why a text becomes no candidate."""

    SYNTAX = "not a program"
    LENGTH = "too long"
    ARITHMETIC = "other arithmetic"
    INPUTS = "other inputs"
    VOCABULARY = "other vocabulary"
    REPEATED = "proposed before"


@dataclass(frozen=True, slots=True)
class Rules:
    """What programs a search considers: a proposal is held to what its mutations are held to.

    Attributes:
        protected: The arithmetic that all programs of the search share.
        inputs: Reserved inputs that a program may take.
        vocabulary: Ops that it may use.
        maximum_statements: The longest program.

    """

    protected: bool
    inputs: tuple[str, ...]
    vocabulary: tuple[str, ...]
    maximum_statements: int

    @staticmethod
    def of(seed: Program, mutation: MutationConfig) -> Rules:
        """Return the rules of a search: what its mutations may use, and what its warm start uses."""
        ops = dict.fromkeys([*mutation.vocabulary, *(statement.op for statement in seed.statements), "identity"])
        longest = max(mutation.maximum_statements, len(seed.statements))
        return Rules(seed.protected, mutation.for_seed(seed).inputs, tuple(ops), longest)


@dataclass(frozen=True, slots=True)
class Proposed:
    """A proposal that may become a candidate: no dead code, no docstring, no comments, and its structural key."""

    program: Program
    key: str


def checked(text: str, rules: Rules) -> Proposed | Refusal:
    """Return the program of a text, or why it is refused. Never raises, whatever the text."""
    if len(text) >= MAXIMUM_CHARACTERS:
        return Refusal.LENGTH
    try:
        program, key = prepared(replace(parse(text), docstring="", comments=()))
    except ProgramError:
        return Refusal.SYNTAX
    if program.protected != rules.protected:
        return Refusal.ARITHMETIC
    if len(program.statements) > rules.maximum_statements:
        return Refusal.LENGTH
    if not set(program.inputs) <= set(rules.inputs):
        return Refusal.INPUTS
    if not {statement.op for statement in program.statements} <= set(rules.vocabulary):
        return Refusal.VOCABULARY
    return Proposed(program, key)
