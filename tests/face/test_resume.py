"""A run goes on with the code that began it, or not at all; on any number of workers to the same end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from interruptions import begun, exact_score, resumed, short
from run_contents import contents
from stub_evaluator import StubEvaluator, stub_config

from evolion import driver, run_environment
from evolion.config import ConfirmationConfig, RunConfig, SearchConfig, StageConfig
from evolion.driver import discover, resume
from evolion.errors import RunError
from evolion.evaluators import score_keys
from evolion.run_environment import check_environment, environment_of
from evolion.store import RunStore


def interrupted(folder: Path) -> Path:
    """A run that was begun and has no score yet."""
    evaluator = StubEvaluator()
    evaluator.collect = lambda timeout=None: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        discover(stub_config(), folder, evaluator=evaluator)
    return folder


def test_run_of_other_code_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an update the same machine may compute other scores; one line says what differs, and nothing is written."""
    folder = interrupted(tmp_path / "run")
    before = (folder / "run.sqlite").read_bytes()
    monkeypatch.setattr(score_keys, "_code", lambda: "updated")
    with pytest.raises(
        RunError, match=r"begun by other code .*: it has 'code \w{16}', this is 'code updated'; "
    ) as said:
        resume(folder, evaluator=StubEvaluator())
    assert "\n" not in str(said.value)
    assert (folder / "run.sqlite").read_bytes() == before
    with RunStore.open(folder, readonly=True) as run:
        assert not run.counts().evaluated


def test_run_that_does_not_name_its_code_is_compared_by_its_numerics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older version began can be continued, as it could before."""
    environment = environment_of(StubEvaluator(), stub_config())
    del environment["origin"]
    monkeypatch.setattr(driver, "environment_of", lambda *_: environment)
    folder = interrupted(tmp_path / "run")
    with RunStore.open(folder, readonly=True) as run:
        check_environment(run, StubEvaluator())
        with pytest.raises(RunError, match="other numerics"):
            check_environment(run, StubEvaluator(numerics="another machine"))


def test_any_number_of_workers_gives_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1, 2 and 7 workers, finishing in any order, interrupted by a move from one to the other: the same rows."""
    monkeypatch.setattr("stub_evaluator.stub_score", exact_score)
    config = short(stub_config(70))
    for workers, shuffle in ((1, None), (2, 5), (7, 6)):
        discover(config, tmp_path / str(workers), evaluator=StubEvaluator(workers=workers, shuffle=shuffle))
    begun(config, tmp_path / "moved", after=20, shuffle=1)
    assert not resumed(tmp_path / "moved", after=10)
    resume(tmp_path / "moved", evaluator=StubEvaluator(workers=7, shuffle=9))
    one = contents(tmp_path / "1")
    assert all(contents(tmp_path / name) == one for name in ("2", "7", "moved"))


@pytest.mark.slow
@pytest.mark.ray
def test_processes_and_actors_give_the_same_store(tmp_path: Path) -> None:
    """The same in earnest: 1, 2 and 7 processes, and two actors of Ray, train the same scores, bit for bit."""
    tiny = RunConfig(
        search=SearchConfig(budget=12, lag=7, population=8, tournament=2),
        stages=(StageConfig("digits-mlp", steps=10, learning_rates=(0.03,)),),
        confirmation=ConfirmationConfig(share=0.2, seeds=2),
    )
    config = replace(tiny, retest=short(tiny).retest, ablation=short(tiny).ablation)
    places: dict[str, dict[str, Any]] = {
        "1": {"workers": 1},
        "2": {"workers": 2},
        "7": {"workers": 7},
        "ray": {"workers": 2, "ray": "local"},
    }
    for name, options in places.items():
        discover(config, tmp_path / name, **options)
    one = contents(tmp_path / "1")
    assert one["winner"]
    assert all(contents(tmp_path / name) == one for name in places)


def test_another_search_does_not_go_on_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored candidates are not asked for again, so that nothing else would notice another code behind them."""
    folder = interrupted(tmp_path / "run")
    monkeypatch.setattr(run_environment, "decisions", lambda: "search updated")
    with pytest.raises(RunError, match=r"begun by other code .*this is 'search updated'"):
        resume(folder, evaluator=StubEvaluator())
