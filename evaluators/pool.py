"""Jobs over workers that may die or hang: who gets which job, what happens when, and what a failure is worth.

This is all bookkeeping, without a process of its own. What kind of workers there are is behind `Workers`.

- One job at a time per worker, so that a death names its culprit.
- A worker that dies is replaced. Its job is tried once more, then answered with status crashed.
- A job without an answer in time is answered with status timeout, and its worker is killed and replaced.
- A job that took too much memory is answered with status crashed, and its worker is killed and replaced.
- A worker that holds too much after a job is killed and replaced before its next one.
- Workers that die before they are ready are replaced too, but not for ever.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar, final

from evolion.evaluators.containment import Assignment
from evolion.evaluators.encoding import loop_of
from evolion.evaluators.types import EvaluatorUnavailable, Job, PoolStatus, Score, Status
from evolion.evaluators.worker import Answer, Death, Event, Ready, crashed

_log = logging.getLogger(__name__)

DEATHS_ALLOWED = 2
FAILED_STARTS_ALLOWED = 3


class Worker(Protocol):
    """One worker, as the pool sees it. What it does shows in `Workers.wait`."""

    def send(self, assignment: Assignment) -> None:
        """Hand over a job. A worker that is dead meanwhile raises nothing here."""
        ...

    def kill(self) -> None:
        """End the worker at once, alive or dead, and release what belongs to it."""
        ...


W = TypeVar("W", bound=Worker)


class Workers(Protocol[W]):
    """One kind of workers."""

    def start(self) -> W:
        """Begin to start a worker and return at once; `wait` says when it is ready."""
        ...

    def wait(self, workers: Sequence[W], timeout: float | None) -> list[tuple[W, Event]]:
        """Wait until something happens to one of these; at most one event for each of them."""
        ...

    def diagnose(self) -> str:
        """Why no worker may be starting, for the message."""
        ...

    def close(self) -> None:
        """Release what is shared; all workers have been killed before."""
        ...


@dataclass(frozen=True, slots=True)
class _Attempt:
    job: Job
    deaths: int


@dataclass(slots=True, eq=False)
class _Seat(Generic[W]):
    """A worker and what it is doing."""

    worker: W
    ready: bool = False
    attempt: _Attempt | None = None
    begun: float = 0.0
    deadline: float | None = None
    seen: set[tuple[object, ...]] = field(default_factory=set)
    answers: int = 0
    resident: int = 0


@dataclass(slots=True)
class _Tally:
    """What a `PoolStatus` says of the past."""

    peak_resident_bytes: int = 0
    recycled: int = 0
    deaths: int = 0
    timeouts: int = 0
    over_memory: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job may take, and how long a pool waits. Seconds and bytes.

    The first job of a shape (task, steps, number of runs, split, loop of the interpreter) that a worker gets loads data
    and compiles: it may take more. So may every job whose program is compiled for itself.

    Attributes:
        job: Time until the answer to a job; None for ever.
        set_up: Time for the first job of a shape, in addition.
        start: Time until a first worker is ready.
        memory: What a job may take beyond what its worker held when it began, as the sum of what it asks for and as
            what it uses, shared memory included; memory of a GPU and of other processes does not count. None: no limit.
        memory_set_up: Memory for the first job of a shape, in addition.
        recycle: A worker that holds more than this after a job is replaced; None never. A fresh one costs seconds and
            compiles again, so that it should be far above what one job leaves behind.

    """

    job: float | None = None
    set_up: float = 120.0
    start: float = 120.0
    memory: int | None = None
    memory_set_up: int = 2**30
    recycle: int | None = 3 * 2**30

    def __post_init__(self) -> None:
        optional = [limit for limit in (self.job, self.memory, self.recycle) if limit is not None]
        if min([self.start, *optional]) <= 0 or self.set_up < 0 or self.memory_set_up < 0:
            raise ValueError(f"limits must be positive numbers of seconds and bytes: {self}")


