"""Budget-matched tuning: the same points of a box that does not hang on how an optimizer scales its update."""

import math

import numpy as np
import pytest

from evolion.discovered.library import known
from evolion.evaluators.metric import metric_of
from evolion.evaluators.tuning import (
    RATE_DECADES,
    SHRINKAGE,
    Trial,
    best_trial,
    decays_weights,
    finds_its_rate,
    rate_centre,
    trials,
    update_size,
)
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.proxies.schedules import multipliers
from evolion.proxies.score import Score, Status

TASK, STEPS, COUNT = "digits-mlp", 500, 16


def decay_of(program: Program) -> float | None:
    return next((h.value for h in program.hyperparameters if h.name == "weight_decay"), None)


def unit_points(program: Program, count: int = COUNT) -> list[tuple[float, float | None]]:
    """Where the trials of a program lie in its box, from 0 to 1 in both coordinates."""
    low, high = map(math.log10, SHRINKAGE)
    total, centre = float(multipliers(STEPS).sum()), rate_centre(program, TASK)
    points = []
    for trial in trials(program, TASK, STEPS, count):
        decay = decay_of(trial.program)
        x = math.log10(trial.learning_rate / centre) / RATE_DECADES + 0.5
        shrinkage = None if not decay else math.log10(trial.learning_rate * decay * total)
        points.append((x, None if shrinkage is None else (shrinkage - low) / (high - low)))
    return points


def test_every_program_gets_the_same_points() -> None:
    """No program is tuned at better places than another: only the scale of the box is its own."""
    expected = unit_points(known()["adamw"])
    for name, program in known().items():
        points = unit_points(program)
        assert len(points) == COUNT
        assert [x for x, _ in points] == pytest.approx([x for x, _ in expected], abs=2e-3), name
        if decays_weights(program, TASK):
            assert [y for _, y in points] == pytest.approx([y for _, y in expected], abs=2e-3), name


@pytest.mark.parametrize("count", [16, 32])
def test_points_cover_the_box(count: int) -> None:
    """Each quarter of either range gets a quarter of the trials, and none lies outside."""
    for values in zip(*unit_points(known()["adamw"], count), strict=True):
        numbers = [value for value in values if value is not None]
        assert np.histogram(numbers, bins=4, range=(0.0, 1.0))[0].tolist() == [count // 4] * 4


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17])
def test_any_number_of_trials(count: int) -> None:
    """As many trials as asked for, all different, the first ones the same for any larger number of the same octave."""
    row = trials(known()["adamw"], TASK, STEPS, count)
    assert len({(trial.learning_rate, decay_of(trial.program)) for trial in row}) == count
    assert row == trials(known()["adamw"], TASK, STEPS, count)


def scaled(factor: float) -> Program:
    return parse(
        f"def train(g, m, lr, *, b1=0.9):\n    m = interp(g, m, b1)\n    return lr * sign(m) * {factor!r}, m\n"
    )


@pytest.mark.parametrize("factor", [1000.0, 1e-6, 7.3])
def test_the_box_follows_the_size_of_the_update(factor: float) -> None:
    """A program with all updates times a factor is tuned at rates divided by it: it trains the same."""
    one, other = (trials(scaled(f), TASK, STEPS, COUNT) for f in (1.0, factor))
    for ours, theirs in zip(one, other, strict=True):
        assert ours.learning_rate == pytest.approx(theirs.learning_rate * factor, rel=0.06)


def test_size_of_known_updates() -> None:
    """A sign has the size 1; AdamW is near it after ten steps, and plain gradients are far smaller."""
    assert update_size(known()["signsgd"], TASK) == pytest.approx(1.0, rel=0.1)
    assert 0.1 < update_size(known()["adamw"], TASK) < 2.0
    assert update_size(known()["sgd"], TASK) < 0.1


@pytest.mark.parametrize(
    "text",
    [
        "def train(g):\n    return 0 * g\n",
        "def train(g):\n    return g / 0\n",
        "def train(w, g):\n    return -exp(exp(exp(w * w + 3)))\n",
        "def train(w, g):\n    return w * -1e200\n",
    ],
    ids=["zero", "infinite", "exploding", "overflowing"],
)
def test_an_update_without_a_size_has_a_box_too(text: str) -> None:
    """A finalist that does nothing, or too much, is tuned and compared like any other, and breaks nothing."""
    assert update_size(parse(text), TASK) == 1.0
    assert len(trials(parse(text), TASK, STEPS, 4)) == 4


