"""What a task is worth for ranking: noise, agreed facts and the order of the anchors, on tables made by hand."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring_tables import horizons, reported, runs

from evolion.evaluators.protocol.quality import ANCHORS, ENOUGH, RESOLUTION, TAU, TaskQuality, quality
from evolion.evaluators.protocol.rows import Row
from evolion.evaluators.protocol.scoring import report

D = 0.01
QUIET = (-1e-4, 1e-4)


def worth(rows: Sequence[Row]) -> TaskQuality:
    """The quality of the one task of a table."""
    (found,) = quality(rows, report(rows, reference="adamw", draws=20))
    return found


def of_reference(losses: Mapping[float, Sequence[float | None]]) -> list[Row]:
    """AdamW alone, by horizon."""
    rest = {horizon: values for horizon, values in losses.items() if horizon != 1.0}
    return reported("adamw", "lm", losses.get(1.0, [])) + horizons("adamw", "lm", rest)


def test_resolution_is_pooled_deviation_over_slope() -> None:
    """Variances go by their degrees of freedom: (1 * 2 d^2 + 2 * 4 d^2) / 3, over a fall of 0.5 in log steps."""
    after = 2.0 - 0.5 * math.log(2.0)
    rows = of_reference({1.0: [2.0 - D, 2.0 + D], 2.0: [after - 2 * D, after, after + 2 * D]})
    assert worth(rows).resolution == pytest.approx(math.sqrt(10 / 3) * D / 0.5)


def test_the_slope_is_that_of_all_horizons() -> None:
    """A straight line through all means, not the difference of two of them; a horizon with one seed has no spread."""
    means = {0.5: 2.5, 1.0: 2.0, 2.0: 1.9}
    # Abscissae -1, 0, 1 in log 2: the slope of least squares is half the difference of the ends.
    slope = (1.9 - 2.5) / 2 / math.log(2.0)
    rows = of_reference({h: [mean - D, mean + D] if h != 0.5 else [mean] for h, mean in means.items()})
    assert worth(rows).resolution == pytest.approx(math.sqrt(2) * D / -slope)


def test_a_horizon_at_which_a_run_diverged_is_left_out() -> None:
    """A mean over the runs that survived would be too good."""
    rows = of_reference({0.5: [2.5 - D, 2.5 + D], 1.0: [2.0 - D, 2.0 + D], 2.0: [0.0, None]})
    assert worth(rows).resolution == pytest.approx(math.sqrt(2) * D / 0.5 * math.log(2.0))


@pytest.mark.parametrize(
    "losses",
    [
        {0.5: [1.9, 1.8], 1.0: [2.0, 2.1]},
        {0.5: [2.0, 2.1], 1.0: [2.0, 2.1]},
        {1.0: [2.0, 2.1]},
        {0.5: [2.5], 1.0: [2.0]},
        {0.5: [None, 2.5], 1.0: [2.0, 2.1]},
    ],
    ids=["rises", "flat", "one horizon", "one seed", "diverged"],
)
def test_without_a_fall_or_a_spread_nothing_is_resolved(losses: Mapping[float, Sequence[float | None]]) -> None:
    """Noise over no slope is no number, and such a task ranks nothing."""
    found = worth(of_reference(losses))
    assert found.resolution is None
    assert not found.ranking
    assert found.reasons[0] == "the loss does not fall with the horizon"


def test_noise_beyond_the_limit_is_said() -> None:
    """The reason has the number."""
    after = 2.0 - math.log(2.0)
    noise = 2 * RESOLUTION / math.sqrt(2)
    rows = of_reference({1.0: [2.0 - noise, 2.0 + noise], 2.0: [after - noise, after + noise]})
    assert f"one run resolves {2 * RESOLUTION:.0%}" in worth(rows).reasons


def facts(family: str, speeds: Mapping[str, float]) -> dict[str, tuple[bool, bool]]:
    """By text, whether a fact holds and whether it binds, of a table of these speed-ups."""
    entrants = {"adamw": 1.0, **speeds}
    rows = [
        r for name, speed in entrants.items() for r in runs(name, "lm", speed, noise=QUIET, floor=1.0, family=family)
    ]
    found = worth(rows)
    for fact in found.facts:
        assert any(fact.speed_up == pytest.approx(speed, rel=0.01) for speed in speeds.values())
        assert (f"not so: {fact.text}" in found.reasons) == (fact.binding and not fact.holds)
    assert {name: pytest.approx(value, rel=0.01) for name, value in entrants.items()} == found.speed_ups
    return {fact.text: (fact.holds, fact.binding) for fact in found.facts}


AHEAD, BEHIND = {"sgdm": 0.5, "muon": 1.3, "lion": 1.0}, {"sgdm": 1.0, "muon": 0.9, "lion": 0.5}


@pytest.mark.parametrize(("speeds", "holds"), [(AHEAD, True), (BEHIND, False)])
def test_facts_of_transformers(speeds: Mapping[str, float], holds: bool) -> None:
    """Momentum SGD behind and Muon ahead are binding; Lion beside AdamW hangs on tuning, and is only said."""
    assert facts("transformer", speeds) == {
        "momentum SGD is behind AdamW": (holds, True),
        "muon is ahead of AdamW": (holds, True),
        "Lion is beside AdamW": (holds, False),
    }


@pytest.mark.parametrize(("speed", "holds"), [(0.5, False), (0.8, True), (1.0, True), (2.0, True)])
def test_facts_of_convolutional_nets(speed: float, holds: bool) -> None:
    """Momentum SGD far behind contradicts what is known; ahead it does not."""
    speeds = {"sgdm": speed, "muon": 0.5}
    found = facts("convolution", speeds)
    assert found == {"momentum SGD is about equal to AdamW": (holds, True)}


def test_other_families_have_no_facts() -> None:
    """Where studies agree on nothing, nothing is asked; what was not measured is not asked either."""
    assert facts("recurrent", BEHIND) == {}
    assert facts("transformer", {"adam": 1.0}) == {}


def ordered(means: Mapping[str, float | None]) -> TaskQuality:
    """The quality of a task on which optimizers have these mean losses, one seed each."""
    entrants = {"adamw": 9.0, **means}
    return worth([r for name, loss in entrants.items() for r in reported(name, "lm", [loss])])


def tau_b(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b by counting pairs."""

    def sign(x: float, y: float) -> int:
        return (x > y) - (x < y)

    signs = [
        (sign(*pair[0]), sign(*pair[1]))
        for pair in zip(itertools.combinations(first, 2), itertools.combinations(second, 2), strict=True)
    ]
    return sum(a * b for a, b in signs) / math.sqrt(sum(a * a for a, _ in signs) * sum(b * b for _, b in signs))


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, int]:
    """Anchors of a test's own, with two pairs that studies do not tell apart."""
    made = {"a": 1, "b": 1, "c": 2, "d": 3, "e": 3, "f": 4}
    monkeypatch.setattr("evolion.evaluators.protocol.quality.ANCHORS", made)
    return made


