"""Batch orders and digests."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolion.proxies.data.arrays import digest, freeze
from evolion.proxies.data.streams import batch_order

PINNED_ORDER = [[9, 2, 4, 7, 5], [0, 8, 6, 3, 1], [6, 8, 9, 4, 2]]


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_epochs_are_shuffles(examples: int, batch: int, steps: int, seed: int) -> None:
    """Within an epoch no example comes twice, and over whole epochs all come equally often."""
    flat = batch_order(examples, batch, steps, seed).ravel()
    for start in range(0, len(flat), examples):
        epoch = flat[start : start + examples]
        assert len(set(epoch.tolist())) == len(epoch)
        assert set(epoch.tolist()) <= set(range(examples))


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 30), st.integers(1, 30))
def test_a_longer_order_starts_with_the_shorter(examples: int, batch: int, steps: int, more: int) -> None:
    """A longer horizon sees the same batches first."""
    assert np.array_equal(batch_order(examples, batch, steps + more, 5)[:steps], batch_order(examples, batch, steps, 5))


def test_order_is_pinned() -> None:
    """The stream of PCG64 and the way it is used never change: stored scores would lose their meaning."""
    assert batch_order(10, 5, 3, 0).tolist() == PINNED_ORDER


def test_empty_training_is_refused() -> None:
    """Zero steps are an error at once, not an empty run."""
    with pytest.raises(ValueError, match="steps is 0"):
        batch_order(10, 2, 0, 0)


def test_digest_sees_every_part() -> None:
    """Description, names, shapes, types and values all count; memory layout and key order do not."""
    base = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": {"c": np.zeros(2, np.float32)}}
    variants = [
        ("other", base),
        ("text", {**base, "a": base["a"].reshape(3, 2)}),
        ("text", {**base, "a": base["a"].astype(np.int64)}),
        ("text", {**base, "a": base["a"] + np.int32(1)}),
        ("text", {"a": base["a"], "d": base["b"]}),
    ]
    digests = {digest(text, tree) for text, tree in [("text", base), *variants]}
    assert len(digests) == len(variants) + 1
    same = {"b": base["b"], "a": np.asfortranarray(base["a"]).astype(">i4")}
    assert digest("text", same) == digest("text", base)


def test_frozen_arrays_cannot_be_changed() -> None:
    """Writing into cached data raises where it happens."""
    tree = freeze({"a": np.zeros(2)})
    with pytest.raises(ValueError, match="read-only"):
        tree["a"][0] = 1
