"""The folder in which jax keeps what it has compiled, across processes and runs. Importing this does not load jax.

jax writes to it and never takes away: the size that one can set there (`jax_compilation_cache_max_size`) makes it stop
writing for good once a process was killed at the wrong moment (jax-ml/jax#39880), and needs a further package. So
worker processes tidy up as they start.
"""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

__all__ = ["KEPT_DAYS", "LARGEST", "LEAST_SECONDS", "prune", "prune_once"]

LEAST_SECONDS = 0.2
"""What took less to compile is not kept. jax's own limit of 1 s is above the time of a small network's loop."""

LARGEST = 2**30
"""Bytes: the folder is brought below three quarters of this once it is above. A loop takes 0.1 to 1 MB."""

KEPT_DAYS = 60.0
"""What no process has read or written for so long is removed in any case."""

_IN_USE_SECONDS = 3600.0
"""What was used within the last hour stays, whatever the size: processes that run now may be about to read it."""


@cache
def prune_once(folder: Path) -> None:
    """Prune a folder the first time that this process asks for it."""
    prune(folder)


def prune(folder: Path, *, largest: int = LARGEST, now: float | None = None) -> int:
    """Remove what is old, and beyond a size what was used longest ago; return the number of files removed.

    Any number of processes may do so at once, while others read and write: a file that is gone already is nobody's
    error, and a program whose file is gone is compiled again. Where the file system does not record when a file was
    read, the time of writing counts.
    """
    now = time.time() if now is None else now
    entries = sorted(_entries(folder))
    total = sum(size for _, size, _ in entries)
    goal = total if total <= largest else largest * 3 // 4
    removed = 0
    for used, size, path in entries:
        age = now - used
        if age > KEPT_DAYS * 86_400 or (total > goal and age > _IN_USE_SECONDS):
            total -= size
            removed += _remove(path)
    return removed


def _entries(folder: Path) -> list[tuple[float, int, str]]:
    """Return (time of the last use, bytes, path) of each file of the cache."""
    found = []
    try:
        with os.scandir(folder) as files:
            for file in files:
                try:
                    if file.is_file(follow_symlinks=False):
                        status = file.stat(follow_symlinks=False)
                        found.append((max(status.st_atime, status.st_mtime), status.st_size, file.path))
                except OSError:
                    continue  # removed by another process in between
    except OSError:
        return []
    return found


def _remove(path: str) -> int:
    try:
        os.unlink(path)
    except OSError:
        return 0
    return 1
