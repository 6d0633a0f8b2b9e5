"""Scores kept from run to run: one SQLite file that any number of processes read and write at a time.

A score belongs to what was executed (`score_keys.execution_key`), the task's digest, steps, seeds, learning rates,
split and `score_keys.origin`. The behavioural key, which is enough within a run, is not enough here: programs that do
the same up to rounding have scores that differ in the last bits, and a run must not depend on what a store happens to
hold.

Nothing is pickled. A write is one transaction, so that a process killed in the middle of it leaves the store sound.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from evolion.evaluators.score_keys import ScoreKey, dump_score, executed, execution_key, read_score
from evolion.primitives.program import Program
from evolion.proxies.score import Score, Status

__all__ = ["FORMAT", "LASTING", "Entry", "Found", "Row", "ScoreStore", "StoreError"]

FORMAT = 1
"""The number of the file's layout; a change of `_SCHEMA` raises it."""

_APPLICATION = 0x45565343  # "EVSC" in the header of the file
_PATIENCE = 30.0
"""Seconds for which another process may keep the file locked."""

LASTING = (Status.OK, Status.DIVERGED)
"""What a program does to a task. A timeout or a crash says as much about the machine, and is not kept."""

_SCHEMA = (
    "CREATE TABLE programs (program INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, text TEXT NOT NULL)",
    """CREATE TABLE budgets (
        budget INTEGER PRIMARY KEY, task TEXT NOT NULL, task_digest TEXT NOT NULL, steps INTEGER NOT NULL,
        seeds TEXT NOT NULL, learning_rates TEXT NOT NULL, split TEXT NOT NULL,
        UNIQUE (task_digest, steps, seeds, learning_rates, split)
    )""",
    "CREATE TABLE origins (origin INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)",
    # Numbers are never given twice: who removes old rows by number must not hit a new one.
    """CREATE TABLE scores (
        number INTEGER PRIMARY KEY AUTOINCREMENT, program INTEGER NOT NULL REFERENCES programs,
        budget INTEGER NOT NULL REFERENCES budgets, origin INTEGER NOT NULL REFERENCES origins, score TEXT NOT NULL,
        seconds REAL NOT NULL, made REAL NOT NULL, checksum BLOB NOT NULL, UNIQUE (program, budget, origin)
    )""",
    "CREATE TABLE reuse (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID",
    "INSERT INTO reuse VALUES ('scores', 0), ('seconds', 0)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {FORMAT}",
)

_ROWS = """SELECT number, key, programs.text, task, task_digest, steps, seeds, learning_rates, split, origins.text,
    score, seconds, made, checksum
    FROM scores LEFT JOIN programs USING (program) LEFT JOIN budgets USING (budget) LEFT JOIN origins USING (origin)"""
_BUDGET = "task_digest = ? AND steps = ? AND seeds = ? AND learning_rates = ? AND split = ?"


class StoreError(ValueError):
    """A score store cannot be opened, read or written; one line that names the file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A score to be kept: the program that was trained, the name of the task, what the score belongs to.

    The numerics of the key are those that `score_keys.origin` returns; its behaviour is not used.
    """

    program: Program
    task: str
    key: ScoreKey
    score: Score


