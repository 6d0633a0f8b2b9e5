"""The file of the flat table: JSON lines, one row each, that are only ever appended."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Self, final

from pydantic import TypeAdapter, ValidationError

from evolion.evaluators.protocol.rows import Row

__all__ = ["Table", "TableError", "read_rows"]


class TableError(ValueError):
    """The file of a table cannot be used; the message names file and line."""


@cache
def _adapter() -> TypeAdapter[Row]:
    return TypeAdapter(Row)


@dataclass(frozen=True, slots=True)
class _Content:
    rows: tuple[Row, ...]
    size: int  # bytes of whole lines


def read_rows(path: Path | str) -> tuple[Row, ...]:
    """Return the rows of a table in the order in which they were written; none where there is no such file.

    A last line without its end is what a crash in the middle of writing leaves: it is dropped.

    Raises:
        TableError: For any other line that is no row, and for a row that stands there twice.
        OSError: If the file cannot be read.

    """
    return _read(Path(path)).rows


def _read(path: Path) -> _Content:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _Content((), 0)
    whole = data[: data.rfind(b"\n") + 1]
    rows: dict[str, Row] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        row = _parse(line, f"{path}, line {number}")
        if row.id in rows:
            raise TableError(f"{path}, line {number}: the row {row.id!r} stands there twice; take one of them out")
        rows[row.id] = row
    return _Content(tuple(rows.values()), len(whole))


def _parse(line: bytes, where: str) -> Row:
    try:
        return _adapter().validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        said = f"{field}: {first['msg']}" if field else first["msg"]
        raise TableError(
            f"{where} is not the row of a comparison ({said}); take it out, and it is computed again"
        ) from None


def _line(row: Row) -> bytes:
    for field in fields(row):
        value = getattr(row, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(number) for number in numbers if isinstance(number, float)):
            raise ValueError(f"the row {row.id!r} has no finite {field.name}: {value}")  # JSON has no such number
    return _adapter().dump_json(row) + b"\n"


@final
class Table:
    """A table that is open for appending: what has been appended survives a crash.

    Raises:
        TableError: As `read_rows` does.
        OSError: If the file cannot be written.

    """

    def __init__(self, path: Path | str) -> None:
        content = _read(Path(path))
        self._rows = {row.id: row for row in content.rows}
        self._file = FileIO(path, "a")
        self._file.truncate(content.size)

    @property
    def rows(self) -> Sequence[Row]:
        """All rows, in the order in which they were appended."""
        return tuple(self._rows.values())

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows, and return once the disk has them.

        Raises:
            ValueError: For a row whose id is there already, or with a number that is not finite; nothing is written
                then.
            OSError: If the disk is full or fails; what was written in part is taken back.

        """
        new = list(rows)
        ids = [row.id for row in new]
        twice = next((name for i, name in enumerate(ids) if name in self._rows or name in ids[:i]), None)
        if twice is not None:
            raise ValueError(f"the table has a row {twice!r} already")
        if not new:
            return
        end = self._file.seek(0, os.SEEK_END)
        data = memoryview(b"".join(map(_line, new)))
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except BaseException:  # an interrupt leaves no half of a line either
            self._file.truncate(end)
            raise
        self._rows |= {row.id: row for row in new}

    def close(self) -> None:
        """Close the file; may be repeated."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
