"""Text as examples: token arrays cut into windows that do not overlap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.arrays import digest
from evolion.proxies.data.file_splits import divide
from evolion.proxies.data.source import SPLITS, DataError, Field, Info, Source, Split
from evolion.proxies.data.splitting import record_digest

BYTES = 256
"""The vocabulary of text as bytes."""

END_OF_DOCUMENT = b"\0"


def document_windows(name: str, documents: Sequence[bytes], named: Sequence[Split], context: int) -> Source:
    """Windows of bytes; whole documents are assigned to splits, equal ones to the same.

    Args:
        name: The file, folder or pattern that errors speak of.
        documents: UTF-8; a zero byte is put after each.
        named: The split that each is published in.
        context: The length of an example.

    Raises:
        DataError: If a split has too little text for one window, or training is missing.

    """
    places = divide(name, [record_digest([document]) for document in documents], named)
    text = {
        split: b"".join(documents[number] + END_OF_DOCUMENT for number in numbers) for split, numbers in places.items()
    }
    return windows({split: [np.frombuffer(run, np.uint8)] for split, run in text.items()}, context, name=name)


def windows(
    tokens: Mapping[Split, Sequence[NDArray[Any]]],
    context: int,
    *,
    name: str,
    vocabulary: int = BYTES,
    note: str = "",
) -> Source:
    """Tokens (inputs) and the tokens that follow them (targets), int32 of shape (context,).

    Window i of an array holds its tokens from i * (context + 1) on; no window reaches across two arrays. Nothing is
    copied before it is gathered, so that the arrays may be memory-mapped files.

    Args:
        tokens: The arrays of each split, in order: unsigned integers below `vocabulary`, shape (tokens,).
        context: The length of an example.
        name: The file or URI that errors speak of.
        vocabulary: The number of tokens there may be.
        note: Where the text comes from, its licence.

    Raises:
        DataError: If a split has too little text for one window.

    """
    tables = {split: tuple(_table(part, context) for part in tokens.get(split, ())) for split in SPLITS}
    counts = {split: sum(len(table) for table in tables[split]) for split in SPLITS}
    unit = "bytes" if vocabulary == BYTES else "tokens"
    for split in SPLITS:
        if not counts[split]:
            total = sum(len(part) for part in tokens.get(split, ()))
            raise DataError(
                f"{name}: too little text: the {split} split has {total} {unit}, one window of context {context} "
                f"takes {context + 1}; give more text or a smaller context"
            )
    field = Field("int32", (context,), vocabulary)
    named = {split: {f"{place:06d}": part for place, part in enumerate(tokens[split])} for split in SPLITS}
    return _Windows(
        Info(
            fields={"inputs": field, "targets": field},
            examples=counts,
            digest=digest(f"windows {context} {vocabulary}", named),
            note=note,
        ),
        tables,
    )


def _table(part: NDArray[Any], context: int) -> NDArray[Any]:
    rows = len(part) // (context + 1)
    return part[: rows * (context + 1)].reshape(rows, context + 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Windows:
    info: Info
    tables: Mapping[Split, tuple[NDArray[Any], ...]]

    def gather(self, split: Split, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The windows of these numbers."""
        indices = np.asarray(indices, np.int64)
        count = self.info.examples[split] or 0
        if indices.size and not 0 <= indices.min() <= indices.max() < count:
            wrong = indices.min() if indices.min() < 0 else indices.max()
            raise IndexError(f"split {split!r} has the examples 0 to {count - 1}, asked for {wrong}")
        tables = self.tables[split]
        starts = np.cumsum([0, *(len(table) for table in tables)])
        owner = np.searchsorted(starts, indices, side="right") - 1
        rows = np.empty((len(indices), self.info.fields["inputs"].shape[0] + 1), np.int32)
        for part in np.unique(owner):
            here = owner == part
            rows[here] = tables[part][indices[here] - starts[part]]
        return {"inputs": rows[:, :-1], "targets": rows[:, 1:]}
