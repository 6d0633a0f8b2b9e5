"""What a worker of batches does: it trains all the jobs that it is handed together, on the device that it was given."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, final

from evolion.evaluators.batch.evaluator import BatchFunction, one_by_one
from evolion.evaluators.containment import Assignment, end_process_after
from evolion.evaluators.memory import peak_resident_bytes, resident_bytes
from evolion.evaluators.shapes import JobKind, kind_of
from evolion.evaluators.types import Job, Score
from evolion.evaluators.worker import Answer, Answers, crashed, describe
from evolion.proxies.data.source import DataError

if TYPE_CHECKING:
    from evolion.evaluators.batch.device import Device

__all__ = ["BatchContainment", "batch_numerics", "train_batch"]


@cache
def _device() -> Device:
    from evolion.evaluators.batch.device import device

    return device()


def train_batch(jobs: Sequence[Job]) -> list[Score]:
    """Score jobs together on jax's first device."""
    from evolion.evaluators.batch.evaluate import evaluate_jobs

    return evaluate_jobs(jobs, _device())


def batch_numerics() -> str:
    """Return the tag of what `train_batch` computes with."""
    return _device().numerics()


@final
class BatchContainment:
    """Runs the jobs of a batch together.

    If that fails, each is tried alone. The time that all of them may take together is held, by ending the process; that
    of each is not, as they run at the same time. Nor is a limit of memory: how many lanes a batch has is set by that of
    the device.
    """

    def __init__(self, function: BatchFunction) -> None:
        self._function = function
        self._kinds: set[JobKind] = set()

    def run_batch(self, assignments: Sequence[Assignment]) -> Iterator[Answers]:
        """Score jobs and give all answers in one."""
        jobs = [assignment.job for assignment in assignments]
        kinds = {kind_of(job) for job in jobs}
        set_up = not kinds <= self._kinds
        self._kinds |= kinds
        begun = time.perf_counter()
        try:
            with end_process_after(_seconds(assignments)):
                scores = one_by_one(self._function, self._alone, jobs)
        except DataError as error:
            reason, taken = describe(error), time.perf_counter() - begun
            yield Answers((Answer(crashed(reason, taken), resident_bytes(), unreadable=reason, seconds=taken),))
            return
        share = (time.perf_counter() - begun) / len(jobs)
        held, peak = resident_bytes(), peak_resident_bytes()
        yield Answers(tuple(Answer(score, held, peak, seconds=share, set_up=set_up) for score in scores))

    def _alone(self, job: Job) -> Score:
        (score,) = self._function([job])
        return score


def _seconds(assignments: Sequence[Assignment]) -> float | None:
    """Return what jobs may take one after the other, as they do where they fail together."""
    limits = [assignment.seconds for assignment in assignments if assignment.seconds is not None]
    return sum(limits) + assignments[0].set_up if limits else None
