"""A job inside its limits, wherever the worker runs: computed on one thread while another watches what it takes.

Two guards hold the limit of memory, as neither sees everything. The kernel refuses data beyond it (RLIMIT_DATA): that
also stops what keeps the interpreter to itself, so that no thread could watch it. And a look at the resident size every
20 ms sees shared memory and mapped files too, and works where there is no such limit. What does both, sharing memory
while it keeps the interpreter, is left to the limit of time.

What a library makes of a refusal is not told by its type: jax has a ValueError for it, Python's deque a SystemError. So
a job that ends in another error than MemoryError runs a second time, with twice the data allowed and no more in use: if
refusals were the cause it comes to use too much, if not, its error comes again.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import final

from evolion.evaluators.memory import data_limit, peak_resident_bytes, resident_bytes, stop_growth
from evolion.evaluators.types import Job, Score
from evolion.evaluators.worker import Answer, EvaluateFunction, crashed, describe

_INTERVAL = 0.02
_GRACE = 2.0
_RESOURCE_EXHAUSTED = 8


_Outcome = Score | str | None
"""A score, or what went wrong, or None for a job that took too much memory."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job with its limits.

    Attributes:
        job: The job.
        memory: What it may take beyond what the worker holds when it begins, in bytes; None without limit.
        memory_set_up: What it may take in addition because it is the first of its kind here.
        repeated: Whether a worker has died of it before: a library may end the process where it is refused memory.
        seconds: After this time and a few seconds the worker ends by itself, in case the driver does not end it.

    """

    job: Job
    memory: int | None = None
    memory_set_up: int = 0
    repeated: bool = False
    seconds: float | None = None


@final
class Containment:
    """Runs jobs one by one."""

    def __init__(self, function: EvaluateFunction) -> None:
        self._function = function
        # The driver of an accelerator reserves far more than it ever uses: there, only use counts.
        self._refuses = _computes_on_cpu()
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._outcomes: SimpleQueue[_Outcome] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="evolion job")
        self._thread.start()

    def run(self, assignment: Assignment) -> Answer:
        """Score a job. An answer that says `exhausted` is the last: the job may still run, and grow little more."""
        outcome: _Outcome
        begun = time.perf_counter()
        with _alarm(assignment.seconds):
            if assignment.memory is None:
                self._jobs.put(assignment.job)
                outcome = self._outcomes.get() or describe(MemoryError())
            else:
                outcome = self._within(assignment, assignment.memory + assignment.memory_set_up)
        seconds, exhausted = time.perf_counter() - begun, outcome is None
        if exhausted:
            stop_growth()
            outcome = f"needed more than {(assignment.memory or 0) / 2**20:,.0f} MiB of memory"
        score = outcome if isinstance(outcome, Score) else crashed(str(outcome), seconds)
        return Answer(score, resident_bytes(), peak_resident_bytes(), exhausted)

    def _within(self, assignment: Assignment, budget: int) -> _Outcome:
        outcome: _Outcome = ""
        for factor in (2,) if assignment.repeated else (1, 2):
            bound = resident_bytes() + budget
            known_peak = max(bound, peak_resident_bytes())
            outcome = self._watched(assignment.job, factor * budget, bound)
            if not isinstance(outcome, str):
                break
            if peak_resident_bytes() > known_peak:
                return None
        return outcome

    def _watched(self, job: Job, data: int, resident: int) -> _Outcome:
        try:
            with data_limit(data if self._refuses else None):
                self._jobs.put(job)
                while self._thread.is_alive():
                    try:
                        return self._outcomes.get(timeout=_INTERVAL)
                    except Empty:
                        if resident_bytes() > resident:
                            break
        except MemoryError:
            pass
        return None  # Too much is in use, or so little is left that this thread or the other could not go on.

    def _work(self) -> None:
        while True:
            self._outcomes.put(self._attempt(self._jobs.get()))

    def _attempt(self, job: Job) -> _Outcome:
        try:
            return self._function(job)
        except MemoryError:
            return None
        except BaseException as error:  # SystemExit would end this thread alone.
            return None if _refused(error) else describe(error)


def _refused(error: BaseException) -> bool:
    """Whether jax says by its code of errors (absl::StatusCode) that the CPU's memory was not enough."""
    jax = sys.modules.get("jax")
    if jax is None or not isinstance(error, jax.errors.JaxRuntimeError):
        return False
    return getattr(error, "error_code", None) == _RESOURCE_EXHAUSTED and _computes_on_cpu()


def _computes_on_cpu() -> bool:
    jax = sys.modules.get("jax")
    return jax is None or bool(jax.default_backend() == "cpu")


@contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Have the system end this process by a signal if the block takes longer, whatever it does by then."""
    if seconds is None or sys.platform == "win32":
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
