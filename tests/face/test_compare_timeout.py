"""The time limit of a comparison: what hangs is a row, not the end."""

import os
from pathlib import Path
from typing import Any

import pytest
from analytic_evaluator import AnalyticEvaluator, plan_of, subjects
from laws.job_functions import behave, fixed_tag

from evolion.cli import run
from evolion.evaluators.pool import Limits
from evolion.evaluators.processes import process_evaluator
from evolion.evaluators.protocol.execution import execute
from evolion.evaluators.protocol.table import Table, read_rows
from evolion.evaluators.types import Status

ARGUMENTS = ["compare", "sgd", "--task", "digits-mlp", "--quick", "--trials", "2", "--controls", "0", "--steps", "20"]


def test_runs_that_hang_are_rows(tmp_path: Path) -> None:
    """A task on which every run hangs costs its time limits; the task after it is run as if nothing had been."""
    plan = plan_of("adamw", tasks=("hang", "score"), trials=1, seeds=1, controls=0)
    limits = Limits(job=0.3, set_up=0.0)
    with (
        process_evaluator(1, limits=limits, function=behave, tag=fixed_tag) as evaluator,
        Table(tmp_path / "table.jsonl") as table,
    ):
        execute(plan, plan.tasks, table, evaluator, preparation=subjects)
    rows = read_rows(tmp_path / "table.jsonl")
    assert {row.status for row in rows if row.task == "hang"} == {Status.TIMEOUT}
    assert {row.status for row in rows if row.task == "score"} == {Status.OK}
    assert all(row.loss is None and row.seconds >= 0.3 for row in rows if row.task == "hang")


@pytest.mark.parametrize(("arguments", "seconds"), [([], 3600), (["--timeout", "7"], 7)])
def test_each_run_has_an_hour_or_what_is_said(
    arguments: list[str],
    seconds: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No comparison waits for ever unless told so; going on with it may have another limit."""
    given: list[Any] = []

    def make(workers: int | None, *, limits: Limits, inline: bool) -> AnalyticEvaluator:
        given.append((limits.job, inline))
        return AnalyticEvaluator()

    monkeypatch.setattr("evolion.evaluators.factory.make_evaluator", make)
    monkeypatch.setattr("evolion.pictures.files.write_pictures", lambda report, rows, folder: [])
    monkeypatch.setattr(os, "fsync", lambda file: None)
    out = tmp_path / "out"
    assert run([*ARGUMENTS, "--out", str(out), *arguments]) == 0
    assert run(["compare", "--resume", str(out), "--workers", "2", *arguments]) == 0
    assert given == [(seconds, False)] * 2
    capsys.readouterr()


def test_one_process_cannot_be_timed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit that would not hold is refused, in one line that says why."""
    assert run([*ARGUMENTS, "--out", str(tmp_path / "out"), "--workers", "1", "--timeout", "5"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--timeout needs processes" in error
    assert not (tmp_path / "out").exists()
