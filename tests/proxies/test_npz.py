"""Arrays of numpy.savez, and how stored sets are divided."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolion.proxies.data.source import SPLITS, DataError, DataMissing, Source
from evolion.proxies.data.splitting import LARGEST_VALIDATION, Part, record_digest, split_indices, stored_source
from evolion.proxies.data.uri import open_source


def keras(train: int = 400, test: int = 50) -> dict[str, Any]:
    bits = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for name, count in (("train", train), ("test", test)):
        made[f"x_{name}"] = bits.integers(0, 256, (count, 6, 5), dtype=np.uint8)
        made[f"y_{name}"] = (np.arange(count) % 10).astype(np.uint8)
    return made


def opened(path: Path, options: str = "", **arrays: Any) -> Source:
    open_source.cache_clear()
    if arrays:
        np.savez(path, **arrays)
    return open_source(f"npz:{path}{options}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "set.npz"


def test_the_layout_of_keras_is_the_default(path: Path) -> None:
    """`npz:mnist.npz` alone reads what Keras publishes: pixels with a channel, labels, its own test set."""
    source = opened(path, **keras())
    assert source.info.examples["test"] == 50
    assert sum(source.info.examples[split] or 0 for split in SPLITS) == 450
    batch = source.gather("train", np.arange(4))
    assert (batch["inputs"].dtype, batch["inputs"].shape) == (np.uint8, (4, 6, 5, 1))
    assert (batch["targets"].dtype, source.info.fields["targets"].classes) == (np.int32, 10)


def test_arrays_are_named_by_options(path: Path) -> None:
    """Any two arrays make a set; without a test set it is divided."""
    bits = np.random.default_rng(0)
    source = opened(path, "?x=features&y=price", features=bits.normal(size=(300, 7)), price=bits.normal(size=300))
    fields = source.info.fields
    assert (fields["inputs"].dtype, fields["inputs"].shape) == ("float32", (7,))
    assert (fields["targets"].dtype, fields["targets"].classes) == ("float32", None)
    assert sum(count or 0 for count in source.info.examples.values()) == 300


def test_tokens_share_a_vocabulary(path: Path) -> None:
    """Whole numbers other than pixels are tokens; the vocabulary counts inputs and targets."""
    tokens = np.random.default_rng(0).integers(0, 50, (300, 9))
    fields = opened(path, "?x=a&y=b", a=tokens[:, :-1], b=tokens[:, 1:]).info.fields
    assert fields["inputs"] == fields["targets"]
    assert (fields["inputs"].dtype, fields["inputs"].classes) == ("int32", 50)


def test_whole_numbers_beside_one_label_are_no_labels(path: Path) -> None:
    """Features that are whole numbers go beyond the number of classes: they are not held to it."""
    features = np.random.default_rng(0).integers(0, 500, (300, 9))
    fields = opened(path, "?x=a&y=b", a=features, b=np.arange(300) % 10).info.fields
    assert (fields["inputs"].dtype, fields["inputs"].classes, fields["targets"].classes) == ("int32", None, 10)


def test_the_path_may_start_at_home(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tilde is the user's home, as with all other files."""
    opened(path, **keras())
    monkeypatch.setenv("HOME", str(path.parent))
    assert open_source("npz:~/set.npz").info.examples["test"] == 50


@pytest.mark.parametrize(
    ("options", "shape"), [("", (6, 5, 1)), ("?channel=no", (6, 5)), ("?x_test=none&channel=no", (6, 5))]
)
def test_a_channel_is_added_unless_refused(options: str, shape: tuple[int, ...], path: Path) -> None:
    """Grey images get an axis of channels, sequences need not."""
    assert opened(path, options, **keras()).info.fields["inputs"].shape == shape


def test_labels_in_a_column_are_labels(path: Path) -> None:
    """Keras stores CIFAR's labels with shape (examples, 1)."""
    arrays = keras()
    source = opened(path, **(arrays | {name: arrays[name][:, None] for name in ("y_train", "y_test")}))
    assert source.info.fields["targets"].shape == ()


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


