"""Noise of scores: pooled deviations, pessimistic bounds, who is to be confirmed and on what."""

import math
import statistics

import numpy as np
import pytest

from evolion.evaluators.metric import excess_of
from evolion.evaluators.noise import (
    CONTEST_MINIMUM,
    CONTEST_WINDOW,
    Contest,
    Noise,
    bound,
    fresh_stages,
    logarithms,
    standard_error,
)
from evolion.evaluators.stages import Reason, Stage, Verdict
from evolion.proxies.score import Run, Score, Status

SHORT, FULL, LARGER = (
    Stage("digits-mlp", 100, (0,), (0.1, 0.2)),
    Stage("digits-mlp", 500, (0, 1), (0.1, 0.2), share=0.5),
    Stage("zipf-lm", None, (0,), None, "train_loss", 0.5),
)
STAGES = (SHORT, FULL, LARGER)


def score(losses: list[float], rate: float = 0.1) -> Score:
    """A score whose other rate was worse on every seed."""
    runs = [Run(rate, seed, Status.OK, loss, loss / 2, 10) for seed, loss in enumerate(losses)]
    runs += [Run(rate * 2, seed, Status.OK, loss * 9, loss, 10) for seed, loss in enumerate(losses)]
    mean = sum(losses) / len(losses)
    return Score(Status.OK, mean, (), 10, 0.0, mean / 2, rate, tuple(runs))


def verdict(*scores: Score) -> Verdict:
    return Verdict(len(scores) - 1, Reason.FINISHED, scores, tuple(float(i) for i in range(len(scores))))


def test_confirmations_train_what_counted_at_its_best_rate() -> None:
    """A short stage that a full one replaced is not repeated; seeds are the given ones, and there is no grid."""
    found = verdict(score([1.0], 0.1), score([1.0], 0.2), score([5.0], 0.3))
    assert fresh_stages(STAGES, found, (7, 8)) == (
        Stage("digits-mlp", 500, (7, 8), (0.2,)),
        Stage("zipf-lm", None, (7, 8), (0.3,), "train_loss"),
    )
    assert fresh_stages(STAGES, verdict(score([1.0], 0.1)), (7, 8)) == (Stage("digits-mlp", 100, (7, 8), (0.1,)),)


def test_only_seeds_at_the_best_rate_tell_of_noise() -> None:
    """Other learning rates are worse for a reason; the metric is that of the stage, above the floor of its task."""
    assert logarithms(score([1.0, 4.0]), FULL) == (0.0, math.log(4.0))
    assert logarithms(score([10.0]), LARGER) == (math.log(excess_of(5.0, LARGER)),)
    assert logarithms(Score(Status.DIVERGED, None, (), 1, 0.0), FULL) == ()


@pytest.mark.parametrize("seeds", [2, 4, 8])
def test_noise_is_estimated_from_confirmations(seeds: int) -> None:
    """The pooled deviation is that of the seeds, whatever candidates are worth, and a few wild ones do not matter."""
    rng = np.random.default_rng(seeds)
    noise = Noise.of(STAGES, seeds)
    assert noise.deviations() == (0.0, 0.0, 0.0)
    for number in range(200):
        sd = 3.0 if number % 20 == 0 else 0.1
        losses = [math.exp(rng.normal(number % 7, sd)) for _ in range(seeds)]
        noise = noise.after(STAGES, 1, verdict(score(losses)))
    short, full, larger = noise.deviations()
    assert short == larger == 0.0
    assert 0.085 < full < 0.125


def test_standard_errors_follow_the_seeds() -> None:
    """A mean over more seeds, and over more tasks, is known better; unknown noise counts as none."""
    deviations = (0.5, 0.3, 0.4)
    assert standard_error(STAGES, 0, deviations) == 0.5
    assert standard_error(STAGES, 1, deviations) == pytest.approx(0.3 / math.sqrt(2))
    assert standard_error(STAGES, 2, deviations) == pytest.approx(math.sqrt(0.09 / 2 + 0.16) / 2)
    assert standard_error(STAGES, 2, deviations, 4) == pytest.approx(math.sqrt(0.25 / 4) / 2)
    assert bound(2.0, 0.1, 0.0) == 2.0 == bound(2.0, 0.0, 1.0)
    assert math.log(bound(2.0, 0.1, 3.0) / 2.0) == pytest.approx(0.3)


def test_noise_of_an_even_stream_confirms_the_share() -> None:
    """Of candidates that come from one distribution about the share is confirmed, besides the first few bests."""
    rng = np.random.default_rng(0)
    contest, admitted = Contest(0.05), []
    for value in rng.random(2000):
        rank = (-1.0, float(value))
        admitted.append(contest.admits(rank))
        contest = contest.after(rank)
    assert admitted[0]
    assert 0.04 < statistics.mean(admitted) < 0.07


def test_a_new_best_is_always_confirmed() -> None:
    """However few were told, and although a window of better ones is forgotten only slowly."""
    contest = Contest(0.02)
    for number in range(CONTEST_MINIMUM):
        rank = (0.0, float(number + 1))
        assert contest.admits(rank) == (number == 0)
        contest = contest.after(rank)
    assert contest.admits((0.0, 0.5))
    assert contest.admits((-1.0, 9.0)), "a candidate that got further is better"
    assert not contest.admits((0.0, 2.0))
    for _ in range(CONTEST_WINDOW):
        contest = contest.after((0.0, 7.0))
    assert contest.admits((0.0, 6.0))
    assert contest.best == (0.0, 1.0)
