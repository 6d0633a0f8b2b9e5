import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_samples import CONFIG, ENVIRONMENT, KEY, candidate, score

from evolion.errors import RunError
from evolion.evaluators.score_keys import ScoreKey, dump_score, read_score
from evolion.evaluators.stages import Reason
from evolion.proxies.score import Run, Score, Status
from evolion.records import CandidateRecord, Outcome
from evolion.run_files import is_running
from evolion.run_formats import FORMAT
from evolion.store import RunStore

finite = st.floats(allow_nan=False, allow_infinity=False)
single = st.floats(allow_nan=False, allow_infinity=False, width=32)
rates = st.none() | finite
failures = st.sampled_from([status for status in Status if status is not Status.OK])


def runs() -> st.SearchStrategy[Run]:
    good = st.builds(Run, rates, st.integers(0), st.just(Status.OK), finite, st.none() | finite, st.integers(0))
    return good | st.builds(Run, rates, st.integers(0), failures, st.none(), st.none(), st.integers(0))


def scores() -> st.SearchStrategy[Score]:
    rest = {
        "curve": (st.lists(finite, max_size=20) | st.lists(single, max_size=20)).map(tuple),
        "steps": st.integers(0, 10**9),
        "seconds": finite,
        "train_loss": st.none() | finite,
        "learning_rate": rates,
        "runs": st.lists(runs(), max_size=3).map(tuple),
        "message": st.text(),
    }
    return st.builds(Score, status=st.just(Status.OK), loss=finite, **rest) | st.builds(
        Score, status=failures, loss=st.none(), **rest
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore.create(tmp_path / "run", CONFIG, ENVIRONMENT) as created:
        yield created


@given(scores())
def test_scores_come_back_exactly(written: Score) -> None:
    """A stored score is the score, to the last bit of every run and the seconds."""
    read = read_score(dump_score(written))
    assert read == written
    assert repr(read) == repr(written)


def test_everything_comes_back_after_reopening(store: RunStore) -> None:
    """What one process wrote, the next one reads, candidate by candidate, with its configuration."""
    told = [Outcome(0, Reason.FINISHED, (0.1 + 0.2, 1e-300), 1, False), Outcome(1, Reason.DEAD, None, None, False)]
    for number in range(3):
        store.add_candidate(candidate(number, number - 1 if number else None))
    for outcome in told:
        store.add_outcome(outcome)
    store.put_score(KEY, score())
    store.event("started", {"workers": 2})
    store.put_record("table", [1, {"a": None}])
    store.set_winner(0, "text")
    store.close()
    for readonly in (True, False):
        with RunStore.open(store.folder, readonly=readonly) as again:
            assert again.config == CONFIG
            assert again.environment == ENVIRONMENT
            assert list(again.candidates()) == [candidate(0), candidate(1, 0), candidate(2, 1)]
            assert list(again.outcomes()) == told
            assert list(again.scores()) == [(KEY, score())]
            assert [(event.kind, event.detail) for event in again.events()] == [("started", {"workers": 2})]
            assert again.get_record("table") == [1, {"a": None}]
            winner = again.winner()
            assert winner is not None
            assert (winner.number, winner.text) == (0, "text")


def test_missing_things_are_none(store: RunStore) -> None:
    """A new run has nothing, and says so without an error."""
    assert store.candidate(0) is None
    assert store.outcome(0) is None
    assert store.best() is None
    assert store.winner() is None
    assert store.get_record("table") is None
    assert store.get_score(KEY) is None


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ScoreKey)])
def test_every_part_of_a_score_key_counts(store: RunStore, field: str) -> None:
    """A score is never given for another behaviour, task, budget, seed, split or numerics."""
    store.put_score(KEY, score())
    other = "ff" * 16 if field == "behaviour" else getattr(KEY, field) * 2
    assert store.get_score(dataclasses.replace(KEY, **{field: other})) is None
    assert store.get_score(KEY) == score()


def test_first_score_stays(store: RunStore) -> None:
    """What earlier candidates were told is what later ones with the same key are told."""
    store.put_score(KEY, score(1.0))
    store.put_score(KEY, score(2.0))
    assert store.get_score(KEY) == score(1.0)


