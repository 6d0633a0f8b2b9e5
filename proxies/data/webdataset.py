"""`wds:/data/imagenet-{000000..001023}.tar?x=jpg&y=cls`: images in tar files as the library WebDataset writes them.

The members of one example lie one after the other and have one name up to the first dot: `n01/0001.jpg`,
`n01/0001.cls`. Members are read where they lie; nothing is ever extracted.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.file_splits import files_of, split_named
from evolion.proxies.data.images_from_bytes import Record, image_options, image_source
from evolion.proxies.data.source import DataError, Source
from evolion.proxies.data.splitting import reading
from evolion.proxies.data.uri import Uri

_BLOCK = 512
_AGAIN = "copy or download it again"


def open_uri(uri: Uri) -> Source:
    """The images (`x`: their suffix, or several: `jpg;png`) and labels (`y`: `cls`, or `json.label`) of tar files.

    A label is a whole number in text, or a value in a JSON file. Files are for training, validation or testing by
    their names. Further options: `size`, `channels` (1 or 3) and `classes`.

    Raises:
        DataMissing: If a file is not there.
        DataError: If one is no tar file, damaged or ends early, or an example lacks its image or label.

    """
    x = uri.text_option("x", "jpg;jpeg;png;webp").lower().split(";")
    y, _, inside = uri.text_option("y", "cls").partition(".")
    options = image_options(uri)
    paths = files_of(str(Path(uri.path).expanduser()), "*.tar")
    places: list[_Place] = []

    def records() -> Iterator[Record]:
        for number, path in enumerate(paths):
            for key, members in _examples(path):
                image = _image_of(path, key, members, x)
                label = _label(f"{path}: {key}", members, y, inside)
                places.append(_Place(number, image.start, len(image.content)))
                yield Record(f"{path}: {image.name}", str(path), image.content, label, split_named(path.name))

    def read(numbers: NDArray[np.int64]) -> list[tuple[str, bytes]]:
        return _read(paths, [places[number] for number in numbers])

    return image_source(uri.path, records(), read, options)


@dataclass(frozen=True, slots=True)
class _Place:
    file: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    start: int
    content: bytes


def _read(paths: Sequence[Path], places: Sequence[_Place]) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = [("", b"")] * len(places)
    for file in {place.file for place in places}:
        path = paths[file]
        with reading(path), path.open("rb") as handle:
            for number, place in enumerate(places):
                if place.file == file:
                    handle.seek(place.start)
                    found[number] = f"{path}: byte {place.start}", handle.read(place.size)
    return found


def _examples(path: Path) -> Iterator[tuple[str, dict[str, _Member]]]:
    """(name, member by suffix) of each example of a tar file."""
    key, members = "", dict[str, _Member]()
    for member in _members(path):
        folder, slash, base = member.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        if members and folder + slash + stem != key:
            yield key, members
            members = {}
        key = folder + slash + stem
        if suffix.lower() in members:
            raise DataError(f"{path}: it holds {member.name} twice; {_AGAIN}")
        members[suffix.lower()] = member
    if members:
        yield key, members


def _members(path: Path) -> Iterator[_Member]:
    with _reading(path), path.open("rb") as handle, tarfile.open(fileobj=handle, mode="r:") as archive:
        end = 0
        for info in archive:
            end = info.offset_data
            if not info.isreg():
                continue
            end += -(-info.size // _BLOCK) * _BLOCK
            if info.name.rpartition("/")[2].startswith("."):
                continue
            handle.seek(info.offset_data)
            content = handle.read(info.size)
            if len(content) < info.size:
                raise DataError(f"{path}: it ends within {info.name}; {_AGAIN}")
            yield _Member(info.name, info.offset_data, content)
        # tarfile takes a damaged header for the end. At the true end there is a block of zeros.
        handle.seek(end)
        if handle.read(_BLOCK) != bytes(_BLOCK):
            raise DataError(f"{path}: it is damaged or ends too early, at byte {end}; {_AGAIN}")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        with reading(path):
            yield
    except tarfile.TarError as error:
        raise DataError(
            f"{path}: it is no tar file, or a damaged one ({error}); decompress a compressed one, else {_AGAIN}"
        ) from None


def _image_of(path: Path, key: str, members: dict[str, _Member], suffixes: Sequence[str]) -> _Member:
    found = next((members[suffix] for suffix in suffixes if suffix in members), None)
    if found is None:
        raise DataError(
            f"{path}: {key} has no image {' or '.join(suffixes)}, only {', '.join(sorted(members))}; say x=SUFFIX"
        )
    return found


def _label(where: str, members: dict[str, _Member], suffix: str, inside: str) -> int:
    if suffix not in members:
        raise DataError(f"{where} has no label {suffix}, only {', '.join(sorted(members))}; say y=SUFFIX")
    content = members[suffix].content
    if suffix != "json":
        text = content.strip()
        if not re.fullmatch(rb"-?\d{1,18}", text):
            raise DataError(f"{where}: its label is {text[:20]!r}, not a whole number; mend it")
        return int(text)
    try:
        value: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: its JSON cannot be parsed; mend it") from None
    for key in inside.split("."):
        if not isinstance(value, dict) or key not in value:
            keys = ", ".join(sorted(value)) if isinstance(value, dict) else "no keys"
            raise DataError(f"{where}: its JSON has no {key!r} (it has: {keys}); say y=json.KEY")
        value = value[key]
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise DataError(f"{where}: its label is {value!r}, not a whole number; mend it")
    return value