def test_every_input_is_supplied_to_the_dry_run() -> None:
    """A finalist may use whatever a task supplies."""
    text = (
        "def train(w, g, w0, noise, lr, t, horizon, loss):\n    return lr * g * loss + noise * (w - w0) * t / horizon\n"
    )
    assert update_size(parse(text), TASK) > 0
    assert update_size(parse("def train(g, hess, lr):\n    return lr * g / (hess + 1)\n"), TASK) > 0


def test_only_what_a_program_has_is_tuned() -> None:
    """Without a weight decay the program stays as it is; with one, nothing else of it changes."""
    for trial in trials(known()["adam"], TASK, STEPS, 4):
        assert trial.program == known()["adam"]
    for trial in trials(known()["lion"], TASK, STEPS, 4):
        assert trial.program.with_hyperparameters(weight_decay=0.001) == known()["lion"]


@pytest.mark.parametrize(
    ("update", "decays"),
    [
        ("lr * (sign(g) + weight_decay * w)", True),
        ("lr * sign(g) + 2 * (w * (lr * weight_decay))", True),
        ("lr * (sign(g) + weight_decay)", False),
        ("lr * interp(g, w, weight_decay)", False),
        ("lr * (sign(g) - weight_decay * w)", False),
        ("lr * sign(g) * (1 + 0 * weight_decay)", False),
        ("lr * (sign(g) / weight_decay)", False),
        ("lr * (sign(g) + weight_decay * w + cube(weight_decay))", False),
    ],
)
def test_decay_is_tuned_only_where_it_decays(update: str, decays: bool) -> None:
    """A search may give the name another use, where values from the box would only do harm."""
    program = parse(f"def train(w, g, lr, *, weight_decay=0.1):\n    return {update}\n")
    assert decays_weights(program, TASK) is decays
    assert (len({trial.program for trial in trials(program, TASK, STEPS, 4)}) > 1) is decays


TREATMENT = {"dadapt_adam": False, "swats": False, "lamb": True, "lars": True, "dog": True, "ldog": True}


@pytest.mark.parametrize(("name", "decays"), TREATMENT.items())
def test_decay_under_a_ratio_is_tuned(name: str, decays: bool) -> None:
    """A ratio of norms scales direction and decay alike: it shrinks weights. Added to a gradient it does not."""
    assert decays_weights(known()[name], TASK) is decays


def test_all_other_known_decays_are_tuned() -> None:
    """A known program that keeps its default decay while others are tuned would be compared unfairly: they are few."""
    own = [n for n, p in known().items() if decay_of(p) is not None and not decays_weights(p, TASK)]
    assert own == ["dadapt_adam", "swats"]


@pytest.mark.parametrize(
    ("update", "decays"),
    [
        ("lr * (g + weight_decay * w) * norm(w) / norm(g + weight_decay * w)", True),
        ("lr * (g + weight_decay * w) / (global_norm(g) + weight_decay)", True),
        ("lr * (g - weight_decay * w) * norm(w) / norm(g - weight_decay * w)", False),
        ("lr * (1 - weight_decay) * g + lr * weight_decay * w", False),
        ("lr * (g + weight_decay) * norm(w)", False),
        ("lr * g * norm(w) / (1 + weight_decay)", False),
        ("lr * sign(g + weight_decay * w) * norm(w)", False),
        ("lr * g / weight_decay + w * weight_decay", False),
    ],
)
def test_only_a_sum_of_direction_and_decay_counts_under_a_ratio(update: str, decays: bool) -> None:
    """The update with decay is a positive multiple of the update without it and a share of the weights, or it is not
    a decay."""
    program = parse(f"def train(w, g, lr, *, weight_decay=0.1):\n    return {update}\n")
    assert decays_weights(program, TASK) is decays


def test_programs_that_find_their_rate_are_told_from_others() -> None:
    """Their first steps are as good as none: a box by their size would lie at rates of a thousand."""
    found = {name for name, program in known().items() if finds_its_rate(program)}
    assert found == {"dadapt_adam", "dadapt_sgd", "dog", "ldog", "mechanic_sgd", "prodigy"}
    assert {rate_centre(known()[name], TASK) for name in found} == {1.0}
    assert not any(finds_its_rate(scaled(factor)) for factor in (1e-6, 1.0, 1e3))


