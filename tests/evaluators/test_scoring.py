"""What a table says: golden tests on hand-made tables, and laws of the whole report."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scoring_tables import LADDER, NOISE, comparison, horizons, numbers, power_law, reported, row, runs, tuned

from evolion.evaluators.protocol.report import Aggregate, Cell, Report
from evolion.evaluators.protocol.rows import Row, Stage
from evolion.evaluators.protocol.scoring import report
from evolion.proxies.score import Status
from evolion.report_tables import to_json

DRAWS = 200


def scored(rows: list[Row], reference: str = "adamw", **options: object) -> Report:
    return report(rows, reference=reference, draws=DRAWS, **options)  # type: ignore[arg-type]


def cell(found: Report, optimizer: str, task: str = "lm") -> Cell:
    return next(cell for cell in found.cells if (cell.optimizer, cell.task) == (optimizer, task))


def total(found: Report, optimizer: str) -> Aggregate:
    return next(aggregate for aggregate in found.aggregates if aggregate.optimizer == optimizer)


def speed(found: Report, optimizer: str, task: str = "lm") -> tuple[float, str]:
    known = cell(found, optimizer, task).speed_up
    assert known is not None
    return known.estimate.value, known.censored


def test_the_report_is_a_function_of_the_set_of_rows() -> None:
    """In whatever order runs ended, and however often it is asked, the report is the same."""
    rows = comparison({"adamw": 1.0, "lion": 0.8, "muon": 1.6}, tasks=("lm", "mlp"))
    shuffled = random.Random(0).sample(rows, len(rows))
    assert scored(rows) == scored(shuffled) == scored(rows)


def test_an_optimizer_more_leaves_the_others_alone() -> None:
    """But for what is relative to the pool: the score, its profile and the correction for the number of optimizers."""
    rows = comparison({"adamw": 1.0, "lion": 0.8}, tasks=("lm", "mlp"))
    more = scored(rows + comparison({"muon": 1.6}, tasks=("lm", "mlp")))
    one, other = cell(scored(rows), "lion"), cell(more, "lion")
    assert replace(one, corrected=None) == replace(other, corrected=None)
    assert total(scored(rows), "lion").speed_up == total(more, "lion").speed_up


def test_cells_and_aggregates_come_in_a_fixed_order() -> None:
    """Tasks by family and name; the reference first, renamed copies last."""
    rows = comparison({"zebra": 1.0, "lion": 0.8}, tasks=("mlp", "lm")) + reported(
        "a copy", "lm", [2.0, 2.0], control="zebra"
    )
    found = scored(rows, "zebra")
    assert [a.optimizer for a in found.aggregates] == ["zebra", "lion", "a copy"]
    assert list(dict.fromkeys(c.task for c in found.cells)) == ["mlp", "lm"]
    assert len(found.cells) == 6


def test_the_reference_is_exactly_one() -> None:
    """Whatever its ladder says of its own noise."""
    rows = runs("adamw", "lm") + runs("lion", "lm", 0.8)
    found = scored(
        [replace(r, loss=9.0) if r.optimizer == "adamw" and r.horizon == 2.0 and r.loss else r for r in rows]
    )
    estimate = total(found, "adamw").speed_up
    assert estimate is not None
    assert (estimate.low, estimate.value, estimate.high) == (1.0, 1.0, 1.0)
    assert speed(found, "adamw") == (1.0, "")
    assert cell(found, "adamw").difference is None
    assert total(found, "adamw").better is None


def test_the_speed_up_of_a_power_law_is_recovered() -> None:
    """With the floor known; 1.6 times as fast is 1.6, in steps and, at half the time per step, 3.2 in time."""
    rows = runs("adamw", "lm", floor=1.0, noise=(0.0, 0.0)) + runs(
        "muon", "lm", 1.6, floor=1.0, noise=(0.0, 0.0), seconds=1.0
    )
    found = scored(rows)
    assert speed(found, "muon") == (pytest.approx(1.6), "")
    wall = total(found, "muon").wall
    assert wall is not None
    assert wall.value == pytest.approx(3.2)


def test_a_floor_above_a_loss_is_not_used() -> None:
    """Noise of the test split may cross the floor; the plain losses are compared then."""
    rows = runs("adamw", "lm", floor=1.99) + runs("muon", "lm", 1.6, floor=1.99)
    assert math.isfinite(speed(scored(rows), "muon")[0])


def test_equal_losses_tie_everywhere() -> None:
    """The same numbers under another name: no difference, speed-up 1, half of the wins."""
    found = scored(runs("adamw", "lm") + runs("twin", "lm"))
    twin, over_all = cell(found, "twin"), total(found, "twin")
    assert speed(found, "twin") == (pytest.approx(1.0), "")
    assert twin.difference is not None
    assert twin.difference.value == 0.0
    assert twin.corrected == pytest.approx(1.0)
    assert twin.times == {0.5: 0.5, 1.0: 1.0, 2.0: 2.0}
    assert over_all.better is not None
    assert over_all.better.value == 0.5
    assert over_all.score == total(found, "adamw").score == 1.0


def test_differences_are_paired_by_seed_and_corrected_together() -> None:
    """Student's interval of the differences, Dunnett's probability of the losses, as scipy has them."""
    ours, others, theirs = [2.0, 2.2, 1.9], [3.0, 2.5, 2.8], [2.1, 2.5, 2.0]
    found = scored(reported("adamw", "lm", theirs) + reported("lion", "lm", ours) + reported("sgd", "lm", others))
    lion = cell(found, "lion")
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert lion.difference is not None
    assert (lion.difference.low, lion.difference.high) == (pytest.approx(low), pytest.approx(high))
    expected = stats.dunnett(ours, others, control=theirs, rng=np.random.default_rng(0)).pvalue
    assert [lion.corrected, cell(found, "sgd").corrected] == pytest.approx(list(expected))
    assert lion.mean == pytest.approx(np.mean(ours))
    assert lion.deviation == pytest.approx(np.std(ours, ddof=1))


def test_only_seeds_that_both_have_are_paired() -> None:
    """A run that is still missing on one side leaves its seed out."""
    found = scored(reported("adamw", "lm", [2.0, 3.0, 4.0]) + reported("lion", "lm", [1.0, 2.0]))
    difference = cell(found, "lion").difference
    assert difference is not None
    assert difference.value == -1.0


def test_without_shared_seeds_the_interval_is_welchs() -> None:
    """Renamed copies of the reference run on seeds of their own."""
    ours, theirs = [2.0, 2.2, 1.9], [2.1, 2.5, 2.0, 2.3]
    found = scored(reported("adamw", "lm", theirs) + reported("copy", "lm", ours, first_seed=10, control="adamw"))
    low, high = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    difference, better = cell(found, "copy").difference, total(found, "copy").better
    assert difference is not None
    assert (difference.low, difference.high) == (pytest.approx(low), pytest.approx(high))
    assert better is not None
    assert better.value == pytest.approx(9.5 / 12)


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.OK])
def test_a_run_that_failed_is_the_worst_there_is(status: Status) -> None:
    """It is not left out: no mean, no difference, the shortest horizon, no target, a lost pair."""
    rows = runs("adamw", "lm") + runs("lion", "lm", 1.5)
    failed = [
        replace(r, status=status, loss=None) if (r.optimizer, r.stage, r.seed) == ("lion", Stage.REPORT, 2) else r
        for r in rows
    ]
    found = scored(failed)
    lion = cell(found, "lion")
    assert (lion.mean, lion.deviation, lion.difference, lion.corrected) == (None, None, None, None)
    assert lion.losses[1] == math.inf
    assert speed(found, "lion") == (pytest.approx(0.25), "low")
    assert lion.times == {0.5: 0.5, 1.0: 2.0, 2.0: 2.0}
    assert lion.diverged == pytest.approx(1 / 24)
    better = total(found, "lion").better
    assert better is not None
    assert better.value == 0.75


def test_nan_never_ranks() -> None:
    """A loss that is no number under an ok status counts as diverged, in trials and in reported runs."""
    rows = runs("adamw", "lm") + runs("lion", "lm", 1.5)
    found = scored([replace(r, loss=math.nan) if r.optimizer == "lion" else r for r in rows])
    assert speed(found, "lion") == (pytest.approx(0.25), "low")
    assert cell(found, "lion").diverged == 1.0
    assert total(found, "lion").score == 0.0
    assert not any(map(math.isnan, numbers(to_json(found))))


def test_targets_that_are_missed_count_as_never() -> None:
    """A slow optimizer reaches the loosest target at twice its time, and the others not at all."""
    found = scored(
        runs("adamw", "lm", noise=(0.0, 0.0)) + runs("slow", "lm", 0.25, ladder=(0.5, 2.0), noise=(0.0, 0.0))
    )
    assert cell(found, "slow").times == {0.5: 2.0, 1.0: None, 2.0: None}
    assert total(found, "slow").score == 0.0
    assert total(found, "adamw").score == 1.0
    assert [p.shares[-1] for p in found.profiles] == [1.0, pytest.approx(1 / 3)]


def test_a_score_is_also_given_without_each_competitor() -> None:
    """Scores are relative to the best: without it, the next has it."""
    speeds = {"adamw": 1.0, "muon": 4.0}
    found = scored(comparison(speeds, tasks=("lm",), noise=(0.0, 0.0)))
    adamw = total(found, "adamw")
    assert adamw.score is not None
    assert adamw.score < 0.6
    assert adamw.score_without == {"muon": 1.0}


def test_one_optimizer_alone() -> None:
    """The reference by itself has a report: a speed-up of 1, and nothing to be compared with."""
    found = scored(comparison({"adamw": 1.0}))
    adamw = total(found, "adamw")
    assert adamw.speed_up is not None
    assert (adamw.speed_up.value, adamw.score, dict(adamw.score_without)) == (1.0, 1.0, {})
    assert found.band is None
    assert all(c.corrected is None for c in found.cells)


def test_cells_without_runs_are_empty_and_named() -> None:
    """Nothing is guessed; targets on that task count as missed, and the mean is over the tasks there are."""
    found = scored(runs("adamw", "lm") + runs("adamw", "mlp") + runs("lion", "lm", 1.5))
    empty = cell(found, "lion", "mlp")
    assert (empty.losses, empty.mean, empty.speed_up, empty.learning_rate, empty.tuning) == ((), None, None, None, ())
    assert set(empty.times.values()) == {None}
    assert "lion on mlp: no runs" in found.notes
    lion = total(found, "lion")
    assert (lion.tasks, set(lion.by_family)) == (1, {"language"})
    assert lion.score == pytest.approx(0.5)


def test_trials_alone_are_no_result() -> None:
    """Tuning losses are never reported: they are selected, and too good."""
    found = scored(runs("adamw", "lm") + tuned("lion", "lm", [1.0, 2.0]))
    lion = cell(found, "lion")
    assert (lion.losses, lion.speed_up, lion.learning_rate) == ((), None, 0.01)
    assert "lion on lm: no run of tuned settings" in found.notes


def test_without_horizons_of_the_reference_there_are_no_speed_ups() -> None:
    """And no targets but the one at the horizon that it has."""
    found = scored(reported("adamw", "lm", [2.0, 2.1]) + reported("lion", "lm", [2.2, 2.1]))
    assert (cell(found, "lion").speed_up, total(found, "lion").speed_up, total(found, "lion").wall) == (
        None,
        None,
        None,
    )
    assert total(found, "lion").score is None
    assert any("fewer than two horizons" in note for note in found.notes)
    assert any("no target at 0.5, 2 of the horizon" in note for note in found.notes)


def test_the_ladder_may_have_gaps() -> None:
    """What horizons there are bound the speed-up."""
    rows = runs("adamw", "lm", ladder=(0.5, 2.0)) + runs("fast", "lm", 3.5, ladder=(0.5,))
    found = scored(rows)
    assert speed(found, "fast") == (pytest.approx(2.0), "high")
    assert cell(found, "fast").times[2.0] == 1.0


def test_one_seed_has_no_noise_to_show() -> None:
    """No deviation, no difference; the interval is that of tuning luck, and the notes say so."""
    found = scored(runs("adamw", "lm", noise=(0.0,)) + runs("lion", "lm", 0.8, noise=(0.0,)))
    lion = cell(found, "lion")
    assert (lion.deviation, lion.difference, lion.corrected) == (None, None, None)
    assert lion.mean == pytest.approx(power_law(0.8))
    assert any(note.startswith("lion on lm: one seed") for note in found.notes)


def test_families_weigh_alike() -> None:
    """Two language tasks at 1/2 and one of images at 2: the mean over families is 1, over tasks it is not."""
    rows = [r for task in ("lm", "lm-wide", "mlp") for r in runs("adamw", task, floor=1.0)]
    rows += [*runs("x", "lm", 0.5, floor=1.0), *runs("x", "lm-wide", 0.5, floor=1.0), *runs("x", "mlp", 2.0, floor=1.0)]
    found = total(scored(rows), "x")
    assert found.speed_up is not None
    assert found.over_families is not None
    assert found.speed_up.value == pytest.approx(1.0, rel=0.02)
    assert found.by_family == {"images": pytest.approx(2.0, rel=0.02), "language": pytest.approx(0.5, rel=0.02)}
    assert found.speed_up.high - found.speed_up.low < 0.2
    # Other families may be all like the one or all like the other.
    assert found.over_families.high - found.over_families.low > 1.0


def test_no_interval_goes_beyond_the_horizons_of_the_reference() -> None:
    """Two seeds leave much open, but nothing was seen beyond the ladder: not in a cell, and not in a mean of cells."""
    rows = comparison({"adamw": 1.0}, tasks=("lm", "mlp"), noise=(0.0, 0.1))
    rows += [r for task in ("lm", "mlp") for r in reported("x", task, [1.6, 2.2], first_seed=9, seconds=1.0)]
    found = scored(rows)
    mean = total(found, "x")
    assert mean.speed_up is not None
    assert mean.wall is not None
    for estimate, scale in ((cell(found, "x").speed_up.estimate, 1), (mean.speed_up, 1), (mean.wall, 2)):  # type: ignore[union-attr]
        assert 0.25 * scale - 1e-9 <= estimate.low <= estimate.value <= estimate.high <= 4 * scale + 1e-9


def test_tuning_luck_is_inside_the_interval() -> None:
    """With equal noise of seeds, all that is uncertain is whether the best trial would have been among the trials."""
    sure = runs("adamw", "lm", trials=1) + runs("lion", "lm", 0.8, trials=1)
    lucky = sure + tuned("lion", "lm", [power_law(0.8) - 0.5], trial=1, learning_rate=0.5)
    one, other = (cell(scored(rows), "lion").speed_up for rows in (sure, lucky))
    assert one is not None
    assert other is not None
    assert one.estimate.value == other.estimate.value
    assert other.estimate.high - other.estimate.low > one.estimate.high - one.estimate.low + 0.1
    assert other.estimate.low < 0.6


def test_the_band_is_that_of_the_copies_of_the_reference() -> None:
    """Copies have one horizon: they get a speed-up, no score, and are no rivals in the scores of others."""
    rows = comparison({"adamw": 1.0, "lion": 0.8}, tasks=("lm",))
    rows += reported("adamw#1", "lm", [1.95, 1.96], first_seed=20, control="adamw")
    rows += reported("adamw#2", "lm", [2.10, 2.11], first_seed=30, control="adamw")
    rows += reported("lion#1", "lm", [1.1, 1.1], first_seed=30, control="lion")
    found = scored(rows)
    copies = [total(found, name) for name in ("adamw#1", "adamw#2")]
    assert found.band == tuple(sorted(copy.speed_up.value for copy in copies if copy.speed_up))
    assert found.band[0] < 1.0 < found.band[1]
    assert [copy.score for copy in copies] == [None, None]
    assert set(total(found, "lion").score_without) == {"adamw"}
    assert [p.optimizer for p in found.profiles] == ["adamw", "lion"]


def test_edges_are_those_of_the_box_as_it_was_extended() -> None:
    """At 0.95 of the first box the best trial lies at an edge; after an extension by a decade it does not."""
    first = [*tuned("adamw", "lm", [2.0], unit=(0.95, 0.5)), *tuned("adamw", "lm", [3.0], trial=1, learning_rate=0.3)]
    assert cell(scored(first), "adamw").edges == ("learning rate, high",)
    beyond = [
        row("adamw", "lm", Stage.EDGE, 0, 2.5, trial=2 + i, unit=(1.05 + 0.2 * i, 0.5), learning_rate=1.0 + i)
        for i in range(2)
    ]
    found = cell(scored(first + beyond), "adamw")
    assert (found.edges, found.extensions, found.trials) == ((), 1, 4)


def test_a_coordinate_that_is_not_tuned_has_no_edges() -> None:
    """Its place in the unit square is drawn, yet means nothing."""
    rows = tuned("adamw", "lm", [2.0, 3.0], unit=(0.5, 0.01), shrinkage=None)
    assert cell(scored(rows), "adamw").edges == ()


def test_sensitivity_is_over_the_rates_and_the_tuned_point() -> None:
    """Rows at other rates make the U-curve; a diverged one counts as the loss at the start."""
    rows = tuned("adamw", "lm", [2.0]) + [
        row("adamw", "lm", Stage.SENSITIVITY, 0, loss, learning_rate=rate) for rate, loss in ((0.001, 3.0), (0.1, None))
    ]
    found = cell(scored(rows), "adamw")
    assert found.rates == ((0.001, 3.0), (0.01, 2.0), (0.1, math.inf))
    assert found.sensitivity == pytest.approx((1.0 + 0.0 + 3.0) / 3)
    assert found.basin is not None
    assert cell(scored(tuned("adamw", "lm", [2.0])), "adamw").sensitivity is None


def test_curves_are_of_the_reported_runs_and_times_of_all_at_the_horizon() -> None:
    """Mean curve over the seeds; the median time with trials, as reported runs may hold a compilation."""
    rows = [
        *reported("adamw", "lm", [2.0, 3.0, 2.5], seconds=60.0),
        *tuned("adamw", "lm", [3.0] * 4, seconds=2.0),
        *tuned("adamw", "lm", [None] * 9, seconds=0.1, learning_rate=1.0),
        *horizons("adamw", "lm", {2.0: [1.8] * 9}, seconds=90.0),
    ]
    found = cell(scored(rows), "adamw")
    assert found.curve == pytest.approx((5.0, 2.0, 2.5))
    assert found.curve_steps == (0, 5, 10)
    assert (found.seconds, found.slots, found.operations, found.steps) == (2.0, 2.0, 10.0, 100)


def test_missing_tasks_are_the_first_notes() -> None:
    """A task without data must not vanish in silence."""
    found = scored(runs("adamw", "lm"), missing=("mnist", "cifar"))
    assert found.missing == ("mnist", "cifar")
    assert [note.split(":")[0] for note in found.notes[:2]] == ["mnist", "cifar"]


def test_rows_of_several_numerics_are_named() -> None:
    """Losses of another machine may differ."""
    rows = reported("adamw", "lm", [2.0, 2.1]) + reported("lion", "lm", [2.0, 2.1], numerics="gpu")
    assert any("cpu, gpu" in note for note in scored(rows).notes)


def test_kinds_are_those_that_were_given() -> None:
    """Element-wise and matrix programs are ranked apart."""
    found = scored(runs("adamw", "lm") + runs("muon", "lm", 1.6), kinds={"muon": "matrix"})
    assert [a.kind for a in found.aggregates] == ["", "matrix"]


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """A true speed-up under noise of seeds lies in 95 % of the intervals, with four seeds and with two."""
    truth, count = 1.2, 100
    for seeds in (2, 4):
        held = 0
        for repetition in range(count):
            stream = np.random.default_rng(repetition)
            rows: list[Row] = []
            for name, value in (("adamw", 1.0), ("x", truth)):
                losses = {h: (power_law(value * h) + 0.02 * stream.normal(size=seeds)).tolist() for h in (*LADDER, 1.0)}
                rows += reported(name, "lm", losses.pop(1.0), floor=1.0) + horizons(name, "lm", losses, floor=1.0)
            found = cell(scored(rows), "x").speed_up
            assert found is not None
            held += found.estimate.low <= truth <= found.estimate.high
        assert held / count > 0.88


def test_a_ladder_with_noise_still_gives_a_speed_up() -> None:
    """The reference ends worse at 2 T than at T: the isotonic fit pools them."""
    rows = reported("adamw", "lm", [2.0, 2.1, 1.9, 2.0])
    rows += horizons("adamw", "lm", {0.5: [2.5, 2.4, 2.6, 2.5], 2.0: [2.1, 2.2, 2.0, 2.1], 4.0: [1.5] * 4})
    rows += reported("lion", "lm", [loss + e for loss, e in zip([2.05] * 4, NOISE, strict=True)])
    assert speed(scored(rows), "lion") == (pytest.approx(math.sqrt(2.0), rel=1e-3), "")
