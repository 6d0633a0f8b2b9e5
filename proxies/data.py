"""Data shared by the tasks: reproducible random numbers, batch orders and digests. NumPy only.

Random numbers come from the raw 64-bit stream of PCG64, which NumPy promises never to change (NEP 19), so that data,
orders and digests are equal in every process, on every machine and with every NumPy.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED_LIMIT = 2**32
_ORDER_STREAM = 1


def raw_stream(stream: int, seed: int) -> np.random.PCG64:
    """The generator of one stream of one seed. Raises ValueError for a seed outside 0 … 2**32 - 1."""
    if not 0 <= seed < SEED_LIMIT:
        raise ValueError(f"seed is {seed}: a seed is an integer from 0 to {SEED_LIMIT - 1}")
    return np.random.PCG64(np.random.SeedSequence([stream, seed]))


def batch_order(examples: int, batch_size: int, steps: int, seed: int) -> NDArray[np.int32]:
    """Which examples make up each batch: indices below `examples`, int32, shape (steps, batch_size).

    Each epoch is a fresh shuffle without replacement; a batch may span two epochs. A longer order starts with the
    shorter.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: training needs at least one step")
    bits = raw_stream(_ORDER_STREAM, seed)
    epochs = -(-steps * batch_size // examples)
    shuffles = [np.argsort(bits.random_raw(examples), kind="stable") for _ in range(epochs)]
    return np.concatenate(shuffles)[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)


def named_arrays(tree: Any, name: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """The arrays of a nested mapping with their slash-separated names, sorted by key."""
    if isinstance(tree, Mapping):
        for key in sorted(tree):
            yield from named_arrays(tree[key], f"{name}/{key}")
    else:
        yield name, tree


def freeze(tree: Any) -> Any:
    """The same tree with its arrays made read-only: cached data is shared by everyone who asks for it."""
    for _, array in named_arrays(tree):
        array.flags.writeable = False
    return tree


def digest(description: str, tree: Any) -> str:
    """SHA-256 (hexadecimal) of a description and of name, dtype, shape and little-endian bytes of every array."""
    sha = hashlib.sha256(description.encode())
    for name, array in named_arrays(tree):
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        sha.update(f"\n{name} {little.dtype.str} {little.shape}\n".encode())
        sha.update(little.tobytes())
    return sha.hexdigest()
