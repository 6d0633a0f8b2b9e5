"""A run as a folder: `config.toml`, `run.sqlite`, program texts, exports.

The database holds plain rows and JSON, never pickles. One process writes, the driver; it holds a lock that the system
drops with the process, so a killed driver leaves a run that opens. Others may read at any time.
"""

from __future__ import annotations

import json
import sqlite3
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from evolion.config import RunConfig
from evolion.config_text import from_toml
from evolion.errors import ConfigError, RunError
from evolion.evaluators.score_keys import ScoreKey
from evolion.evaluators.stages import Reason
from evolion.proxies.score import Score
from evolion.records import CandidateRecord, Confirmation, Counts, Event, Outcome, Standing, Winner
from evolion.run_counts import counts_of
from evolion.run_database import Database
from evolion.run_files import (
    CONFIG,
    DATABASE,
    LOCK,
    check_config_file,
    check_format,
    check_free,
    connect,
    initialize,
    locked,
    write_atomically,
)
from evolion.run_formats import adapted, upgrade
from evolion.stored_scores import StoredScores

__all__ = ["RunStore"]


@dataclass(frozen=True, slots=True, eq=False)
class RunStore:
    """An open run; a context manager that closes it.

    Attributes:
        folder: The run folder.
        config: The configuration with which the run was created.
        environment: Versions and device class with which it was created.
        database: Where it is kept, for what has a room of its own in there.
        kept_scores: Its scores.

    """

    folder: Path
    config: RunConfig
    environment: Mapping[str, str]
    database: Database
    kept_scores: StoredScores
    _lock: FileIO | None

    @staticmethod
    def create(folder: Path | str, config: RunConfig, environment: Mapping[str, str]) -> RunStore:
        """Make a run in a new or empty folder and open it for writing.

        Raises:
            RunError: If the folder holds a run or anything else, cannot be written, or another process is at it.

        """
        folder = Path(folder)
        check_free(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = locked(folder)
        except OSError as error:
            raise RunError(f"cannot make a run in {folder}: {error.strerror}") from None
        try:
            check_free(folder)
            initialize(folder, config.pinned(), environment)
            return _opened(folder, lock)
        except BaseException as error:
            lock.close()
            if isinstance(error, OSError | sqlite3.Error):
                raise RunError(f"cannot make a run in {folder}: {error}") from None
            raise

    @staticmethod
    def open(folder: Path | str, *, readonly: bool = False) -> RunStore:
        """Open an existing run, for writing unless `readonly`.

        Raises:
            RunError: If there is no run, its format is newer than this version's, its files are damaged or its
                `config.toml` was changed, or (for writing) another process is at it.

        """
        folder = Path(folder)
        if not (folder / DATABASE).is_file():
            raise RunError(f"{folder} holds no run: there is no file {DATABASE} in it")
        if readonly:
            return _opened(folder, None)
        try:
            lock = locked(folder)
        except OSError as error:
            raise RunError(f"cannot write to the run {folder}: {error.strerror}") from None
        try:
            return _opened(folder, lock)
        except BaseException:
            lock.close()
            raise

    def close(self) -> None:
        """Close the run and give up the lock; closing twice is harmless."""
        if self._lock is not None and not self._lock.closed:
            # One file that can be copied and read from anywhere; where somebody reads just now, it stays as it is.
            with suppress(sqlite3.OperationalError):
                self.database.connection.execute("PRAGMA busy_timeout = 0")
                self.database.connection.execute("PRAGMA journal_mode = DELETE")
        self.database.connection.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything inside the block or, if it raises or the process dies, nothing."""
        with self.database.transaction():
            yield

    def add_candidate(self, candidate: CandidateRecord) -> None:
        """Add a candidate; one that is there already, as after a crash, must be the same.

        Raises:
            RunError: If another candidate has this number: the run cannot be continued with this version.

        """
        values = (
            candidate.number,
            candidate.parent,
            candidate.mutation,
            candidate.text,
            bytes.fromhex(candidate.structural_key),
            bytes.fromhex(candidate.behaviour_key),
            candidate.probe_status,
        )
        try:
            self.database.write("INSERT INTO candidates VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        except sqlite3.IntegrityError:
            if self.candidate(candidate.number) != candidate:
                raise RunError(_other_history(self.folder, candidate.number)) from None

    def last_number(self) -> int:
        """Return the number of the last candidate, -1 if there is none."""
        found = self.database.read("SELECT max(number) FROM candidates").fetchone()[0]
        return -1 if found is None else int(found)

    def candidate(self, number: int) -> CandidateRecord | None:
        """Return the candidate of a number."""
        row = self.database.read("SELECT * FROM candidates WHERE number = ?", (number,)).fetchone()
        return _candidate(row) if row else None

    def candidates(self) -> Iterator[CandidateRecord]:
        """All candidates in the order of their numbers."""
        return map(_candidate, self.database.read("SELECT * FROM candidates ORDER BY number"))

    def is_whole(self, told: int) -> bool:
        """Return whether no candidate is missing before the last one, and so many have an outcome."""
        query = "SELECT count(*) FROM candidates"
        outcomes = "SELECT count(*) FROM outcomes WHERE number < ?"
        found = self.database.read(query).fetchone()[0], self.database.read(outcomes, (told,)).fetchone()[0]
        return found == (self.last_number() + 1, told)

    def add_outcome(self, outcome: Outcome) -> None:
        """Add what the search was told about a candidate; an outcome that is there already must be the same.

        Raises:
            RunError: If it is another: the run cannot be continued with this version.

        """
        values = (
            outcome.number,
            outcome.reason.value,
            outcome.fitness and _json(outcome.fitness),
            outcome.stage,
            int(outcome.reused),
            outcome.value,
            outcome.hurdle,
        )
        try:
            self.database.write("INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        except sqlite3.IntegrityError:
            self._check_outcome(outcome)

    def _check_outcome(self, outcome: Outcome) -> None:
        known = self.outcome(outcome.number)
        if known == outcome:
            return
        if known != replace(outcome, value=None, hurdle=None):
            raise RunError(_other_history(self.folder, outcome.number))
        # What was written in format 1 lacks the two, and gets them when the run is continued.
        values = (outcome.value, outcome.hurdle, outcome.number)
        self.database.write("UPDATE outcomes SET value = ?, hurdle = ? WHERE number = ?", values)

    def outcome(self, number: int) -> Outcome | None:
        """Return the outcome of a candidate, None while it has none."""
        row = self.database.read("SELECT * FROM outcomes WHERE number = ?", (number,)).fetchone()
        return _outcome(row) if row else None

    def outcomes(self) -> Iterator[Outcome]:
        """All outcomes in the order of the candidates."""
        return map(_outcome, self.database.read("SELECT * FROM outcomes ORDER BY number"))

    def add_confirmation(self, confirmation: Confirmation) -> None:
        """Add what the search was told about a candidate that was trained again; one that is there must be the same.

        Raises:
            RunError: If it is another: the run cannot be continued with this version.

        """
        values = (
            confirmation.number,
            confirmation.reason.value,
            confirmation.fitness and _json(confirmation.fitness),
            confirmation.value,
            confirmation.error,
        )
        try:
            self.database.write("INSERT INTO confirmations VALUES (?, ?, ?, ?, ?)", values)
        except sqlite3.IntegrityError:
            if self.confirmation(confirmation.number) != confirmation:
                raise RunError(_other_history(self.folder, confirmation.number)) from None

    def confirmation(self, number: int) -> Confirmation | None:
        """Return the confirmation of a candidate, None while it has none."""
        row = self.database.read("SELECT * FROM confirmations WHERE number = ?", (number,)).fetchone()
        return _confirmation(row) if row else None

    def confirmations(self) -> Iterator[Confirmation]:
        """All confirmations in the order of the candidates."""
        return map(_confirmation, self.database.read("SELECT * FROM confirmations ORDER BY number"))

    def standings(self) -> list[Standing]:
        """Return the last word on every candidate that has a fitness, best first; the earlier one of two equal ones."""
        confirmed = {confirmation.number: confirmation.fitness for confirmation in self.confirmations()}
        last = [(o.number, confirmed.get(o.number, o.fitness), o.number in confirmed) for o in self.outcomes()]
        found = [Standing(number, fitness, known) for number, fitness, known in last if fitness is not None]
        return sorted(found, key=lambda standing: standing.rank)

    def best(self) -> Standing | None:
        """Return the standing of the best candidate."""
        return next(iter(self.standings()), None)

    def put_score(self, key: ScoreKey, score: Score) -> None:
        """Keep a score under its key. The first one stays: later candidates must see what earlier ones saw."""
        self.kept_scores.put(key, score)

    def get_score(self, key: ScoreKey) -> Score | None:
        """Return the score under a key, None if there is none."""
        return self.kept_scores.get(key)

    def scores(self) -> Iterator[tuple[ScoreKey, Score]]:
        """All stored scores."""
        return iter(self.kept_scores)

    def counts(self) -> Counts:
        """Return how far the run is."""
        return counts_of(self.database.connection)

    def event(self, kind: str, detail: Any = None) -> None:
        """Note that something happened, with anything that JSON can hold."""
        self.database.write("INSERT INTO events VALUES (NULL, ?, ?, ?)", (time.time(), kind, json.dumps(detail)))

    def events(self) -> Iterator[Event]:
        """All events in the order in which they were noted."""
        rows = self.database.read("SELECT time, kind, detail FROM events ORDER BY event")
        return (Event(at, kind, json.loads(detail)) for at, kind, detail in rows)

    def put_record(self, name: str, value: Any) -> None:
        """Keep a named value that JSON can hold, such as the table of the retest; replaces an earlier one."""
        self.database.write("INSERT OR REPLACE INTO records VALUES (?, ?)", (name, json.dumps(value)))

    def get_record(self, name: str) -> Any:
        """Return a named value, None if there is none."""
        row = self.database.read("SELECT value FROM records WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def forget_record(self, name: str) -> None:
        """Remove a named value, if there is one."""
        self.database.write("DELETE FROM records WHERE name = ?", (name,))

    def get_config(self) -> str:
        """Return the configuration as it was written, with versions and device class."""
        return str(self.database.read("SELECT value FROM records WHERE name = 'config'").fetchone()[0])

    def put_config(self, text: str) -> None:
        """Put another configuration in its place; the open run goes on with the one that it was opened with."""
        self.database.write("UPDATE records SET value = ? WHERE name = 'config'", (text,))

    def forget_confirmations(self, first: int) -> None:
        """Remove the confirmations of candidates from a number on."""
        self.database.write("DELETE FROM confirmations WHERE number >= ?", (first,))

    def set_winner(self, number: int, text: str) -> None:
        """Set the program that the run ends with: the text, after simplification and ablation, of a candidate."""
        self.put_record("winner", [number, text])

    def winner(self) -> Winner | None:
        """Return the program that the run ended with, None before its end."""
        record = self.get_record("winner")
        return Winner(*record) if record else None

    def put_file(self, name: str, text: str) -> Path:
        """Write a text file inside the run folder (`exports/winner_optax.py`), whole or not at all.

        Raises:
            RunError: If it cannot be written.
            ValueError: If the name leads out of the folder or names a file of the store.

        """
        relative = Path(name)
        if relative.is_absolute() or ".." in relative.parts or relative.parts[0] in (CONFIG, DATABASE, LOCK):
            raise ValueError(f"{name!r} is not the name of an additional file in a run folder")
        path = self.folder / relative
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from None
        return path


def _opened(folder: Path, lock: FileIO | None) -> RunStore:
    path = folder / DATABASE
    connection = None
    try:
        connection = connect(path, readonly=lock is None)
        version = check_format(connection, folder)
        if lock is not None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        text = connection.execute("SELECT value FROM records WHERE name = 'config'").fetchone()[0]
        config = from_toml(text, where=f"the configuration in {path}")
        if lock is not None:
            check_config_file(folder, text, config)
        config = adapted(config, connection, version)
        upgrade(connection, version, len(config.stages), readonly=lock is None)
    except (sqlite3.Error, OSError, ConfigError, TypeError) as error:
        if connection is not None:
            connection.close()
        raise RunError(f"cannot open the run {folder}: {error}") from None
    except RunError:
        if connection is not None:
            connection.close()
        raise
    database = Database(connection)
    environment = tomllib.loads(text).get("environment", {})
    return RunStore(folder, config, environment, database, StoredScores(database), lock)


def _candidate(row: tuple[Any, ...]) -> CandidateRecord:
    number, parent, mutation, text, structural, behaviour, probe_status = row
    return CandidateRecord(number, parent, mutation, text, structural.hex(), behaviour.hex(), probe_status)


def _outcome(row: tuple[Any, ...]) -> Outcome:
    number, reason, fitness, stage, reused, value, hurdle = row
    return Outcome(number, Reason(reason), _loaded(fitness), stage, bool(reused), value, hurdle)


def _confirmation(row: tuple[Any, ...]) -> Confirmation:
    number, reason, fitness, value, error = row
    return Confirmation(number, Reason(reason), _loaded(fitness), value, error)


_json = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps makes one for each value


def _loaded(fitness: str | None) -> tuple[float, ...] | None:
    return tuple(json.loads(fitness)) if fitness else None


def _other_history(folder: Path, number: int) -> str:
    return (
        f"the run {folder} cannot be continued: candidate {number} comes out differently from what it holds; "
        "continue with the versions named in its config.toml, or start another run"
    )
