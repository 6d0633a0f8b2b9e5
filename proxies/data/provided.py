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

__all__ = ["Splits", "Supply", "data_key", "provide", "provided", "require_expected"]

Splits = Mapping[Split, Mapping[str, NDArray[Any]]]
"""The arrays of each split by field, read-only."""

Supply = Callable[[], Splits | None]
"""Gives the splits; None if they cannot be had, so that the process makes them itself."""

_supplies: dict[str, Supply] = {}
_digests: dict[str, str] = {}


def data_key(spec: TaskSpec) -> str:
    """Return everything that decides the splits of a task, as JSON: tasks that share it share their arrays."""
    return json.dumps([spec.data, spec.steps, spec.batch_size, spec.label_noise])


def provide(supplies: Mapping[str, Supply], digests: Mapping[str, str] = MappingProxyType({})) -> None:
    """Give this process arrays by the `data_key` of tasks, beside those it was given before.

    A supply is called when a task needs it, at most once for each task. `digests` has `arrays.digest` of key and
    splits, by key, for what the process makes itself.
    """
    _supplies.update(supplies)
    _digests.update(digests)


def provided(spec: TaskSpec) -> Splits | None:
    """Return the splits that this process was given for a task, None without any."""
    supply = _supplies.get(data_key(spec))
    return None if supply is None else supply()


def require_expected(spec: TaskSpec, splits: Splits) -> None:
    """Raise DataError if splits that this process has made are others than it was told to expect."""
    key = data_key(spec)
    if key in _digests and digest(key, splits) != _digests[key]:
        raise DataError(
            f"the data {spec.data!r} is not here what it is for the driver: have the same files, and the same versions "
            "of NumPy, SciPy and scikit-learn, on every machine"
        )
