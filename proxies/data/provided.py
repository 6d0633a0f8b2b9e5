"""Arrays of tasks that a process is given, instead of making or reading them itself.

Who starts a worker may hold the arrays already, in memory that the worker can map. What is given is taken as it is: it
comes from a process that has made it by the same code. What a process makes all the same has to be equal to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from evolion.proxies.data.arrays import digest
from evolion.proxies.data.source import DataError, Split
from evolion.proxies.spec import TaskSpec

__all__ = ["Splits", "Supply", "data_key", "fingerprint", "provide", "provided", "require_expected"]

Splits = Mapping[Split, Mapping[str, NDArray[Any]]]
"""The arrays of each split by field, read-only."""

Supply = Callable[[], Splits | None]
"""Gives the splits; None if they cannot be had, so that the process makes them itself."""

_supplies: dict[str, Supply] = {}
_fingerprints: dict[str, str] = {}

HASHED_BYTES = 256 * 2**20


def data_key(spec: TaskSpec) -> str:
    """Return everything that decides the splits of a task, as JSON: tasks that share it share their arrays."""
    return json.dumps([spec.data, spec.steps, spec.batch_size, spec.label_noise])


def provide(supplies: Mapping[str, Supply], fingerprints: Mapping[str, str] = MappingProxyType({})) -> None:
    """Give this process arrays by the `data_key` of tasks, beside those it was given before.

    A supply is called when a task needs it, at most once for each task. `fingerprints` are those that splits have to
    have which the process makes itself.
    """
    _supplies.update(supplies)
    _fingerprints.update(fingerprints)


def provided(spec: TaskSpec) -> Splits | None:
    """Return the splits that this process was given for a task, None without any."""
    supply = _supplies.get(data_key(spec))
    return None if supply is None else supply()


def fingerprint(splits: Splits, source: str) -> str:
    """Return what tells splits from others: a digest of every number, or for large ones `source`, that of the source.

    Large sets lie on disk and would have to be read from end to end.
    """
    size = sum(array.nbytes for batch in splits.values() for array in batch.values())
    return digest("", splits) if size <= HASHED_BYTES else source


def require_expected(spec: TaskSpec, found: Callable[[], str]) -> None:
    """Raise DataError if `found`, the fingerprint of splits made here, is another than this process was told of."""
    key = data_key(spec)
    if key in _fingerprints and found() != _fingerprints[key]:
        raise DataError(
            f"the data {spec.data!r} is not here what it is for the driver: have the same files, and the same versions "
            "of the packages that make it (NumPy, SciPy, scikit-learn, Pillow), on every machine"
        )