def test_without_a_learning_rate_there_is_none_to_tune() -> None:
    """A rate that a program does not read is no coordinate, and its trials do not pretend one."""
    decaying = parse("def train(w, g, *, weight_decay=0.1):\n    return 0.01 * (sign(g) + weight_decay * w)\n")
    assert {trial.learning_rate for trial in trials(decaying, TASK, STEPS, 4)} == {1.0}
    assert best_trial(trials(decaying, TASK, STEPS, 4), [1.0, 2.0, 3.0, 4.0]).tuned == ("weight decay",)
    assert best_trial(row(), [1.0] * 8).tuned == ("learning rate", "weight decay")
    assert best_trial(row(8, "adam"), [1.0] * 8).tuned == ("learning rate",)


def row(count: int = 8, program: str = "adamw") -> list[Trial]:
    return trials(known()[program], TASK, STEPS, count)


def test_best_trial_is_the_lowest_and_the_first_of_equals() -> None:
    """Infinities count as diverged and never win against a number."""
    points = row()
    tuned = best_trial(points, [math.inf, 3.0, 2.0, math.inf, 2.0, 5.0, math.inf, 9.0])
    assert (tuned.program, tuned.learning_rate, tuned.value) == (points[2].program, points[2].learning_rate, 2.0)
    assert (tuned.trials, tuned.diverged) == (8, 3)


def test_best_trial_where_all_diverged() -> None:
    """The comparison then shows a divergence; here the first trial stands, with an infinite value."""
    tuned = best_trial(row(), [math.inf] * 8)
    assert (tuned.program, tuned.value, tuned.diverged) == (row()[0].program, math.inf, 8)


@pytest.mark.parametrize("program", ["adamw", "adam"])
def test_edge_is_a_tenth_from_a_face(program: str) -> None:
    """A best trial near the rim is said to be: in the rate always, in the decay only where there is one."""
    points = unit_points(known()["adamw"])
    for index, (x, y) in enumerate(points):
        assert y is not None
        values = [1.0] * COUNT
        values[index] = 0.0
        near = [abs(c - 0.5) > 0.4 for c in ((x, y) if program == "adamw" else (x,))]
        tuned = best_trial(row(COUNT, program), values)
        assert tuned.at_edge == any(near)
        assert [edge.split(", ")[1] for edge in tuned.edges] == [
            "low" if c < 0.5 else "high" for c, close in zip((x, y), near, strict=False) if close
        ]


def test_metric_of_a_score() -> None:
    """The metric is one of two losses; whatever did not end ok is infinitely bad."""
    good = Score(Status.OK, 0.5, (), 1, 0.0, train_loss=0.25)
    assert (metric_of(good, "loss"), metric_of(good, "train_loss")) == (0.5, 0.25)
    for status in set(Status) - {Status.OK}:
        assert metric_of(Score(status, None, (), 1, 0.0), "loss") == math.inf


def test_a_decay_that_ignores_the_learning_rate_is_not_tuned() -> None:
    """The box is of rate times decay: a program that shrinks its weights by the decay alone keeps its own."""
    text = "def train(w, g, lr, *, weight_decay=0.1):\n    return {} + weight_decay * w\n"
    follows, ignores = (
        parse("def train(w, g, lr, *, weight_decay=0.1):\n    return lr * (g + weight_decay * w)\n"),
        parse(text.format("lr * g")),
    )
    assert decays_weights(follows, TASK)
    assert not decays_weights(ignores, TASK)


def test_a_program_with_a_schedule_of_its_own_is_centred_by_its_size() -> None:
    """The dry run is at the start of the task's horizon: there a decay of the steps to zero has hardly begun."""
    plain = parse("def train(g, lr):\n    return 100 * lr * sign(g)\n")
    decayed = parse("def train(g, lr, t, horizon):\n    return 100 * lr * sign(g) * (1 - t / horizon)\n")
    assert rate_centre(decayed, TASK) == pytest.approx(rate_centre(plain, TASK), rel=0.1)