def test_shared_places_are_no_order(places: Mapping[str, int]) -> None:
    """Of 15 pairs two share a place: tau-b of the published order is 13 / sqrt(13 * 15), in either order of those."""
    losses = {name: 1.0 + 0.1 * i for i, name in enumerate(places)}
    found = ordered(losses)
    assert found.tau == pytest.approx(13 / math.sqrt(13 * 15))
    assert ordered({**losses, "a": losses["b"], "b": losses["a"]}).tau == found.tau
    assert ordered({name: -loss for name, loss in losses.items()}).tau == pytest.approx(-13 / math.sqrt(13 * 15))


def test_diverged_anchors_rank_last(places: Mapping[str, int]) -> None:
    """An anchor without a mean is worse than all that have one, and two such are equal."""
    losses = {name: 1.0 + 0.1 * i for i, name in enumerate(places)}
    assert ordered({**losses, "f": None}).tau == ordered(losses).tau
    one = ordered({**losses, "a": None})
    assert one.tau == pytest.approx(tau_b(list(places.values()), [9.0, *list(losses.values())[1:]]))
    two = ordered({**losses, "a": None, "b": None})
    assert two.tau == pytest.approx(tau_b(list(places.values()), [9.0, 9.0, *list(losses.values())[2:]]))


@given(st.data())
def test_tau_is_that_of_the_published_places(data: st.DataObject) -> None:
    """For any losses of any anchors, tau is tau-b by counting, and the reason has it where it is too low."""
    names = data.draw(st.lists(st.sampled_from(sorted(ANCHORS)), min_size=1, max_size=len(ANCHORS), unique=True))
    names = ["adamw", *(name for name in names if name != "adamw")]
    losses = data.draw(st.lists(st.integers(1, 8).map(float), min_size=len(names), max_size=len(names)))
    found = ordered(dict(zip(names, losses, strict=True)))
    if len(names) < ENOUGH or len(set(losses)) < 2:
        assert found.tau is None
        return
    assert found.tau == pytest.approx(tau_b([ANCHORS[name] for name in names], losses))
    assert (f"tau {found.tau:.2f}" in found.reasons) == (found.tau < TAU)


