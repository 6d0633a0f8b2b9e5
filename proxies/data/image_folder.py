"""`dir:/data/birds?size=32`: images in one folder for each class, with or without folders of splits above.

Either `birds/<class>/*.png` or `birds/train/<class>/*.png` beside `birds/val/…` and `birds/test/…`. Classes are the
names of the folders of training, sorted. Files that have no suffix of images are passed over.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.file_splits import NAMES
from evolion.proxies.data.images_from_bytes import Record, image_options, image_source
from evolion.proxies.data.source import DataError, DataMissing, Source, Split
from evolion.proxies.data.splitting import reading
from evolion.proxies.data.uri import Uri

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})


def open_uri(uri: Uri) -> Source:
    """The images of a folder; options `size`, `channels` (1 or 3) and `classes`.

    Raises:
        DataMissing: If the folder is not there.
        DataError: If it has no folders of classes, one of them no images, a class is unknown to training, or a file is
            no image.

    """
    folder = Path(uri.path).expanduser()
    options = image_options(uri)
    files = _files(folder)

    def read(numbers: NDArray[np.int64]) -> list[tuple[str, bytes]]:
        return [(str(files[number].path), _content(files[number].path)) for number in numbers]

    return image_source(str(folder), _records(files), read, options)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    label: int
    split: Split


def _records(files: Sequence[_File]) -> Iterator[Record]:
    for file in files:
        yield Record(str(file.path), str(file.path.parent), _content(file.path), file.label, file.split)


def _content(path: Path) -> bytes:
    with reading(path):
        return path.read_bytes()


def _files(folder: Path) -> list[_File]:
    if not folder.is_dir():
        raise DataMissing(f"{folder}: no such folder; check the path")
    published = {inner: NAMES[inner.name.lower()] for inner in _folders(folder) if inner.name.lower() in NAMES}
    if "train" not in published.values():
        published = {folder: "train"}
    known = [inner.name for top, split in published.items() if split == "train" for inner in _folders(top)]
    labels = {name: label for label, name in enumerate(sorted(set(known)))}
    files = []
    for top, split in published.items():
        if not _folders(top):
            raise DataError(f"{top}: it has no folder for each class; sort its images into such folders")
        for inner in _folders(top):
            if inner.name not in labels:
                raise DataError(
                    f"{inner}: the images for training know no class {inner.name!r}; mend the folder's name"
                )
            images = sorted(path for path in inner.rglob("*") if path.suffix.lower() in SUFFIXES)
            if not images:
                raise DataError(f"{inner}: there is no image in it; remove the folder, or fill it")
            files += [_File(path, labels[inner.name], split) for path in images if not path.name.startswith(".")]
    return files


def _folders(folder: Path) -> list[Path]:
    with reading(folder):
        return sorted(inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))
