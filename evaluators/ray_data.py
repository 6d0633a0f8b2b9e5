"""The arrays of tasks in Ray's object store: put there once by the driver, mapped by every worker of a node.

A node fetches what its workers ask for once, and they share it without a copy, read-only. Without this each worker
makes or reads its own. Nothing hangs on it: where the store has no room, or what was put there is lost, a worker makes
the arrays itself, and takes them if they are those of the driver.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evolion.evaluators.worker import describe
from evolion.proxies.data.provided import Splits, Supply, data_key, fingerprint, provide
from evolion.proxies.data.source import SPLITS, DataError

__all__ = ["Placed", "References", "place", "take"]


@dataclass(frozen=True, slots=True)
class Placed:
    """The arrays of a task.

    Attributes:
        fingerprint: What tells them from others, see `provided.fingerprint`.
        reference: To them in the object store; None where it had no room.

    """

    fingerprint: str
    reference: Any = None


References = Mapping[str, Placed]
"""The arrays of tasks by `provided.data_key`."""

SHARE = 0.6
"""Of the object store of the driver's node: beyond this Ray would begin to write objects to disk."""

FETCH_SECONDS = 60.0

_log = logging.getLogger(__name__)


def place(tasks: Iterable[str]) -> dict[str, Placed]:
    """Put the arrays of tasks into the object store, each once, as far as it has room; makes those that are not made.

    What finds no room, or cannot be made here, is left to the workers, with one line in the log. Needs a connection to
    Ray. The arrays stay in the store while the answer is kept.
    """
    import ray

    placed: dict[str, Placed] = {}
    left: dict[str, str] = {}
    room = SHARE * _object_store_bytes()
    for key, task in _by_data(tasks).items():
        try:
            splits = _splits(task)
            placed[key] = Placed(fingerprint(splits, _source(task)))
            size = sum(array.nbytes for split in splits.values() for array in split.values())
            if size > room:
                left[task] = f"{size / 2**20:,.0f} MiB, there is room for {max(room, 0) / 2**20:,.0f}"
                continue
            placed[key] = replace(placed[key], reference=ray.put(splits))
            room -= size
        except DataError as error:
            left[task] = str(error)
        except ray.exceptions.RayError as error:
            left[task] = describe(error)
    if left:
        said = "; ".join(f"{task}: {why}" for task, why in left.items())
        _log.warning("not in Ray's object store, so that each worker reads or makes it for itself: %s", said)
    return placed


def take(references: References) -> None:
    """In a worker: use what the driver has placed, fetched when a task needs it."""
    provide(
        {key: _supply(placed.reference) for key, placed in references.items() if placed.reference is not None},
        {key: placed.fingerprint for key, placed in references.items()},
    )


def _supply(reference: Any) -> Supply:
    def supply() -> Splits | None:
        import ray

        try:
            found: Splits = ray.get(reference, timeout=FETCH_SECONDS)
        except ray.exceptions.RayError as error:
            _log.warning("data is made anew, as it cannot be had from Ray's object store: %s", describe(error))
            return None
        return found

    return supply


def _by_data(tasks: Iterable[str]) -> dict[str, str]:
    """Return one of the tasks for each set of arrays."""
    from evolion.proxies.registry import get_spec

    found: dict[str, str] = {}
    for task in tasks:
        found.setdefault(data_key(get_spec(task)), task)
    return found


def _splits(name: str) -> Splits:
    from evolion.proxies.registry import get_task

    task = get_task(name)
    # Only what lies in one piece is shared: views with gaps would be copied by each worker, memory maps by some.
    return {split: {key: np.ascontiguousarray(array) for key, array in task.data(split).items()} for split in SPLITS}


def _source(name: str) -> str:
    from evolion.proxies.data.uri import open_source
    from evolion.proxies.registry import get_spec

    return open_source(get_spec(name).data).info.digest


def _object_store_bytes() -> float:
    """Return the size of the object store of the node that this process is on."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return next((node["Resources"].get("object_store_memory", 0.0) for node in nodes if node["NodeID"] == here), 0.0)