def test_the_same_history_may_be_written_again_and_no_other(store: RunStore) -> None:
    """A resumed driver walks over what is there; one that comes out differently is stopped."""
    outcome = Outcome(0, Reason.FINISHED, (1.0,), 0, False)
    for _ in range(2):
        store.add_candidate(candidate(0))
        store.add_outcome(outcome)
    with pytest.raises(RunError, match="candidate 0"):
        store.add_candidate(dataclasses.replace(candidate(0), text="other"))
    with pytest.raises(RunError, match="candidate 0"):
        store.add_outcome(dataclasses.replace(outcome, fitness=(2.0,)))
    assert store.counts().generated == store.counts().told == 1


def test_best_is_least_and_earliest(store: RunStore) -> None:
    """Failed candidates never rank, and of equals the earlier one stays the best."""
    for number, fitness in enumerate([None, (2.0, 0.0), (1.0, 5.0), (1.0, 5.0), (1.0, 6.0)]):
        store.add_candidate(candidate(number))
        store.add_outcome(Outcome(number, Reason.FINISHED if fitness else Reason.DIVERGED, fitness, 0, False))
    best = store.best()
    assert best is not None
    assert best.number == 2


def test_a_transaction_is_all_or_nothing(store: RunStore) -> None:
    """An error inside leaves no half of a candidate behind; blocks nest."""

    def two_of_one_number() -> None:
        with store.transaction():
            store.add_candidate(candidate(0))
            store.add_candidate(dataclasses.replace(candidate(0), text="other"))

    with pytest.raises(RunError):
        two_of_one_number()
    assert store.counts().generated == 0
    with store.transaction(), store.transaction():
        store.add_candidate(candidate(0))
        store.put_score(KEY, score())
    assert store.counts().generated == store.counts().scores == 1


def test_a_second_writer_is_refused_and_readers_are_not(store: RunStore) -> None:
    """Two drivers on one folder would spoil it; a status command may look at any time."""
    assert is_running(store.folder)
    with pytest.raises(RunError, match="another process"):
        RunStore.open(store.folder)
    store.add_candidate(candidate(0))
    with RunStore.open(store.folder, readonly=True) as reader:
        assert reader.counts().generated == 1
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.add_candidate(candidate(1))
    store.close()
    store.close()
    assert not is_running(store.folder)
    RunStore.open(store.folder).close()


def test_a_run_at_rest_is_one_database_file(store: RunStore) -> None:
    """A closed run can be copied file by file, and reading it leaves nothing behind."""
    store.close()
    RunStore.open(store.folder, readonly=True).close()
    assert {path.name for path in store.folder.iterdir()} == {"config.toml", "run.lock", "run.sqlite"}


def occupied(folder: Path) -> dict[str, Path]:
    """Paths where no run can be made, by the reason."""
    RunStore.create(folder / "run", CONFIG, ENVIRONMENT).close()
    (folder / "notes").mkdir()
    (folder / "notes" / "config.toml").write_text("mine")
    (folder / "file").write_text("mine")
    return {
        "already holds a run": folder / "run",
        "not empty": folder / "notes",
        "is a file": folder / "file",
        "file is a file": folder / "file" / "below" / "it",
        "cannot make a run": Path("/proc/run"),  # where even an administrator makes no folder
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_create_touches_nothing_that_is_there(tmp_path: Path) -> None:
    """A wrong output folder costs one clear line and not a byte."""
    folders = occupied(tmp_path)
    before = contents(tmp_path)
    for reason, folder in folders.items():
        with pytest.raises(RunError, match=reason):
            RunStore.create(folder, CONFIG, ENVIRONMENT)
    assert contents(tmp_path) == before


def test_create_goes_over_what_a_killed_one_left(tmp_path: Path) -> None:
    """A driver killed before its run exists does not block the folder."""
    (tmp_path / "run.lock").touch()
    (tmp_path / "run.sqlite.new").write_bytes(b"half")
    RunStore.create(tmp_path, CONFIG, ENVIRONMENT).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "run.lock", "run.sqlite"]


