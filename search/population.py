"""A population with ageing, as functions from lists to lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evolion.search.types import Fitness

__all__ = ["Member", "draw_seats", "joined", "revised", "tournament_winner"]


@dataclass(frozen=True, slots=True)
class Member:
    """The number of a candidate with its fitness; a fitness of None loses against every other."""

    number: int
    fitness: Fitness | None


def joined(members: tuple[Member, ...], newcomer: Member, seats: int) -> tuple[Member, ...]:
    """Return the members, oldest first, after one joined; where all seats are taken the oldest leaves."""
    return (*members, newcomer)[-seats:]


def revised(members: tuple[Member, ...], number: int, fitness: Fitness | None) -> tuple[Member, ...]:
    """Return the members after the candidate of a number got another fitness; without it, its seat becomes free."""
    return tuple(
        replace(member, fitness=fitness) if member.number == number else member
        for member in members
        if member.number != number or fitness is not None
    )


def draw_seats(
    members: Sequence[Member], contestants: int, rng: np.random.Generator, copies: int = 0, copy: Member | None = None
) -> list[Member]:
    """Return different members drawn at random, oldest first; all of them where there are too few.

    Before the members stand `copies` seats that hold `copy`.
    """
    total = copies + len(members)
    seats: Sequence[int] = range(total)
    if contestants < total:
        # Floyd's algorithm: Bentley and Floyd, "A sample of brilliance", Communications of the ACM 30 (1987).
        drawn: set[int] = set()
        for last, point in enumerate(rng.random(contestants).tolist(), start=total - contestants):
            seat = int(point * (last + 1))
            drawn.add(last if seat in drawn else seat)
        seats = sorted(drawn)
    return [copy if copy is not None and seat < copies else members[seat - copies] for seat in seats]


def tournament_winner(contestants: Sequence[Member]) -> Member:
    """Return the fittest of the contestants, oldest first; of equals the youngest, so that neutral changes spread."""
    winner = contestants[0]
    for contestant in contestants[1:]:
        if winner.fitness is None or (contestant.fitness is not None and contestant.fitness <= winner.fitness):
            winner = contestant
    return winner
