"""A store of scores saves time and changes nothing: not what a run finds, not whether it ends."""

import dataclasses
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_contents import contents
from stub_evaluator import StubEvaluator, stub_config, stub_score

from evolion.driver import Result, discover, resume
from evolion.errors import InputError
from evolion.evaluators.score_store import ScoreStore
from evolion.evaluators.score_upkeep import damages, holdings
from evolion.evaluators.types import Job
from evolion.proxies.score import Score, Status
from evolion.store import RunStore

BUDGET = 60


def run(folder: Path, store: Path | None, *, seed: int = 0, **evaluator: Any) -> tuple[Result, StubEvaluator]:
    working = StubEvaluator(**evaluator)
    return discover(stub_config(BUDGET, seed=seed), folder, evaluator=working, store=store), working


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """What a run without a store holds, and how many jobs it took."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    result, working = run(folder, None)
    assert result.store is None
    return contents(folder), len(working.seen)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds every score of the run."""
    folder = tmp_path_factory.mktemp("full")
    run(folder / "run", folder / "scores.sqlite")
    return folder / "scores.sqlite"


@pytest.fixture
def store(full: Path, tmp_path: Path) -> Path:
    """A copy of the full store."""
    (tmp_path / "scores.sqlite").write_bytes(full.read_bytes())
    return tmp_path / "scores.sqlite"


def test_same_run_trains_nothing_a_second_time(plain: tuple[dict[str, Any], int], store: Path, tmp_path: Path) -> None:
    """With a full store no job is submitted, retest and ablation included, and the run is the same, row by row."""
    result, working = run(tmp_path / "run", store)
    assert not working.seen
    assert contents(tmp_path / "run") == plain[0]
    assert result.store is not None
    assert (result.store.hits, result.store.misses, result.store.problem) == (plain[1], 0, "")
    with ScoreStore.open(store) as opened:
        assert holdings(opened).reused == plain[1]


def test_what_a_store_holds_changes_no_run(plain: tuple[dict[str, Any], int], tmp_path: Path) -> None:
    """Empty, or filled by a search with another seed: same candidates, same scores; the latter saves some work."""
    saved = []
    for name, before in {"empty": None, "filled": 1}.items():
        store = tmp_path / name
        if before is not None:
            run(tmp_path / "before", store, seed=before)
        result, working = run(tmp_path / f"run of {name}", store, shuffle=4)
        assert contents(tmp_path / f"run of {name}") == plain[0]
        assert result.store is not None
        assert len(working.seen) == result.store.misses == plain[1] - result.store.hits
        saved.append(result.store.hits)
    assert saved[0] == 0
    assert saved[1] > 0


def test_other_numerics_are_counted_and_never_used(store: Path, tmp_path: Path) -> None:
    """Scores of another machine do not enter a run; its record and its end say once that they are there."""
    result, working = run(tmp_path / "run", store, numerics="another machine")
    assert result.store is not None
    assert (result.store.hits, result.store.misses) == (0, len(working.seen))
    assert result.store.other_numerics == result.store.misses
    said = f"{len(working.seen)} scores of this store were made with other numerics (stub) and were not used"
    assert str(result).count(said) == 1
    with RunStore.open(tmp_path / "run", readonly=True) as opened:
        events = [event.detail for event in opened.events() if event.kind == "store"]
    assert [event["others"] for event in events] == [["stub"]]


def test_interrupted_run_goes_on_without_the_store(
    plain: tuple[dict[str, Any], int], store: Path, tmp_path: Path
) -> None:
    """What came from the store is the run's own: resume needs no store, and adds up what each sitting took from one."""
    with ScoreStore.open(store) as opened:
        opened.connection.execute("DELETE FROM scores WHERE number % 2")
    first = StubEvaluator()
    collect = first.collect

    def dies(timeout: float | None = None) -> Any:
        if len(first.seen) > 15:
            raise KeyboardInterrupt
        return collect(timeout)

    first.collect = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        discover(stub_config(BUDGET), tmp_path / "run", evaluator=first, store=store)
    second = StubEvaluator()
    result = resume(tmp_path / "run", evaluator=second)
    assert contents(tmp_path / "run") == plain[0]
    assert result.store is not None
    assert 0 < result.store.hits < plain[1]
    assert len(second.seen) <= plain[1] - result.store.hits


