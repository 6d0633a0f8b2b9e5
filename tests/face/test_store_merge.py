"""Scores of runs and stores are put together: under their own keys and origins, once, the first one staying."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from interruptions import begun, exact_score, exact_scores, short
from stub_evaluator import StubEvaluator, stub_config

from evolion.cli import run
from evolion.config import ProposerConfig
from evolion.config_text import to_toml
from evolion.driver import discover
from evolion.evaluators.score_keys import ScoreKey, origin
from evolion.evaluators.score_store import Entry, ScoreStore
from evolion.evaluators.score_upkeep import damages
from evolion.evaluators.types import Job, Score
from evolion.primitives.parser import parse
from evolion.proxies.score import Status
from evolion.shared_scores import SharedScores
from evolion.store import RunStore

CONFIG = short(stub_config(60))


def troubled(job: Job) -> Score:
    """As `exact_score`, but some candidates time out and some crash."""
    score = exact_score(job)
    lost = {0: Status.TIMEOUT, 1: Status.CRASHED}.get(len(str(job.program)) % 9)
    return score if lost is None or job.steps < 50 else Score(lost, None, (), 0, 1.0, message="quarantined: lost")


@pytest.fixture(scope="module", autouse=True)
def exactly() -> Iterator[None]:
    """Scores of programs that do the same up to rounding differ in their last digits, as true ones do."""
    with exact_scores():
        yield


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run and the store that it filled while it went on."""
    folder = tmp_path_factory.mktemp("filled")
    discover(CONFIG, folder / "run", evaluator=StubEvaluator(shuffle=1), store=folder / "scores.sqlite")
    return folder


def rows(path: Path) -> set[tuple[object, ...]]:
    """What a store holds, but for numbers and times."""
    with ScoreStore.open(path, readonly=True) as store:
        assert not list(damages(store))
        return {(r.key, r.program, r.task_digest, r.steps, r.seeds, r.split, r.origin, r.score) for r in store.rows()}


def merged(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> list[dict[str, object]]:
    assert run(["store", "merge", "--json", *map(str, arguments)]) == status
    found = json.loads(capsys.readouterr().out)["sources"]
    assert isinstance(found, list)
    return found


def test_run_gives_the_scores_that_it_would_have_shared(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store is that of a run that had it from its beginning, retest included; a second time changes nothing."""
    before = (filled / "run" / "run.sqlite").read_bytes()
    (first,) = merged(capsys, tmp_path / "scores", filled / "run")
    assert rows(tmp_path / "scores") == rows(filled / "scores.sqlite")
    assert (first["known"], first["refused"], first["unreached"], first["conflicts"]) == (0, 0, 0, [])
    (again,) = merged(capsys, tmp_path / "scores", filled / "run")
    assert (again["new"], again["known"]) == (0, first["new"])
    assert (filled / "run" / "run.sqlite").read_bytes() == before


def test_unfinished_run_gives_what_it_has(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that was stopped in the middle has its scores taken, and goes on with a store that holds them."""
    folder = begun(CONFIG, tmp_path / "run", after=25, shuffle=3)
    with RunStore.open(folder, readonly=True) as store:
        held = store.counts().scores
    (found,) = merged(capsys, tmp_path / "scores", folder)
    assert found["new"] == held > 20
    assert found["unreached"] == 0
    assert rows(tmp_path / "scores") < rows(filled / "scores.sqlite")


def test_several_sources_come_together(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs and stores, in any order, give one store; what two of them hold is known the second time."""
    discover(short(stub_config(40, seed=3)), tmp_path / "run", evaluator=StubEvaluator())
    sources = [filled / "scores.sqlite", tmp_path / "run", filled / "run"]
    one, two, three = merged(capsys, tmp_path / "a", *sources)
    assert (one["known"], three["new"]) == (0, 0)
    assert two["new"]
    merged(capsys, tmp_path / "b", *reversed(sources))
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    discover(CONFIG, tmp_path / "again", evaluator=(working := StubEvaluator()), store=tmp_path / "a")
    assert not working.seen


def test_failures_of_machines_are_not_handed_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timeouts, crashes and quarantined programs are counted and left out."""
    monkeypatch.setattr("stub_evaluator.stub_score", troubled)
    folder = tmp_path / "run"
    discover(CONFIG, folder, evaluator=StubEvaluator(), store=tmp_path / "scores")
    with RunStore.open(folder, readonly=True) as store:
        lost = sum(score.status in (Status.TIMEOUT, Status.CRASHED) for _, score in store.scores())
    (found,) = merged(capsys, tmp_path / "merged", folder)
    assert found["refused"] == lost > 0
    assert rows(tmp_path / "merged") == rows(tmp_path / "scores")


def test_conflict_is_reported_and_the_first_score_stays(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two scores under one key mean that a machine does not compute what it says: nobody's is taken silently."""
    merged(capsys, tmp_path / "scores", filled / "run")
    before = rows(tmp_path / "scores")

    def otherwise(job: Job) -> Score:
        score = exact_score(job)
        return replace(score, message="otherwise") if job.steps == 9 else score

    monkeypatch.setattr("stub_evaluator.stub_score", otherwise)
    discover(CONFIG, tmp_path / "run", evaluator=StubEvaluator())
    (found,) = merged(capsys, tmp_path / "scores", tmp_path / "run", status=1)
    assert found["conflicts"]
    assert found["new"] == 0
    assert rows(tmp_path / "scores") == before


def test_merging_asks_no_language_model(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going through a run again is no reason to send anything anywhere: the proposals that counted are rows."""
    shutil.copytree(filled / "run", tmp_path / "run")
    config = replace(CONFIG, proposer=ProposerConfig(endpoint="http://127.0.0.1:9/v1", model="none", every=5))
    with RunStore.open(tmp_path / "run") as store:
        store.put_config(text := to_toml(config, store.environment))
    (tmp_path / "run" / "config.toml").write_text(text)
    monkeypatch.setattr("evolion.proposals.Proposals._ask", lambda *_: pytest.fail("a model was asked"))
    (found,) = merged(capsys, tmp_path / "scores", tmp_path / "run")
    assert found["unreached"] == 0
    assert rows(tmp_path / "scores") == rows(filled / "scores.sqlite")


def test_score_of_another_class_of_workers_is_kept_under_its_own_numerics(tmp_path: Path) -> None:
    """A run on several classes of workers shares what each of them made under what that one computes with."""
    program, score = (
        parse("def train(g, lr):\n    update = lr * g\n    return update\n"),
        Score(Status.OK, 1.0, (), 5, 0.1),
    )
    keys = [ScoreKey("", "ab", 5, (0,), (0.1,), "validation", numerics) for numerics in ("cpu", "gpu")]
    with ScoreStore.open(tmp_path / "scores", create=True) as store:
        shared = SharedScores(store, "cpu", timeout=9.0)
        shared.keep([Entry(program, "task", keys[1], score)])
        assert shared.find(program, keys[0]) is None
        assert shared.find(program, keys[1]) == score
        assert [row.origin for row in store.rows()] == [origin("gpu")]


def test_what_cannot_be_merged_is_said_in_one_line(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without a run, a file that is no store, a run that does not name its code."""
    (tmp_path / "text").write_text("no store")
    (tmp_path / "empty").mkdir()
    with RunStore.create(tmp_path / "old", CONFIG, {"numerics": "stub"}):
        pass
    for name, word in {
        "text": "text",
        "empty": "holds no run",
        "old": "does not say which code",
        "none": "none",
    }.items():
        assert run(["store", "merge", str(tmp_path / "scores"), str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert word in error
        assert error.count("\n") == 1
