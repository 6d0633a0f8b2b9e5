"""A store that is locked, or that cannot grow: one line says so, nothing scored is lost, and the run can go on."""

import itertools
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from run_contents import contents
from stub_evaluator import StubEvaluator, stub_config

from evolion.config import RetestConfig, RetestTask
from evolion.driver import discover, resume
from evolion.errors import InputError
from evolion.evaluators.types import Job, Score

CONFIG = replace(
    stub_config(40), retest=RetestConfig(finalists=1, trials=2, seeds=2, tasks=(RetestTask("digits-mlp", steps=40),))
)

HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30.0)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def run(folder: Path, *, again: bool = False, meanwhile: Callable[[], object] | None = None) -> Path:
    """Make or resume a run; `meanwhile` happens once, while the driver waits for scores in the middle of it."""
    evaluator, waits = StubEvaluator(), itertools.count(1)
    collect = evaluator.collect

    def collects(timeout: float | None = None) -> list[tuple[Job, Score]]:
        if timeout == 0.0:
            return []
        if next(waits) == 12 and meanwhile is not None:
            meanwhile()
        return collect()

    evaluator.collect = collects  # type: ignore[method-assign]
    if again:
        resume(folder, evaluator=evaluator)
    else:
        discover(CONFIG, folder, evaluator=evaluator)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("undisturbed") / "run")


@contextmanager
def held(folder: Path, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has the database to itself, as a backup or a curious person with a shell may."""
    words = [sys.executable, "-c", HOLD, str(folder / "run.sqlite"), str(seconds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_lock_that_is_given_back_costs_its_time_alone(undisturbed: Path, tmp_path: Path) -> None:
    """While another process holds the database the driver waits; then it goes on as if nothing had been."""
    begun = time.monotonic()
    with ExitStack() as stack:
        run(tmp_path / "run", meanwhile=lambda: stack.enter_context(held(tmp_path / "run", 0.7)))

    assert time.monotonic() - begun > 0.7
    assert contents(tmp_path / "run") == contents(undisturbed)


def test_a_lock_that_is_kept_ends_the_run_which_can_go_on(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that outlasts all patience is one error; what was scored before is kept, and the run is resumed."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **more: connect(*given, **(more | {"timeout": 0.2})))
    errors = (sqlite3.OperationalError, InputError)
    with ExitStack() as stack, pytest.raises(errors, match=r"locked"):
        run(tmp_path / "run", meanwhile=lambda: stack.enter_context(held(tmp_path / "run", 60.0)))
    before = contents(tmp_path / "run")
    run(tmp_path / "run", again=True)

    assert before["scores"]
    assert set(before["scores"]) < set(contents(tmp_path / "run")["scores"])
    assert contents(tmp_path / "run") == contents(undisturbed)


def test_a_second_driver_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    """Two drivers on one folder would mix their candidates: the second ends with a line that says what is going on."""
    said: list[str] = []

    def second() -> None:
        with pytest.raises(InputError, match="another process is at work on the run") as refused:
            run(tmp_path / "run", again=True)
        said.append(str(refused.value))

    run(tmp_path / "run", meanwhile=second)
    assert len(said) == 1
    assert "\n" not in said[0]
    assert contents(tmp_path / "run") == contents(undisturbed)


def test_a_disk_that_takes_no_more(undisturbed: Path, tmp_path: Path) -> None:
    """A file that may not grow (a quota) stops the run in one error; with room it goes on from what was scored."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full() -> None:
        largest = max(path.stat().st_size for path in (tmp_path / "run").iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))

    try:
        with pytest.raises((sqlite3.Error, OSError, RuntimeError, InputError)) as stopped:
            run(tmp_path / "run", meanwhile=full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(stopped.value)
    assert "no transaction" not in str(stopped.value), "the error that is told is not the one that happened"
    before = contents(tmp_path / "run")
    run(tmp_path / "run", again=True)

    assert before["scores"]
    assert set(before["scores"]) < set(contents(tmp_path / "run")["scores"])
    assert contents(tmp_path / "run") == contents(undisturbed)
