"""The commands `evolion store ls`, `verify` and `gc`, and `--store` for runs."""

import json
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from stub_evaluator import StubEvaluator, stub_config

from evolion.cli import run
from evolion.config_text import to_toml
from evolion.evaluators.inline import inline_evaluator
from evolion.evaluators.score_keys import ScoreKey, origin
from evolion.evaluators.score_store import Entry, ScoreStore
from evolion.evaluators.types import Job, Score
from evolion.primitives.parser import parse
from evolion.proxies.registry import get_task

SGD = parse("def train(g, lr):\n    update = lr * g\n    return update\n")
MOMENTUM = parse("def train(g, m, lr, *, b1=0.9):\n    m = interp(g, m, b1)\n    return lr * m, m\n")
JOBS = tuple(Job(i, program, "digits-mlp", 20, (0,), (0.1, 0.01)) for i, program in enumerate((SGD, MOMENTUM)))


@cache
def trained() -> tuple[str, tuple[Score, ...]]:
    """What made the scores, and the scores of the jobs, computed in earnest."""
    with inline_evaluator() as evaluator:
        for job in JOBS:
            evaluator.submit(job)
        return origin(evaluator.numerics), tuple(evaluator.collect()[0][1] for _ in JOBS)


def entry(job: Job, score: Score, numerics: str, *, digest: str = "", task: str = "digits-mlp") -> Entry:
    digest = digest or get_task(job.task).digest
    key = ScoreKey("", digest, job.steps, job.seeds, job.learning_rates, job.split, numerics)
    return Entry(job.program, task, key, score)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a store: two true scores, one of other numerics and one of a task that is no more."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVOLION_STORE", raising=False)
    here, scores = trained()
    with ScoreStore.open("scores", create=True) as opened:
        opened.put([entry(job, score, here) for job, score in zip(JOBS, scores, strict=True)])
        opened.put([entry(JOBS[0], scores[0], "elsewhere")])
        opened.put([entry(JOBS[0], scores[0], here, digest="ab" * 32, task="no-more")])
    return tmp_path / "scores"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert run(["store", *arguments]) == status
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_ls_says_what_is_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Totals, then a row for each task and origin, and what the origins are; the environment names the file as well."""
    lines = printed(capsys, "ls", "scores").splitlines()
    assert lines[0].startswith("scores: 4 scores of 2 programs, ")
    assert lines[2].split() == ["task", "numerics", "scores", "programs", "training", "oldest", "newest"]
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert [line.split()[:4] for line in lines[3:6]] == [
        ["digits-mlp", "1", "2", "2"],
        ["digits-mlp", "2", "1", "1"],
        ["no-more", "1", "1", "1"],
    ]
    assert all(line.endswith(today) for line in lines[3:6])
    assert lines[-2:] == [f"numerics 1: {trained()[0]}", "numerics 2: elsewhere"]
    monkeypatch.setenv("EVOLION_STORE", "scores")
    data = json.loads(printed(capsys, "ls", "--json"))
    assert (data["scores"], data["programs"], data["reused"], len(data["groups"])) == (4, 2, 0, 3)


def test_verify_finds_what_is_damaged(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 0 for a sound store, 1 and a line for a score that was changed."""
    assert printed(capsys, "verify", "scores") == "scores: 4 scores of 2 programs, sound\n"
    assert json.loads(printed(capsys, "verify", "scores", "--json"))["problems"] == []
    with ScoreStore.open(store) as opened:
        opened.connection.execute("UPDATE scores SET score = replace(score, '20', '21') WHERE number = 2")
    assert printed(capsys, "verify", "scores", status=1) == "scores: score 2: its checksum does not fit\n"
    data = json.loads(printed(capsys, "verify", "scores", "--json", status=1))
    assert data["problems"] == ["score 2: its checksum does not fit"]