def changed(name: str, value: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda arrays: arrays | {name: value(arrays[name])}


def put(array: Any, place: Any, value: Any) -> Any:
    array[place] = value
    return array


BROKEN: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "missing array": ("", without("y_train"), "no array 'y_train', but x_test, x_train, y_test; name them"),
    "missing test": ("?y_test=labels", lambda a: a, "no array 'labels'"),
    "pickled objects": (
        "",
        changed("x_train", lambda x: x.astype(object)),
        "'x_train' cannot be read: it holds Python",
    ),
    "text": ("", changed("x_train", lambda x: x.astype(str)), "'x_train' is no array of numbers"),
    "unequal": ("", changed("y_train", lambda y: y[:-1]), "unequal numbers of examples: 400 inputs, 399 targets"),
    "empty": ("", lambda a: {k: v[:0] for k, v in a.items()}, "holds no examples"),
    "label out of range": (
        "?classes=10",
        changed("y_test", lambda y: put(y, 3, 10)),
        r"\(x_test, y_test\): the label of example 3 is 10, outside 0 to 9 \(1 of 50 are\)",
    ),
    "negative label": ("", changed("y_train", lambda y: put(y.astype(int), 9, -1)), "the label of example 9 is -1"),
    "test label unseen": ("", changed("y_test", lambda y: put(y, 0, 10)), "the label of example 0 is 10"),
    "a stray label": (
        "",
        changed("y_train", lambda y: put(y, 5, 77)),
        r"labels go up to 77 \(example 5\), yet only 11",
    ),
    "other shape": ("", changed("x_test", lambda x: x[:, 1:]), "inputs differ in shape or type"),
    "not finite": (
        "",
        lambda a: a | {k: put(a[k].astype(float), (2, 0, 0), np.nan) for k in ("x_train", "x_test")},
        "example 2 has inputs that are not finite",
    ),
    "too few": ("", lambda a: {k: v[:3] for k, v in a.items()}, "too few to divide"),
    "a scalar": ("", changed("x_train", lambda x: np.uint8(1)), "no array of numbers"),
    "whole numbers of over 32 bits": (
        "",
        changed("x_train", lambda x: put(x.astype(np.int64), (0, 0, 0), 2**32 + 5)),
        "'x_train' has whole numbers of over 32 bits",
    ),
    "a token outside the vocabulary": (
        "?classes=10&x_test=none",
        lambda a: {"x_train": np.full((300, 4), 12), "y_train": np.ones((300, 4), int)},
        "inputs: the label of example 0 is 12, outside 0 to 9",
    ),
    "unknown option": ("?z=1", lambda a: a, "npz has no option 'z'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_sets_are_named(name: str, path: Path) -> None:
    """Wrong arrays, labels or shapes are one line that names the file and the array."""
    options, change, complaint = BROKEN[name]
    with pytest.raises(DataError, match=complaint) as caught:
        opened(path, options, **change(keras()))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda old: b"", "ends too early"),
        (lambda old: old[: len(old) // 2], "no npz file, or ends too early"),
        (lambda old: b"hello", "no npz file"),
        (lambda old: old[:500] + b"\1\2\3" + old[503:], "damaged"),
    ],
)
def test_damaged_files_are_named(change: Callable[[bytes], bytes], complaint: str, path: Path) -> None:
    """So are files that are no archive, or end half-way, or whose checksum is wrong."""
    np.savez(path, **keras())
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=complaint) as caught:
        opened(path)
    assert str(path) in str(caught.value)


def test_missing_files_are_missing_data(path: Path) -> None:
    """A file that is not there is told from one that is damaged."""
    with pytest.raises(DataMissing, match=r"set\.npz: no such file or folder; name an npz file"):
        opened(path)
    with pytest.raises(DataError, match=r"it is a folder|no npz"):
        opened(path.parent)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=6), min_size=1, max_size=200), st.randoms(), st.booleans())
def test_the_split_depends_on_content_alone(records: list[bytes], random: Any, test_given: bool) -> None:
    """A record lands in the same split whatever stands around it and in whatever order; equal ones stay together."""
    shuffled = random.sample(records, len(records))
    homes = []
    for some in (records, shuffled, records[: len(records) // 2 + 1]):
        parts = split_indices([record_digest([record]) for record in some], test_given=test_given)
        assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(some)))
        homes.append({some[number]: split for split, numbers in parts.items() for number in numbers})
    assert homes[0] == homes[1]
    assert homes[2].items() <= homes[0].items()


def test_shares_are_those_stated() -> None:
    """80/10/10; where a test set is given 90/10, and validation takes 10,000 at most."""
    digests = [record_digest([number.to_bytes(4, "little")]) for number in range(120_000)]
    sizes = {split: len(numbers) for split, numbers in split_indices(digests[:20_000]).items()}
    # Pinned: stored scores are of this division.
    assert sizes == {"train": 15967, "validation": 1989, "test": 2044}
    capped = split_indices(digests, test_given=True)
    assert len(capped["validation"]) == LARGEST_VALIDATION
    assert len(capped["train"]) == 110_000


def test_a_test_set_sorted_by_class_is_mixed() -> None:
    """The first thousand of a split hold all of its classes, in whatever order its publisher put them."""
    labels = np.repeat(np.arange(10, dtype=np.int32), 300)
    inputs = np.arange(3000, dtype=np.float32)[:, None]
    part = Part("sorted", {"inputs": inputs, "targets": labels})
    source = stored_source({"train": part, "test": part}, classes=10)
    assert len(set(source.gather("test", np.arange(100))["targets"].tolist())) == 10
    assert len(set(source.gather("validation", np.arange(100))["targets"].tolist())) == 10
