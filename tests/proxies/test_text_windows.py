"""Windows of text."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolion.proxies.data.source import SPLITS, DataError, Source
from evolion.proxies.data.text_windows import document_windows, windows


def of(*parts: Any, context: int = 4, vocabulary: int = 256) -> Source:
    arrays = [np.asarray(part, np.uint16) for part in parts]
    return windows(dict.fromkeys(SPLITS, arrays), context, name="text", vocabulary=vocabulary)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 7))
def test_windows_tile_each_part(lengths: list[int], context: int) -> None:
    """Windows follow one another without overlap, targets are inputs one later, and none crosses two parts."""
    parts = [np.arange(length) + 1000 * place for place, length in enumerate(lengths)]
    expected = [
        part[start : start + context + 1] for part in parts for start in range(0, len(part) - context, context + 1)
    ]
    if not expected:
        with pytest.raises(DataError, match="too little text"):
            of(*parts, context=context, vocabulary=9999)
        return
    source = of(*parts, context=context, vocabulary=9999)
    assert source.info.examples["train"] == len(expected)
    order = np.arange(len(expected))[::-1]
    batch = source.gather("train", order)
    assert batch["inputs"].dtype == batch["targets"].dtype == np.int32
    assert np.array_equal(batch["inputs"], np.stack(expected)[order][:, :-1])
    assert np.array_equal(batch["targets"], np.stack(expected)[order][:, 1:])


def test_info_says_what_is_gathered() -> None:
    """Fields, classes and counts describe the arrays; no examples at all are arrays of no rows."""
    source = of(np.arange(11), vocabulary=300)
    assert {field.shape for field in source.info.fields.values()} == {(4,)}
    assert {field.classes for field in source.info.fields.values()} == {300}
    assert source.info.examples == {"train": 2, "validation": 2, "test": 2}
    assert source.gather("test", np.array([], np.int64))["inputs"].shape == (0, 4)


def test_numbers_outside_are_refused() -> None:
    """A number that the split does not have is an error that names it, never another window."""
    source = of(np.arange(11))
    with pytest.raises(IndexError, match="0 to 1, asked for 2"):
        source.gather("train", np.array([0, 2]))
    with pytest.raises(IndexError, match="asked for -1"):
        source.gather("train", np.array([-1]))


def test_too_little_text_says_how_much_is_needed() -> None:
    """The error tells what there is, what one window takes, and what to do."""
    with pytest.raises(DataError, match=r"train split has 4 bytes, one window of context 4 takes 5; give more"):
        of(np.arange(4))
    with pytest.raises(DataError, match=r"validation split has 0 tokens"):
        windows({"train": [np.arange(9, dtype=np.uint8)]}, 4, name="text", vocabulary=10)


def test_digest_follows_text_and_context() -> None:
    """Another token, another context or another cut into parts is other data; the same is the same."""
    base = of(np.arange(20))
    others = [of(np.arange(20)[::-1]), of(np.arange(20), context=3), of(np.arange(10), np.arange(10, 20))]
    assert len({source.info.digest for source in [base, *others]}) == 4
    assert of(np.arange(20)).info.digest == base.info.digest


def test_documents_are_kept_whole_and_apart() -> None:
    """A document lies in one split, wherever it stands among the others, and ends with a zero byte."""
    documents = [f"document {number}".encode() for number in range(200)]

    def texts(order: list[bytes]) -> dict[str, set[bytes]]:
        source = document_windows("text", order, ["train"] * len(order), 1)
        found = {}
        for split in SPLITS:
            count = source.info.examples[split]
            assert count is not None
            batch = source.gather(split, np.arange(count))
            run = np.stack([batch["inputs"], batch["targets"]], axis=-1).astype(np.uint8).tobytes()
            found[split] = set(run.split(b"\0")[:-1])
        return found

    first = texts(documents)
    assert sum(len(part) for part in first.values()) >= 198  # a window cut short may lose a last one
    assert set().union(*first.values()) <= set(documents)
    assert texts(documents[::-1])["validation"] == first["validation"]


def test_documents_of_training_alone_are_needed() -> None:
    """Text that is published for testing is never trained on."""
    with pytest.raises(DataError, match=r"text: its files are for test by their names; give those for training"):
        document_windows("text", [b"some text"], ["test"], 2)
