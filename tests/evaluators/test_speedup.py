"""The speed-up in steps of the reference, and the draws behind its interval."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolion.evaluators.protocol.resampling import (
    Resampler,
    estimate,
    hierarchical,
    ratio_estimate,
    reselection,
    unbiased,
)
from evolion.evaluators.protocol.speedup import Scale, invert, ladder, scaled_mean, speed_up, task_scale

DRAWS = 50
RESAMPLER = Resampler(DRAWS, 0)
NO_LUCK = np.zeros(DRAWS)
PLAIN = Scale(None)


def by_seed(*losses: float) -> dict[int, float]:
    return dict(enumerate(losses))


def made(rungs: dict[float, float], scale: Scale = PLAIN):
    """A ladder of one seed each."""
    found = ladder(RESAMPLER, "seeds", {h: by_seed(loss) for h, loss in rungs.items()}, scale, NO_LUCK)
    assert found is not None
    return found


def value(rungs: dict[float, float], loss: float, scale: Scale = PLAIN) -> tuple[float, str]:
    found, _ = speed_up(made(rungs, scale), scaled_mean(RESAMPLER, "seeds", by_seed(loss), scale, NO_LUCK), 0.95)
    return found.estimate.value, found.censored


def test_power_laws_with_a_known_floor_are_inverted_exactly() -> None:
    """Log excess over log horizon is a straight line for a power law: between horizons there is no error."""
    rungs = {h: 1.0 + 0.3 * h**-0.7 for h in (0.25, 0.5, 1.0, 2.0, 4.0)}
    for speed in (0.3, 0.9, 1.0, 1.37, 3.9):
        assert value(rungs, 1.0 + 0.3 * speed**-0.7, Scale(1.0)) == (pytest.approx(speed), "")


def test_without_a_floor_the_loss_is_interpolated_over_the_logarithm_of_the_horizon() -> None:
    """A loss halfway between those at T and 2 T is worth the geometric middle."""
    assert value({1.0: 3.0, 2.0: 1.0}, 2.0) == (pytest.approx(math.sqrt(2)), "")


@pytest.mark.parametrize(("loss", "expected"), [(9.0, (0.5, "low")), (math.inf, (0.5, "low")), (0.1, (4.0, "high"))])
def test_nothing_is_extrapolated(loss: float, expected: tuple[float, str]) -> None:
    """A loss beyond the ladder is a bound and says so; a run that diverged is at the shortest horizon."""
    assert value({0.5: 3.0, 1.0: 2.0, 4.0: 1.0}, loss) == (pytest.approx(expected[0]), expected[1])


def test_losses_at_the_ends_of_the_ladder_are_not_censored() -> None:
    """A bound is only what lies outside."""
    assert value({0.5: 3.0, 1.0: 2.0}, 3.0) == (pytest.approx(0.5), "")
    assert value({0.5: 3.0, 1.0: 2.0}, 2.0) == (pytest.approx(1.0), "")


def test_a_longer_run_that_ends_worse_is_pooled() -> None:
    """Noise between two horizons makes a plateau of their mean, whose loss is worth their geometric middle."""
    rungs = {0.5: 3.0, 1.0: 1.8, 2.0: 2.2, 4.0: 1.0}
    assert value(rungs, 2.0) == (pytest.approx(math.sqrt(2)), "")
    assert value(rungs, 2.0 + 1e-9)[0] == pytest.approx(1.0)
    assert value(rungs, 2.0 - 1e-9)[0] == pytest.approx(2.0)


def test_a_ladder_that_only_rises_is_one_plateau() -> None:
    """Even where every longer run is worse there is an answer: better than all, worse than all, or the middle."""
    rungs = {0.25: 1.0, 1.0: 1.5, 4.0: 2.0}
    assert value(rungs, 1.5) == (pytest.approx(1.0), "")
    assert value(rungs, 1.4) == (pytest.approx(4.0), "high")
    assert value(rungs, 1.6) == (pytest.approx(0.25), "low")


@given(st.lists(st.floats(0.1, 9.0), min_size=2, max_size=5), st.floats(0.0, 10.0), st.floats(0.0, 10.0))
def test_a_lower_loss_is_never_a_smaller_speed_up(losses: list[float], one: float, other: float) -> None:
    """The speed-up is monotone in the loss, however noisy the ladder."""
    found = made({2.0**i: loss for i, loss in enumerate(losses)})
    low, high = sorted((one, other))
    assert invert(found.fitted, found.logs, low) >= invert(found.fitted, found.logs, high) - 1e-12


def test_horizons_at_which_the_reference_diverged_are_no_rungs() -> None:
    """The ladder does without them; with fewer than two rungs there is none."""
    rungs = {0.5: by_seed(3.0, 3.0), 1.0: by_seed(2.0, 2.0), 2.0: by_seed(1.0, math.inf)}
    found = ladder(RESAMPLER, "seeds", rungs, PLAIN, NO_LUCK)
    assert found is not None
    np.testing.assert_allclose(np.exp(found.logs), [0.5, 1.0])
    assert ladder(RESAMPLER, "seeds", {1.0: by_seed(2.0)}, PLAIN, NO_LUCK) is None


def test_a_floor_counts_only_below_all_losses() -> None:
    """Test noise may put a loss below the floor: its logarithm would be no number."""
    assert task_scale(1.0, [1.5, math.inf]).floor == 1.0
    assert task_scale(1.0, [1.5, 1.0]).floor is None
    assert task_scale(None, [1.5]).floor is None


def test_equal_seeds_are_drawn_together() -> None:
    """Pairing: with the same noise at each seed the speed-up has no interval, without it has one."""
    noise = (-0.2, 0.0, 0.1, 0.1)
    rungs = {h: by_seed(*(loss + e for e in noise)) for h, loss in ((0.5, 3.0), (1.0, 2.0), (2.0, 1.0))}
    found = ladder(RESAMPLER, "seeds", rungs, PLAIN, NO_LUCK)
    assert found is not None
    paired = scaled_mean(RESAMPLER, "seeds", by_seed(*(1.7 + e for e in noise)), PLAIN, NO_LUCK)
    other = {10 + i: 1.7 + e for i, e in enumerate(noise)}
    apart = scaled_mean(RESAMPLER, "seeds", other, PLAIN, NO_LUCK)
    one, two = speed_up(found, paired, 0.95)[0].estimate, speed_up(found, apart, 0.95)[0].estimate
    assert one.high - one.low < 1e-9
    assert two.high - two.low > 0.05
    assert one.value == two.value


def test_intervals_stay_within_the_horizons_there_are() -> None:
    """Two seeds leave a wide interval, but nothing is known beyond the ladder."""
    found = ladder(RESAMPLER, "seeds", {0.5: by_seed(3.0, 3.1), 2.0: by_seed(1.0, 1.1)}, PLAIN, NO_LUCK)
    assert found is not None
    wide = speed_up(found, scaled_mean(RESAMPLER, "seeds", {7: 1.6, 8: 2.6}, PLAIN, NO_LUCK), 0.95)[0].estimate
    assert (wide.low, wide.high) == (pytest.approx(0.5), pytest.approx(2.0))


def test_draws_hang_on_what_is_drawn_alone() -> None:
    """A task or an optimizer more changes nothing about the intervals of the others."""
    fresh = Resampler(DRAWS, 0)
    fresh.indices("something else", [1, 2, 3])
    np.testing.assert_array_equal(fresh.indices("seeds", [1, 2]), RESAMPLER.indices("seeds", [1, 2]))
    assert (fresh.indices("seeds", [1, 2, 3]) != fresh.indices("others", [1, 2, 3])).any()


def test_the_draws_of_a_mean_have_its_variance() -> None:
    """Values drawn from four seeds vary less than the seeds' own population; the spread makes up for it."""
    losses = by_seed(1.0, 2.0, 4.0, 7.0)
    many = Resampler(20_000, 0)
    drawn = unbiased(3.5, many.means("seeds", losses), 4)
    assert drawn.mean() == pytest.approx(3.5, abs=0.05)
    assert drawn.var() == pytest.approx(np.var(list(losses.values()), ddof=1) / 4, rel=0.05)