def test_failures_of_a_machine_are_not_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate that ran into the time limit in one run is tried again by the next."""
    import stub_evaluator

    scored = stub_evaluator.stub_score

    def slow(job: Job) -> Score:
        score = scored(job)
        return score if score.status is Status.OK else dataclasses.replace(score, status=Status.TIMEOUT)

    monkeypatch.setattr(stub_evaluator, "stub_score", slow)
    run(tmp_path / "slow", tmp_path / "scores")
    monkeypatch.undo()
    _, working = run(tmp_path / "run", tmp_path / "scores")
    assert working.seen
    assert all(scored(job).status is Status.DIVERGED for job in working.seen)


def locked(store: ScoreStore) -> object:
    store.connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def full_disk(store: ScoreStore) -> object:
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    return store.connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()


def read_only(store: ScoreStore) -> object:
    return store.connection.execute("PRAGMA query_only = ON").fetchall()


def damaged(store: ScoreStore) -> object:
    size = store.path.stat().st_size
    with open(store.path, "r+b") as file:
        file.seek(4096)
        return file.write(b"\xaa" * (size - 4096))


FAULTS = {"locked": locked, "full": full_disk, "readonly": read_only, "malformed": damaged}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("fault", FAULTS)
def test_store_that_fails_does_not_end_a_run(
    plain: tuple[dict[str, Any], int],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    """Locked, on a full disk, read-only, damaged in the middle of a run: one warning, and the same run without it."""
    opened: Callable[..., ScoreStore] = ScoreStore.open
    kept: list[object] = []

    def sabotaged(path: Path, **options: bool) -> ScoreStore:
        made = opened(path, **options)
        if fault != "malformed":
            made.connection.execute("DELETE FROM scores WHERE number % 2")
        kept.append(FAULTS[fault](made))
        return made

    monkeypatch.setattr(ScoreStore, "open", sabotaged)
    with caplog.at_level(logging.WARNING):
        result, working = run(tmp_path / "run", store)
    assert contents(tmp_path / "run") == plain[0]
    assert working.seen
    assert len([record for record in caplog.records if record.name == "evolion.shared_scores"]) == 1
    assert fault in caplog.text
    assert "the run goes on without the store" in caplog.text
    assert result.store is not None
    assert fault in result.store.problem
    for item in kept:
        if isinstance(item, sqlite3.Connection):
            item.close()
    monkeypatch.undo()
    if fault != "malformed":
        with ScoreStore.open(store) as again:
            assert not list(damages(again))


def test_score_beyond_the_time_limit_is_not_taken(store: Path, tmp_path: Path) -> None:
    """A run without a store would have given the candidate up: what took longer than its limit is trained again."""
    limit = 0.002
    with ScoreStore.open(store) as opened:
        (slow,) = opened.connection.execute("SELECT count(*) FROM scores WHERE seconds > ?", (limit,)).fetchone()
    evaluator = StubEvaluator()
    config = dataclasses.replace(stub_config(BUDGET), timeout=limit)
    result = discover(config, tmp_path / "run", evaluator=evaluator, store=store)
    assert result.store is not None
    assert result.store.hits > 0
    assert result.store.misses == len(evaluator.seen) == slow > 0
    assert all(stub_score(job).seconds > limit for job in evaluator.seen)


def test_store_that_cannot_be_opened_is_said_before_anything_is_made(tmp_path: Path) -> None:
    """Bad input is one error at once, and no run folder stands in the way afterwards."""
    (tmp_path / "text").write_text("hello\n" * 1000)
    for name, said in {"text": "not a database", "nowhere/scores": "no folder"}.items():
        with pytest.raises(InputError, match=said):
            run(tmp_path / "run", tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
