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

    def read(self, query: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        """Return the rows of a query."""
        return self.connection.execute(query, values)

    def write(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        """Execute a statement that changes something."""
        if self._grouped and not self.connection.in_transaction:
            self._begin()
        self.connection.execute(statement, values)
        if self._grouped and not self._nested and time.monotonic() - self._begun > _GROUP_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Bring what was written in a group to the disk; inside `transaction` that waits for its end."""
        if self.connection.in_transaction and not self._nested:
            self.connection.execute("COMMIT")

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
        self._begun = time.monotonic()