@dataclass(frozen=True, slots=True)
class Found:
    """What a store holds for a key: the score, and the other origins under which there is one."""

    score: Score | None
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A stored score as it stands in the file, unchecked; `seconds` is what it cost, `made` is since 1970."""

    number: int
    key: bytes
    program: str
    task: str
    task_digest: str
    steps: int
    seeds: str
    learning_rates: str
    split: str
    origin: str
    score: str
    seconds: float
    made: float
    checksum: bytes

    def expected_checksum(self) -> bytes:
        """Return the digest over all that the row says; the program is in it by its key."""
        return _checksum(self.key, self.task, self._budget(), self.origin, self.score, self.seconds, self.made)

    def _budget(self) -> tuple[str, int, str, str, str]:
        return self.task_digest, self.steps, self.seeds, self.learning_rates, self.split


@dataclass(frozen=True, slots=True, eq=False)
class ScoreStore:
    """An open store; a context manager that closes it. Used by one thread."""

    path: Path
    connection: sqlite3.Connection

    @staticmethod
    def open(path: Path | str, *, create: bool = False, readonly: bool = False) -> ScoreStore:
        """Open a store, for reading and writing unless `readonly`; make it where there is none if `create`.

        Raises:
            StoreError: If there is none, it cannot be made or written, is something else, damaged, or of a newer
                version. A file that is no store is left as it is.

        """
        path = Path(path)
        if not path.exists():
            if not create:
                raise StoreError(f"there is no score store {path}")
            if not path.absolute().parent.is_dir():
                raise StoreError(f"cannot make the score store {path}: there is no folder {path.absolute().parent}")
        if path.is_dir():
            raise StoreError(f"{path} is a folder; name a file for the score store")
        connection = None
        try:
            connection = _connected(path, readonly)
            _check(connection, path, may_be_empty=create)
            if not readonly:
                _prepare(connection)
        except (sqlite3.Error, OSError) as error:
            if connection is not None:
                connection.close()
            raise StoreError(f"cannot open the score store {path}: {error}") from None
        except StoreError:
            if connection is not None:
                connection.close()
            raise
        return ScoreStore(path, connection)

    def close(self) -> None:
        """Close the store; closing twice is harmless."""
        self.connection.close()

    def __enter__(self) -> ScoreStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Say what SQLite finds wrong inside the block as a StoreError that names the file."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"score store {self.path}: {error}") from None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write everything inside the block or, if it raises or the process dies, nothing.

        Raises:
            StoreError: If the file cannot be written, or another process keeps it locked.

        """
        with self.reading():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # a full disk has ended it already
                    self.connection.execute("ROLLBACK")
                raise

    def get(self, program: Program, key: ScoreKey) -> Found:
        """Look up the score of a program.

        Raises:
            StoreError: If the file cannot be read, or the row is damaged.

        """
        with self.reading():
            rows = self.connection.execute(
                f"{_ROWS} WHERE program = (SELECT program FROM programs WHERE key = ?) "
                f"AND budget = (SELECT budget FROM budgets WHERE {_BUDGET})",
                (bytes.fromhex(execution_key(program)), *_budget(key)),
            ).fetchall()
        found = {row.origin: row for row in (Row(*values) for values in rows)}
        row = found.pop(key.numerics, None)
        if row is None:
            return Found(None, tuple(sorted(found)))
        if row.checksum != row.expected_checksum():
            raise StoreError(f"score store {self.path}: row {row.number} is damaged; see 'evolion store verify'")
        return Found(read_score(row.score), tuple(sorted(found)))

    def put(self, entries: Sequence[Entry]) -> int:
        """Keep scores, in one transaction, and return how many are new. The first one under a key stays.

        Those that say as much about the machine as about the program (a timeout, a crash) are left out.

        Raises:
            StoreError: If the file cannot be written, or another process keeps it locked.

        """
        kept = [entry for entry in entries if entry.score.status in LASTING]
        if not kept:
            return 0
        with self.writing():
            return sum(self._put(entry) for entry in kept)

    def _put(self, entry: Entry) -> int:
        run, budget = self.connection.execute, _budget(entry.key)
        key, text, origin = bytes.fromhex(execution_key(entry.program)), dump_score(entry.score), entry.key.numerics
        run("INSERT OR IGNORE INTO programs VALUES (NULL, ?, ?)", (key, str(executed(entry.program))))
        run("INSERT OR IGNORE INTO budgets VALUES (NULL, ?, ?, ?, ?, ?, ?)", (entry.task, *budget))
        run("INSERT OR IGNORE INTO origins VALUES (NULL, ?)", (origin,))
        program = run("SELECT program FROM programs WHERE key = ?", (key,)).fetchone()[0]
        number, task = run(f"SELECT budget, task FROM budgets WHERE {_BUDGET}", budget).fetchone()
        place = run("SELECT origin FROM origins WHERE text = ?", (origin,)).fetchone()[0]
        seconds, made = float(entry.score.seconds), time.time()
        checksum = _checksum(key, task, budget, origin, text, seconds, made)
        done = run(
            "INSERT OR IGNORE INTO scores VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",
            (program, number, place, text, seconds, made, checksum),
        )
        return done.rowcount

    def note_reuse(self, scores: int, seconds: float) -> None:
        """Add to what the store has saved: scores that were not computed again, and the seconds that they had cost."""
        with self.writing():
            for name, value in (("scores", scores), ("seconds", seconds)):
                self.connection.execute("UPDATE reuse SET value = value + ? WHERE name = ?", (value, name))

    def rows(self) -> Iterator[Row]:
        """All rows in the order in which they were written, unchecked; what a row refers to may be missing (None)."""
        with self.reading():
            for values in self.connection.execute(f"{_ROWS} ORDER BY number"):
                yield Row(*values)


def _budget(key: ScoreKey) -> tuple[str, int, str, str, str]:
    return key.task_digest, key.steps, json.dumps(key.seeds), json.dumps(key.learning_rates), key.split


def _checksum(
    key: bytes, task: str, budget: Sequence[str | int], origin: str, score: str, seconds: float, made: float
) -> bytes:
    said = json.dumps([key.hex(), task, budget, origin, score, seconds, made], separators=(",", ":"))
    return blake2b(said.encode(), digest_size=8).digest()


def _connected(path: Path, readonly: bool) -> sqlite3.Connection:
    if not readonly:
        return sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE)
    mode = "ro"
    if not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists():
        mode = "ro&immutable=1"  # without the right to write beside it, SQLite can read the file in no other way
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", isolation_level=None, uri=True, timeout=_PATIENCE)


def _number(connection: sqlite3.Connection, question: str) -> int:
    return int(connection.execute(question).fetchone()[0])


def _check(connection: sqlite3.Connection, path: Path, *, may_be_empty: bool) -> None:
    """Raise StoreError for what is no store of this or an earlier version; an empty file may become one."""
    connection.execute("BEGIN")  # one look: between two of them another process may have made the tables
    application = _number(connection, "PRAGMA application_id")
    is_empty = application == 0 and not _number(connection, "SELECT count(*) FROM sqlite_master")
    version = _number(connection, "PRAGMA user_version")
    connection.execute("COMMIT")
    if is_empty and may_be_empty:
        return
    if application != _APPLICATION:
        raise StoreError(f"{path} is not a score store of Evolion; name another file")
    if version > FORMAT:
        raise StoreError(
            f"the score store {path} was written by a newer Evolion (format {version}; this version reads up to "
            f"{FORMAT}): upgrade with 'pip install --upgrade evolion', or name another file"
        )


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the tables where there are none, and let readers and a writer work side by side."""
    # Before the first table: pages that were freed can then be given back a few at a time, under short locks.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _into_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    # That the file can be written is found here and not in the middle of a run.
    connection.execute("BEGIN IMMEDIATE")
    if _number(connection, "PRAGMA application_id") == 0:
        for statement in _SCHEMA:
            connection.execute(statement)
    connection.execute("COMMIT")


def _into_wal(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself where several processes change the mode at once.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
