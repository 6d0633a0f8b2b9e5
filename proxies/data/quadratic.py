"""`quadratic:?dimension=512`: the gradient noise of a noisy quadratic model (Zhang et al., arXiv:1907.04164).

One byte of noise for each coordinate and example. A task hands them to its model as numbers between -1 and 1, uniform
and of variance `VARIANCE`; the model gives them their scale (`evolion.proxies.models.quadratic`). The validation and
the test split are one pair of opposite examples each: noise does not move the loss there.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.source import SPLITS, Field, GeneratedSource, Info, Source, Split, StoredSource
from evolion.proxies.data.streams import raw_stream
from evolion.proxies.data.uri import Uri

VARIANCE = (256**2 - 1) / (3 * 255**2)
"""Of k / 127.5 - 1 for bytes k, all equally likely."""

_STREAM = 14
_PAIRS = 1000


def open_uri(uri: Uri) -> Source:
    """Noise as inputs (uint8, shape (dimension,)); the targets are zero and mean nothing (float32, shape ())."""
    dimension = uri.integer("dimension", 512, 1, 65536)
    info = Info(
        fields={"inputs": Field("uint8", (dimension,)), "targets": Field("float32", ())},
        examples={"train": None, "validation": 2, "test": 2},
        digest=hashlib.sha256(f"quadratic 1 {dimension}".encode()).hexdigest(),
        floor=0.0,
        note="generated",
    )

    def generate(bits: np.random.PCG64, count: int) -> Mapping[str, NDArray[Any]]:
        return {"inputs": _noise(bits, (count, dimension)), "targets": np.zeros(count, np.float32)}

    pairs: dict[Split, dict[str, NDArray[Any]]] = {
        "validation": _pair(dimension, SPLITS.index("validation")),
        "test": _pair(dimension, SPLITS.index("test")),
    }
    return _Noise(info, GeneratedSource(info, _STREAM, generate), StoredSource(info, pairs))


@dataclass(frozen=True, slots=True, eq=False)
class _Noise:
    info: Info
    training: GeneratedSource
    pairs: StoredSource

    def gather(self, split: Split, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The examples of these numbers."""
        return (self.training if split == "train" else self.pairs).gather(split, indices)


def _pair(dimension: int, split: int) -> dict[str, NDArray[Any]]:
    once = _noise(raw_stream(_STREAM, _PAIRS + split), (1, dimension))
    return {"inputs": np.concatenate([once, 255 - once]), "targets": np.zeros(2, np.float32)}


def _noise(bits: np.random.PCG64, shape: tuple[int, int]) -> NDArray[np.uint8]:
    count = shape[0] * shape[1]
    words = bits.random_raw(-(-count // 8)).astype("<u8")
    return words.view(np.uint8)[:count].reshape(shape)