def test_too_few_anchors_say_nothing() -> None:
    """A rank correlation of five is chance: the task is not for ranking, and says why."""
    names = sorted(ANCHORS, key=ANCHORS.__getitem__)
    names = ["adamw", *(name for name in names if name != "adamw")]
    losses: dict[str, Any] = {name: 1.0 + 0.1 * ANCHORS[name] for name in names}
    few = ordered(dict(list(losses.items())[: ENOUGH - 1]))
    assert few.tau is None
    assert "too few anchors measured" in few.reasons
    assert ordered(losses).tau == pytest.approx(1.0)


def test_a_task_without_reasons_is_for_ranking() -> None:
    """Quiet, in agreement and in order: nothing is left to say. Each task of a table is looked at by itself."""
    speeds = {name: 1.6 - 0.15 * ANCHORS[name] for name in ANCHORS} | {"adamw": 1.0}
    speeds = {name: speed / (1.6 - 0.15 * ANCHORS["adamw"]) for name, speed in speeds.items() if name != "adamw"}
    rows = [
        r
        for name, speed in ({"adamw": 1.0} | speeds).items()
        for task, noise in (("lm", QUIET), ("lm-wide", (-0.5, 0.5)))
        for r in runs(name, task, speed, noise=noise, floor=1.0, family="transformer", seconds=3.0)
    ]
    quiet, noisy = quality(rows, report(rows, reference="adamw", draws=20))
    assert (quiet.task, quiet.family, quiet.seconds) == ("lm", "transformer", 3.0)
    assert (quiet.ranking, quiet.reasons, quiet.tau) == (True, (), pytest.approx(1.0))
    assert (noisy.task, noisy.ranking) == ("lm-wide", False)
    assert noisy.reasons[0].startswith("one run resolves")


def test_the_order_of_a_wider_comparison_counts() -> None:
    """Facts may rest on few optimizers with many trials, and the order on many optimizers with few."""
    few = of_reference({0.5: [2.2, 2.2], 1.0: [2.0, 2.0], 2.0: [1.9, 1.9]})
    losses = {name: 1.0 + 0.1 * place for name, place in ANCHORS.items()}
    many = [row for name, loss in losses.items() for row in reported(name, "lm", [loss, loss])]
    many += horizons("adamw", "lm", {0.5: [2.2, 2.2]})
    wider = report(many, reference="adamw", draws=20).cells
    (alone,), (wide,) = (quality(few, report(few, reference="adamw", draws=20), cells) for cells in ((), wider))
    assert alone.tau is None
    assert wide.tau == pytest.approx(1.0)
    assert wide.resolution == alone.resolution
