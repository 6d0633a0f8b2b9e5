"""The evaluator that needs no other process: it computes while the caller waits."""

from collections import deque
from typing import Self, final

from evolion.evaluators.environment import numerics_tag
from evolion.evaluators.memory import peak_resident_bytes, resident_bytes
from evolion.evaluators.types import Job, PoolStatus, Score
from evolion.evaluators.worker import EvaluateFunction, TagFunction, answer, default_function


@final
class InlineEvaluator:
    """Scores one job in each call of `collect`, in the order of submission.

    It has no limits: a job that hangs, takes all memory or kills its process takes the caller with it. `function`
    scores a job, `evaluate_job` unless given; `tag` says what it computes with.
    """

    def __init__(self, *, function: EvaluateFunction | None = None, tag: TagFunction = numerics_tag) -> None:
        self._function = function or default_function()
        self._tag = tag
        self._numerics: str | None = None
        self._pending: deque[Job] = deque()
        self._closed = False

    @property
    def numerics(self) -> str:
        """What computes the scores."""
        if self._numerics is None:
            self._numerics = self._tag()
        return self._numerics

    @property
    def workers(self) -> int:
        """One: the caller's process."""
        return 1

    @property
    def status(self) -> PoolStatus:
        """What the caller's process holds."""
        return PoolStatus(1, 1, 0, resident_bytes(), peak_resident_bytes())

    def submit(self, job: Job) -> None:
        """Take a job; it is computed in `collect`."""
        self._check_open()
        self._pending.append(job)

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        """Compute the oldest pending job. A job once begun is finished, whatever the timeout."""
        self._check_open()
        if not self._pending:
            return []
        job = self._pending.popleft()
        return [(job, answer(self._function, job))]

    def close(self) -> None:
        """Drop what is pending."""
        self._closed = True
        self._pending.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the evaluator is closed")
