"""Noise of scores: how much a loss changes with the seed, and what that leaves of the rank of a candidate.

Of many candidates trained once, the one with the best score owes part of it to its seed (the winner's curse). So the
best are confirmed: trained again at their best learning rate with seeds on which nothing was selected, and only the
fresh scores count. All candidates are ranked by a pessimistic bound, the mean plus some standard errors, so that a
candidate with one seed has to look better by that much than one with several.

Deviations are those of the logarithm of the excess loss, in which candidates of very different losses are comparable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median, variance

from evolion.evaluators.metric import excess_of
from evolion.evaluators.stages import Stage, Verdict, counting
from evolion.evaluators.window import Window
from evolion.proxies.score import Score, Status

__all__ = ["Contest", "Noise", "bound", "fresh_stage", "fresh_stages", "standard_error"]

NOISE_WINDOW = 200
"""The noise of a stage is estimated from this many of the last confirmations."""

CONTEST_WINDOW = 200
"""A candidate is among the best by comparison with this many told before it."""

CONTEST_MINIMUM = 20
"""While fewer were told, only a new best is confirmed."""

Rank = tuple[float, ...]
"""Compared from the left, smaller is better."""


def fresh_stages(stages: Sequence[Stage], verdict: Verdict, seeds: tuple[int, ...]) -> tuple[Stage, ...]:
    """Return the stages of a confirmation: those that counted, with other seeds and the best learning rate of each."""
    assert verdict.stage is not None
    made = []
    for place in counting(stages[: verdict.stage + 1]):
        rate = verdict.scores[place].learning_rate
        rates = stages[place].learning_rates if rate is None else (rate,)
        made.append(fresh_stage(stages[place], rates, seeds))
    return tuple(made)


def fresh_stage(stage: Stage, rates: tuple[float, ...] | None, seeds: tuple[int, ...]) -> Stage:
    """Return a stage with other seeds and learning rates, open to all."""
    return replace(stage, seeds=seeds, learning_rates=rates, share=None)


def logarithms(score: Score, stage: Stage) -> tuple[float, ...]:
    """Return the logarithm of the excess loss of each seed at the best learning rate; empty unless the score is ok."""
    if score.status is not Status.OK:
        return ()
    runs = [run for run in score.runs if run.learning_rate == score.learning_rate]
    values = [run.train_loss if stage.metric == "train_loss" else run.loss for run in runs]
    return tuple(math.log(excess_of(value, stage)) for value in values if value is not None)


@dataclass(frozen=True, slots=True)
class Noise:
    """Seed-to-seed variances by stage, of the last confirmations; a value, `after` makes a new one.

    Attributes:
        variances: For each stage those of the confirmed candidates, oldest first.
        freedom: Degrees of freedom of each: seeds less one.

    """

    variances: tuple[tuple[float, ...], ...]
    freedom: int

    @staticmethod
    def of(stages: Sequence[Stage], seeds: int) -> Noise:
        """Return what is known before anything was confirmed: nothing."""
        return Noise(((),) * len(stages), seeds - 1)

    def deviations(self) -> tuple[float, ...]:
        """Return the standard deviation of one seed in each stage, 0 while nothing was confirmed in it.

        Pooled by the median, so that a few unstable candidates do not decide on the others. The median of a variance of
        n degrees of freedom is about (1 - 2 / (9 n))³ of its mean (Wilson and Hilferty, 1931).
        """
        factor = (1 - 2 / (9 * self.freedom)) ** 3
        return tuple(math.sqrt(median(found) / factor) if found else 0.0 for found in self.variances)

    def after(self, stages: Sequence[Stage], stage: int, confirmed: Verdict) -> Noise:
        """Return the noise after the confirmation of a candidate that had come as far as a stage."""
        variances = list(self.variances)
        places = counting(stages[: stage + 1])
        for place, score in zip(places, confirmed.scores, strict=False):
            found = logarithms(score, stages[place])
            if len(found) > 1:
                variances[place] = (*variances[place], variance(found))[-NOISE_WINDOW:]
        return replace(self, variances=tuple(variances))


def standard_error(stages: Sequence[Stage], stage: int, deviations: Sequence[float], seeds: int | None = None) -> float:
    """Return the standard error of the logarithm of a value up to a stage.

    Args:
        stages: All stages.
        stage: The last one entered.
        deviations: Those of one seed in each stage.
        seeds: How many the value rests on in each; without it those of the stages.

    """
    places = counting(stages[: stage + 1])
    squares = [deviations[place] ** 2 / (seeds or len(stages[place].seeds)) for place in places]
    return math.sqrt(math.fsum(squares)) / len(places)


def bound(value: float, error: float, standard_errors: float) -> float:
    """Return a value that is worse by so many standard errors of its logarithm."""
    return value * math.exp(standard_errors * error)


@dataclass(frozen=True, slots=True)
class Contest:
    """Says who is to be confirmed: a new best, and who is among the best of those told lately; a value like `Noise`.

    Attributes:
        share: Of the candidates, that are among the best.
        recent: Ranks of the last candidates.
        best: The best rank so far.

    """

    share: float
    recent: Window = field(default_factory=lambda: Window(CONTEST_WINDOW))
    best: Rank | None = None

    def admits(self, rank: Rank) -> bool:
        """Say whether a candidate of this rank is to be confirmed."""
        if self.best is None or rank < self.best:
            return True
        told = len(self.recent)
        return told >= CONTEST_MINIMUM and self.recent.smaller(rank) < self.share * told

    def after(self, rank: Rank) -> Contest:
        """Return the contest after one more candidate."""
        best = rank if self.best is None else min(rank, self.best)
        return Contest(self.share, self.recent.after(rank), best)
