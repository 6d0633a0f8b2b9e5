"""`digits`: handwritten digits, the real data that scikit-learn brings along.

1,797 grey images of 8x8 pixels in 10 classes: the test part of Alpaydin and Kaynak, Optical Recognition of Handwritten
Digits (UCI, 1998; CC BY 4.0). On so small a set seeds move the validation loss more than optimizers do; the training
loss at the end of the run (`Score.train_loss`) tells optimizers apart.
"""

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from evolion.proxies.data.arrays import digest
from evolion.proxies.data.source import Field, Info, Source, Split, StoredSource
from evolion.proxies.data.uri import Uri

CLASSES = 10
VALIDATION_SIZE = 300
TEST_SIZE = 300


def open_uri(uri: Uri) -> Source:
    """The digits; the URI has neither path nor options."""
    splits = digits_splits()
    info = Info(
        fields={"inputs": Field("float32", (8, 8, 1)), "targets": Field("int32", (), CLASSES)},
        examples={split: len(batch["targets"]) for split, batch in splits.items()},
        digest=digest("digits", splits),
        note="scikit-learn's copy of the UCI set of handwritten digits, CC BY 4.0",
    )
    return StoredSource(info, splits)


@lru_cache(maxsize=1)
def digits_splits() -> dict[Split, dict[str, NDArray[Any]]]:
    """Images (float32, (examples, 8, 8, 1), -1 to 1) and labels (int32) of each split.

    The images are ordered by the SHA-256 of their pixels and label, so that the split depends on their content alone:
    the first 1,197 are for training, the next 300 for validation, the last 300 for testing.
    """
    source = load_digits()
    pixels, labels = source.data.astype(np.uint8), source.target.astype(np.uint8)
    records = np.column_stack([pixels, labels])
    keys = [hashlib.sha256(record.tobytes()).digest() for record in records]
    by_key = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    images = (pixels[by_key].reshape(-1, 8, 8, 1) / 8 - 1).astype(np.float32)
    targets = labels[by_key].astype(np.int32)
    first, second = len(keys) - VALIDATION_SIZE - TEST_SIZE, len(keys) - TEST_SIZE
    parts: dict[Split, slice] = {
        "train": slice(first),
        "validation": slice(first, second),
        "test": slice(second, None),
    }
    return {split: {"inputs": images[part], "targets": targets[part]} for split, part in parts.items()}
