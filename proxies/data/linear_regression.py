"""`linear-regression:?dimension=5&examples=20`: sequences that each pose a linear regression of their own.

A sequence holds `examples` pairs (x, w x) with x and w standard normal, w fresh for each sequence, and one more x,
whose value is asked for; values are over sqrt(dimension), so that their variance is 1. A linear transformer that learns
to answer shows what is hard about training transformers (Ahn et al., arXiv:2310.01082).
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.source import SPLITS, Field, GeneratedSource, Info, Source
from evolion.proxies.data.streams import normal, rounded
from evolion.proxies.data.uri import Uri

_STREAM = 15


def open_uri(uri: Uri) -> Source:
    """Pairs (inputs, float32, shape (examples + 1, dimension + 1)), the last with value 0, and its value (shape (1,)).

    Without noise, as many examples as dimensions suffice for an exact answer: the floor is 0 there.
    """
    dimension, examples = uri.integer("dimension", 5, 1, 1024), uri.integer("examples", 20, 1, 4096)
    info = Info(
        fields={"inputs": Field("float32", (examples + 1, dimension + 1)), "targets": Field("float32", (1,))},
        examples=dict.fromkeys(SPLITS),
        digest=hashlib.sha256(f"linear-regression 1 {dimension} {examples}".encode()).hexdigest(),
        # With fewer examples, what w has outside their span cannot be known.
        floor=max(0.0, 1 - examples / dimension),
        note="generated",
    )
    return GeneratedSource(info, _STREAM, _generator(dimension, examples))


def _generator(dimension: int, examples: int) -> Callable[[np.random.PCG64, int], Mapping[str, NDArray[Any]]]:
    def generate(bits: np.random.PCG64, count: int) -> Mapping[str, NDArray[Any]]:
        drawn = normal(bits, (count, examples + 2, dimension))
        x, w = rounded(drawn[:, 1:]), rounded(drawn[:, 0]).astype(np.float64)
        values = rounded((x.astype(np.float64) * w[:, None]).sum(axis=2) / np.sqrt(dimension), 2.0**-16)
        given = np.where(np.arange(examples + 1) < examples, values, np.float32(0))
        return {"inputs": np.concatenate([x, given[:, :, None]], axis=2), "targets": values[:, -1:]}

    return generate
