"""Intervals, paired differences, verdicts and the table that a run ends with."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from evolion.comparison import (
    Interval,
    Row,
    Table,
    interval,
    paired_difference,
    render,
    table_from_json,
    verdict,
)


def row(program: str = "adamw", **options: Any) -> Row:
    """A row of the table; without options one whose difference shows nothing."""
    values: dict[str, Any] = {
        "task": "digits-mlp",
        "program": program,
        "seeds": 8,
        "diverged": 0,
        "loss": Interval(0.25, 0.2, 0.3),
        "train_loss": Interval(0.01, 0.005, 0.015),
        "learning_rate": 0.00123,
        "weight_decay": 0.1,
        "trials": 16,
        "at_edge": False,
        "difference": Interval(-0.01, -0.03, 0.01),
        "train_difference": Interval(-0.002, -0.003, -0.001),
        "verdict": "no difference shown",
        "train_verdict": "better",
    }
    return Row(**(values | options))


WINNER = row("discovered", difference=None, train_difference=None, verdict="", train_verdict="", weight_decay=None)
DIVERGED = row(
    "lion",
    diverged=3,
    loss=None,
    train_loss=None,
    difference=None,
    train_difference=None,
    verdict=verdict(None),
    train_verdict=verdict(None),
)
TABLE = Table("discovered", {"digits-mlp": 500}, (WINNER, row(), DIVERGED))


def test_interval_is_that_of_student() -> None:
    """By hand: of 1, 2, 3, 4 the mean is 2.5, its standard error 0.6455, and t at 3 degrees of freedom 3.1824."""
    found = interval([1.0, 2.0, 3.0, 4.0])
    assert (found.low, found.mean, found.high) == pytest.approx((0.44574, 2.5, 4.55426), abs=1e-5)


def test_interval_equals_that_of_scipy() -> None:
    """For any number of values, against the library's own function."""
    rng = np.random.default_rng(0)
    for size in range(2, 20):
        values = rng.normal(size=size)
        low, high = stats.t.interval(0.95, size - 1, loc=values.mean(), scale=stats.sem(values))
        found = interval(values.tolist())
        assert (found.low, found.mean, found.high) == pytest.approx((low, values.mean(), high), rel=1e-12)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of 2000 samples of four, 95 % have the true mean in their interval."""
    samples = np.random.default_rng(1).normal(loc=3.0, size=(2000, 4))
    covered = np.mean([(found := interval(sample.tolist())).low < 3.0 < found.high for sample in samples])
    assert covered == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [math.inf, 1.0]])
def test_interval_refuses_what_has_none(values: list[float]) -> None:
    """NaN never ranks, and one value says nothing about its own error."""
    with pytest.raises(ValueError, match="at least two"):
        interval(values)


def test_differences_are_paired_by_seed() -> None:
    """Seeds that move both programs alike drop out: a constant gap has an interval of no width."""
    seeds = [0.1, 0.9, 0.4]
    found = paired_difference([x + 0.25 for x in seeds], seeds)
    assert (found.low, found.mean, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert paired_difference([1.0, 4.0], [2.0, 2.0]) == interval([-1.0, 2.0])
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (Interval(-0.2, -0.3, -0.1), "better"),
        (Interval(0.2, 0.1, 0.3), "worse"),
        (Interval(0.0, -0.1, 0.1), "no difference shown"),
        (Interval(-0.1, -0.2, 0.0), "no difference shown"),
        (Interval(0.1, 0.0, 0.2), "no difference shown"),
        (Interval(0.0, 0.0, 0.0), "no difference shown"),
        (None, "not comparable: a run diverged"),
    ],
)
def test_verdict(difference: Interval | None, words: str) -> None:
    """A smaller loss is better; where the interval touches zero, no difference is claimed."""
    assert verdict(difference) == words


def test_table_survives_strict_json() -> None:
    """A table with everything that may be missing is read back equal, from JSON that any parser accepts."""
    text = json.dumps(TABLE.to_json(), allow_nan=False)
    assert table_from_json(json.loads(text)) == TABLE


def test_rendered_table_says_what_is_shown_and_what_is_not() -> None:
    """Honest words: no difference where none is shown, divergence as such, better only with its interval."""
    text = render(TABLE)
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == "digits-mlp, 500 steps: mean over 8 fresh seeds ± 95 % interval, tuned with 16 trials each"
    assert lines[1].split() == ["program", "test", "loss", "training", "loss", "peak", "lr", "weight", "decay"]
    assert lines[2].split() == ["discovered", "0.2500", "±", "0.0500", "0.0100", "±", "0.0050", "0.00123"]
    assert "diverged (3 of 8)" in lines[4]
    assert lines[5:] == [
        "discovered against adamw, test loss: no difference shown (-0.0100 ± 0.0200)",
        "discovered against adamw, training loss: better (-0.0020 ± 0.0010)",
        "discovered against lion, not comparable: a run diverged",
    ]
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_edge_of_the_box_is_noted() -> None:
    """A baseline that more tuning may improve is marked, and the mark explained."""
    text = render(dataclasses.replace(TABLE, rows=(WINNER, row(at_edge=True))))
    assert "0.00123*" in text
    assert "* the best trial lies at the edge" in text
    assert "*" not in render(TABLE)


def test_rendered_table_keeps_its_width() -> None:
    """Long names are cut, small and large numbers fit: no line is wider than 120 columns, columns stay aligned."""
    long = row("a-folder/with/a-rather-long-name/of-a-program-" + "x" * 200 + ".txt")
    tiny = row(difference=Interval(-1.2345e-9, -2e-9, -1e-10), loss=Interval(1e-11, 5e-12, 1.5e-11))
    large = row(difference=Interval(-123456.789, -2e5, 2e5), loss=Interval(1e5, 1e4, 2e5))
    table = Table("discovered", {"digits-mlp": 500, "zipf-lm": 200}, (WINNER, long, tiny, large))
    lines = render(table).splitlines()
    assert max(map(len, lines)) <= 120
    assert "…" in render(table)
    assert len({line.index("0.00123") for line in lines[2:6]}) == 1


def test_small_differences_keep_their_digits() -> None:
    """A difference that is shown is never printed as 0.0000 ± 0.0000."""
    assert str(Interval(-0.00002, -0.000031, -0.000009)) == "-0.000020 ± 0.000011"
    assert str(Interval(0.25, 0.2, 0.3)) == "0.2500 ± 0.0500"
    assert str(Interval(0.25, 0.25, 0.25)) == "0.2500 ± 0.0000"
    assert str(Interval(12.0, 2.0, 22.0)) == "12.0000 ± 10.0000"


def test_tasks_stand_one_after_the_other() -> None:
    """Rows of a task stay together, whatever their order, each under its own horizon."""
    rows = (WINNER, dataclasses.replace(WINNER, task="zipf-lm"), row(), row(task="zipf-lm", program="lion"))
    text = render(Table("discovered", {"digits-mlp": 500, "zipf-lm": 200}, rows))
    assert text.index("digits-mlp, 500") < text.index("against adamw") < text.index("zipf-lm, 200")
    assert text.index("zipf-lm, 200") < text.index("against lion")