def test_open_says_why_not(tmp_path: Path) -> None:
    """No run, a foreign or damaged database, a newer format and an edited configuration are told apart."""
    with pytest.raises(RunError, match="no run"):
        RunStore.open(tmp_path / "nowhere")
    foreign, damaged, newer, edited = (tmp_path / name for name in ("foreign", "damaged", "newer", "edited"))
    foreign.mkdir()
    sqlite3.connect(foreign / "run.sqlite").execute("CREATE TABLE a (b)").connection.close()
    for folder in (damaged, newer, edited):
        RunStore.create(folder, CONFIG, ENVIRONMENT).close()
    (damaged / "run.sqlite").write_bytes(b"no database at all" * 100)
    connection = sqlite3.connect(newer / "run.sqlite")
    connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()
    text = (edited / "config.toml").read_text()
    (edited / "config.toml").write_text(text.replace("budget = 10", "budget = 11"))
    for folder, word in ((foreign, "not the database"), (damaged, "not a database"), (newer, "newer Evolion")):
        for readonly in (True, False):
            with pytest.raises(RunError, match=word):
                RunStore.open(folder, readonly=readonly)
    with pytest.raises(RunError, match="was changed"):
        RunStore.open(edited)
    assert not is_running(edited)


def test_a_lost_configuration_file_is_written_again(store: RunStore) -> None:
    """The database knows the configuration: a driver killed before it wrote the file loses nothing."""
    store.close()
    text = (store.folder / "config.toml").read_text()
    (store.folder / "config.toml").unlink()
    RunStore.open(store.folder).close()
    assert (store.folder / "config.toml").read_text() == text


def test_files_stay_inside_the_run(store: RunStore) -> None:
    """Exports are written whole, may be replaced, and cannot reach out of the folder or over the store."""
    for text in ("one", "two"):
        assert store.put_file("exports/winner.py", text).read_text() == text
    assert [path.name for path in (store.folder / "exports").iterdir()] == ["winner.py"]
    for name in ("../outside.txt", "/tmp/outside.txt", "run.sqlite", "config.toml"):
        with pytest.raises(ValueError, match="additional file"):
            store.put_file(name, "")


WRITER = """
import sys
from evolion.evaluators.stages import Reason
from evolion.records import CandidateRecord, Outcome
from evolion.store import RunStore
store = RunStore.open(sys.argv[1])
for number in range(10**6):
    with store.transaction():
        store.add_candidate(CandidateRecord(number, None, "seed", "x" * 500, "00" * 16, "11" * 16, "ok"))
        store.add_outcome(Outcome(number, Reason.FINISHED, (float(number),), 0, False))
    if number == 20:
        print("going", flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.05])
def test_a_killed_writer_leaves_a_whole_run(store: RunStore, delay: float) -> None:
    """After kill -9 at any moment the run opens at once, without a stale lock and with whole candidates only."""
    store.close()
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(store.folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "going\n"
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
    assert not is_running(store.folder)
    with RunStore.open(store.folder) as again:
        counts = again.counts()
        assert counts.generated == counts.told > 20
        assert [outcome.fitness for outcome in again.outcomes()] == [(float(n),) for n in range(counts.generated)]
        again.add_candidate(dataclasses.replace(candidate(0), number=counts.generated))


def test_growth_is_at_most_two_kilobytes_a_candidate(store: RunStore) -> None:
    """Long searches stay small: a candidate of 20 statements with three runs, every fifth of them in two stages."""
    rng = np.random.default_rng(0)
    before = sum(path.stat().st_size for path in store.folder.iterdir())
    body = "".join(f"    x{line} = interp(x{line}, 0.8731264518{line}, w)\n" for line in range(20))
    for number in range(500):
        key = rng.bytes(16).hex()
        store.add_candidate(CandidateRecord(number, number - 1, "modify", body, rng.bytes(16).hex(), key, "ok"))
        store.add_outcome(Outcome(number, Reason.FINISHED, (1.0 / (number + 1), 0.3), 1, False))
        for stage in range(1 + (number % 5 == 0)):
            curve = tuple(map(float, rng.random(20, np.float32)))
            trained = tuple(Run(rate, 0, Status.OK, curve[0], curve[1], 500) for rate in curve[:3])
            full = Score(Status.OK, curve[2], curve, 500, 0.123456789, curve[1], curve[0], trained)
            store.put_score(dataclasses.replace(KEY, behaviour=key, steps=500 + stage), full)
    store.close()
    grown = sum(path.stat().st_size for path in store.folder.iterdir()) - before
    print(f"{grown / 500:.0f} bytes a candidate")
    assert grown / 500 <= 2000
