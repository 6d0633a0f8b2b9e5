"""The evaluator that scores many jobs in each call, on one device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Self, final

from evolion.evaluators.memory import peak_resident_bytes, resident_bytes
from evolion.evaluators.types import EvaluatorUnavailable, Job, PoolStatus, Score
from evolion.evaluators.worker import EvaluateFunction, answer
from evolion.proxies.data.source import DataError

__all__ = ["BatchEvaluator", "BatchFunction", "one_by_one"]

BatchFunction = Callable[[Sequence[Job]], Sequence[Score]]
"""Scores jobs, in their order."""


@final
class BatchEvaluator:
    """Scores up to `batch` pending jobs in each call of `collect`, in the order of submission, in the caller's process.

    If a batch fails, for whatever reason, each of its jobs is tried alone, so that one job that raises costs the others
    nothing but their second run. It has no limits of time: a job that hangs or kills its process takes the caller with
    it. A lane of a batch cannot hang by itself, as every lane runs the same bounded loop.

    `function` scores jobs together, `evaluate_jobs` on jax's first device unless given; `alone` scores one, by
    `function` unless given; `tag` says what they compute with.
    """

    def __init__(
        self,
        *,
        batch: int = 256,
        function: BatchFunction | None = None,
        alone: EvaluateFunction | None = None,
        tag: Callable[[], str] | None = None,
    ) -> None:
        if batch < 1:
            raise ValueError(f"a batch must hold at least 1 job, not {batch}")
        if (function is None) != (tag is None):
            raise ValueError("a function of your own needs its tag, and a tag its function")
        self._batch = batch
        self._function, self._tag = (function, tag) if function and tag else _on_first_device()
        self._alone = alone or self._by_itself
        self._numerics: str | None = None
        self._pending: deque[Job] = deque()
        self._closed = False

    @property
    def numerics(self) -> str:
        """What computes the scores."""
        if self._numerics is None:
            self._numerics = self._tag()
        return self._numerics

    def numerics_of(self, device: str) -> str:
        """As `numerics`: all jobs are trained on one device."""
        return self.numerics

    @property
    def workers(self) -> int:
        """How many jobs are scored at a time: so many should be in flight."""
        return self._batch

    @property
    def status(self) -> PoolStatus:
        """What the caller's process holds."""
        return PoolStatus(1, 1, 0, resident_bytes(), peak_resident_bytes())

    def submit(self, job: Job) -> None:
        """Take a job; it is computed in `collect`."""
        self._check_open()
        self._pending.append(job)

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        """Score the oldest pending jobs together. A batch once begun is finished, whatever the timeout.

        Raises EvaluatorUnavailable if the data of a task cannot be had.
        """
        self._check_open()
        jobs = [self._pending.popleft() for _ in range(min(self._batch, len(self._pending)))]
        if not jobs:
            return []
        try:
            scores = one_by_one(self._function, self._alone, jobs)
        except DataError as error:
            self.close()
            raise EvaluatorUnavailable(f"the data of a task cannot be had: {error}") from error
        return list(zip(jobs, scores, strict=True))

    def close(self) -> None:
        """Drop what is pending."""
        self._closed = True
        self._pending.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _by_itself(self, job: Job) -> Score:
        (score,) = self._function([job])
        return score

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the evaluator is closed")


def one_by_one(function: BatchFunction, alone: EvaluateFunction, jobs: Sequence[Job]) -> list[Score]:
    """Score jobs together; if that raises, each alone, an exception then being a score with status crashed.

    Raises DataError if the data of a task cannot be had.
    """
    try:
        return list(function(jobs))
    except DataError:
        raise
    except (Exception, SystemExit):
        return [answer(alone, job) for job in jobs]


def _on_first_device() -> tuple[BatchFunction, Callable[[], str]]:
    from evolion.evaluators.batch.device import device
    from evolion.evaluators.batch.evaluate import evaluate_jobs

    used = device()
    return lambda jobs: evaluate_jobs(jobs, used), used.numerics
