"""A run goes on with the code that began it, or not at all."""

from pathlib import Path

import pytest
from stub_evaluator import StubEvaluator, stub_config

from evolion import driver
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
