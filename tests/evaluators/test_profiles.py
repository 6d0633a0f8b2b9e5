"""Time to target, performance profiles, AlgoPerf's score, tuning curves and sensitivity."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolion.evaluators.protocol.profiles import profile, ratios_to_best, ratios_to_reference, score, targets, times
from evolion.evaluators.protocol.sensitivity import basin, clipped, sensitivity, tuning_curve

RATIOS = st.lists(st.one_of(st.floats(1.0, 6.0), st.just(math.inf)), min_size=1, max_size=8)


@given(RATIOS)
def test_the_score_is_the_integral_of_the_profile(ratios: list[float]) -> None:
    """AlgoPerf integrates the profile numerically; the closed form is its limit on a fine grid."""
    grid = np.linspace(1.0, 4.0, 3001)
    shares = profile("o", ratios, grid.tolist()).shares
    assert score(ratios) == pytest.approx(np.trapezoid(shares, grid) / 3.0, abs=2e-3)


@given(RATIOS)
def test_scores_lie_between_none_and_all(ratios: list[float]) -> None:
    """1 for the fastest everywhere, 0 for one that never reaches a target within four times the best."""
    found = score(ratios)
    assert found is not None
    assert 0.0 <= found <= 1.0
    assert score([1.0] * len(ratios)) == 1.0
    assert score([math.inf] * len(ratios)) == 0.0


def test_without_targets_there_is_no_score() -> None:
    """Zero would say that targets were missed."""
    assert score([]) is None
    assert profile("o", [], (1.0, 2.0)).shares == (0.0, 0.0)


def test_targets_are_the_mean_losses_of_the_reference() -> None:
    """At half, once and twice the horizon; none where a run diverged or is missing."""
    assert targets({0.25: 4.0, 0.5: 3.0, 1.0: 2.0, 2.0: 1.0, 4.0: 0.5}) == {0.5: 3.0, 1.0: 2.0, 2.0: 1.0}
    assert targets({0.5: 3.0, 1.0: math.inf}) == {0.5: 3.0}


def test_the_time_is_the_shortest_horizon_that_reaches_the_target() -> None:
    """A mean equal to the target reaches it, a longer run that misses it does not matter, none is None."""
    goals = {0.5: 3.0, 1.0: 2.0, 2.0: 1.0}
    assert times({0.25: 3.5, 0.5: 2.0, 1.0: 2.5, 2.0: 1.5}, goals) == {0.5: 0.5, 1.0: 0.5, 2.0: None}
    assert times({1.0: math.inf}, goals) == {0.5: None, 1.0: None, 2.0: None}
    assert times({}, goals) == {0.5: None, 1.0: None, 2.0: None}


FOUND = {
    "a": {("t", 0.5): 0.5, ("t", 1.0): 1.0, ("t", 2.0): None},
    "b": {("t", 0.5): 0.25, ("t", 1.0): 2.0, ("t", 2.0): None},
}


def test_ratios_are_to_the_best_of_the_pool() -> None:
    """Leaving one out of the pool raises the others; a target that nobody reaches is missed by all."""
    assert ratios_to_best(FOUND, "a", ["a", "b"]) == [2.0, 1.0, math.inf]
    assert ratios_to_best(FOUND, "a", ["a"]) == [1.0, 1.0, math.inf]
    assert ratios_to_reference(FOUND, "b", "a") == [0.5, 2.0, math.inf]


def test_a_profile_counts_a_ratio_at_its_own_value() -> None:
    """The share within tau includes tau itself."""
    assert profile("o", [1.0, 2.0, math.inf, 4.0], (0.5, 1.0, 2.0, 4.0)).shares == (0.0, 0.25, 0.5, 0.75)


@given(st.lists(st.integers(0, 3).map(float), min_size=1, max_size=4))
def test_the_tuning_curve_is_the_mean_over_all_ways_to_draw(losses: list[float]) -> None:
    """Order statistics against brute force, ties included."""
    for point in tuning_curve(losses):
        best = [min(drawn) for drawn in itertools.product(losses, repeat=point.trials)]
        assert point.loss == pytest.approx(np.mean(best))
        assert point.deviation == pytest.approx(np.std(best), abs=1e-7)
    assert [point.trials for point in tuning_curve(losses)] == list(range(1, len(losses) + 1))


def test_no_trials_have_no_tuning_curve() -> None:
    """Nothing is guessed."""
    assert tuning_curve([]) == ()


def test_diverged_trials_count_as_the_loss_at_the_start() -> None:
    """The expectation stays finite: the run could have been left at its start."""
    assert clipped([1.0, math.inf, 9.0], 5.0) == [1.0, 5.0, 5.0]
    assert tuning_curve(clipped([1.0, math.inf], 5.0))[0].loss == pytest.approx(3.0)


def test_without_a_start_the_worst_finite_loss_takes_its_place() -> None:
    """If nothing at all is finite, no loss is left."""
    assert clipped([1.0, math.inf, 2.0], None) == [1.0, 2.0, 2.0]
    assert clipped([math.inf], None) == []
    assert clipped([], None) == []


def test_sensitivity_is_the_mean_excess_over_the_best_rate() -> None:
    """Diverged runs count as the loss at the start."""
    assert sensitivity([2.0, 1.0, 2.0, math.inf], 5.0) == pytest.approx((1.0 + 0.0 + 1.0 + 4.0) / 4)


def test_the_basin_is_measured_in_decades_of_learning_rate() -> None:
    """Up to 5 % of excess loss above the best, linear in between, not beyond the rates there are."""
    rates = [1e-3, 1e-2, 1e-1]
    assert basin(rates, [1.1, 1.0, 1.2], None) == pytest.approx(0.5 + 0.25)
    assert basin(rates, [1.1, 1.0, 1.01], None) == pytest.approx(0.5 + 1.0)
    assert basin(rates, [2.1, 2.0, 2.2], 1.0) == pytest.approx(0.5 + 0.25)
    assert basin([1e-2], [1.0], None) == 0.0


def test_a_second_valley_is_no_part_of_the_basin() -> None:
    """Rates that are good again behind a wall do not make the best one safer."""
    assert basin([1e-4, 1e-3, 1e-2, 1e-1], [1.0, 2.0, 1.0, 2.0], None) == pytest.approx(0.05)


def test_a_share_of_no_excess_means_nothing() -> None:
    """A best loss at its floor has no basin."""
    assert basin([1e-2, 1e-1], [1.0, 2.0], 1.0) is None
