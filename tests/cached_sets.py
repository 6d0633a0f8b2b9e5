"""Sets of a test's own for the cache, and what can go wrong with a disk."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evolion.proxies.data import array_folder


def written(path: Path, *, seed: int = 0, examples: int = 300) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (examples, 6, 5), dtype=np.uint8)
    np.savez(path, x_train=pixels, y_train=np.arange(examples) % 7)
    return f"npz:{path}"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def failing(module: Any, name: str, number: int) -> Iterator[None]:
    def fail(*arguments: Any, **more: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, fail)
        yield


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file can grow past `size` bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FAILURES: dict[str, tuple[Callable[[], Any], str]] = {
    "a file that cannot grow": (lambda: files_up_to(100_000), "File too large"),
    "the first byte": (lambda: files_up_to(10), "File too large"),
    "full when flushed": (lambda: failing(array_folder.os, "fsync", errno.ENOSPC), "No space left"),
    "read-only": (lambda: failing(Path, "mkdir", errno.EROFS), "Read-only file system"),
    "no right": (lambda: failing(Path, "rename", errno.EACCES), "Permission denied"),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
