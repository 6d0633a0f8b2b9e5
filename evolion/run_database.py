"""The connection to the database of a run: writes one by one, in transactions, or in groups."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

__all__ = ["Database"]

_GROUP_SECONDS = 0.25
"""What is written in a group waits at most so long for the disk."""
_FLUSH_SECONDS = 0.02
"""A commit costs a twentieth of a candidate of a fast evaluator; what is younger than this waits for its answer."""


@final
@dataclass(slots=True, eq=False)
class Database:
    """An open database.

    A write of its own costs a commit, ten times the write itself. Inside `grouped` many share one; `flush` brings them
    to the disk before the caller waits for something else, so that others see them and a crash loses little.

    Attributes:
        connection: In autocommit mode (`isolation_level=None`).

    """

    connection: sqlite3.Connection
    _grouped: bool = False
    _nested: int = 0
    _begun: float = 0.0
    _flushed: float = 0.0
    _open: bool = False
    _failure: str = ""

    def read(self, query: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        """Return the rows of a query."""
        return self.connection.execute(query, values)

    def write(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        """Execute a statement that changes something.

        Raises:
            sqlite3.OperationalError: If it fails, or writes of the same group have failed before: what came after them
                must not be kept without them, whoever may have passed over the failure.

        """
        self._check()
        if self._grouped and not self.connection.in_transaction:
            self._begin()
        self.connection.execute(statement, values)
        if self._grouped and not self._nested and time.monotonic() - self._begun > _GROUP_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Bring what was written in a group to the disk; inside `transaction` that waits for its end."""
        self._check()
        if self.connection.in_transaction and not self._nested:
            try:
                self.connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._failure = str(error)
                raise
            self._open = False
        self._flushed = time.monotonic()

    @property
    def waits_shortly(self) -> bool:
        """Whether something waits for the disk, all of it written in the last fiftieth of a second."""
        return self.connection.in_transaction and time.monotonic() - self._flushed < _FLUSH_SECONDS

    def _check(self) -> None:
        if self._open and not self.connection.in_transaction and not self._failure:
            self._failure = "a transaction was lost"  # SQLite ends one by itself where a write in it fails
        if self._failure:
            raise sqlite3.OperationalError(f"an earlier write to the run failed ({self._failure})")

    @contextmanager
    def grouped(self) -> Iterator[None]:
        """Let the writes inside the block share commits; at its end, however it ends, all of them are on the disk."""
        self._grouped = True
        try:
            yield
        finally:
            self._grouped = False
            self.flush()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything inside the block or, if it raises or the process dies, nothing."""
        self._check()
        if not self.connection.in_transaction:
            self._begin()
        self._nested += 1
        point = f"nested{self._nested}"
        self.connection.execute(f"SAVEPOINT {point}")
        try:
            yield
        except BaseException:
            if self.connection.in_transaction:  # SQLite ends it by itself where the disk is full
                self.connection.execute(f"ROLLBACK TO {point}")
            raise
        finally:
            self._nested -= 1
            if self.connection.in_transaction:
                self.connection.execute(f"RELEASE {point}")
                if not self._grouped:
                    self.flush()

    def _begin(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self._begun, self._open = time.monotonic(), True
