"""Which jobs go to a worker together.

A message to a worker costs a millisecond or more where workers are remote, so that short jobs travel in batches. How
many make a batch follows how long jobs of their kind took; that decides when a score is there, never which it is.
"""

from collections import deque
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import final

from evolion.evaluators.shapes import JobKind, kind_of
from evolion.evaluators.types import Job

__all__ = ["Attempt", "JobQueue"]

_WEIGHT = 0.2


@dataclass(frozen=True, slots=True)
class Attempt:
    """A job on its way to a worker.

    Attributes:
        job: The job.
        kind: Its kind.
        alone: A worker died with it, perhaps of another job of the same batch: it shares no batch any more.
        deaths: How many workers have died while they had this job and no other.
        since: When it was queued for a worker that has done nothing else, `time.monotonic`.
        lost: How many machines were lost while a worker on them had it.

    """

    job: Job
    kind: JobKind
    alone: bool = False
    deaths: int = 0
    since: float = 0.0
    lost: int = 0


@final
class JobQueue:
    """Jobs that wait for a worker, first come, first served.

    `seconds`: how long a batch should take; `most`: how many jobs it may hold.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._waiting: deque[Attempt] = deque()
        self._suspects: deque[Attempt] = deque()
        self._estimates: dict[JobKind, float] = {}

    def __len__(self) -> int:
        """How many jobs any worker could take."""
        return len(self._waiting)

    @property
    def suspect_since(self) -> float | None:
        """Since when a job has been waiting for a worker that has done nothing else; None if none is."""
        return self._suspects[0].since if self._suspects else None

    def add(self, job: Job) -> None:
        """Take a job that is new."""
        self._waiting.append(Attempt(job, kind_of(job)))

    def give_back(self, attempts: Iterable[Attempt]) -> None:
        """Take jobs that a worker left unanswered. They are the oldest, so that others may wait for their scores."""
        for attempt in reversed(list(attempts)):
            (self._suspects if attempt.deaths else self._waiting).appendleft(attempt)

    def suspect(self, attempt: Attempt) -> None:
        """Take a job that seems to have killed a worker: it gets a fresh one, as nothing else can be the cause then."""
        self._suspects.append(attempt)

    def take_suspect(self) -> Attempt:
        """Hand out the oldest suspect."""
        return self._suspects.popleft()

    def take(self, known: Container[JobKind], workers: int) -> list[Attempt]:
        """Hand out a batch; there has to be a job.

        `known` are the kinds for which the worker is set up: the first job of another goes alone, as it takes an
        unknown time. Of `workers` that share the queue each takes its share of what is left and no more, so that all
        end at about the same time (guided self-scheduling, Polychronopoulos and Kuck 1987).
        """
        waiting = self._waiting
        most = min(self._most, -(-len(waiting) // max(1, workers)))
        batch = [waiting.popleft()]
        total = self._expected(batch[0], known)
        while total is not None and len(batch) < most:
            expected = self._expected(waiting[0], known)
            if expected is None or total + expected > self._seconds:
                break
            total += expected
            batch.append(waiting.popleft())
        return batch

    def measured(self, kind: JobKind, seconds: float) -> None:
        """Learn how long a job of a kind has kept a worker busy."""
        before = self._estimates.get(kind, seconds)
        self._estimates[kind] = before + _WEIGHT * (seconds - before)

    def expected(self, attempts: Iterable[Attempt]) -> float | None:
        """How long jobs will take one after the other, in seconds; None if nobody knows."""
        known = [self._estimates.get(attempt.kind) for attempt in attempts]
        return None if None in known else sum(seconds for seconds in known if seconds is not None)

    def clear(self) -> None:
        """Forget all jobs."""
        self._waiting.clear()
        self._suspects.clear()

    def _expected(self, attempt: Attempt, known: Container[JobKind]) -> float | None:
        """How long a job will take; None if nobody knows or if it is not to be with others."""
        if attempt.alone or attempt.kind not in known:
            return None
        return self._estimates.get(attempt.kind)
