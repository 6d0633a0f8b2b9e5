"""What a pool makes of workers that cannot have the data of a task: how long it is patient with them."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import final

__all__ = ["DataLack"]

DATA_PATIENCE = 60.0
"""Seconds for which nobody may have the data of a task: a file system may be away."""
_FORGOTTEN = 300.0
"""Failures further apart than so many seconds have nothing to do with each other."""
_TIMES = 3
_LONGEST_PAUSE = 10.0
_LONGEST_ASIDE = 900.0


@dataclass(frozen=True, slots=True)
class _Failures:
    since: float
    last: float
    times: int = 0


@final
class DataLack:
    """Counts failures to have the data of tasks. Times are `time.monotonic`.

    With `places_differ` (a cluster) one place may lack what another has: a failure is fatal as long as nobody had the
    data of that task, and of one place alone after that.
    """

    def __init__(self, *, places_differ: bool) -> None:
        self._places_differ = places_differ
        self._had: set[str] = set()
        self._failures: dict[str, _Failures] = {}
        self._aside: Counter[str] = Counter()

    def had(self, task: str) -> None:
        """Note that a worker which had to have it has the data of a task."""
        self._had.add(task)
        self._failures.pop(task, None)

    def failed(self, task: str, now: float) -> float:
        """Note that a worker cannot have the data of a task.

        Returns:
            The seconds after which another one may try at the same place; infinite where there is no hope.

        """
        before = self._failures.get(task)
        if before is None or (not self._places_differ and now - before.last > _FORGOTTEN):
            before = _Failures(now, now)
        found = self._failures[task] = replace(before, last=now, times=before.times + 1)
        lasts = found.times >= _TIMES and now - found.since > DATA_PATIENCE
        if lasts and not (self._places_differ and task in self._had):
            return math.inf
        return min(_LONGEST_PAUSE, found.times * DATA_PATIENCE / 30)

    def aside(self, node: str) -> float:
        """Return for how many seconds a worker is set aside on a node that lacks data, longer each time."""
        self._aside[node] += 1
        return min(_LONGEST_ASIDE, DATA_PATIENCE / 4 * 2.0 ** min(self._aside[node] - 1, 10))
