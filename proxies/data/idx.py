"""`idx:/d/mnist`: images and labels in the format of MNIST (LeCun, Cortes and Burges), plain or compressed by gzip.

The folder holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte,
each with or without ".gz". Fashion-MNIST, KMNIST and EMNIST are published in it too.
"""

import gzip
import math
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.source import DataError, DataMissing, Source, Split
from evolion.proxies.data.splitting import Part, class_count, reading, stored_source
from evolion.proxies.data.uri import Uri

_UNSIGNED_BYTE = 8
_CHUNK = 2**20


def open_uri(uri: Uri) -> Source:
    """The images, uint8 of shape (height, width, 1), and labels of a folder.

    Options: `train` and `test` are what the names of the files start with ("train" and "t10k"; for EMNIST, say,
    `train=emnist-letters-train&test=emnist-letters-test`); `test=none` divides the training set. `classes` is the
    number of classes, by default that of the labels seen.
    """
    stems: dict[Split, str] = {"train": uri.text_option("train", "train"), "test": uri.text_option("test", "t10k")}
    classes = uri.integer("classes", 0, 0)
    uri.finish()
    folder = Path(uri.path).expanduser()
    parts = {split: _part(folder, stem) for split, stem in stems.items() if stem != "none"}
    labels = parts["train"]
    return stored_source(
        parts, classes=classes or class_count(labels.name, labels.arrays["targets"]), note=f"idx files of {folder}"
    )


def _part(folder: Path, stem: str) -> Part:
    images, labels = _find(folder, stem, "images", 3), _find(folder, stem, "labels", 1)
    arrays = {"inputs": read_idx(images, 3)[..., None], "targets": read_idx(labels, 1)}
    return Part(f"{images} and {labels}", arrays)


def _find(folder: Path, stem: str, what: str, dimensions: int) -> Path:
    names = [f"{stem}-{what}{dot}idx{dimensions}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    with reading(folder, "name the folder of the four idx files: idx:/data/mnist"):
        present = {path.name for path in folder.iterdir()}
    for name in names:
        if name in present:
            return folder / name
    also = "" if stem == "train" else ", or write test=none to divide the training set"
    raise DataMissing(f"{folder / names[0]}: no such file, nor {names[1]}; put it there{also}")


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of one idx file of unsigned bytes.

    Raises:
        DataError: If it is no idx file, of another type or rank, empty, or shorter or longer than its header says.

    """
    with reading(path):
        opener: Any = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            header = _exactly(file, 4)
            zero, kind, rank = struct.unpack(">HBB", header)
            if zero or kind != _UNSIGNED_BYTE or rank != dimensions:
                raise DataError(
                    f"{path}: it starts with {header.hex()}, not 0000080{dimensions}: no idx file of {dimensions}-"
                    "dimensional unsigned bytes; put the right file there"
                )
            shape = struct.unpack(f">{rank}I", _exactly(file, 4 * rank))
            size = math.prod(shape)
            if not size:
                raise DataError(f"{path}: it is empty: its header says {' x '.join(map(str, shape))}")
            content = _at_most(file, size + 1)
    if len(content) != size:
        short = len(content) < size
        raise DataError(
            f"{path}: it {'ends too early' if short else 'goes on after its end'}: its header says "
            f"{' x '.join(map(str, shape))} = {size:,} bytes, there are {len(content) if short else 'more'}; "
            "copy or download it again"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _exactly(file: IO[bytes], count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise EOFError
    return content


def _at_most(file: IO[bytes], count: int) -> bytearray:
    """In chunks: a broken header may promise more than fits into memory."""
    content = bytearray()
    while len(content) < count and (chunk := file.read(min(_CHUNK, count - len(content)))):
        content += chunk
    return content
