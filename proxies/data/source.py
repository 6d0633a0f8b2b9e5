"""The one interface of all data: a source gives examples by number, as NumPy arrays."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.streams import raw_stream

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

BLOCK = 4096


class DataError(ValueError):
    """Data that cannot be used. One line says which file or URI, what is wrong with it, and what to do."""


class DataMissing(DataError):
    """Data that is not on this machine: a task that needs it is left out, and tables say so."""


@dataclass(frozen=True, slots=True)
class Field:
    """One named array of a source, without its axis of examples.

    Attributes:
        dtype: NumPy's name of the type: "float32", "uint8", "int32".
        shape: The shape of one example.
        classes: The number of classes, where the values are labels or tokens 0 … classes - 1; else None.

    """

    dtype: str
    shape: tuple[int, ...]
    classes: int | None = None


@dataclass(frozen=True, slots=True)
class Info:
    """What a source holds.

    Attributes:
        fields: By name; those of supervised data are "inputs" and "targets".
        examples: How many there are in each split; None where they never run out.
        digest: SHA-256 (hexadecimal): of the recipe of generated data, of the content of stored data.
        floor: The least expected loss that any model can reach on it, in the units of the loss it is made for.
        note: Where it comes from, its licence.

    """

    fields: Mapping[str, Field]
    examples: Mapping[Split, int | None]
    digest: str
    floor: float | None = None
    note: str = ""


class Source(Protocol):
    """Examples by number: any of them, in any order, equal in every process and on every machine."""

    @property
    def info(self) -> Info:
        """What the source holds; cheap."""
        ...

    def gather(self, split: Split, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The examples of these numbers: an array for each field with one leading axis of examples.

        Raises IndexError for a number that the split does not have, DataError for a file that cannot be read.
        """
        ...


Generate = Callable[[np.random.PCG64, int], Mapping[str, NDArray[Any]]]
"""(random bits, number of examples) to the fields of that many examples."""


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedSource:
    """Examples without end: those of a block of 4,096 are drawn at once from a stream of its own.

    `stream` is the number of this kind of data, different for each; every split has its own blocks.
    """

    info: Info
    stream: int
    generate: Generate

    def gather(self, split: Split, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The examples of these numbers, of which all from 0 exist."""
        indices = np.asarray(indices, np.int64)
        if indices.size and indices.min() < 0:
            raise IndexError(f"there is no example {indices.min()}: numbers start at 0")
        blocks, places = np.unique(indices // BLOCK, return_inverse=True)
        drawn = [_block(self.generate, self.stream, SPLITS.index(split), int(block)) for block in blocks]
        return {
            name: np.concatenate([block[name] for block in drawn])[places * BLOCK + indices % BLOCK]
            if drawn
            else np.empty((0, *field.shape), field.dtype)
            for name, field in self.info.fields.items()
        }


@lru_cache(maxsize=2)
def _block(generate: Generate, stream: int, split: int, block: int) -> Mapping[str, NDArray[Any]]:
    return generate(raw_stream(stream, split, block), BLOCK)


@dataclass(frozen=True, slots=True, eq=False)
class StoredSource:
    """Examples that are there: arrays in memory or memory-mapped, one tree for each split."""

    info: Info
    arrays: Mapping[Split, Mapping[str, NDArray[Any]]]

    def gather(self, split: Split, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The examples of these numbers."""
        indices = np.asarray(indices, np.int64)
        count = self.info.examples[split]
        if indices.size and not 0 <= indices.min() <= indices.max() < (count or 0):
            raise IndexError(f"split {split!r} has the examples 0 to {(count or 0) - 1}, asked for {indices.max()}")
        return {name: np.asarray(array[indices]) for name, array in self.arrays[split].items()}
