"""`cifar-py:/d/cifar-10-batches-py`: the Python batches of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009).

They are published as pickles, which can run any code. Here a pickle can name nothing but what stands for NumPy's arrays
of bytes, and not even NumPy's own functions are called with what it says.
"""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.source import DataError, Source, Split
from evolion.proxies.data.splitting import Part, reading, stored_source
from evolion.proxies.data.uri import Uri

_SHAPE = (3, 32, 32)
_LABELS = {"fine": (b"fine_labels", 100), "coarse": (b"coarse_labels", 20)}


def open_uri(uri: Uri) -> Source:
    """The images, uint8 of shape (32, 32, 3), and labels of a folder of batches.

    CIFAR-10 has the files data_batch_1 to data_batch_5 and test_batch, CIFAR-100 train and test. The option `labels`
    of the latter is "fine" (100 classes) or "coarse" (20).
    """
    folder, kind = Path(uri.path).expanduser(), uri.text_option("labels", "fine")
    uri.finish()
    if kind not in _LABELS:
        raise DataError(f"{uri.text}: labels is {kind!r}: choose fine or coarse")
    with reading(folder, "name the folder of the batches: cifar-py:/data/cifar-10-batches-py"):
        present = {path.name for path in folder.iterdir()}
    if "train" in present:
        files: dict[Split, list[str]] = {"train": ["train"], "test": ["test"]}
        key, classes = _LABELS[kind]
    else:
        files = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
        key, classes = b"labels", 10
    parts = {split: _part([folder / name for name in names], key, classes) for split, names in files.items()}
    return stored_source(parts, classes=classes, note=f"CIFAR-{'100' if key != b'labels' else '10'} of {folder}")


def _part(paths: list[Path], key: bytes, classes: int) -> Part:
    batches = [read_batch(path, key, classes) for path in paths]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return Part(str(paths[0] if len(paths) == 1 else paths[0].parent), {"inputs": images, "targets": labels})


def read_batch(path: Path, key: bytes, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Images (examples, 32, 32, 3) and labels of one file; `key` is what it calls the labels.

    Raises:
        DataError: If it is no such batch, damaged, its labels are out of range, or it names something else than arrays.

    """
    with reading(path, "put all files of the published archive there"), path.open("rb") as file:
        try:
            batch = _Unpickler(file, encoding="bytes").load()
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        except OSError:
            raise
        except Exception as error:  # a broken pickle can make the unpickler raise nearly anything
            raise DataError(
                f"{path}: it is damaged or no batch of CIFAR ({type(error).__name__}: {error}); copy it again"
            ) from None
    data = batch.get(b"data") if isinstance(batch, dict) else None
    labels = batch.get(key) if isinstance(batch, dict) else None
    if not isinstance(data, _Array) or not isinstance(labels, list):
        raise DataError(f"{path}: no batch of CIFAR: it has no array 'data' or no list {key.decode()!r}")
    images = data.pixels(path)
    if not len(images) == len(labels) > 0:
        raise DataError(f"{path}: it has {len(images)} images and {len(labels)} labels")
    for place, label in enumerate(labels):
        if not isinstance(label, int) or not 0 <= label < classes:
            raise DataError(f"{path}: the label of example {place} is {label!r:.40}, outside 0 to {classes - 1}")
    return images, np.array(labels, np.int32)


class _Type:
    """What a pickle calls numpy.dtype."""

    def __init__(self, name: Any, *rest: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment say nothing about bytes."""


class _Array:
    """What a pickle calls numpy.ndarray; its state is (version, shape, type, whether in Fortran's order, bytes)."""

    def __init__(self) -> None:
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def pixels(self, path: Path) -> NDArray[np.uint8]:
        match self.state:
            case (_, (int(count), int(width)), _Type(name="u1" | b"u1"), order, bytes(content)):
                if width == math.prod(_SHAPE) and len(content) == count * width:
                    flat = np.frombuffer(content, np.uint8).reshape((count, width), order="F" if order else "C")
                    return np.ascontiguousarray(flat.reshape(count, *_SHAPE).transpose(0, 2, 3, 1))
        raise DataError(f"{path}: its 'data' is no array of bytes with {math.prod(_SHAPE)} columns")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _encode(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes into a pickle of the old protocol."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise DataError("its text is not encoded as bytes are")
    return text.encode("latin1")


_NAMES = {
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.ndarray": _Array,
    "numpy.dtype": _Type,
    "_codecs.encode": _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (full := f"{module}.{name}") not in _NAMES:
            raise DataError(
                f"this pickle names {full}, which no batch of CIFAR does: it may be hostile, do not open it"
            )
        return _NAMES[full]
