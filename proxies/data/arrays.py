"""Trees of named arrays: read-only, and known by their digest."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
        sha.update(little.data)
    return sha.hexdigest()