def test_verify_trains_a_sample_again(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """True scores come out equal bit for bit, a false one is shown; what cannot be checked here is counted."""
    out = printed(capsys, "verify", "scores", "--sample", "5")
    assert "2 trained again, 0 of them differ; 2 scores were made with other numerics or on other tasks" in out
    here, scores = trained()
    assert scores[1].loss is not None
    with ScoreStore.open(store) as opened:
        opened.connection.execute("DELETE FROM scores WHERE number = 2")
        opened.put([entry(JOBS[1], replace(scores[1], loss=scores[1].loss * (1 + 2**-52)), here)])
    out = printed(capsys, "verify", "scores", "--sample", "5", status=1)
    assert "2 trained again, 1 of them differ" in out
    assert "stored ok" in out
    assert "m = interp(g, m, b1)" in out
    data = json.loads(printed(capsys, "verify", "scores", "--sample", "2", "--seed", "3", "--json", status=1))
    assert (data["trained"], len(data["different"]), data["not_checkable"]) == (2, 1, 2)


REMOVALS = {
    "other numerics": (["--other-numerics"], 1),
    "unknown tasks": (["--unknown-tasks"], 1),
    "either": (["--unknown-tasks", "--other-numerics"], 2),
    "nothing is that old": (["--older-than", "1"], 0),
    "all are older than now": (["--older-than", "0"], 4),
    "all must go": (["--keep-bytes", "0"], 4),
    "there is room": (["--keep-bytes", "2MB"], 0),
}


@pytest.mark.parametrize(("rules", "gone"), REMOVALS.values(), ids=REMOVALS)
def test_gc_removes_what_is_named(capsys: pytest.CaptureFixture[str], rules: list[str], gone: int) -> None:
    """A dry run says what would go and touches nothing; the same command without it removes just that."""
    assert printed(capsys, "gc", "scores", *rules, "--dry-run") == f"scores: {gone} of 4 scores would go\n"
    data = json.loads(printed(capsys, "gc", "scores", *rules, "--json"))
    assert (data["removed"], data["dry_run"]) == (gone, False)
    assert json.loads(printed(capsys, "ls", "scores", "--json"))["scores"] == 4 - gone
    assert printed(capsys, "gc", "scores", *rules).startswith(f"scores: 0 of {4 - gone} scores removed; ")


MISTAKES = {
    "no command": (["store"], "choose one of ls, verify, merge, gc"),
    "no file": (["store", "ls"], "EVOLION_STORE"),
    "missing file": (["store", "ls", "nowhere"], "there is no score store nowhere"),
    "missing file to verify": (["store", "verify", "nowhere"], "there is no score store nowhere"),
    "no store": (["store", "verify", "text"], "not a database"),
    "no rule": (["store", "gc", "scores"], "--other-numerics, --older-than"),
    "no size": (["store", "gc", "scores", "--keep-bytes", "much"], "20MB"),
    "no sample": (["store", "verify", "scores", "--sample", "0"], "--sample"),
    "search with no store": (["search", "--out", "new", "--store", "text"], "not a database"),
    "search with a store nowhere": (["search", "--out", "new", "--store", "no/where"], "there is no folder"),
}


@pytest.mark.parametrize(("arguments", "word"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(
    store: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    """Exit status 2, one line that names what to mend, and no file made or changed."""
    Path("text").write_text("hello\n" * 1000)
    before = {path.name: path.read_bytes() for path in store.parent.iterdir()}
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("evolion: error: ")
    assert captured.err.count("\n") == 1
    assert word in captured.err
    assert {path.name: path.read_bytes() for path in store.parent.iterdir()} == before


def test_runs_share_the_store_that_they_are_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By option or by environment; the end of a run and its status say in one line what the store was good for."""
    monkeypatch.setattr("evolion.evaluators.factory.make_evaluator", lambda *_, **__: StubEvaluator())
    Path("config.toml").write_text(to_toml(stub_config(30)))
    assert run(["search", "config.toml", "--out", "first", "--store", "shared"]) == 0
    first = capsys.readouterr().out
    assert "\n0 of " in first
    monkeypatch.setenv("EVOLION_STORE", "shared")
    assert run(["search", "config.toml", "--out", "second", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["store"]["misses"] == 0
    assert data["store"]["hits"] > 30
    assert run(["status", "second"]) == 0
    said = f"{data['store']['hits']} of {data['store']['hits']} scores were in {Path('shared').absolute()}"
    assert said in capsys.readouterr().out
    assert run(["resume", "second"]) == 0
    assert said in capsys.readouterr().out
    assert f"reusing {data['store']['hits']}" in printed(capsys, "ls")
