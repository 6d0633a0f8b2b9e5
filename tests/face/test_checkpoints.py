"""A run is taken up at its last checkpoint, by every algorithm, to the end of one that was never interrupted."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from interruptions import Stopped, begun, exact_scores, record, resumed, short
from run_contents import contents
from stub_evaluator import StubEvaluator, stub_config

from evolion import funnel
from evolion.checkpoints import interval
from evolion.config import RestartConfig, RunConfig
from evolion.driver import discover
from evolion.search.registry import ALGORITHMS
from evolion.store import RunStore

BUDGET = 60


@pytest.fixture(scope="module", autouse=True)
def often() -> Iterator[None]:
    """A checkpoint every ten candidates, and scores whose last digits hang on the program."""
    with exact_scores(10):
        yield


def config_of(algorithm: str, *, adapted: bool = False) -> RunConfig:
    config = short(stub_config(BUDGET, seed=3))  # where confirmations are under way at the first checkpoints
    settings: dict[str, Any] = {"algorithm": algorithm, "adapt_mutations": adapted}
    return replace(config, search=replace(config.search, restarts=RestartConfig(patience=12), **settings))


@contextmanager
def stopping_at(told: int) -> Iterator[None]:
    """End a driver when so many candidates are told, between two of them."""

    def stopping(search: Any, *, last: bool) -> None:
        confirm(search, last=last)
        if search.told == told and not last:
            raise Stopped

    confirm = funnel._confirm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(funnel, "_confirm", stopping)
        yield


def stopped_at(config: RunConfig, folder: Path, told: int) -> Path:
    with stopping_at(told):
        return begun(config, folder, after=None, shuffle=told)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an evolution that was never interrupted holds."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    discover(config_of("regularized-evolution"), folder, evaluator=StubEvaluator())
    return contents(folder)


@pytest.mark.parametrize("adapted", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_algorithm_survives_its_checkpoint(tmp_path: Path, algorithm: str, adapted: bool) -> None:
    """Interrupted again and again, before and after checkpoints, a run ends row by row as one that was not."""
    config, rng = config_of(algorithm, adapted=adapted), random.Random(f"{algorithm} {adapted}")
    discover(config, tmp_path / "whole", evaluator=StubEvaluator())
    first, *others = sorted(rng.sample(range(8, BUDGET), 3))
    folder = stopped_at(config, tmp_path / "run", first)
    for told in others:
        with stopping_at(told):
            assert not resumed(folder, shuffle=told)
    assert not resumed(folder, after=rng.randint(0, 3))
    assert resumed(folder)
    assert contents(folder) == contents(tmp_path / "whole")
    assert record(folder, "checkpoint") == record(tmp_path / "whole", "checkpoint")


@pytest.mark.parametrize("told", [10, 11, 30, 52, 53, 59])
def test_last_candidate_told_before_the_end_may_be_any(tmp_path: Path, whole: dict[str, Any], told: int) -> None:
    """Just before, at and just after a checkpoint, and in the last candidates, which have none of their own.

    Confirmations are under way at the earlier ones.
    """
    config = config_of("regularized-evolution")
    stopped_at(config, tmp_path / "run", told)
    kept = record(tmp_path / "run", "checkpoint")
    assert (kept["told"] if kept else 0) == (BUDGET - config.search.lag if told > 52 else (told - 1) // 10 * 10)
    assert not kept or kept["told"] > 20 or kept["known"]["waiting"]
    assert resumed(tmp_path / "run")
    assert contents(tmp_path / "run") == whole


def test_candidates_before_the_checkpoint_are_not_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking up a run costs what came after its checkpoint, however long it is."""
    config = config_of("regularized-evolution")
    stopped_at(config, tmp_path / "run", 45)
    tell_next, told = funnel._tell_next, []
    monkeypatch.setattr(funnel, "_tell_next", lambda search: (told.append(search.told), tell_next(search)))
    assert resumed(tmp_path / "run")
    assert told == list(range(40, BUDGET))


DAMAGES = {
    "no object": lambda kept: [1, 2],
    "nothing": lambda kept: {},
    "no state": lambda kept: {name: value for name, value in kept.items() if name != "state"},
    "state of another kind": lambda kept: kept | {"state": {"islands": []}},
    "of another configuration": lambda kept: kept | {"config": "0" * 32},
    "more told than there are": lambda kept: kept | {"told": 55},
    "too few under way": lambda kept: kept | {"limits": kept["limits"][:-1]},
    "texts for numbers": lambda kept: kept | {"hurdles": "high"},
    "negative": lambda kept: kept | {"told": -1, "limits": kept["limits"] * 2},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_checkpoint_that_does_not_fit_is_left_aside(tmp_path: Path, whole: dict[str, Any], damage: str) -> None:
    """Damaged, foreign or without its rows: the run is taken up at its beginning, to the same end."""
    config = config_of("regularized-evolution")
    stopped_at(config, tmp_path / "run", 33)
    with RunStore.open(tmp_path / "run") as store:
        store.put_record("checkpoint", DAMAGES[damage](store.get_record("checkpoint")))
    assert resumed(tmp_path / "run")
    assert contents(tmp_path / "run") == whole


def test_checkpoints_cost_a_small_share() -> None:
    """One every thousand candidates, and every fiftieth part of what was told once that is more."""
    assert interval(0) == interval(49_000) == 1_000
    assert interval(200_000) == 4_000
