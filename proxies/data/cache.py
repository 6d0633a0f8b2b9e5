"""`data:NAME`: sets that have been converted once, on this machine.

A set is a folder NAME-<first 12 digits of its digest> with one .npy file for each field of each split and a
manifest.json. It is read by memory map, so it may be larger than memory, and neither speed nor order depends on the
format it came in. The cache is the folder that the environment variable EVOLION_DATA names, else evolion/data in
$XDG_CACHE_HOME or ~/.cache. Nothing here opens a connection.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.array_folder import (
    MANIFEST,
    StoredFile,
    alone,
    check_file,
    draft,
    publish,
    read_array,
    remove,
    remove_leftovers,
    write_arrays,
    write_manifest,
    writing,
)
from evolion.proxies.data.source import SPLITS, DataError, DataMissing, Field, Info, Source, Split, StoredSource
from evolion.proxies.data.splitting import check_divided, check_labels, reading
from evolion.proxies.data.uri import Uri, open_source, parse_uri

FORMAT = 1
"""The number of the layout; a change of it raises it."""

_GENERATED = "generated"
_CHUNK_BYTES, _CHUNK_EXAMPLES = 2**26, 4096
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A set in the cache.

    Attributes:
        name: What it was added as.
        folder: Where it is.
        problem: Why it cannot be used; empty where it can. With one, everything below is empty.
        uri: Where it was read.
        info: What it holds.
        files: What was written, by name.
        generation: How many sets of this name there were before.

    """

    name: str
    folder: Path
    problem: str = ""
    uri: str = ""
    info: Info = field(default_factory=lambda: Info({}, {}, ""))
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    generation: int = -1

    @property
    def bytes(self) -> int:
        """The size of its arrays on disk."""
        return sum(file.bytes for file in self.files.values())

    @property
    def mend(self) -> str:
        """What to do where it is damaged."""
        return f"add it again: evolion data add {self.name} {self.uri or 'URI'!r} --replace"


def cache_folder() -> Path:
    """Where the cache is; it need not be there yet. Raises DataError if nothing says where."""
    try:
        if chosen := os.environ.get("EVOLION_DATA"):
            return Path(chosen).expanduser().absolute()
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (base if base.is_absolute() else Path.home() / ".cache") / "evolion" / "data"
    except RuntimeError:
        raise DataError("there is no home folder for the cache of data: set EVOLION_DATA to a folder") from None


def open_uri(uri: Uri) -> Source:
    """The set that was added under a name; the URI has no options.

    Raises:
        DataMissing: If there is none, with the command that adds one.
        DataError: If it is damaged; sizes and types are checked, and by `verify` every byte.

    """
    uri.finish()
    entry = _existing(uri.path)
    return StoredSource(entry.info, {split: _arrays(entry, split) for split in SPLITS})


def _arrays(entry: Entry, split: Split) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for name, kind in entry.info.fields.items():
        path = entry.folder / f"{split}.{name}.npy"
        array = read_array(path, entry.files[path.name], entry.mend)
        shape = (entry.info.examples[split], *kind.shape)
        if array.shape != shape or array.dtype != np.dtype(kind.dtype).newbyteorder("<"):
            raise DataError(f"{path}: it is damaged: {array.dtype} {array.shape} instead of {shape}; {entry.mend}")
        found[name] = array
    return found


def add(name: str, uri: str, *, replace: bool = False) -> Entry:
    """Convert the data of a URI into the cache, a few thousand examples at a time.

    Where the name stands for the same content already, nothing is done; a damaged set is written again.

    Raises:
        DataMissing: If the data is not there.
        DataError: If it cannot be used or never runs out, the name stands for other content and `replace` is not set,
            or the cache cannot be written. The cache is then as it was before.

    """
    if not _NAME.fullmatch(name):
        raise DataError(f"{name!r} cannot name a data set: use up to 64 letters, digits and _ . -")
    if parse_uri(uri).scheme == "data":
        raise DataError(f"{uri}: this is in the cache already; give the URI that it was read from")
    # What was opened before may have changed on disk, and after this data:NAME may be another set.
    open_source.cache_clear()
    source = open_source(uri)
    info = source.info
    if any(info.examples[split] is None for split in SPLITS):
        raise DataError(f"{uri}: this data is generated and never runs out; use the URI itself where data is named")
    check_divided(uri, {split: info.examples[split] or 0 for split in SPLITS})
    if not replace and (known := _known(name, uri, info)):
        return known
    root = cache_folder()
    remove_leftovers(root)
    with draft(root) as folder:
        old = _entry_of(name)
        _convert(folder, name, uri, source, old.generation + 1 if old else 0)
        with writing(root), alone(root):
            if not replace and (known := _known(name, uri, info)):  # another process was faster
                return known
            target = root / f"{name}-{info.digest[:12]}"
            if target.exists():
                remove(target)
            publish(folder, target)
            for other in _folders(name):
                if other != target:
                    remove(other)
    open_source.cache_clear()
    return _read(target)


