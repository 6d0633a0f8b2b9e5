"""What the readers of stored sets share: how a set is divided, what its labels may be, how a bad file is reported."""

import gzip
import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.arrays import digest
from evolion.proxies.data.source import DataError, DataMissing, Field, Info, Split, StoredSource

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.1
LARGEST_VALIDATION = 10_000
"""The most examples that validation takes from a training set whose test set is given by its publisher."""

_UNIT = 2**64


def record_digest(parts: Iterable[bytes]) -> bytes:
    """SHA-256 of one record, 32 bytes: of each part (such as the bytes of an image, then its label) and its length."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little") + part)
    return sha.digest()


def digests_of(arrays: Mapping[str, NDArray[Any]]) -> list[bytes]:
    """The digest of each record of equally long arrays; fields in the order of their names."""
    columns = [np.ascontiguousarray(a, a.dtype.newbyteorder("<")) for _, a in sorted(arrays.items())]
    return [record_digest(column[i].tobytes() for column in columns) for i in range(len(columns[0]))]


def split_indices(digests: Sequence[bytes], *, test_given: bool = False) -> dict[Split, NDArray[np.int64]]:
    """The numbers of the records in each split, decided for each record by its digest alone.

    A tenth is for validation, a tenth for testing, the rest for training. Where the publisher gives a test set
    (`test_given`), nothing is taken for testing, and at most 10,000 for validation. Equal records are never divided.

    Training keeps the order of the records; the others are in the order of their digests, so that the first thousands
    of a set that is sorted by class hold all of its classes.
    """
    keys = np.array([int.from_bytes(key[:8], "big") for key in digests], np.uint64)
    order = np.argsort(keys, kind="stable")
    limit = np.uint64(int(VALIDATION_SHARE * _UNIT))
    if test_given:
        if len(keys) > LARGEST_VALIDATION:
            limit = min(limit, keys[order[LARGEST_VALIDATION]])
        return {"train": np.flatnonzero(keys >= limit), "validation": order[keys[order] < limit]}
    upper = np.uint64(int((VALIDATION_SHARE + TEST_SHARE) * _UNIT))
    return {
        "train": np.flatnonzero(keys >= upper),
        "validation": order[keys[order] < limit],
        "test": order[(keys[order] >= limit) & (keys[order] < upper)],
    }


def check_divided(name: str, examples: Mapping[Split, int]) -> None:
    """Raise DataError if a split is empty; `name` is the file or folder that the set comes from."""
    empty = [split for split, count in examples.items() if not count]
    if not empty:
        return
    total = sum(examples.values())
    raise DataError(
        f"{name}: {total} examples are too few to divide: none is left for {empty[0]}; give at least a hundred"
        if total
        else f"{name}: it holds no examples"
    )


@contextmanager
def reading(path: Path | str, mend: str = "check the path") -> Iterator[None]:
    """Turn what goes wrong while a file is read into one line that names it.

    Raises:
        DataMissing: If it is not there; the line ends with `mend`.
        DataError: If it may not be read, or a gzip, zip or tar file ends early or is damaged.

    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise DataMissing(f"{path}: no such file or folder; {mend}") from None
    except IsADirectoryError:
        raise DataError(f"{path}: it is a folder, not a file; {mend}") from None
    except PermissionError:
        raise DataError(f"{path}: it may not be read; change its permissions") from None
    except EOFError:
        raise DataError(f"{path}: it ends too early; copy or download it again") from None
    except (gzip.BadGzipFile, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: it is damaged ({error}); copy or download it again") from None
    except OSError as error:
        raise DataError(f"{path}: it cannot be read: {error.strerror or error}") from None


def class_count(name: str, labels: NDArray[Any]) -> int:
    """The number of classes of labels, shape (examples,), that nobody has stated: the largest and one.

    Raises:
        DataError: If one of the classes below never occurs: labels are wrong, or the number has to be stated.

    """
    if not len(labels):
        raise DataError(f"{name}: it holds no examples")
    counted = check_labels(name, labels, 2**31 - 1)
    seen, largest = len(np.unique(counted)), int(counted.max())
    if seen <= largest:
        raise DataError(
            f"{name}: labels go up to {largest} (example {int(np.argmax(counted))}), yet only {seen} different ones "
            "occur; mend the labels, or state their number: classes=N"
        )
    return largest + 1


def check_labels(name: str, labels: NDArray[Any], classes: int) -> NDArray[np.int32]:
    """Labels as int32.

    Raises:
        DataError: If they are no integers, or one is outside 0 … classes - 1; names the first of those and its number.

    """
    if labels.dtype.kind not in "iu":
        raise DataError(f"{name}: labels are {labels.dtype}, not whole numbers")
    wrong = (labels < 0) | (labels > classes - 1)
    if wrong.any():
        place = np.unravel_index(int(np.argmax(wrong)), labels.shape)
        raise DataError(
            f"{name}: the label of example {place[0]} is {labels[place]}, outside 0 to {classes - 1} "
            f"({int(wrong.sum())} of {labels.size} are)"
        )
    return labels.astype(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The arrays of one file, or of the files of one split.

    Attributes:
        name: What errors call it: the path of the file, or of the two files with "and" between.
        arrays: "inputs" and "targets": examples first. Images are uint8 of (examples, height, width, channels).

    """

    name: str
    arrays: Mapping[str, NDArray[Any]]


def stored_source(parts: Mapping[Split, Part], *, classes: int | None, note: str = "") -> StoredSource:
    """A source of arrays, in memory.

    `parts` are what the publisher has divided: "train" alone is divided 80/10/10; where "test" is there, validation is
    a tenth of "train", and all three stay as they are. `classes` is the number of classes of the targets; None for
    targets that are numbers.

    Raises:
        DataError: If a part is empty, its arrays differ in length or from the other parts in shape, or labels are out
            of range.

    """
    checked = {split: _checked(part, classes) for split, part in parts.items()}
    splits: dict[Split, Mapping[str, NDArray[Any]]] = dict(checked)
    train = checked["train"]
    for split, arrays in checked.items():
        for name, array in arrays.items():
            if name not in train or array.shape[1:] != train[name].shape[1:] or array.dtype != train[name].dtype:
                raise DataError(f"{parts[split].name}: {name} differ in shape or type from {parts['train'].name}")
    if "validation" not in parts:
        indices = split_indices(digests_of(train), test_given="test" in parts)
        for split, numbers in indices.items():
            splits[split] = {name: array[numbers] for name, array in train.items()}
        check_divided(parts["train"].name, {split: len(numbers) for split, numbers in indices.items()})
    if "test" in parts:
        # Its publisher may have sorted it by class, and an evaluation may take but the first thousands.
        order = np.array(sorted(range(len(digests := digests_of(checked["test"]))), key=digests.__getitem__))
        splits["test"] = {name: array[order] for name, array in checked["test"].items()}
    fields = {
        name: Field(str(array.dtype), array.shape[1:], classes if name == "targets" or _tokens(train) else None)
        for name, array in train.items()
    }
    examples = {split: len(next(iter(arrays.values()))) for split, arrays in splits.items()}
    return StoredSource(Info(fields, examples, digest("stored", splits), note=note), splits)


def _tokens(arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Whether inputs are tokens of the vocabulary of the targets: whole numbers but pixels, and targets are several.

    With one label for each example they are features, or tokens of a vocabulary of their own.
    """
    return arrays["inputs"].dtype == np.int32 and arrays["targets"].ndim > 1


def _checked(part: Part, classes: int | None) -> dict[str, NDArray[Any]]:
    arrays = dict(part.arrays)
    lengths = {name: len(array) for name, array in arrays.items()}
    if not all(lengths.values()):
        raise DataError(f"{part.name}: it holds no examples")
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise DataError(f"{part.name}: unequal numbers of examples: {counts}")
    if classes is not None:
        arrays["targets"] = check_labels(part.name, arrays["targets"], classes)
        if _tokens(arrays):
            check_labels(f"{part.name}, inputs", arrays["inputs"], classes)
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            first = int(np.argmax(~np.isfinite(array.reshape(len(array), -1)).all(axis=1)))
            raise DataError(f"{part.name}: example {first} has {name} that are not finite")
    return arrays
