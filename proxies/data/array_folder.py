"""Folders of arrays that are there as a whole or not at all: written aside, locked meanwhile, then renamed."""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.source import DataError

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished-"
"""What the name of a folder starts with that is being written or removed."""

_PIECE = 2**24
_TOO_SMALL_TO_MAP = 2**12


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What a manifest says of a file: its size in bytes and its SHA-256 (hexadecimal)."""

    bytes: int
    sha256: str


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what goes wrong while the cache is written into one line that names its folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{folder}: the cache of data cannot be written there: {reason}; make room, or set EVOLION_DATA to another "
            "folder"
        ) from error


@contextmanager
def draft(root: Path) -> Iterator[Path]:
    """A new folder in `root` that is gone in the end, unless it was renamed.

    It is locked while its writer lives, so that `remove_leftovers` of another process knows it from that of a dead one.

    Raises:
        DataError: If it cannot be made.

    """
    with writing(root):
        folder, lock = _locked_folder(root)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder(root: Path) -> tuple[Path, int]:
    root.mkdir(parents=True, exist_ok=True)
    while True:
        folder = root / f"{UNFINISHED}{secrets.token_hex(8)}"
        folder.mkdir()
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # another process took it for a leftover before it could be locked
            continue
        with suppress(OSError):  # a file system without locks: leftovers stay there
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.exists():
            return folder, lock
        os.close(lock)


def remove_leftovers(root: Path) -> None:
    """Remove what writers have left in `root` that died before they could do so themselves."""
    for folder in root.glob(f"{UNFINISHED}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def remove(folder: Path) -> None:
    """Remove a folder; for others it is there until it is gone as a whole. Processes that have mapped it keep it."""
    aside = folder.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
    with suppress(FileNotFoundError):  # another process was faster
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep other processes from changing which folders `root` has; on a file system without locks, nothing does."""
    lock = os.open(root, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def publish(made: Path, target: Path) -> bool:
    """Give a finished folder its name. False if there is one of that name: another process was faster."""
    try:
        made.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


@dataclass(slots=True)
class _ArrayFile:
    """An .npy file that grows at its end.

    It is written, not mapped: on a full disk a write to a map ends the process (SIGBUS), and one to a file raises. It
    has no buffer, so that closing it cannot fail.
    """

    stream: FileIO
    sha: Any = field(default_factory=hashlib.sha256)

    def append(self, content: bytes | memoryview) -> None:
        self.sha.update(content)
        rest = memoryview(content)
        while rest:
            rest = rest[self.stream.write(rest) :]

    def finished(self) -> StoredFile:
        os.fsync(self.stream.fileno())
        return StoredFile(self.stream.tell(), self.sha.hexdigest())


def write_arrays(
    folder: Path, shapes: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], chunks: Iterator[Mapping[str, Any]]
) -> dict[str, StoredFile]:
    """Write arrays `<name>.npy` of given types and shapes that come in chunks along the first axis.

    Raises:
        DataError: If they cannot be written. What `chunks` raises passes as it is.

    """
    with ExitStack() as stack:
        files: dict[str, _ArrayFile] = {}
        with writing(folder.parent):
            for name, (dtype, shape) in shapes.items():
                files[name] = _ArrayFile(stack.enter_context(FileIO(folder / f"{name}.npy", "w")))
                files[name].append(_header(dtype, shape))
        for chunk in chunks:
            with writing(folder.parent):
                for name, file in files.items():
                    little = np.ascontiguousarray(chunk[name], _little(shapes[name][0]))
                    file.append(little.reshape(-1).view(np.uint8).data)
        with writing(folder.parent):
            return {f"{name}.npy": file.finished() for name, file in files.items()}


def write_manifest(folder: Path, manifest: Mapping[str, Any], files: Mapping[str, StoredFile]) -> None:
    """Write what is said of a folder and of its files, as JSON. Raises DataError if it cannot be written."""
    text = json.dumps({**manifest, "files": {name: asdict(file) for name, file in files.items()}}, indent=1)
    with writing(folder.parent), (folder / MANIFEST).open("w", encoding="utf-8") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("<")


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    buffer = BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(_little(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def read_array(path: Path, file: StoredFile, mend: str) -> NDArray[Any]:
    """An array, memory-mapped and read-only.

    Raises:
        DataError: If it is not of the size that the manifest says, or no array; the line ends with `mend`.

    """
    try:
        size = path.stat().st_size
        if size != file.bytes:
            raise DataError(f"{path}: it is damaged: {size:,} bytes instead of {file.bytes:,}; {mend}")
        # An array without elements cannot be mapped, and a small one need not be.
        mode: Literal["r"] | None = "r" if size > _TOO_SMALL_TO_MAP else None
        array: NDArray[Any] = np.load(path, mmap_mode=mode, allow_pickle=False)
    except DataError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: it cannot be read: {' '.join(str(error).split())}; {mend}") from None
    array.flags.writeable = False
    return array


def check_file(path: Path, file: StoredFile, mend: str) -> None:
    """Raise DataError, with `mend` at its end, unless a file is byte for byte what was written."""
    sha = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE):
                sha.update(piece)
    except OSError as error:
        raise DataError(f"{path}: it cannot be read: {error.strerror or error}; {mend}") from None
    if sha.hexdigest() != file.sha256:
        raise DataError(f"{path}: it is damaged: its SHA-256 is not that of what was written; {mend}")
