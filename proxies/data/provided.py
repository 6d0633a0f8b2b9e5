"""Arrays of tasks that a process is given, instead of making or reading them itself.

Who starts a worker may hold the arrays already, in memory that the worker can map. What is given is taken as it is: it
comes from a process that has made it by the same code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from evolion.proxies.data.source import Split
from evolion.proxies.spec import TaskSpec

__all__ = ["Splits", "Supply", "data_key", "provide", "provided"]

Splits = Mapping[Split, Mapping[str, NDArray[Any]]]
"""The arrays of each split by field, read-only."""

Supply = Callable[[], Splits | None]
"""Gives the splits; None if they cannot be had, so that the process makes them itself."""

_supplies: dict[str, Supply] = {}


def data_key(spec: TaskSpec) -> str:
    """Return everything that decides the splits of a task, as JSON: tasks that share it share their arrays."""
    return json.dumps([spec.data, spec.steps, spec.batch_size, spec.label_noise])


def provide(supplies: Mapping[str, Supply]) -> None:
    """Give this process arrays by the `data_key` of tasks, beside those it was given before.

    A supply is called when a task needs it, at most once for each task.
    """
    _supplies.update(supplies)


def provided(spec: TaskSpec) -> Splits | None:
    """Return the splits that this process was given for a task, None without any."""
    supply = _supplies.get(data_key(spec))
    return None if supply is None else supply()
