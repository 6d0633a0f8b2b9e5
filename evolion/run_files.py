"""The files of a run folder: who may make them, who may write to them, and the layout of the database."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import replace
from io import FileIO
from pathlib import Path

from evolion.config import RunConfig
from evolion.config_text import from_toml, to_toml
from evolion.errors import RunError
from evolion.run_formats import FORMAT, SCHEMA

__all__ = [
    "CONFIG",
    "DATABASE",
    "LOCK",
    "UNFINISHED",
    "check_config_file",
    "check_format",
    "check_free",
    "connect",
    "initialize",
    "is_running",
    "locked",
    "write_atomically",
]

_APPLICATION = 0x45564F4C  # "EVOL" in the header of the file
DATABASE, CONFIG, LOCK, UNFINISHED = "run.sqlite", "config.toml", "run.lock", "run.sqlite.new"

_LOCK_ATTEMPTS = 10


def is_running(folder: Path | str) -> bool:
    """Return whether a process has the run of a folder open for writing."""
    try:
        with open(Path(folder) / LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader, or a crash, sees the whole of it or what was there before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_free(folder: Path) -> None:
    """Raise RunError unless a run can be made in this folder without touching anything of somebody else."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; choose a folder for the run")
    if (folder / DATABASE).exists():
        raise RunError(
            f"{folder} already holds a run: continue it with 'evolion resume {folder}' or choose another folder"
        )
    try:
        names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise RunError(f"cannot read {folder}: {error.strerror}") from None
    above = next(path for path in folder.absolute().parents if path.exists())
    if not folder.exists() and not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise RunError(f"cannot make {folder}: {above} is {'not writable' if above.is_dir() else 'a file'}")
    # What a driver killed within its first milliseconds leaves behind is no run yet.
    strangers = sorted(name for name in names if name != LOCK and not name.startswith(UNFINISHED))
    if strangers:
        raise RunError(f"{folder} is not empty (it holds {strangers[0]}); choose a new or an empty folder for the run")


def locked(folder: Path) -> FileIO:
    """Take the lock of the one process that may write.

    Workers do not inherit it and the system drops it with the process: a killed driver leaves no stale lock.

    Raises:
        RunError: If another process has it.
        OSError: If the folder cannot be written.

    """
    lock = FileIO(folder / LOCK, "a")
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt < _LOCK_ATTEMPTS - 1:
                time.sleep(0.02)  # `is_running` in another process holds it for microseconds
        else:
            return lock
    lock.close()
    raise RunError(f"another process is at work on the run {folder}; see it with 'evolion status {folder}'")


def initialize(folder: Path, config: RunConfig, environment: Mapping[str, str]) -> None:
    """Make the database; it appears under its name at once and complete."""
    unfinished = folder / UNFINISHED
    for leftover in folder.glob(f"{UNFINISHED}*"):
        leftover.unlink()
    connection = sqlite3.connect(unfinished, isolation_level=None)
    try:
        connection.executescript(f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {FORMAT}; {SCHEMA}")
        connection.execute("INSERT INTO records VALUES ('config', ?)", (to_toml(config, environment),))
    finally:
        connection.close()
    os.replace(unfinished, folder / DATABASE)


def connect(database: Path, *, readonly: bool) -> sqlite3.Connection:
    """Connect to the database; every statement is a transaction of its own unless one is begun."""
    if not readonly:
        return sqlite3.connect(database, isolation_level=None, timeout=30.0)
    mode = "ro"
    if not os.access(database.parent, os.W_OK) and not database.with_name(f"{DATABASE}-wal").exists():
        mode = "ro&immutable=1"  # without the right to write, SQLite can read a finished run in no other way
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode={mode}", isolation_level=None, uri=True, timeout=30.0)


def check_format(connection: sqlite3.Connection, folder: Path) -> int:
    """Return the format of a database; raise RunError for one that is none of ours or newer than this version."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != _APPLICATION:
        raise RunError(f"{folder / DATABASE} is not the database of an Evolion run")
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > FORMAT:
        raise RunError(
            f"the run {folder} was written by a newer Evolion (format {version}; this version reads up to {FORMAT}): "
            "upgrade with 'pip install --upgrade evolion'"
        )
    return version


def check_config_file(folder: Path, text: str, config: RunConfig) -> None:
    """Write `config.toml` where it is missing; raise RunError where it says something else than the run began with.

    One with a smaller budget, other workers or another proposer is that of before these changed, by a process that came
    no further.
    """
    path = folder / CONFIG
    if not path.exists():
        write_atomically(path, text)
        return
    found = from_toml(path.read_text(encoding="utf-8"), where=str(path))
    if found == config:
        return
    budget = config.search.budget
    before = replace(found, search=replace(found.search, budget=budget), proposer=config.proposer).determining()
    if found.search.budget > budget or before != config.determining():
        raise RunError(
            f"{path} was changed after the run began: take the changes back, or start another run with it (a larger "
            f"budget: evolion resume {folder} --set search.budget=N)"
        )
    write_atomically(path, text)
