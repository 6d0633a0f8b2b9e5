"""Associative recall."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolion.proxies.data.arrays import digest
from evolion.proxies.data.recall import NOT_ASKED
from evolion.proxies.data.source import SPLITS, DataError
from evolion.proxies.data.uri import open_source


@given(st.integers(1, 6), st.integers(0, 5), st.integers(2, 5), st.data())
@settings(max_examples=25, deadline=None)
def test_answers_are_the_values_of_their_keys(pairs: int, more: int, values: int, data: st.DataObject) -> None:
    """Each target is the value that came with the key above it; nothing else is asked, and keys differ."""
    queries = data.draw(st.integers(1, pairs))
    keys = pairs + more
    source = open_source(f"recall:?pairs={pairs}&keys={keys}&values={values}&queries={queries}")
    batch = source.gather("train", np.arange(20))
    assert batch["inputs"].shape == batch["targets"].shape == (20, *source.info.fields["inputs"].shape)
    for inputs, targets in zip(batch["inputs"], batch["targets"], strict=True):
        told = dict(zip(inputs[: 2 * pairs : 2].tolist(), inputs[1 : 2 * pairs : 2].tolist(), strict=True))
        assert len(told) == pairs
        assert max(told) < keys <= min(told.values())
        asked = np.flatnonzero(targets != NOT_ASKED)
        assert asked.tolist() == list(range(2 * pairs, len(inputs), 2))
        assert [told[key] for key in inputs[asked].tolist()] == targets[asked].tolist()
        assert len(set(inputs[asked].tolist())) == queries
        # An answer is read on, but for the last, which nothing follows.
        assert inputs[asked[:-1] + 1].tolist() == targets[asked[:-1]].tolist()


@pytest.mark.parametrize("options", ["pairs=4&keys=3", "pairs=2&queries=3"])
def test_impossible_questions_are_refused(options: str) -> None:
    """More pairs than keys, or queries than pairs, is one clear error."""
    with pytest.raises(DataError, match="no more queries than pairs"):
        open_source(f"recall:?{options}")


DATA_DIGEST = "0d496791f507840405f044aefacf7974b0d6059060a604cbac47aac4d3ecff27"


def test_data_is_pinned() -> None:
    """Everybody trains on the same sequences: the digest never changes."""
    source = open_source("recall:?pairs=6&keys=16&values=16")
    assert source.info.floor == 0
    assert digest("recall", {split: source.gather(split, np.arange(64)) for split in SPLITS}) == DATA_DIGEST
