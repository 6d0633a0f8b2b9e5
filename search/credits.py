"""What mutations have achieved lately, and the weights that follow from it.

Probability matching with a floor: Thierens, "An Adaptive Pursuit Strategy for Allocating Operator Probabilities" (GECCO
2005), which also has what it is named for: adaptive pursuit gives all but the floor to whoever leads, and where one
candidate in fifty is an improvement, chance leads. What a mutation is worth is taken over a sliding window, as in
Fialho et al., "Extreme Value Based Adaptive Operator Selection" (PPSN 2008).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from evolion.search.population import Member, revised
from evolion.search.types import Candidate, Fitness

__all__ = ["Credit", "Credits", "Trial", "Weights", "counted", "credited", "matched", "recredited"]

REMEMBERED = 1000
"""Of so many candidates, those told or used as parents last, the fitness is known; their children earn credit."""

PRIOR = 2.0
"""Improvements that every mutation is granted in advance, at the common rate, so that chance does not decide early."""

Weights = tuple[tuple[str, float], ...]
"""(Name of a mutation, weight) pairs, as in `MutationConfig`."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate that a mutation made.

    Attributes:
        number: The candidate.
        mutation: What made it.
        bar: The fitness of its parent when the candidate was told.
        paid: Whether the candidate was better, and no duplicate of another.

    """

    number: int
    mutation: str
    bar: Fitness
    paid: bool


@dataclass(frozen=True, slots=True)
class Credits:
    """What is known of mutations.

    Attributes:
        weights: The weights of now.
        trials: Those in the window, oldest first.
        known: Candidates that may be parents of later ones, the one told or used longest ago first.

    """

    weights: Weights
    trials: tuple[Trial, ...] = ()
    known: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Credit:
    """What one mutation has achieved: candidates in the window, those that paid, and its share of the weights now."""

    mutation: str
    tried: int
    paid: int
    weight: float


def credited(credits: Credits, candidate: Candidate, fitness: Fitness | None, window: int) -> Credits:
    """Return what is known after a candidate was told; its mutation is to be one of those that are weighted.

    A candidate that fails has not paid, nor has one with exactly the fitness of another, as that is a duplicate. One
    whose parent's fitness is not known counts neither way.
    """
    trials, known = credits.trials, credits.known
    # Most parents were told or used not long ago.
    place = next((place for place in reversed(range(len(known))) if known[place].number == candidate.parent), None)
    parent = None if place is None else known[place]
    if place is not None and parent is not None and parent.fitness is not None:
        known = (*known[:place], *known[place + 1 :], parent)
        if candidate.mutation in dict(credits.weights):
            trial = Trial(candidate.number, candidate.mutation, parent.fitness, paid=False)
            trials = (*trials, _judged(trial, fitness, known))[-window:]
    if fitness is not None:
        known = (*known, Member(candidate.number, fitness))[-REMEMBERED:]
    return Credits(credits.weights, trials, known)


def recredited(credits: Credits, number: int, fitness: Fitness | None) -> Credits:
    """Return what is known after a candidate turned out to have another fitness."""
    known = revised(credits.known, number, fitness)
    trials = tuple([_judged(trial, fitness, known) if trial.number == number else trial for trial in credits.trials])
    return replace(credits, trials=trials, known=known)


def _judged(trial: Trial, fitness: Fitness | None, known: tuple[Member, ...]) -> Trial:
    better = fitness is not None and fitness < trial.bar
    duplicate = better and fitness in [member.fitness for member in known if member.number < trial.number]
    return replace(trial, paid=better and not duplicate)


def matched(configured: Weights, trials: tuple[Trial, ...], floor: float) -> Weights:
    """Return weights by probability matching, with the sum 1 once anything paid.

    With b the configured share of a mutation, n its trials, s those that paid and r the share of all trials that paid:
    floor × b + (1 - floor) × b × q / sum(b × q), where q = (s + 2) / (n + 2 / r).
    """
    tried, paid = counted(trials)
    if not paid.total():
        return configured
    total = sum([weight for _, weight in configured])
    rate = paid.total() / tried.total()
    worth = [weight * (paid[name] + PRIOR) / (tried[name] + PRIOR / rate) for name, weight in configured]
    return tuple(
        (name, floor * weight / total + (1.0 - floor) * own / sum(worth))
        for (name, weight), own in zip(configured, worth, strict=True)
    )


def counted(trials: tuple[Trial, ...]) -> tuple[Counter[str], Counter[str]]:
    """Return by mutation how many trials there are, and how many paid."""
    return Counter([trial.mutation for trial in trials]), Counter([trial.mutation for trial in trials if trial.paid])
