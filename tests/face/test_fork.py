"""A fork shares candidates with a run, as if that had stopped there, and goes its own way."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from interruptions import begun, events, exact_scores, record, resumed, short
from run_contents import contents
from stub_evaluator import StubEvaluator, stub_config

from evolion.cli import run
from evolion.config_text import with_overrides
from evolion.driver import discover, resume
from evolion.errors import InputError
from evolion.fork import FORK_EVENT, fork
from evolion.search.registry import ALGORITHMS
from evolion.store import RunStore

BUDGET = 70
CONFIG = short(stub_config(BUDGET))


@pytest.fixture(scope="module", autouse=True)
def exactly() -> Iterator[None]:
    """Scores of programs that do the same up to rounding differ in their last digits, as true ones do."""
    with exact_scores(20):
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("source") / "run"
    discover(CONFIG, folder, evaluator=StubEvaluator())
    return folder


def rows(folder: Path) -> dict[str, list[str]]:
    """Every table of the database of a run but the events."""
    tables = ("candidates", "outcomes", "confirmations", "memos", "records")
    with RunStore.open(folder, readonly=True) as store:
        read = {table: sorted(map(repr, store.database.read(f"SELECT * FROM {table}"))) for table in tables}
        scores = [repr((key, replace(score, seconds=0.0))) for key, score in store.scores()]
        return read | {"scores": sorted(scores)}


@pytest.mark.parametrize("number", [0, 33, BUDGET - 1])
def test_fork_with_nothing_changed_is_the_run(source: Path, tmp_path: Path, number: int) -> None:
    """The same configuration from the same candidates gives the same candidates, scores, winner and table."""
    assert fork(source, number, tmp_path / "fork") == CONFIG
    assert events(tmp_path / "fork") == [FORK_EVENT]
    with RunStore.open(tmp_path / "fork", readonly=True) as made:
        assert made.last_number() == number
        assert made.counts().told == number + 1
    evaluator = StubEvaluator(shuffle=4)
    resume(tmp_path / "fork", evaluator=evaluator)
    assert contents(tmp_path / "fork") == contents(source)
    assert (len(evaluator.seen) < 20) == (number == BUDGET - 1)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_what_a_fork_holds_hangs_on_the_number_alone(source: Path, tmp_path: Path, seed: int) -> None:
    """A run that is finished and one that has come just so far have forks that go on to the same end."""
    rng = random.Random(seed)
    number = rng.randrange(5, 50)
    small = replace(CONFIG, search=replace(CONFIG.search, budget=number + 1))
    begun(small, tmp_path / "small", after=None)
    overrides = ["seed=5", f"search.budget={BUDGET}"]
    for name, folder in {"early": tmp_path / "small", "late": source}.items():
        fork(folder, number, tmp_path / name, overrides=overrides)
        assert not resumed(tmp_path / name, after=rng.randint(0, 15), shuffle=seed)
        assert resumed(tmp_path / name)
    early, late = contents(tmp_path / "early"), contents(tmp_path / "late")
    assert early == late
    assert early["candidates"][: number + 1] == contents(source)["candidates"][: number + 1]
    assert early["candidates"][number + 1 :] != contents(source)["candidates"][number + 1 :]
    assert early["outcomes"][: number + 1] == contents(source)["outcomes"][: number + 1]


def test_fork_drops_what_later_candidates_left(source: Path, tmp_path: Path) -> None:
    """Candidates, outcomes, confirmations, scores, memos and records: those of a run that has come just so far."""
    number, lag = 40, CONFIG.search.lag
    fork(source, number, tmp_path / "fork")
    found, whole = rows(tmp_path / "fork"), rows(source)
    assert all(set(found[table]) < set(whole[table]) for table in ("candidates", "outcomes", "confirmations", "scores"))
    with RunStore.open(tmp_path / "fork", readonly=True) as made:
        assert max(c.number for c in made.confirmations()) < number + 1 - lag
        reached = made.database.read("SELECT value FROM memos WHERE kind = 4").fetchall()
        assert all(int(step.split(":")[1]) <= number for (value,) in reached for step in value.split())
        assert not made.get_record("winner")
    assert sum("PROBE" not in row for row in found["memos"]) > 0


def test_checkpoint_that_is_early_enough_goes_along(source: Path, tmp_path: Path) -> None:
    """A fork at the end of a long run need not tell all candidates again."""
    last = record(source, "checkpoint")
    asked = last["told"] + len(last["limits"])
    for number, kept in ((asked - 1, True), (asked - 2, False)):
        fork(source, number, tmp_path / str(number))
        assert (record(tmp_path / str(number), "checkpoint") == last) == kept


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_other_algorithms_go_on_from_candidates_that_they_never_asked_for(
    source: Path, tmp_path: Path, algorithm: str
) -> None:
    """Also interrupted: the fork ends as one that was not, and its seed makes a difference."""
    overrides = [f"search.algorithm={algorithm}", "search.restarts.patience=15"]
    for name, more in {"whole": [], "again": [], "seed": ["seed=9"]}.items():
        fork(source, 30, tmp_path / name, overrides=[*overrides, *more])
    assert resumed(tmp_path / "whole")
    assert not resumed(tmp_path / "again", after=5, shuffle=1)
    assert resumed(tmp_path / "again")
    assert resumed(tmp_path / "seed")
    whole = contents(tmp_path / "whole")
    assert whole == contents(tmp_path / "again")
    assert whole["candidates"][31:] != contents(tmp_path / "seed")["candidates"][31:]
    assert (whole["candidates"] == contents(source)["candidates"]) == (algorithm == CONFIG.search.algorithm)


def test_fork_of_a_fork_meets_the_seeds_of_the_first_run(source: Path, tmp_path: Path) -> None:
    """Confirmations of all candidates rest on the same fresh seeds, whatever seeds the draws have had."""
    fork(source, 20, tmp_path / "one", overrides=["seed=5"])
    assert resumed(tmp_path / "one")
    config = fork(tmp_path / "one", 40, tmp_path / "two", overrides=["seed=6", "search.population=10"])
    assert (config.seed, config.confirmation.seed) == (6, CONFIG.seed)
    assert resumed(tmp_path / "two")
    with RunStore.open(tmp_path / "two", readonly=True) as made:
        event = next(iter(made.events()))
        assert event.detail["number"] == 40
        assert event.detail["source"] == str(tmp_path / "one")
        assert event.detail["set"] == ["seed=6", "search.population=10"]
        fingerprint = event.detail["fingerprint"]
    with RunStore.open(tmp_path / "one", readonly=True) as first:
        assert fingerprint == first.config.fingerprint()
        assert made.environment == first.environment


def test_run_that_goes_on_is_forked_at_one_moment(tmp_path: Path) -> None:
    """The driver of the source may write meanwhile; its fork is whole, and the source notices nothing."""
    folder, forked = tmp_path / "run", []
    evaluator = StubEvaluator()
    collect = evaluator.collect

    def meanwhile(timeout: float | None = None):  # type: ignore[no-untyped-def]
        if len(evaluator.seen) > 45 and not forked:
            forked.append(fork(folder, 10, tmp_path / "fork"))
        return collect(timeout)

    evaluator.collect = meanwhile  # type: ignore[method-assign]
    discover(CONFIG, folder, evaluator=evaluator)
    assert forked
    assert resumed(tmp_path / "fork")
    assert contents(tmp_path / "fork") == contents(folder)


def test_fork_that_was_killed_is_no_run_and_no_obstacle(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database appears under its name at once and whole; what a killed process left is swept away."""
    with monkeypatch.context() as patch:
        patch.setattr("evolion.fork.forget_after", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fork(source, 30, tmp_path / "fork")
    assert [path.name for path in (tmp_path / "fork").iterdir() if "sqlite" in path.name] != ["run.sqlite"]
    assert fork(source, 30, tmp_path / "fork") == CONFIG
    assert {path.name for path in (tmp_path / "fork").iterdir()} == {"run.sqlite", "config.toml", "run.lock"}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stages.0.steps=60", "stages"),
        ("search.lag=9", "search.lag"),
        ("search.alike=false", "search.alike"),
        ("search.warm_start=sgd", "search.warm_start"),
        ("confirmation.seeds=9", "confirmation"),
        ("timeout=9.0", "timeout"),
        ("memory=9", "memory"),
        ("search.budget=30", "candidates 0 to 30"),
        ("search.algorithm=constants-only", ""),
        ("search.nonsense=3", "nonsense"),
    ],
)
def test_what_candidates_hang_on_stays(source: Path, tmp_path: Path, override: str, said: str) -> None:
    """One line that names the key, and no folder is left behind."""
    if said:
        with pytest.raises(InputError, match=said) as error:
            fork(source, 30, tmp_path / "fork", overrides=[override])
        assert "\n" not in str(error.value)
        assert not (tmp_path / "fork").exists()
    else:
        assert fork(source, 30, tmp_path / "fork", overrides=[override]) == with_overrides(CONFIG, [override])


def test_command_says_how_to_go_on(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is trained by it; bad places and taken folders are one line with exit status 2."""
    out = str(tmp_path / "fork")
    assert run(["fork", f"{source}:30", "--out", out, "--set", "seed=3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shared"] == 31
    assert run(["fork", f"{source}:30", "--out", str(tmp_path / "other")]) == 0
    assert f"evolion resume {tmp_path / 'other'}" in capsys.readouterr().out
    for place, folder, word in (
        (f"{source}:30", out, "already holds a run"),
        (f"{source}:{BUDGET}", str(tmp_path / "new"), "its candidates 0 to 69 were told"),
        (str(source), str(tmp_path / "new"), "such as runs/first:500"),
        (f"{tmp_path}:3", str(tmp_path / "new"), "holds no run"),
    ):
        assert run(["fork", place, "--out", folder]) == 2
        assert word in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