def test_few_seeds_widen_an_interval() -> None:
    """With one degree of freedom Student's quantile is 6.5 times the normal one."""
    draws = np.linspace(-0.1, 0.1, 1001)
    narrow, wide = (ratio_estimate(0.0, draws, 0.95, freedom) for freedom in (0, 1))
    assert math.log(wide.high) == pytest.approx(12.7062 / 1.95996 * math.log(narrow.high), rel=1e-4)
    assert narrow.low == pytest.approx(math.exp(-0.095))


def test_an_interval_holds_its_value() -> None:
    """Tuning luck goes to one side only; percentiles alone would leave the value out."""
    found = estimate(1.0, np.full(DRAWS, 2.0), 0.95)
    assert (found.low, found.value, found.high) == (1.0, 1.0, 2.0)


def test_tuning_luck_is_the_gap_to_the_best_of_the_trials_that_are_drawn() -> None:
    """Zero where the best trial is drawn again, which it is in all but (1 - 1/K)^K of the draws."""
    many = Resampler(20_000, 0)
    luck = reselection(many, "trials", [3.0, 1.0, 2.0], PLAIN)
    assert set(np.unique(luck)) == {0.0, 1.0, 2.0}
    assert (luck > 0).mean() == pytest.approx((2 / 3) ** 3, abs=0.02)
    np.testing.assert_array_equal(reselection(many, "trials", [], PLAIN), np.zeros(20_000))


def test_families_weigh_alike() -> None:
    """Five tasks of one family count as much as one task of another, in every draw."""
    tasks = {"a": [f"a{i}" for i in range(5)], "b": ["b0"]}
    values = {task: np.full(DRAWS, 1.0 if family == "a" else 3.0) for family, of in tasks.items() for task in of}
    np.testing.assert_allclose(hierarchical(RESAMPLER, tasks, values, over_families=False), 2.0)
    assert set(hierarchical(RESAMPLER, tasks, values, over_families=True)) == {1.0, 2.0, 3.0}


def test_few_seeds_that_differ_much_stay_above_the_floor() -> None:
    """Two seeds, one of which has learnt: its draws lie as far below the mean on the scale as they do, not at the end.

    A draw below the floor has no logarithm; it would drag the whole ladder of the reference down with it.
    """
    scale = Scale(0.0)
    drawn = scaled_mean(RESAMPLER, "seeds", by_seed(0.01, 2.0), scale, NO_LUCK)
    middle = math.log(1.005)
    assert drawn.draws.min() == pytest.approx(middle + math.sqrt(2) * (math.log(0.01) - middle))
    found = ladder(RESAMPLER, "seeds", {h: by_seed(0.01 / h, 2.0 / h) for h in (0.5, 1.0, 2.0)}, scale, NO_LUCK)
    assert found is not None
    assert np.diff(found.draws, axis=1) == pytest.approx(np.full((DRAWS, 2), -math.log(2.0)))