def _known(name: str, uri: str, info: Info) -> Entry | None:
    """The entry that has this content already, undamaged. Raises DataError if the name stands for other content."""
    old = _entry_of(name)
    if old is None or old.problem:
        return None
    if old.info.digest != info.digest:
        raise DataError(
            f"data set {name!r} is there with other content, read from {old.uri}; choose another name, or replace "
            f"it: evolion data add {name} {uri!r} --replace"
        )
    return old if _is_whole(old) else None


def _is_whole(entry: Entry) -> bool:
    try:
        for split in SPLITS:
            _arrays(entry, split)
    except DataError:
        return False
    return True


def _convert(folder: Path, name: str, uri: str, source: Source, generation: int) -> None:
    info = source.info
    row = sum(np.dtype(kind.dtype).itemsize * int(np.prod(kind.shape)) for kind in info.fields.values())
    needed = row * sum(info.examples[split] or 0 for split in SPLITS)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder.parent}: the set takes {needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free; make room, or "
            "set EVOLION_DATA to another folder"
        )
    step = max(1, min(_CHUNK_EXAMPLES, _CHUNK_BYTES // max(row, 1)))
    files: dict[str, StoredFile] = {}
    for split in SPLITS:
        count = info.examples[split] or 0
        shapes = {f"{split}.{key}": (np.dtype(kind.dtype), (count, *kind.shape)) for key, kind in info.fields.items()}
        files |= write_arrays(folder, shapes, _chunks(source, uri, split, step))
    manifest = {
        "format": FORMAT,
        "name": name,
        "uri": uri,
        "generation": generation,
        "digest": info.digest,
        "floor": info.floor,
        "note": info.note,
        "fields": {key: asdict(kind) for key, kind in info.fields.items()},
        "examples": dict(info.examples),
    }
    write_manifest(folder, manifest, files)


def _chunks(source: Source, uri: str, split: Split, step: int) -> Iterator[dict[str, NDArray[Any]]]:
    count = source.info.examples[split] or 0
    for start in range(0, count, step):
        batch = source.gather(split, np.arange(start, min(start + step, count)))
        for name, kind in source.info.fields.items():
            place = f"{uri}, {name} of {split} from example {start}"
            array = batch[name]
            if array.dtype != np.dtype(kind.dtype) or array.shape[1:] != kind.shape:
                raise DataError(f"{place}: {array.dtype} {array.shape[1:]} instead of {kind.dtype} {kind.shape}")
            if kind.classes is not None:
                check_labels(place, array, kind.classes)
        yield {f"{split}.{name}": array for name, array in batch.items()}


def entries() -> tuple[Entry, ...]:
    """The sets in the cache by name, damaged ones with their problem. Raises DataError if it cannot be read."""
    found: dict[str, Entry] = {}
    for folder in _folders():
        entry = _read(folder)
        # A process that died while it replaced a set leaves both: the later counts.
        known = found.get(entry.name)
        if known is None or (entry.generation, folder.name) > (known.generation, known.folder.name):
            found[entry.name] = entry
    return tuple(found[name] for name in sorted(found))


def verify(name: str) -> Entry:
    """Read every byte of a set.

    Raises:
        DataMissing: If there is none of that name.
        DataError: For the first file that is not what was written.

    """
    entry = _existing(name)
    for split in SPLITS:
        _arrays(entry, split)
    for file, kept in entry.files.items():
        check_file(entry.folder / file, kept, entry.mend)
    return entry


def _entry_of(name: str) -> Entry | None:
    return next((entry for entry in entries() if entry.name == name), None)


def _existing(name: str) -> Entry:
    known = entries()
    for entry in known:
        if entry.name == name:
            if entry.problem:
                raise DataError(entry.problem)
            return entry
    near = get_close_matches(name, [entry.name for entry in known], n=1)
    hint = f", did you mean {near[0]!r}?" if near else f": evolion data add {name or 'NAME'} URI"
    raise DataMissing(f"data set {name!r} is not on this machine (in {cache_folder()}); add it{hint}")


def _folders(name: str | None = None) -> list[Path]:
    root = cache_folder()
    with reading(root, "set EVOLION_DATA to a folder"):
        if not root.exists():
            return []
        found = sorted(path for path in root.iterdir() if _name_of(path))
    return [path for path in found if name in (None, _name_of(path))]


def _name_of(folder: Path) -> str:
    """The name of the set that a folder holds; empty for anything else that lies in the cache."""
    name, _, digest = folder.name.rpartition("-")
    return name if _NAME.fullmatch(name) and re.fullmatch(r"[0-9a-f]{12}", digest) else ""


def _read(folder: Path) -> Entry:
    """The entry that a manifest describes, or one with a problem."""
    name, path = _name_of(folder), folder / MANIFEST
    broken = Entry(name, folder)
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["format"] != FORMAT:
            return Entry(name, folder, f"{path}: format {said['format']!r:.20}, this is {FORMAT}; {broken.mend}")
        fields = {
            key: Field(str(np.dtype(kind["dtype"])), tuple(map(int, kind["shape"])), kind["classes"])
            for key, kind in said["fields"].items()
        }
        examples: dict[Split, int | None] = {split: int(said["examples"][split]) for split in SPLITS}
        names = [f"{split}.{key}.npy" for split in SPLITS for key in fields]
        files = {file: StoredFile(int(said["files"][file]["bytes"]), said["files"][file]["sha256"]) for file in names}
        info = Info(fields, examples, str(said["digest"]), said["floor"], str(said["note"]))
        if said["name"] != name or not info.digest.startswith(folder.name[-12:]):
            raise ValueError("it is of another set")
        return Entry(name, folder, "", str(said["uri"]), info, files, int(said["generation"]))
    except OSError as error:
        return Entry(name, folder, f"{path}: it cannot be read: {error.strerror or error}; {broken.mend}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Entry(name, folder, f"{path}: it is damaged ({error!r:.80}); {broken.mend}")


def materialized(key: str, build: Callable[[], Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays that take long to make: those made before under this key, memory-mapped, else made now and kept.

    `key` is everything that decides them; another key is another set of arrays. They are read-only. Where the cache
    cannot be written, they stay in memory and a warning is logged. Processes that make them at once keep one copy.
    """
    try:
        root = cache_folder() / _GENERATED
        folder = root / hashlib.sha256(key.encode()).hexdigest()[:32]
        kept = _kept(folder, key)
        if kept is not None:
            return kept
    except DataError as error:
        _log.warning("%s", error)
        return _read_only(build())
    made = _read_only(build())
    try:
        remove_leftovers(root)
        with draft(root) as aside:
            shapes = {name: (array.dtype, array.shape) for name, array in made.items()}
            files = write_arrays(aside, shapes, iter([made]))
            write_manifest(aside, {"format": FORMAT, "key": key}, files)
            with writing(root):
                if not publish(aside, folder) and _kept(folder, key) is None:
                    remove(folder)
                    publish(aside, folder)
    except DataError as error:
        _log.warning("%s", error)
        return made
    return _kept(folder, key) or made


def _read_only(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


def _kept(folder: Path, key: str) -> dict[str, NDArray[Any]] | None:
    """What lies in the cache under a key; None if there is nothing that is whole."""
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if said["format"] != FORMAT or said["key"] != key:
            return None
        files = {name: StoredFile(int(file["bytes"]), file["sha256"]) for name, file in said["files"].items()}
        return {name.removesuffix(".npy"): read_array(folder / name, file, "") for name, file in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
