"""`recall:?pairs=6&keys=16&values=16`: associative recall, which value came with this key.

Each sequence lists pairs of a key and a value, then asks for keys of them in any order, each followed by its
value: the multi-query task of Arora et al. (Zoology, arXiv:2312.04927), on which attention and recurrence part.
`queries` says how many are asked for, else all. Keys are tokens 0 … keys - 1, values the ones after them. Only the
values that are asked for are scored: the other targets are -1. A model that looks a key up reaches a loss of zero.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.source import SPLITS, DataError, Field, GeneratedSource, Info, Source
from evolion.proxies.data.streams import integers
from evolion.proxies.data.uri import Uri

_STREAM = 11
NOT_ASKED = -1


def open_uri(uri: Uri) -> Source:
    """Tokens (inputs) and, below each queried key, its value (targets), int32 of shape (2 pairs + 2 queries - 1,)."""
    pairs = uri.integer("pairs", 6, 1, 1024)
    keys = uri.integer("keys", 16, 1, 32768)
    values = uri.integer("values", 16, 2, 32768)
    queries = uri.integer("queries", pairs, 1, 1024)
    if not queries <= pairs <= keys:
        raise DataError(
            f"{uri.text}: {queries} queries of {pairs} pairs of {keys} keys: no more queries than pairs, and no more "
            "pairs than keys, as no key occurs twice"
        )
    field = Field("int32", (2 * pairs + 2 * queries - 1,), keys + values)
    return GeneratedSource(
        Info(
            fields={"inputs": field, "targets": field},
            examples=dict.fromkeys(SPLITS),
            digest=hashlib.sha256(f"recall 1 {pairs} {keys} {values} {queries}".encode()).hexdigest(),
            floor=0.0,
            note="generated",
        ),
        _STREAM,
        _generator(pairs, keys, values, queries),
    )


def _generator(
    pairs: int, keys: int, values: int, queries: int
) -> Callable[[np.random.PCG64, int], Mapping[str, NDArray[Any]]]:
    def generate(bits: np.random.PCG64, count: int) -> Mapping[str, NDArray[Any]]:
        key = np.argsort(bits.random_raw((count, keys)), axis=1, kind="stable")[:, :pairs]
        value = keys + integers(bits, values, (count, pairs))
        asked = np.argsort(bits.random_raw((count, pairs)), axis=1, kind="stable")[:, :queries]
        told = np.stack([key, value], axis=2).reshape(count, -1)
        wanted = np.take_along_axis(value, asked, axis=1)
        question = np.stack([np.take_along_axis(key, asked, axis=1), wanted], axis=2).reshape(count, -1)
        inputs = np.concatenate([told, question], axis=1)[:, :-1].astype(np.int32)
        targets = np.full_like(inputs, NOT_ASKED)
        targets[:, 2 * pairs :: 2] = wanted
        return {"inputs": inputs, "targets": targets}

    return generate
