"""Files by pattern, and how a set is divided whose files or folders are named after splits."""

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.source import DataError, DataMissing, Split
from evolion.proxies.data.splitting import split_indices

NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}
"""What publishers call the splits."""

MOST_FILES = 10**6


def files_of(pattern: str, inside: str = "*") -> list[Path]:
    """The files of a pattern with `*`, `?`, `{000..127}` and `{a,b}`, in the order of their names.

    The path of a folder stands for the files in it whose names match `inside`.

    Raises:
        DataMissing: If nothing matches, be it only one of the numbers of a range.
        DataError: For a range of over a million.

    """
    if Path(pattern).is_dir():
        pattern = f"{glob.escape(pattern)}/{inside}"
    elif Path(pattern).is_file():
        return [Path(pattern)]
    found: set[Path] = set()
    for count, each in enumerate(_expanded(pattern)):
        if count == MOST_FILES:
            raise DataError(f"{pattern}: this names over {MOST_FILES} files; write a smaller range")
        matches = [Path(match) for match in glob.glob(each) if not Path(match).is_dir()]
        if not matches:
            raise DataMissing(f"{each}: no such file; check the path")
        found.update(matches)
    return sorted(found)


_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,12})\.\.(\d{1,12})", re.ASCII)


def _expanded(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if not match:
        yield pattern
        return
    numbers = _RANGE.fullmatch(match[1])
    if numbers:
        width = len(numbers[1])
        choices: Iterator[str] = (f"{n:0{width}d}" for n in range(int(numbers[1]), int(numbers[2]) + 1))
        if int(numbers[2]) < int(numbers[1]):
            raise DataError(f"{pattern}: the range {match[0]} is empty; write the smaller number first")
    else:
        choices = iter(match[1].split(","))
    for choice in choices:
        yield from _expanded(pattern[: match.start()] + choice + pattern[match.end() :])


def split_named(name: str) -> Split:
    """The split that the name of a file or folder speaks of (`c4-validation.00000.json.gz`); else training."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((NAMES[word] for word in words if word in NAMES), "train")


def divide(name: str, digests: Sequence[bytes], named: Sequence[Split]) -> dict[Split, NDArray[np.int64]]:
    """The numbers of the records in each split, by the split each is published in and by its digest.

    Published splits stay as they are. Where only training is published it is divided 80/10/10; where training and test
    are, validation is a tenth of training; where training and validation are, half of validation is for testing.
    Equal records of one published split are never divided.

    Args:
        name: The file, folder or pattern that errors speak of.
        digests: Of the records, 32 bytes each.
        named: The published split of each record.

    Raises:
        DataError: If there are records for validation or testing alone.

    """
    codes = np.array([("train", "validation", "test").index(split) for split in named], np.int8)
    train, validation, test = (np.flatnonzero(codes == code) for code in range(3))
    if len(codes) and not len(train):
        kind = "validation" if len(validation) else "test"
        raise DataError(f"{name}: its files are for {kind} by their names; give those for training as well")

    def by_digest(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        # Publishers may sort by class, and an evaluation may take but the first thousands.
        return np.array(sorted(numbers.tolist(), key=digests.__getitem__), np.int64)

    if not len(validation):
        parts = split_indices([digests[number] for number in train.tolist()], test_given=bool(len(test)))
        return {split: train[numbers] for split, numbers in parts.items()} | (
            {"test": by_digest(test)} if len(test) else {}
        )
    if not len(test):
        odd = np.array([bool(digests[number][8] & 1) for number in validation.tolist()])
        validation, test = validation[~odd], validation[odd]
    return {"train": train, "validation": by_digest(validation), "test": by_digest(test)}
