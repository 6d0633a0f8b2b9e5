"""`image-patches:?size=8&stride=2` and `image-field:?image=china&size=64`: the photographs that scikit-learn has.

china.jpg and flower.jpg, 427 x 640 pixels with three colours (CC BY 2.0, credited to danielbuechele). Patches are for
autoencoders: images are cut into blocks and each block belongs to one split, so that no two splits share a pixel. A
field is one image as a function of the place, to be learnt from some pixels and tested on those between.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

from evolion.proxies.data.arrays import digest
from evolion.proxies.data.source import SPLITS, DataError, Field, Info, Source, Split, StoredSource
from evolion.proxies.data.streams import rounded
from evolion.proxies.data.uri import Uri

IMAGES = ("china", "flower")
BLOCK_ROWS, BLOCK_COLUMNS = 61, 64
EVALUATION_STRIDE = 4
_NOTE = "scikit-learn's sample photographs, CC BY 2.0, credited to danielbuechele"
# Where the part of each image that is a field lies: a roof with its ornaments, the middle of the blossom.
_CENTRES = {"china": (176, 320), "flower": (224, 320)}
# What decoding JPEG gives differs between libraries; scores are comparable where the digest is equal.
_Splits = Mapping[Split, Mapping[str, NDArray[Any]]]


def open_uri(uri: Uri) -> Source:
    """Patches, or pixels of an image, whichever the scheme says: see `patches` and `field`."""
    if uri.scheme == "image-patches":
        return _source(uri, patches(uri.integer("size", 8, 1, BLOCK_ROWS), uri.integer("stride", 2, 1, 64)))
    image = uri.text_option("image", IMAGES[0])
    if image not in IMAGES:
        raise DataError(f"{uri.text}: image is {image!r}, choose one of {', '.join(IMAGES)}")
    return _source(uri, field(image, uri.integer("size", 64, 4, 320)))


def _source(uri: Uri, splits: _Splits) -> Source:
    fields = {name: Field(str(array.dtype), array.shape[1:]) for name, array in splits["train"].items()}
    examples: dict[Split, int | None] = {split: len(batch["inputs"]) for split, batch in splits.items()}
    return StoredSource(Info(fields, examples, digest(uri.scheme, splits), note=_NOTE), splits)


@lru_cache(maxsize=1)
def photographs() -> Mapping[str, NDArray[np.uint8]]:
    """The images by name: uint8, shape (427, 640, 3)."""
    return dict(zip(IMAGES, (np.asarray(image, np.uint8) for image in load_sample_images().images), strict=True))


def split_of_block(row: int, column: int) -> Split:
    """Of ten blocks in a row, eight are for training; the others move from row to row."""
    place = (column + 3 * row) % 10
    return SPLITS[max(place - 7, 0)]


def corners(split: Split, size: int, stride: int) -> NDArray[np.int64]:
    """Row and column of the upper left pixel of each patch of a split, shape (patches, 2), of each image."""
    rows, columns = 427 // BLOCK_ROWS, 640 // BLOCK_COLUMNS
    inside = [
        (row * BLOCK_ROWS + down, column * BLOCK_COLUMNS + right)
        for row in range(rows)
        for column in range(columns)
        if split_of_block(row, column) == split
        for down in range(0, BLOCK_ROWS - size + 1, stride)
        for right in range(0, BLOCK_COLUMNS - size + 1, stride)
    ]
    return np.array(inside, np.int64)


@lru_cache(maxsize=2)
def patches(size: int, stride: int) -> _Splits:
    """Patches as inputs (uint8, shape (size * size * 3,)); targets are zero and mean nothing (float32, shape ())."""
    made: dict[Split, Mapping[str, NDArray[Any]]] = {}
    for split in SPLITS:
        places = corners(split, size, stride if split == "train" else max(stride, EVALUATION_STRIDE))
        cut = [_cut(image, places, size) for image in photographs().values()]
        # Sky and shadow repeat themselves: a patch that has been is left out, within and between splits.
        seen = {row for other in made.values() for row in _rows(other["inputs"])}
        kept = list(dict.fromkeys(row for row in _rows(np.concatenate(cut)) if row not in seen))
        inputs = np.frombuffer(b"".join(kept), np.uint8).reshape(len(kept), -1)
        made[split] = {"inputs": inputs, "targets": np.zeros(len(kept), np.float32)}
    return made


def _rows(array: NDArray[np.uint8]) -> list[bytes]:
    return [row.tobytes() for row in array]


def _cut(image: NDArray[np.uint8], places: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1))
    found = windows[places[:, 0], places[:, 1]]
    return np.moveaxis(found, 1, -1).reshape(len(places), -1)


@lru_cache(maxsize=2)
def field(image: str, size: int) -> _Splits:
    """Places from -1 to 1 (inputs, float32, shape (2,)) and standardized colours there (targets, float32, shape (3,)).

    Of each square of four pixels one is not trained on; these are for validation and testing in turn.
    """
    middle_row, middle_column = _CENTRES[image]
    top, left = min(max(middle_row - size // 2, 0), 427 - size), middle_column - size // 2
    cut = photographs()[image][top : top + size, left : left + size].astype(np.float64)
    colours = rounded((cut - cut.mean(axis=(0, 1))) / cut.std(axis=(0, 1)))
    rows, columns = np.indices((size, size))
    places = rounded(np.stack([rows, columns], axis=-1) * 2 / (size - 1) - 1, 2.0**-20)
    between = (rows % 2 == 1) & (columns % 2 == 1)
    turn = (rows // 2 + columns // 2) % 2
    masks: dict[Split, NDArray[np.bool_]] = {
        "train": ~between,
        "validation": between & (turn == 0),
        "test": between & (turn == 1),
    }
    return {split: {"inputs": places[mask], "targets": colours[mask]} for split, mask in masks.items()}
