"""The command that compares: what it writes, how it goes on, what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from analytic_evaluator import AnalyticEvaluator, plan_of

from evolion.cli import run
from evolion.compare import default_folder, manifest_of, read_manifest, variants_for
from evolion.errors import InputError
from evolion.evaluators.protocol.plan import from_json
from evolion.evaluators.protocol.table import read_rows
from evolion.evaluators.types import Job, Score
from evolion.proxies import registry
from evolion.proxies.data.source import DataMissing
from evolion.proxies.score import Status
from evolion.proxies.sets import TaskSet, looks, recipe_digest
from evolion.run_files import locked

TASK = "digits-mlp"
ARGUMENTS = ["compare", "adamw", "lion", "--task", TASK, "--quick", "--steps", "40"]


@pytest.fixture
def evaluators(monkeypatch: pytest.MonkeyPatch) -> list[AnalyticEvaluator]:
    """Makes the command compute with formulas and draw nothing; the evaluators that it made."""
    made: list[AnalyticEvaluator] = []

    def make(workers: int | None, **options: Any) -> AnalyticEvaluator:
        made.append(AnalyticEvaluator(workers=workers or 2))
        return made[-1]

    monkeypatch.setattr("evolion.evaluators.factory.make_evaluator", make)
    monkeypatch.setattr("evolion.pictures.files.write_pictures", lambda report, rows, folder: [])
    monkeypatch.setattr("evolion.pictures.html.write_html", lambda report, rows, path, *rest: path.write_text("<html>"))
    monkeypatch.setattr(os, "fsync", lambda file: None)
    return made


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Run a command that is refused, and return the one line that says why."""
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_folder_has_everything(
    tmp_path: Path, evaluators: list[AnalyticEvaluator], capsys: pytest.CaptureFixture[str]
) -> None:
    """The table, the plan with programs and digests, and the report as printed."""
    folder = tmp_path / "out"
    assert run([*ARGUMENTS, "--out", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert (folder / "report.txt").read_text().rstrip() in printed
    assert str(folder) in printed.splitlines()[-1]
    assert (folder / "report.html").exists()
    manifest = from_json((folder / "plan.json").read_text(), "plan.json")
    assert [entrant.name for entrant in manifest.plan.entrants] == ["adamw", "lion", "adamw (copy 1)"]
    assert manifest.digests == {TASK: registry.get_task(TASK).digest}
    rows = read_rows(folder / "table.jsonl")
    assert {row.optimizer for row in rows} == {entrant.name for entrant in manifest.plan.entrants}
    assert {(row.task, row.family, row.parameters, row.batch_size) for row in rows} == {(TASK, "perceptron", 3466, 64)}
    assert {(row.optimizer, row.slots) for row in rows} >= {("adamw", 2.0), ("lion", 1.0)}
    assert len({row.program for row in rows}) == 2
    assert evaluators[0].closed
    assert all(job.task == TASK for job in evaluators[0].seen)


def test_the_same_command_goes_on(
    tmp_path: Path, evaluators: list[AnalyticEvaluator], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is there is not run again, and the answer is the same."""
    arguments = [*ARGUMENTS, "--out", str(tmp_path / "out")]
    assert run(arguments) == 0
    first = capsys.readouterr().out
    table = tmp_path / "out" / "table.jsonl"
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:-5]) + lines[-5][:20])
    assert run(arguments) == 0
    assert capsys.readouterr().out == first
    assert 0 < len(evaluators[1].seen) <= 5
    assert run(arguments) == 0
    assert evaluators[2].seen == []


def test_a_folder_alone_is_enough_to_go_on(
    tmp_path: Path, evaluators: list[AnalyticEvaluator], capsys: pytest.CaptureFixture[str]
) -> None:
    """Programs, settings and tasks are in the folder, so that a colleague can go on with it."""
    folder = tmp_path / "out"
    assert run([*ARGUMENTS, "--out", str(folder)]) == 0
    first = capsys.readouterr().out
    table = folder / "table.jsonl"
    table.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[:-3]))
    assert run(["compare", "--resume", str(folder)]) == 0
    assert capsys.readouterr().out == first
    assert 0 < len(evaluators[1].seen) <= 3
    assert "--resume" in refused(capsys, ["compare", "adamw", "--resume", str(folder)])
    assert "holds no comparison" in refused(capsys, ["compare", "--resume", str(tmp_path)])


def test_the_folder_goes_by_the_plan(
    tmp_path: Path,
    evaluators: list[AnalyticEvaluator],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without --out the same command finds its folder again, and another plan has another one."""
    monkeypatch.chdir(tmp_path)
    for arguments in (ARGUMENTS, ARGUMENTS, [*ARGUMENTS, "--seeds", "3"]):
        assert run(arguments) == 0
    folders = sorted((tmp_path / "comparisons").iterdir())
    assert len(folders) == 2
    assert evaluators[1].seen == []
    assert all(folder.name.startswith("tasks-") for folder in folders)
    plans = [from_json((folder / "plan.json").read_text(), "").plan for folder in folders]
    assert [default_folder(plan, "").name for plan in plans] == [folder.name for folder in folders]
    capsys.readouterr()


def test_another_comparison_in_the_folder_is_refused(
    tmp_path: Path, evaluators: list[AnalyticEvaluator], capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of two plans never stand in one table, and neither do rows of two versions of a task."""
    out = ["--out", str(tmp_path / "out")]
    assert run([*ARGUMENTS, *out]) == 0
    capsys.readouterr()
    assert "trials 6, not 7" in refused(capsys, [*ARGUMENTS, *out, "--trials", "7"])
    path = tmp_path / "out" / "plan.json"
    path.write_text(path.read_text().replace(registry.get_task(TASK).digest, "0" * 64))
    assert "has changed" in refused(capsys, [*ARGUMENTS, *out])
    path.write_text("{")
    assert "plan.json is not the plan of a comparison" in refused(capsys, [*ARGUMENTS, *out])
    assert len(evaluators) == 1


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, evaluators: list[AnalyticEvaluator], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written beside what is no comparison, nor where another process is at work."""
    (tmp_path / "letter.txt").write_text("dear")
    assert "letter.txt" in refused(capsys, [*ARGUMENTS, "--out", str(tmp_path)])
    assert "is a file" in refused(capsys, [*ARGUMENTS, "--out", str(tmp_path / "letter.txt")])
    assert "cannot make" in refused(capsys, [*ARGUMENTS, "--out", str(tmp_path / "letter.txt" / "in")])
    (tmp_path / "busy").mkdir()
    with locked(tmp_path / "busy"):
        assert "another process is at work" in refused(capsys, [*ARGUMENTS, "--out", str(tmp_path / "busy")])
    assert evaluators == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "--task", TASK], "OPTIMIZER"),
        (["compare", "adamw"], "--set"),
        (["compare", "adamw", "--task", TASK, "--set", "search"], "--set"),
        (["compare", "adamv", "--task", TASK], "adamv"),
        (["compare", "adamw", "--task", "digit-mlp"], "digits-mlp"),
        (["compare", "adamw", "adamw", "--task", TASK], "twice"),
        (["compare", "adamw", "--task", TASK, "--reference", "lion"], "'lion' is none of the optimizers: adamw"),
        (["compare", "adamw", "--task", TASK, "--trials", "0"], "--trials"),
        (["compare", "adamw", "--task", TASK, "--seeds", "0"], "--seeds"),
        (["compare", "adamw", "--task", TASK, "--controls", "-1"], "--controls"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: list[str],
    words: str,
    evaluators: list[AnalyticEvaluator],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What cannot be run is said before anything is written or started."""
    monkeypatch.chdir(tmp_path)
    assert words in refused(capsys, arguments)
    assert list(tmp_path.iterdir()) == []
    assert evaluators == []


def lose(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make the data of tasks missing."""
    found = registry.get_task

    def get_task(name: str) -> Any:
        if name in names:
            raise DataMissing(f"the data of {name} is not on this machine:\nadd it")
        return found(name)

    monkeypatch.setattr(registry, "get_task", get_task)


def test_a_task_without_data_is_left_out_and_said_so(
    tmp_path: Path,
    evaluators: list[AnalyticEvaluator],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A mean over fewer tasks is never shown as one over all: error stream, report and plan name what is missing."""
    arguments = [*ARGUMENTS, "--task", "zipf-lm", "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        lose(patched, "zipf-lm")
        assert run(arguments) == 0
    captured = capsys.readouterr()
    assert "zipf-lm is left out" in captured.err
    assert "zipf-lm: left out" in captured.out
    manifest = from_json((tmp_path / "out" / "plan.json").read_text(), "")
    assert list(manifest.missing) == ["zipf-lm"]
    assert {row.task for row in read_rows(tmp_path / "out" / "table.jsonl")} == {TASK}


def test_without_any_data_there_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the data that is missing."""
    plan = plan_of("adamw", tasks=(TASK,))
    lose(monkeypatch, TASK)
    with pytest.raises(InputError, match="not on this machine"):
        manifest_of(plan)


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A quick set and a locked one of cheap tasks, and a list of looks that is not the user's."""
    made = [TaskSet("search", "", (TASK, "noisy-quadratic", "zipf-lm")), TaskSet("test", "", (TASK,), locked=True)]
    lock = tmp_path / "lock.json"
    frozen = {TASK: {"recipe": recipe_digest(TASK)}}
    lock.write_text(json.dumps({"sets": {"search": frozen, "test": frozen}}))
    monkeypatch.setattr("evolion.proxies.sets.SETS", {one.name: one for one in made})
    monkeypatch.setattr("evolion.proxies.sets.LOCK", lock)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.mark.usefixtures("sets")
def test_quick_takes_the_two_fastest_of_a_set(
    tmp_path: Path, evaluators: list[AnalyticEvaluator], capsys: pytest.CaptureFixture[str]
) -> None:
    """The profile that fits in minutes; what is not as it was frozen is said."""
    assert run(["compare", "adamw", "sgd", "--set", "search", "--quick", "--out", str(tmp_path / "out")]) == 0
    manifest = from_json((tmp_path / "out" / "plan.json").read_text(), "")
    assert manifest.plan.tasks == (TASK, "noisy-quadratic")
    assert (manifest.source, len(manifest.lock)) == ("search", 64)
    assert (manifest.plan.trials, manifest.plan.seeds, manifest.plan.horizons) == (6, 2, (0.5, 2.0))
    said = " ".join(capsys.readouterr().out.split())
    assert "noisy-quadratic: not in the lock file" in said
    assert f"{TASK}: not in the lock file" not in said
    assert "look 1 at the locked set test" in said  # by one of its tasks


@pytest.mark.usefixtures("sets")
def test_every_look_at_a_locked_set_is_counted(
    tmp_path: Path, evaluators: list[AnalyticEvaluator], capsys: pytest.CaptureFixture[str]
) -> None:
    """Going on with a comparison is the same look; other optimizers are another; what is refused is none."""
    first = ["compare", "adamw", "--set", "test", "--quick", "--out", str(tmp_path / "one")]
    other = ["compare", "adamw", "lion", "--set", "test", "--quick", "--out"]
    for arguments, words in (
        (first, "look 1 at"),
        (first, "look 1 at"),
        ([*other, str(tmp_path / "two")], "look 2 at"),
    ):
        assert run(arguments) == 0
        assert f"{words} the locked set test" in " ".join(capsys.readouterr().out.split())
    refused(capsys, ["compare", "lion", "--set", "test", "--quick", "--out", str(tmp_path / "one")])
    assert len(looks()) == 2


@pytest.mark.usefixtures("sets")
def test_a_locked_set_is_joined_by_variants_that_nobody_chose(
    tmp_path: Path, evaluators: list[AnalyticEvaluator], capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight by default, the same for the same programs in any order, named in the report, and kept for going on."""
    folder = tmp_path / "out"
    small = ["--trials", "2", "--seeds", "1", "--controls", "0", "--steps", "40"]
    assert run(["compare", "adamw", "lion", "--set", "test", *small, "--out", str(folder)]) == 0
    first = capsys.readouterr().out
    found = read_manifest(folder)
    programs = [entrant.program for entrant in found.plan.entrants]
    assert found.plan.tasks == (TASK, *found.variants)
    assert found.variants == variants_for(reversed(programs), (TASK,), 8)
    assert found.variants != variants_for(programs[:1], (TASK,), 8)
    assert len(found.variants) == 8
    assert ";".join(found.variants) in "".join(first.split())
    assert {row.task for row in read_rows(folder / "table.jsonl")} == set(found.plan.tasks)
    assert run(["compare", "--resume", str(folder)]) == 0
    assert capsys.readouterr().out == first
    assert evaluators[1].seen == []


@pytest.mark.usefixtures("sets")
def test_an_unknown_set_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """One line names the sets there are."""
    assert "did you mean 'search'" in refused(capsys, ["compare", "adamw", "--set", "serch"])


def test_json_is_the_report(
    tmp_path: Path, evaluators: list[AnalyticEvaluator], capsys: pytest.CaptureFixture[str]
) -> None:
    """All numbers of the report, in JSON that any reader takes, and nothing else on standard output."""
    assert run([*ARGUMENTS, "--out", str(tmp_path / "out"), "--json"]) == 0
    captured = capsys.readouterr()
    data = json.loads(captured.out, parse_constant=lambda name: pytest.fail(name))
    assert captured.err == ""
    assert {"folder", "missing", "reference", "cells", "aggregates", "profiles", "band", "notes"} <= set(data)
    assert {cell["optimizer"] for cell in data["cells"]} >= {"adamw", "lion"}


def test_runs_that_crash_are_said(
    tmp_path: Path,
    evaluators: list[AnalyticEvaluator],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A crash is a row and a note, not the end of a comparison that has run for hours."""

    def make(workers: int | None, **options: Any) -> AnalyticEvaluator:
        return AnalyticEvaluator(statuses={Status.CRASHED: 0.1, Status.TIMEOUT: 0.2})

    monkeypatch.setattr("evolion.evaluators.factory.make_evaluator", make)
    assert run([*ARGUMENTS, "--out", str(tmp_path / "out")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "crashed" in printed
    assert "timeout" in printed


class Interrupting(AnalyticEvaluator):
    """Is stopped from outside after some jobs."""

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        if len(self.seen) > 12:
            signal.raise_signal(signal.SIGTERM)
        return AnalyticEvaluator.collect(self, timeout)


def test_an_interrupt_keeps_what_was_run(
    tmp_path: Path,
    evaluators: list[AnalyticEvaluator],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C and a polite request to end say where it is kept and how it goes on; then it goes on."""
    arguments = [*ARGUMENTS, "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        stopped = Interrupting()
        patched.setattr("evolion.evaluators.factory.make_evaluator", lambda *_, **options: stopped)
        assert run(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert f"kept in {tmp_path / 'out'}" in captured.err
    assert stopped.closed
    kept = len(read_rows(tmp_path / "out" / "table.jsonl"))
    assert kept > 3
    assert run(arguments) == 0
    assert len(read_rows(tmp_path / "out" / "table.jsonl")) > kept
    capsys.readouterr()


def test_progress_is_on_standard_error(
    tmp_path: Path, evaluators: list[AnalyticEvaluator], capsys: pytest.CaptureFixture[str]
) -> None:
    """A log sees how far it is; standard output has the table alone."""
    assert run([*ARGUMENTS, "--out", str(tmp_path / "out"), "--progress"]) == 0
    captured = capsys.readouterr()
    rows = len(read_rows(tmp_path / "out" / "table.jsonl"))
    assert f"comparing {rows}/{rows}" in captured.err
    assert "evolion:" not in captured.out


SMALL = ["adamw", "lion", "--task", TASK, "--quick", "--trials", "2", "--controls", "0", "--steps", "20"]


@pytest.mark.slow
def test_in_earnest(tmp_path: Path) -> None:
    """Killed in the middle of two processes, gone on with in one: the losses are those of never having been stopped."""
    command = [sys.executable, "-c", "from evolion.cli import main; main()", "compare", *SMALL]
    whole, part = tmp_path / "whole", tmp_path / "part"
    subprocess.run([*command, "--out", str(whole), "--workers", "1"], check=True, capture_output=True)
    process = subprocess.Popen([*command, "--out", str(part), "--workers", "2"], stderr=subprocess.DEVNULL)
    table = part / "table.jsonl"
    while not (table.exists() and table.read_bytes().count(b"\n") > 5):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    done = subprocess.run([*command, "--out", str(part), "--workers", "1"], check=True, capture_output=True, text=True)
    assert "lion" in done.stdout
    ours, theirs = ({row.id: row.loss for row in read_rows(path)} for path in (table, whole / "table.jsonl"))
    assert ours == theirs
    for folder in (whole, part):
        assert {path.suffix for path in (folder / "pictures").iterdir()} >= {".svg"}
        assert (folder / "report.html").stat().st_size > 10_000
