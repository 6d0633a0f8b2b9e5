"""`npz:/d/mnist.npz?x=x_train&y=y_train`: arrays that numpy.savez has written, by default named as Keras names them."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.source import DataError, Source, Split
from evolion.proxies.data.splitting import Part, class_count, reading, stored_source
from evolion.proxies.data.uri import Uri

_TRAIN = {"x": "x_train", "y": "y_train"}
_TEST = {"x_test": "x_test", "y_test": "y_test"}


def open_uri(uri: Uri) -> Source:
    """The arrays of an npz file.

    Options: `x` and `y` name the arrays of inputs and targets ("x_train", "y_train"), `x_test` and `y_test` those of
    the test set ("x_test" and "y_test" where the file has both; `x_test=none` divides the training set instead).
    `classes` is the number of classes, by default that of the labels seen. `channel=no` leaves inputs of shape
    (examples, height, width) as they are; else they become images of one channel.

    uint8 inputs stay pixels, other whole numbers become int32 tokens, floating-point numbers float32. Targets that are
    whole numbers are labels, others are numbers to predict.
    """
    names = {option: uri.text_option(option, default) for option, default in (_TRAIN | _TEST).items()}
    classes, channel = uri.integer("classes", 0, 0), uri.text_option("channel", "yes") != "no"
    uri.finish()
    path = str(Path(uri.path).expanduser())
    with reading(path, "name an npz file: npz:/data/mnist.npz"):
        arrays = _Archive(path)
        present = arrays.names()
        given = set(uri.options) & set(_TEST)
        test = _TEST if (given or set(_TEST) <= present) and names["x_test"] != "none" else {}
        parts: dict[Split, Part] = {"train": _part(arrays, names["x"], names["y"], channel)}
        if test:
            parts["test"] = _part(arrays, names["x_test"], names["y_test"], channel)
    targets = parts["train"].arrays["targets"]
    labelled = targets.dtype.kind in "iu"
    if labelled and targets.ndim == 1 and not classes:
        classes = class_count(parts["train"].name, targets)
    elif labelled and not classes:
        largest = (int(array.max(initial=0)) for part in parts.values() for array in part.arrays.values())
        classes = max(largest) + 1
    return stored_source(parts, classes=classes if labelled else None, note=f"arrays of {path}")


class _Archive:
    """The arrays of an npz file, each read when asked for and never by way of pickle."""

    def __init__(self, path: str) -> None:
        self.path = path
        if Path(path).stat().st_size == 0:
            raise EOFError
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path}: it is no npz file, or ends too early; write it with numpy.savez")

    def names(self) -> set[str]:
        with zipfile.ZipFile(self.path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}

    def read(self, name: str) -> NDArray[Any]:
        if name not in (present := self.names()):
            raise DataError(
                f"{self.path}: it has no array {name!r}, but {', '.join(sorted(present)) or 'none'}; "
                "name them: x=NAME&y=NAME&x_test=NAME&y_test=NAME"
            )
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                array: NDArray[Any] = arrays[name]
        except (ValueError, MemoryError) as error:
            reason = "it holds Python objects" if "pickle" in str(error) else "it is damaged"
            raise DataError(f"{self.path}: array {name!r} cannot be read: {reason}; write plain numbers") from None
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "uifb" or not array.ndim:
            raise DataError(f"{self.path}: {name!r} is no array of numbers; write plain numbers with numpy.savez")
        return array


def _part(archive: _Archive, x: str, y: str, channel: bool) -> Part:
    inputs, targets = _inputs(archive, x), archive.read(y)
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.dtype.kind == "f":
        targets = targets.astype(np.float32)
    elif targets.dtype.kind == "b":
        targets = targets.astype(np.uint8)
    if channel and inputs.ndim == 3:
        inputs = inputs[..., None]
    made: Mapping[str, NDArray[Any]] = {"inputs": inputs, "targets": targets}
    return Part(f"{archive.path} ({x}, {y})", made)


def _inputs(archive: _Archive, name: str) -> NDArray[Any]:
    array = archive.read(name)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "fb":
        return array.astype(np.float32)
    whole = array.astype(np.int32)
    if not np.array_equal(whole, array):
        raise DataError(f"{archive.path}: {name!r} has whole numbers of over 32 bits; write smaller ones, or floats")
    return whole
