"""Scores as data."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolion.proxies.score import Run, Score, Status, curve_steps, final_loss_diverged, score_of_run, tail_start

FINITE = st.floats(-100, 100)


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("loss", [None, 1.0, math.nan, math.inf])
def test_only_ok_carries_a_finite_loss(status: Status, loss: float | None) -> None:
    """NaN never ranks: no score or run exists whose status and loss contradict each other."""
    if (status is Status.OK and loss == 1.0) or (status is not Status.OK and loss is None):
        assert Score(status, loss, (), 0, 0.0).loss == Run(None, 0, status, loss, None, 0).loss == loss
    else:
        with pytest.raises(ValueError, match=status.value):
            Score(status, loss, (), 0, 0.0)
        with pytest.raises(ValueError, match=status.value):
            Run(None, 0, status, loss, None, 0)


def test_seconds_do_not_count() -> None:
    """The same result on a slower machine is an equal score."""
    assert Score(Status.OK, 1.0, (), 1, 0.5) == Score(Status.OK, 1.0, (), 1, 9.0)


def run(rate: float, seed: int, loss: float) -> Run:
    return Run(rate, seed, Status.OK, loss, None, 10)


def test_spread_is_over_the_seeds_of_the_best_rate() -> None:
    """The standard error of the loss comes from the runs that made it, and takes two of them."""
    runs = (run(0.1, 0, 1.0), run(0.1, 1, 2.0), run(0.1, 2, 3.0), run(0.2, 0, 9.0), run(0.2, 1, 7.0))
    assert Score(Status.OK, 2.0, (), 10, 0.0, None, 0.1, runs).spread == pytest.approx(1.0 / math.sqrt(3))
    assert Score(Status.OK, 8.0, (), 10, 0.0, None, 0.2, runs).spread == pytest.approx(1.0)
    assert Score(Status.OK, 1.0, (), 10, 0.0, None, 0.1, runs[:1]).spread is None
    assert Score(Status.DIVERGED, None, (), 10, 0.0, runs=runs).spread is None


@given(st.integers(1, 5000))
def test_curve_steps_span_the_run(horizon: int) -> None:
    """A curve has at most 20 points in rising order, from the first step to the last."""
    steps = curve_steps(horizon)
    assert len(steps) == min(20, horizon)
    assert list(steps) == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, horizon - 1)


@given(st.integers(1, 5000))
def test_tail_is_the_last_twentieth(horizon: int) -> None:
    """The tail has at least one step and about 5 % of them."""
    assert 1 <= horizon - tail_start(horizon) <= max(1, horizon * 0.05 + 0.5)


@given(st.lists(FINITE, min_size=1, max_size=60), FINITE)
def test_complete_runs_are_ok(losses: list[float], final: float) -> None:
    """A finite run is ok with its own final loss unless that exploded."""
    score = score_of_run(losses, horizon=len(losses), final=final, finite=True, seed=4, seconds=1.0)
    if final_loss_diverged(losses[0], final):
        assert (score.status, score.loss) == (Status.DIVERGED, None)
    else:
        assert (score.status, score.loss, score.steps) == (Status.OK, final, len(losses))
        assert score.runs == (Run(None, 4, Status.OK, final, score.train_loss, len(losses)),)


@pytest.mark.parametrize(
    ("losses", "final", "finite"),
    [
        ([2.0, 1.0, math.nan], 1.0, True),
        ([2.0, 1.0], 1.0, True),
        ([2.0, 1.0, 1.0], math.nan, True),
        ([2.0, 1.0, 1.0], math.inf, True),
        ([2.0, 1.0, 1.0], 30.1, True),
        ([2.0, 1.0, 1.0], 1.0, False),
    ],
    ids=["loss", "early stop", "final nan", "final inf", "final exploded", "parameters"],
)
def test_each_kind_of_divergence(losses: list[float], final: float, finite: bool) -> None:
    """Every way to diverge gives the status, keeps the finite part of the curve and says when."""
    score = score_of_run(losses, horizon=3, final=final, finite=finite, seed=0, seconds=0.0)
    assert (score.status, score.loss, score.train_loss) == (Status.DIVERGED, None, None)
    assert all(map(math.isfinite, score.curve))
    assert score.message == f"training diverged at step {len(losses)} of 3"


def test_limit_of_an_exploded_loss() -> None:
    """The final loss may be up to ten times the start plus ten."""
    assert not final_loss_diverged(2.0, 30.0)
    assert final_loss_diverged(2.0, 30.001)
