"""Writes to the database of a run: in groups, in transactions, and never with a hole in them."""

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from stub_evaluator import StubEvaluator, stub_config

from evolion.config import RunConfig, program_of
from evolion.evaluators.types import Job
from evolion.funnel import run_search
from evolion.ledger import Ledger
from evolion.progress import Phase, Progress, several, silent
from evolion.proxies.score import Score
from evolion.records import CandidateRecord
from evolion.run_database import Database
from evolion.store import RunStore


@pytest.fixture
def database(tmp_path: Path) -> Database:
    connection = sqlite3.connect(tmp_path / "run.sqlite", isolation_level=None)
    connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY)")
    return Database(connection)


def others_see(database: Database) -> list[int]:
    """What another process would read."""
    path = database.read("PRAGMA database_list").fetchone()[2]
    with sqlite3.connect(path) as reader:
        return [number for (number,) in reader.execute("SELECT number FROM rows")]


def insert(database: Database, number: int) -> None:
    database.write("INSERT INTO rows VALUES (?)", (number,))


def test_a_group_is_on_the_disk_at_its_end_and_when_asked_for(database: Database) -> None:
    """Writes share a commit, which an exception does not prevent."""

    def interrupted() -> None:
        with database.grouped():
            insert(database, 1)
            assert others_see(database) == []
            database.flush()
            insert(database, 2)
            assert others_see(database) == [1]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert others_see(database) == [1, 2]


@pytest.mark.parametrize("grouped", [False, True])
def test_a_transaction_is_written_whole_or_not_at_all(database: Database, grouped: bool) -> None:
    """What fails inside takes its own writes along, and not those of the group before it."""

    def failing() -> None:
        with database.transaction():
            insert(database, 2)
            raise RuntimeError

    if grouped:
        database._grouped = True
        insert(database, 1)
    with pytest.raises(RuntimeError):
        failing()
    with database.transaction():
        insert(database, 3)
    database.flush()
    assert others_see(database) == ([1, 3] if grouped else [3])


def test_a_group_that_was_lost_is_not_gone_on_with(database: Database) -> None:
    """SQLite drops a whole group where one write of it fails: who passes over that must not write the next rows."""

    def passing_over() -> None:
        with database.grouped():
            insert(database, 1)
            database.connection.execute("ROLLBACK")
            with pytest.raises(sqlite3.OperationalError, match="earlier write"):
                insert(database, 2)
            with pytest.raises(sqlite3.OperationalError, match="earlier write"):
                database.transaction().__enter__()

    with pytest.raises(sqlite3.OperationalError, match="earlier write"):
        passing_over()
    assert others_see(database) == []


def test_a_view_that_fails_to_write_to_the_run_ends_it() -> None:
    """Any other failure of a view is passed over, but this one may have taken rows of the run with it."""

    class Full:
        def on_progress(self, progress: Progress) -> None:
            raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(sqlite3.OperationalError, match="full"):
        several(Full()).on_progress(Progress(Phase.SEARCH, 1, 2))


def test_a_run_with_a_hole_is_not_whole(tmp_path: Path) -> None:
    """A checkpoint beyond missing candidates is worth nothing: the run is taken up at its beginning."""
    with RunStore.create(tmp_path / "run", RunConfig(), {}) as store:
        for number in (0, 1, 2):
            store.add_candidate(CandidateRecord(number, None, "seed", f"{number}", "0a", "0b", "ok"))
        assert store.is_whole(0)
        store.database.write("DELETE FROM candidates WHERE number = 1")
        assert not store.is_whole(0)


@dataclass
class Slow(StubEvaluator):
    """Answers no call that waits a millisecond only, and notes what was open whenever it was waited for longer."""

    database: Database | None = None
    open_while_waiting: list[bool] = field(default_factory=list)

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        if timeout is not None and timeout < 0.01:
            return []
        assert self.database is not None
        self.open_while_waiting.append(self.database.connection.in_transaction)
        return super().collect(timeout)


def test_what_is_known_is_on_the_disk_before_anything_is_waited_for(tmp_path: Path) -> None:
    """A run that is killed while it waits has lost nothing, and who looks at it sees all of it."""
    config = stub_config(30)
    with RunStore.create(tmp_path / "run", config, {}) as store:
        evaluator = Slow(database=store.database)
        run_search(config, program_of(config.search.warm_start), Ledger(store, evaluator), silent())
    assert evaluator.open_while_waiting
    assert not any(evaluator.open_while_waiting)