@final
class PoolEvaluator(Generic[W]):
    """An `Evaluator` over a fixed number of workers of one kind."""

    def __init__(self, kind: Workers[W], workers: int, limits: Limits) -> None:
        self._kind = kind
        self._limits = limits
        self._workers = workers
        self._numerics: str | None = None
        self._queue: deque[_Attempt] = deque()
        self._finished: list[tuple[Job, Score]] = []
        self._seats: list[_Seat[W]] = []
        self._failed_starts = 0
        self._tally = _Tally()
        self._warned: set[str] = set()
        self._closed = False
        self._start_deadline = time.monotonic() + limits.start
        try:
            for _ in range(workers):
                self._add_worker()
        except BaseException:
            self.close()
            raise

    @property
    def numerics(self) -> str:
        """What computes the scores; waits for the first worker to be ready.

        Raises EvaluatorUnavailable if none is in time.
        """
        while self._numerics is None:
            self._check_open()
            self._step(None)
        return self._numerics

    def numerics_of(self, device: str) -> str:
        """As `numerics`: all jobs are trained by workers of one class."""
        return self.numerics

    @property
    def workers(self) -> int:
        """How many jobs run at a time."""
        return self._workers

    @property
    def status(self) -> PoolStatus:
        """What the workers do and hold, as far as they have said."""
        tally = self._tally
        return PoolStatus(
            workers=self._workers,
            ready=sum(seat.ready for seat in self._seats),
            busy=sum(seat.attempt is not None for seat in self._seats),
            resident_bytes=sum(seat.resident for seat in self._seats),
            peak_resident_bytes=tally.peak_resident_bytes,
            recycled=tally.recycled,
            deaths=tally.deaths,
            timeouts=tally.timeouts,
            over_memory=tally.over_memory,
        )

    def submit(self, job: Job) -> None:
        """Queue a job, and send it at once if a worker is known to be free."""
        self._check_open()
        self._queue.append(_Attempt(job, 0))
        self._dispatch()

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        """Wait for at least one finished job, see `Evaluator.collect`."""
        self._check_open()
        end = None if timeout is None else time.monotonic() + timeout
        while not self._finished and (self._queue or any(seat.attempt for seat in self._seats)):
            self._step(end)
            if end is not None and time.monotonic() >= end:
                break
        finished, self._finished = self._finished, []
        return finished

    def close(self) -> None:
        """Kill all workers and drop what is pending."""
        if self._closed:
            return
        self._closed = True
        self._queue.clear()
        while self._seats:
            self._seats.pop().worker.kill()
        self._kind.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the evaluator is closed")

    def _add_worker(self) -> None:
        self._seats.append(_Seat(self._kind.start()))

    def _dispatch(self) -> None:
        for seat in self._seats:
            if not self._queue:
                return
            if seat.ready and seat.attempt is None:
                self._send(seat, self._queue.popleft())

    def _send(self, seat: _Seat[W], attempt: _Attempt) -> None:
        job, limits = attempt.job, self._limits
        known = (limits.job, limits.memory) != (None, None) and self._set_up(seat, job)
        seconds = None if limits.job is None else limits.job + (0.0 if known else limits.set_up)
        seat.attempt, seat.begun = attempt, time.monotonic()
        seat.deadline = None if seconds is None else seat.begun + seconds
        extra = 0 if known else limits.memory_set_up
        seat.worker.send(Assignment(job, limits.memory, extra, attempt.deaths > 0, seconds))

    def _set_up(self, seat: _Seat[W], job: Job) -> bool:
        """Whether a worker has compiled what a job needs; from now on it has."""
        try:
            loop = loop_of(job.program)
        except Exception:  # The worker fails in the same way, and there it is contained.
            return False
        if loop is None:
            return False
        curvature = job.curvature if loop.hess else None
        shape = (job.task, job.steps, len(job.seeds), len(job.learning_rates), job.split, loop, curvature)
        known = shape in seat.seen
        seat.seen.add(shape)
        return known

    def _step(self, end: float | None) -> None:
        """Wait for one round of events, or until the first deadline, and deal with them."""
        self._dispatch()
        deadlines = [seat.deadline for seat in self._seats if seat.attempt and seat.deadline is not None]
        if not any(seat.ready for seat in self._seats):
            deadlines.append(self._start_deadline)
        if end is not None:
            deadlines.append(end)
        timeout = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        seats = {id(seat.worker): seat for seat in self._seats}
        for worker, event in self._kind.wait([seat.worker for seat in self._seats], timeout):
            self._handle(seats[id(worker)], event)
        self._stop_overdue()
        self._check_start()
        self._dispatch()

    def _handle(self, seat: _Seat[W], event: Event) -> None:
        match event:
            case Ready():
                self._welcome(seat, event)
            case Answer() if seat.attempt is not None:
                self._take(seat, seat.attempt.job, event)
            case Answer():
                self._replace(seat)  # An answer to nothing: this worker cannot be trusted.
            case Death(reason):
                self._bury(seat, reason)

    def _take(self, seat: _Seat[W], job: Job, answer: Answer) -> None:
        self._finished.append((job, answer.score))
        seat.attempt, seat.resident = None, answer.resident
        seat.answers += 1
        tally, recycle = self._tally, self._limits.recycle
        tally.peak_resident_bytes = max(tally.peak_resident_bytes, answer.peak)
        if answer.exhausted:
            tally.over_memory += 1
            _log.warning("job %d %s; its worker is replaced", job.number, answer.score.message)
            self._replace(seat)
        elif recycle is not None and answer.resident > recycle:
            tally.recycled += 1
            if seat.answers == 1:
                self._warn_once(
                    "recycle",
                    f"a worker holds {answer.resident / 2**20:,.0f} MiB after a single job, so that it is replaced "
                    f"after each: allow more than {recycle / 2**20:,.0f} MiB (Limits.recycle)",
                )
            self._replace(seat)

    def _warn_once(self, about: str, message: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            _log.warning(message)

    def _welcome(self, seat: _Seat[W], worker: Ready) -> None:
        numerics = worker.numerics
        if self._numerics is not None and numerics != self._numerics:
            self._fail(
                f"workers compute with different numerics, so their scores cannot be compared: one with "
                f"[{self._numerics}], another with [{numerics}]"
            )
        self._numerics = numerics
        self._failed_starts = 0
        seat.ready, seat.resident = True, worker.resident
        if self._limits.memory is not None and not worker.resident:
            self._warn_once("memory", "this system does not tell what a process holds: no limit of memory is held")

    def _bury(self, seat: _Seat[W], reason: str) -> None:
        if seat.attempt is not None and seat.deadline is not None and time.monotonic() >= seat.deadline:
            self._time_out(seat, seat.attempt.job)  # It ended by itself before the driver came to end it.
            return
        attempt, seat.attempt = seat.attempt, None
        self._tally.deaths += seat.ready
        if not seat.ready:
            self._failed_starts += 1
            _log.warning("a worker died while starting (%s)", reason)
            # One lost node can take a whole pool of starting workers with it; nothing ever started is another matter.
            allowed = FAILED_STARTS_ALLOWED + (2 * self._workers if self._numerics else 0)
            if self._failed_starts >= allowed:
                self._fail(
                    f"no worker starts: {self._failed_starts} died in a row while starting, the last with {reason}"
                )
        elif attempt is None:
            _log.warning("an idle worker died (%s); it is replaced", reason)
        elif attempt.deaths + 1 < DEATHS_ALLOWED:
            _log.warning("the worker of job %d died (%s); the job is tried again", attempt.job.number, reason)
            self._queue.appendleft(_Attempt(attempt.job, attempt.deaths + 1))
        else:
            _log.warning("job %d has killed %d workers (%s); given up", attempt.job.number, DEATHS_ALLOWED, reason)
            message = f"killed its worker process {DEATHS_ALLOWED} times"
            self._finished.append((attempt.job, crashed(message, time.monotonic() - seat.begun)))
        self._replace(seat)

    def _stop_overdue(self) -> None:
        now = time.monotonic()
        for seat in list(self._seats):
            if seat.attempt is not None and seat.deadline is not None and now >= seat.deadline:
                self._time_out(seat, seat.attempt.job)

    def _time_out(self, seat: _Seat[W], job: Job) -> None:
        _log.warning("job %d gave no answer within its time; its worker is replaced", job.number)
        self._tally.timeouts += 1
        seconds = time.monotonic() - seat.begun
        message = f"no answer within {self._limits.job:g} s"
        self._finished.append((job, Score(Status.TIMEOUT, None, (), 0, seconds, message=message)))
        self._replace(seat)

    def _replace(self, seat: _Seat[W]) -> None:
        seat.worker.kill()
        self._seats.remove(seat)
        self._add_worker()
        if not any(other.ready for other in self._seats):
            self._start_deadline = time.monotonic() + self._limits.start

    def _check_start(self) -> None:
        if time.monotonic() >= self._start_deadline and not any(seat.ready for seat in self._seats):
            self._fail(f"no worker was ready within {self._limits.start:g} s{self._kind.diagnose()}")

    def _fail(self, message: str) -> None:
        self.close()
        raise EvaluatorUnavailable(message)


def check_workers(workers: int) -> None:
    """Raise ValueError unless there is at least one worker."""
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
