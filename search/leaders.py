"""The best candidates so far, as functions from lists to lists: several, as the first may turn out to be worse."""

from __future__ import annotations

from evolion.search.population import Member, revised
from evolion.search.types import Fitness

__all__ = ["LEADERS", "joined_by", "reordered"]

LEADERS = 8
"""So many of the best are remembered."""


def joined_by(leaders: tuple[Member, ...], newcomer: Member) -> tuple[Member, ...]:
    """Return the best, best first, after a newcomer.

    Equal fitness is most likely equal behaviour, so of several with the same fitness the first that had it stays.
    """
    if newcomer.fitness in [member.fitness for member in leaders]:
        return leaders
    return tuple(sorted((*leaders, newcomer), key=_rank)[:LEADERS])


def reordered(leaders: tuple[Member, ...], number: int, fitness: Fitness | None, *, alive: bool) -> tuple[Member, ...]:
    """Return the best after a candidate turned out to have another fitness.

    One that was not among them may come to be, if it is alive in a population; without fitness it goes.
    """
    if any(member.number == number for member in leaders):
        return tuple(sorted(revised(leaders, number, fitness), key=_rank))
    return joined_by(leaders, Member(number, fitness)) if alive and fitness is not None else leaders


def _rank(member: Member) -> tuple[bool, Fitness, int]:
    return member.fitness is None, member.fitness or (), member.number
