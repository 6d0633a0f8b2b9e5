"""A job inside its limits, wherever the worker runs: computed on one thread while another watches what it takes.

The limit of time has two guards as well: the watching thread, which can still tell which job it was, and for a job that
keeps the interpreter to itself a signal of the system (SIGALRM) that ends the process a little later.

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from queue import Empty, SimpleQueue
from typing import final

from evolion.evaluators.memory import data_limit, peak_resident_bytes, resident_bytes, stop_growth
from evolion.evaluators.shapes import Shape, shape_of
from evolion.evaluators.types import Job, Score
from evolion.evaluators.worker import Answer, Answers, EvaluateFunction, crashed, describe
from evolion.proxies.data.source import DataError

_INTERVAL = 0.02
_GRACE = 2.0
_RESOURCE_EXHAUSTED = 8


class _Stop(Enum):
    """Why a job was given up."""

    MEMORY = auto()
    TIME = auto()


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Why the data of the task cannot be had here."""

    reason: str


_Outcome = Score | str | _Stop | _Unreadable
"""A score, or what went wrong, or why the job was given up."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job with its limits. Seconds and bytes.

    Attributes:
        job: The job.
        memory: What it may take beyond what the worker holds when it begins; None without limit.
        memory_set_up: What it may take in addition if it is the first of its shape in this worker.
        repeated: Whether a worker has died of it before: a library may end the process where it is refused memory.
        seconds: After this time it is given up; should that fail, the worker ends by itself a few seconds later.
        set_up: What it may take in addition if it is the first of its shape in this worker.
        recycle: If the worker holds more than this afterwards it ends its batch; None never.

    """

    job: Job
    memory: int | None = None
    memory_set_up: int = 0
    repeated: bool = False
    seconds: float | None = None
    set_up: float = 0.0
    recycle: int | None = None


@final
class Containment:
    """Runs jobs one by one."""

    def __init__(self, function: EvaluateFunction) -> None:
        self._function = function
        # The driver of an accelerator reserves far more than it ever uses: there, only use counts.
        self._refuses = _computes_on_cpu()
        self._shapes: set[Shape] = set()
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._outcomes: SimpleQueue[_Outcome] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="evolion job")
        self._thread.start()

    def run_batch(self, assignments: Sequence[Assignment]) -> Iterator[Answers]:
        """Score jobs, in their order, each within its own limits, and give each answer as soon as it is there.

        Ends early after a job that was given up, whose data cannot be had, or that leaves the worker holding more than
        it may: the rest is for another worker.
        """
        for left, assignment in zip(range(len(assignments) - 1, -1, -1), assignments, strict=True):
            answer = self.run(assignment)
            full = assignment.recycle is not None and answer.resident > assignment.recycle
            done = left == 0 or full or answer.gives_up or bool(answer.unreadable)
            yield Answers((answer,), done)
            if done:
                return

    def run(self, assignment: Assignment) -> Answer:
        """Score a job. An answer that says `exhausted` or `overdue` is the last: the job may still run."""
        set_up, shape = self._sets_up(assignment)
        seconds = None if assignment.seconds is None else assignment.seconds + (assignment.set_up if set_up else 0.0)
        begun = time.perf_counter()
        end = None if seconds is None else begun + seconds
        outcome: _Outcome
        with end_process_after(seconds):
            if assignment.memory is None:
                self._jobs.put(assignment.job)
                outcome = self._outcome(end)
                if outcome is _Stop.MEMORY:
                    outcome = describe(MemoryError())
            else:
                budget = assignment.memory + (assignment.memory_set_up if set_up else 0)
                outcome = self._within(assignment, budget, end)
        taken, exhausted = time.perf_counter() - begun, outcome is _Stop.MEMORY
        if exhausted:
            stop_growth()
            outcome = f"needed more than {(assignment.memory or 0) / 2**20:,.0f} MiB of memory"
        unreadable = outcome.reason if isinstance(outcome, _Unreadable) else ""
        score = outcome if isinstance(outcome, Score) else crashed(unreadable or str(outcome), taken)
        overdue = outcome is _Stop.TIME
        return Answer(
            score, resident_bytes(), peak_resident_bytes(), exhausted, overdue, unreadable, taken, shape, set_up
        )

    def _sets_up(self, assignment: Assignment) -> tuple[bool, Shape | None]:
        """Whether this worker has to set up something for a job, and what of it other jobs can use."""
        if (assignment.seconds, assignment.memory) == (None, None):
            return False, None
        shape = shape_of(assignment.job)
        if shape in self._shapes:
            return False, None
        if shape is not None:
            self._shapes.add(shape)
        return True, shape

    def _within(self, assignment: Assignment, budget: int, end: float | None) -> _Outcome:
        outcome: _Outcome = ""
        for factor in (2,) if assignment.repeated else (1, 2):
            bound = resident_bytes() + budget
            known_peak = max(bound, peak_resident_bytes())
            outcome = self._watched(assignment.job, factor * budget, bound, end)
            # Who reads data may take a refusal of memory for a damaged file.
            if not isinstance(outcome, str | _Unreadable):
                break
            if peak_resident_bytes() > known_peak:
                return _Stop.MEMORY
        return outcome

    def _watched(self, job: Job, data: int, resident: int, end: float | None) -> _Outcome:
        try:
            with data_limit(data if self._refuses else None):
                self._jobs.put(job)
                while self._thread.is_alive():
                    now = time.perf_counter()
                    outcome = self._outcome(now + _INTERVAL if end is None else min(end, now + _INTERVAL))
                    if outcome is not _Stop.TIME or (end is not None and time.perf_counter() >= end):
                        return outcome
                    if resident_bytes() > resident:
                        break
        except MemoryError:
            pass
        return _Stop.MEMORY  # Too much is in use, or so little is left that this thread or the other could not go on.

    def _outcome(self, end: float | None) -> _Outcome:
        """What comes of the job that runs, if it comes before `end` (a `time.perf_counter`)."""
        try:
            return self._outcomes.get(timeout=None if end is None else max(0.0, end - time.perf_counter()))
        except Empty:
            return _Stop.TIME

    def _work(self) -> None:
        while True:
            self._outcomes.put(self._attempt(self._jobs.get()))

    def _attempt(self, job: Job) -> _Outcome:
        try:
            return self._function(job)
        except MemoryError:
            return _Stop.MEMORY
        except DataError as error:
            return _Unreadable(describe(error))
        except BaseException as error:  # SystemExit would end this thread alone.
            return _Stop.MEMORY if _refused(error) else describe(error)


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
def end_process_after(seconds: float | None) -> Iterator[None]:
    """Have the system end this process by a signal if the block takes longer, whatever it does by then."""
    if seconds is None or sys.platform == "win32":
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
