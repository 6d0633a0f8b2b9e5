"""A job inside its limits, wherever the worker runs: computed on one thread while another watches what it takes.

Two guards hold the limit of memory, as neither sees everything. The kernel refuses data beyond it (RLIMIT_DATA): that
also stops what keeps the interpreter to itself, so that no thread could watch it. And a look at the resident size every
20 ms sees shared memory and mapped files too, and works where there is no such limit.

What a library makes of a refusal is not told by its type: jax has a ValueError for it. So a job that ends in any error
but MemoryError while data is limited runs a second time with the resident size alone watched; its error, if it is one
of its own, comes again.
"""

import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import final

from evolion.evaluators.memory import data_limit, peak_resident_bytes, resident_bytes, stop_growth
from evolion.evaluators.types import Job, Score
from evolion.evaluators.worker import Answer, EvaluateFunction, answer, crashed, describe

_INTERVAL = 0.02
_GRACE = 5.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job with its limits.

    Attributes:
        job: The job.
        memory: What it may take beyond what the worker holds when it begins, in bytes; None without limit.
        memory_set_up: What it may take in addition because it is the first of its kind here.
        refuse: Whether the system refuses data beyond the limit, besides the watch.
        seconds: After this time and a few seconds the worker ends by itself, in case the driver does not end it.

    """

    job: Job
    memory: int | None = None
    memory_set_up: int = 0
    refuse: bool = True
    seconds: float | None = None


@final
class Containment:
    """Runs jobs one by one."""

    def __init__(self, function: EvaluateFunction) -> None:
        self._function = function
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(int).result()  # Now, as a limit of data would count its stack.

    def run(self, assignment: Assignment) -> Answer:
        """Score a job. An answer that says `exhausted` is the last: the job may still run, and grow little more."""
        begun = time.perf_counter()
        _end_after(assignment.seconds)
        if assignment.memory is None:
            outcome: _Outcome = self._thread.submit(answer, self._function, assignment.job).result()
        else:
            outcome = self._within(assignment, assignment.memory + assignment.memory_set_up)
        _end_after(None)
        seconds, exhausted = time.perf_counter() - begun, outcome is None
        if exhausted:
            stop_growth()
            outcome = f"needed more than {(assignment.memory or 0) / 2**20:,.0f} MiB of memory"
        score = outcome if isinstance(outcome, Score) else crashed(str(outcome), seconds)
        return Answer(score, resident_bytes(), peak_resident_bytes(), exhausted)

    def _within(self, assignment: Assignment, budget: int) -> "_Outcome":
        outcome: _Outcome = ""
        for refuse in (True, False) if assignment.refuse else (False,):
            outcome = self._watched(assignment.job, budget if refuse else None, resident_bytes() + budget)
            if not isinstance(outcome, str):
                break
        return outcome

    def _watched(self, job: Job, data: int | None, resident: int) -> "_Outcome":
        try:
            with data_limit(data):
                future = self._thread.submit(self._attempt, job)
                while not wait([future], _INTERVAL).done:
                    if resident_bytes() > resident:
                        return None
        except MemoryError:
            return None  # The job has left nothing for the watch itself.
        return future.result()

    def _attempt(self, job: Job) -> "_Outcome":
        try:
            return self._function(job)
        except MemoryError:
            return None
        except (Exception, SystemExit) as error:
            return describe(error)


_Outcome = Score | str | None
"""A score, or what went wrong, or None for a job that took too much memory."""


def _end_after(seconds: float | None) -> None:
    """Have the system end this process by a signal, whatever it does by then; None calls it off."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, 0.0 if seconds is None else seconds + _GRACE)
