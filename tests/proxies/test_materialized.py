"""Arrays that take long to make are kept in the cache."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached_sets import FAILURES, content, cut

from evolion.proxies.data.cache import entries, materialized


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVOLION_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def counted(value: int, calls: list[int]) -> Callable[[], dict[str, Any]]:
    def build() -> dict[str, Any]:
        calls.append(value)
        return {
            "a": np.full((1000, 70), value, np.float32),
            "b": np.empty((0, 3), np.int32),
            "c": np.int64(value)[None],
        }

    return build


def test_made_arrays_are_kept() -> None:
    """What takes long to make is made once for each key, and is the same when it is read."""
    calls: list[int] = []
    for key, value in (("x", 1), ("y", 2), ("x", 3)):
        made = materialized(key, counted(value, calls))
        expected = counted(value if value < 3 else 1, [])()
        assert made.keys() == expected.keys()
        for name, array in expected.items():
            assert made[name].dtype == array.dtype
            assert np.array_equal(made[name], array)
            assert not made[name].flags.writeable
        assert isinstance(made["a"], np.memmap)
    assert calls == [1, 2]
    assert entries() == ()


@pytest.mark.parametrize("damage", [cut, Path.unlink, lambda path: path.with_name("manifest.json").write_text("{")])
def test_damaged_arrays_are_made_again(damage: Callable[[Path], None], root: Path) -> None:
    """Nobody has to mend what can be made."""
    calls: list[int] = []
    materialized("x", counted(1, calls))
    damage(next(root.glob("generated/*/a.npy")))
    assert materialized("x", counted(1, calls))["a"].sum() == 70_000
    materialized("x", counted(1, calls))
    assert calls == [1, 1]
    assert len(list(root.glob("generated/*"))) == 1


@pytest.mark.parametrize("name", FAILURES)
def test_without_a_cache_arrays_are_made_in_memory(name: str, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that is full or read-only costs time, not the task; one warning says so."""
    with FAILURES[name][0](), caplog.at_level(logging.WARNING):
        made = materialized("x", counted(4, []))
    assert made["a"].sum() == 280_000
    assert len(caplog.records) == 1
    assert "EVOLION_DATA" in caplog.text
    assert content(root) == {}


def test_processes_that_make_the_same_keep_one(root: Path) -> None:
    """Whoever is first wins, and both go on with equal arrays."""
    calls: list[int] = []

    def slow() -> dict[str, Any]:
        materialized("x", counted(1, calls))  # as another process would, meanwhile
        return counted(1, calls)()

    assert materialized("x", slow)["a"].sum() == 70_000
    assert calls == [1, 1]
    assert len(list(root.glob("generated/*"))) == 1
