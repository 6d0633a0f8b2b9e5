import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evolion.proxies.data import pools as module
from evolion.proxies.data.pools import pools
from evolion.proxies.data.source import SPLITS, Field, Info, Split, StoredSource
from evolion.proxies.registry import get_spec

SPEC = dataclasses.replace(get_spec("digits-mlp"), batch_size=2, steps=3)
COUNT = 3000
INFO = Info(
    {"inputs": Field("float32", (4,)), "targets": Field("int32", (), 10)}, dict.fromkeys(SPLITS, COUNT), "a digest"
)


class Counting:
    """Data of known size that is made at each look."""

    info = INFO

    def __init__(self) -> None:
        self.looks = 0

    def gather(self, split: Split, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        self.looks += 1
        return {"inputs": np.ones((len(indices), 4), np.float32), "targets": np.zeros(len(indices), np.int32)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOLION_DATA", str(tmp_path))


def test_processes_of_a_machine_share_large_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a task holds of a large source is mapped from the cache: a second process makes nothing and adds nothing."""
    monkeypatch.setattr(module, "KEPT_BYTES", 2**15)
    source = Counting()
    first, again = pools(source, SPEC), pools(source, SPEC)
    assert source.looks == len(SPLITS)
    assert all(isinstance(made[split]["inputs"], np.memmap) for made in (first, again) for split in SPLITS)
    assert all(np.array_equal(first[split][name], again[split][name]) for split in SPLITS for name in first[split])


def test_small_pools_stay_in_memory() -> None:
    """A file for a few kilobytes would cost more than it saves."""
    source = Counting()
    assert not isinstance(pools(source, SPEC)["train"]["inputs"], np.memmap)
    assert source.looks == len(SPLITS)


def test_stored_arrays_are_used_as_they_are() -> None:
    """A set that was added to the cache is mapped by every task, not copied into each process."""
    arrays = {split: Counting().gather(split, np.arange(COUNT)) for split in SPLITS}
    made = pools(StoredSource(INFO, arrays), SPEC)
    assert all(made[split][name] is arrays[split][name] for split in SPLITS for name in arrays[split])
