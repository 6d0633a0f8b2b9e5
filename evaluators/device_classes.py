"""One evaluator over workers of several classes, each job going to the class that it names.

Which class trains a job is said by the job alone, never by who is free: so a score comes from the same kind of device
whatever the number of workers, and a run gives the same result.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import fields
from typing import Self, final

from evolion.evaluators.types import Evaluator, Job, PoolStatus, Score

__all__ = ["DeviceClasses"]

_SHORTEST, _LONGEST = 0.001, 0.032
"""Seconds: how long one class is waited for while others have jobs in flight as well."""
_TEND = 1.0
"""Seconds between two looks at a class that has been used and has nothing in flight: its workers come and go too."""


@final
class DeviceClasses:
    """An `Evaluator` over one evaluator for each class of workers, by its name; "" is the default class.

    They are closed with it, and then `release` is called. One that computes in the calling process holds up the others
    while it does.
    """

    def __init__(self, classes: Mapping[str, Evaluator], release: Callable[[], None] = lambda: None) -> None:
        if "" not in classes:
            raise ValueError("several classes of workers need a default one, named ''")
        self._classes = dict(classes)
        self._release = release
        self._in_flight: Counter[str] = Counter()
        self._tended = time.monotonic()
        self._closed = False

    @property
    def numerics(self) -> str:
        """What computes the scores of the default class; waits for its first worker."""
        return self.numerics_of("")

    def numerics_of(self, device: str) -> str:
        """What computes the scores of a class; waits for its first worker."""
        return self._of(device).numerics

    @property
    def workers(self) -> int:
        """How many jobs run at a time, over all classes."""
        return sum(one.workers for one in self._classes.values())

    @property
    def status(self) -> PoolStatus:
        """What the workers of all classes do and hold."""
        return _together({device: one.status for device, one in self._classes.items()})

    def submit(self, job: Job) -> None:
        """Hand a job to the class that it names."""
        self._check_open()
        self._of(job.device).submit(job)
        self._in_flight[job.device] += 1

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        """Wait for at least one finished job of any class, see `Evaluator.collect`."""
        self._check_open()
        end = None if timeout is None else time.monotonic() + timeout
        for slice_ in _slices():
            waiting = [device for device, count in self._in_flight.items() if count]
            # What is alone is waited for in one go; of several, each has its share of every round.
            alone = _TEND if self._tend() else None
            longest = alone if len(waiting) == 1 else slice_ / max(1, len(waiting))
            finished: list[tuple[Job, Score]] = []
            for device in waiting:
                finished += self._taken(device, 0.0 if finished else _within(longest, end))
            if finished or not waiting or (end is not None and time.monotonic() >= end):
                break
            if end is None and longest is None:
                break  # It was waited for without end: it has given up.
        return finished

    def close(self) -> None:
        """Close all classes."""
        if self._closed:
            return
        self._closed = True
        self._in_flight.clear()
        with ExitStack() as stack:  # One that fails to close leaves no other open.
            stack.callback(self._release)
            for one in self._classes.values():
                stack.callback(one.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tend(self) -> bool:
        """Let classes that have nothing in flight look after their workers, now and then; whether there are any."""
        idle = [device for device, count in self._in_flight.items() if not count]
        if idle and time.monotonic() >= self._tended + _TEND:
            for device in idle:
                self._classes[device].collect(0.0)
            self._tended = time.monotonic()
        return bool(idle)

    def _taken(self, device: str, seconds: float | None) -> list[tuple[Job, Score]]:
        finished = self._classes[device].collect(seconds)
        self._in_flight[device] -= len(finished)
        return finished

    def _of(self, device: str) -> Evaluator:
        if device not in self._classes:
            known = ", ".join(repr(name) for name in self._classes)
            raise ValueError(f"no workers of class {device!r}: there are {known}")
        return self._classes[device]

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the evaluator is closed")


def _slices() -> Iterator[float]:
    seconds = _SHORTEST
    while True:
        yield seconds
        seconds = min(2 * seconds, _LONGEST)


def _within(seconds: float | None, end: float | None) -> float | None:
    """Return how long to wait: no longer than `seconds`, and not beyond `end`."""
    if end is None:
        return seconds
    left = max(0.0, end - time.monotonic())
    return left if seconds is None else min(seconds, left)


def _together(statuses: Mapping[str, PoolStatus]) -> PoolStatus:
    """Return the sum of what classes say; texts are joined, each with the name of its class."""
    total: dict[str, int | str] = {}
    for name in (field.name for field in fields(PoolStatus)):
        said = {device: getattr(status, name) for device, status in statuses.items()}
        if any(isinstance(value, str) for value in said.values()):
            total[name] = "; ".join(f"{device}: {text}" if device else text for device, text in said.items() if text)
        else:
            total[name] = (max if name.startswith("peak_") else sum)(said.values())
    return PoolStatus(**total)  # type: ignore[arg-type]
