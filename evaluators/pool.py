"""Jobs over workers that may die or hang: who gets which job, what happens when, and what a failure is worth.

This is all bookkeeping, without a process of its own. What kind of workers there are is behind `Workers`.

- A worker gets a batch of jobs that takes about a second, and the next when it has answered all: if it dies, no job
  that waits is in question. The pool holds what was submitted and no more; how much that is, the caller's lag says.
- A worker that dies is replaced. What it left unanswered is tried again, each job alone. Only a worker that dies with
  one job alone counts against that job: it is tried once more, on a worker that has done nothing else, and then
  quarantined (status crashed). Whether the job did it or someone else killed the worker cannot be told.
- Workers that are lost with their machine, or as its memory ran out, count against no job: ten of them do.
- A job without an answer in time is answered with status timeout, and its worker is killed and replaced. Where nobody
  knows which job of a batch it is at, they are tried again, each alone: that blames none, so that it may be soon.
- A job that took too much memory is answered with status crashed, and its worker is killed and replaced.
- A worker that holds too much after a job is killed and replaced before its next one.
- A worker that cannot have the data of a task is done without, and its jobs are for others: no score hangs on where a
  job was. Where nobody has it for a minute that is an error.
- Where no worker has ever started, in time or at all, nothing ever will, and that is an error. Later on, and where
  places come late, the pool waits for workers, however long it takes, and says so.

Times here are monotonic: a clock that is set does nothing.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, Self, TypeVar, final

from evolion.evaluators.batching import Attempt, JobQueue
from evolion.evaluators.containment import Assignment
from evolion.evaluators.seats import Seat
from evolion.evaluators.shapes import shape_of
from evolion.evaluators.staff import Staff
from evolion.evaluators.tally import Tally
from evolion.evaluators.types import EvaluatorUnavailable, Job, PoolStatus, Score, Status
from evolion.evaluators.worker import Answer, Answers, Death, Event, Placed, Ready, crashed
from evolion.evaluators.workers import Limits, Worker, Workers, check_workers

__all__ = ["Limits", "PoolEvaluator", "Worker", "Workers", "check_workers"]

_log = logging.getLogger(__name__)

DEATHS_ALLOWED = 2
LOSSES_ALLOWED = 10
"""A job that was on as many machines when they were lost or out of memory is thought to be the cause, no other is."""

_POLL = 2.0
_LATE = 1.0
"""How long after the limit of a job its worker may take to say that it has ended it."""
_SLOWER = 10.0
"""How many times what it was expected to take a batch may take, and a limit more. Beyond that it is tried by job."""
_FRESH_AFTER = 30.0

W = TypeVar("W", bound=Worker)


@final
class PoolEvaluator(Generic[W]):
    """An `Evaluator` over workers of one kind: `workers` of them, or as many as the kind says that there could be.

    `numerics`: what they are to compute with; without it, what the first one that is ready does.
    """

    def __init__(self, kind: Workers[W], workers: int, limits: Limits, numerics: str | None = None) -> None:
        self._limits = limits
        self._streams = kind.streams
        self._staff = Staff(kind, workers, limits, numerics)
        self._seats = self._staff.seats
        self._queue = JobQueue(limits.batch_seconds, limits.batch_jobs)
        self._pending = 0
        self._finished: list[tuple[Job, Score]] = []
        self._tally = Tally()
        self._warned: set[str] = set()
        self._closed = False
        try:
            self._staff.fill(time.monotonic())
        except BaseException:
            self.close()
            raise

    @property
    def numerics(self) -> str:
        """What computes the scores; waits for the first worker to be ready.

        Raises EvaluatorUnavailable if none is in time.
        """
        while self._staff.numerics is None:
            self._check_open()
            self._step(None)
        return self._staff.numerics

    def numerics_of(self, device: str) -> str:
        """As `numerics`: all jobs are trained by workers of one class."""
        return self.numerics

    @property
    def workers(self) -> int:
        """How many jobs run at a time."""
        return self._staff.wanted

    @property
    def status(self) -> PoolStatus:
        """What the workers do and hold, as far as they have said."""
        return self._tally.status(self._staff)

    def submit(self, job: Job) -> None:
        """Queue a job, and send it at once if a worker is known to be free."""
        self._check_open()
        self._pending += 1
        self._queue.add(job)
        self._dispatch()

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        """Wait for at least one finished job, see `Evaluator.collect`."""
        self._check_open()
        end = None if timeout is None else time.monotonic() + timeout
        if not self._pending and self._staff.numerics is not None:
            self._step(time.monotonic())  # Workers come and go all the same.
        while not self._finished and self._pending:
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
        self._staff.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the evaluator is closed")

    def _finish(self, job: Job, score: Score) -> None:
        self._pending -= 1
        self._finished.append((job, score))

    def _dispatch(self) -> None:
        """Hand out jobs as long as there are both jobs and workers to be had."""
        since = self._queue.suspect_since
        while since is not None:
            # A fresh worker is on its way, as the one that died is replaced; but it may find no place.
            patient = time.monotonic() - since < _FRESH_AFTER
            seat = self._seats.free(fresh=patient)
            if seat is None:
                break
            self._send(seat, [self._queue.take_suspect()])
            since = self._queue.suspect_since
        while self._queue and (seat := self._seats.free()):
            self._send(seat, self._queue.take(seat.kinds, self._seats.ready))

    def _send(self, seat: Seat[W], attempts: list[Attempt]) -> None:
        limits = self._limits
        seat.kinds.update(attempt.kind for attempt in attempts)
        self._seats.begin(seat, attempts)
        self._expect(seat)
        seat.worker.send(
            tuple(
                Assignment(
                    attempt.job,
                    limits.memory,
                    limits.memory_set_up,
                    attempt.alone,
                    limits.job,
                    limits.set_up,
                    limits.recycle,
                )
                for attempt in attempts
            )
        )

    def _expect(self, seat: Seat[W]) -> None:
        """Begin to wait for the next answers of a worker."""
        seat.since, seat.extended = time.monotonic(), False
        limit, running = self._limits.job, self._running(seat)
        if limit is None:
            self._seats.expect(seat, None)
            return
        longest = len(running) * limit
        expected = self._queue.expected(running) if len(running) > 1 else None
        if expected is not None:  # Not the sum of all limits: workers that are frozen are to show.
            longest = min(longest, _SLOWER * expected + limit)
        self._seats.expect(seat, seat.since + longest + _LATE)

    def _running(self, seat: Seat[W]) -> Sequence[Attempt]:
        """The jobs that may be what a worker is at."""
        return [seat.open[0]] if self._streams else seat.open

    def _late(self, seat: Seat[W]) -> bool:
        """Whether the answer of a worker is overdue, allowing for what its jobs have to set up."""
        now = time.monotonic()
        if seat.deadline is None or now < seat.deadline:
            return False
        if not seat.extended:
            # Which loop a program needs takes a millisecond to tell, so that it is not asked before it matters.
            seat.extended = True
            shapes = (shape_of(attempt.job) for attempt in self._running(seat))
            if any(shape is None or shape not in seat.shapes for shape in shapes):
                self._seats.expect(seat, seat.deadline + self._limits.set_up)
        return now >= seat.deadline

    def _step(self, end: float | None) -> None:
        """Wait for one round of events, or until the first deadline, and deal with them."""
        try:
            self._turn(end)
        except EvaluatorUnavailable:
            self.close()
            raise

    def _turn(self, end: float | None) -> None:
        # What has happened is heard first: who was not asked for long may find the time for a start over, and workers.
        now = time.monotonic()
        self._dispatch()
        deadlines = [now + _POLL]
        if (overdue := self._seats.next_deadline) is not None:
            deadlines.append(overdue)
        if self._staff.numerics is None:
            deadlines.append(self._staff.start_deadline)
        if end is not None:
            deadlines.append(end)
        for worker, event in self._staff.kind.wait(max(0.0, min(deadlines) - now)):
            seat = self._seats.of(worker)
            if seat is not None:
                self._handle(seat, event)
            elif isinstance(event, Death):
                self._staff.forget(worker)
        now = time.monotonic()
        for seat in self._seats.overdue(now):
            if self._late(seat):
                self._stop(seat)
        self._staff.tick(now)
        self._dispatch()

    def _handle(self, seat: Seat[W], event: Event) -> None:
        match event:
            case Placed():
                self._staff.place(seat, event)
            case Ready():
                self._welcome(seat, event)
            case Answers():
                self._take(seat, event)
            case Death():
                self._bury(seat, event)

    def _welcome(self, seat: Seat[W], worker: Ready) -> None:
        self._staff.welcome(seat, worker)
        if self._limits.memory is not None and not worker.resident:
            self._warn_once("memory", "this system does not tell what a process holds: no limit of memory is held")

    def _take(self, seat: Seat[W], event: Answers) -> None:
        if not 0 < len(event.answers) <= len(seat.open):
            _log.error("a worker gave %d answers to %d jobs; it is replaced", len(event.answers), len(seat.open))
            self._give_back(seat)
            self._staff.replace(seat)
            return
        for answer in event.answers:
            if answer.unreadable:
                task = seat.open[0].job.task
                self._give_back(seat)
                self._staff.dismiss_without_data(seat, task, answer.unreadable)
                return
            self._take_one(seat, seat.open.popleft(), answer)
        last, recycle = event.answers[-1], self._limits.recycle
        full = event.done and recycle is not None and last.resident > recycle
        if full and not last.gives_up:
            self._tally.recycled += 1
            if seat.answers == 1:
                self._warn_once(
                    "recycle",
                    f"a worker holds {last.resident / 2**20:,.0f} MiB after a single job, so that it is replaced "
                    f"after each: allow more than {(recycle or 0) / 2**20:,.0f} MiB (Limits.recycle)",
                )
        if full or last.gives_up or (event.done and seat.open):
            self._give_back(seat)
            self._staff.replace(seat)
        elif seat.open:
            self._expect(seat)
        elif len(self._seats) > self._staff.wanted:
            self._staff.remove(seat)
        else:
            self._seats.rest(seat)

    def _take_one(self, seat: Seat[W], attempt: Attempt, answer: Answer) -> None:
        job, tally = attempt.job, self._tally
        tally.peak_resident_bytes = max(tally.peak_resident_bytes, answer.peak)
        self._seats.hold(seat, answer.resident)
        seat.answers += 1
        if answer.overdue:
            self._time_out(job, answer.seconds)
            return
        self._staff.has_data(seat, job.task)
        if answer.shape is not None:
            seat.shapes.add(answer.shape)
        if answer.exhausted:
            tally.over_memory += 1
            _log.warning("job %d %s; its worker is replaced", job.number, answer.score.message)
        elif not answer.set_up:
            self._queue.measured(attempt.kind, answer.seconds)
        self._finish(job, answer.score)

    def _warn_once(self, about: str, message: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            _log.warning(message)

    def _bury(self, seat: Seat[W], death: Death) -> None:
        """Deal with the end of a worker."""
        if death.innocent and death.node:
            self._tally.nodes.add(death.node)
        if not seat.ready:
            self._staff.failed_start(seat, death)
            return
        running = self._running(seat) if seat.open else ()
        if len(running) == 1 and not death.innocent and self._late(seat):
            self._stop(seat)  # It ended by itself before the driver came to end it.
            return
        self._tally.deaths += 1
        numbers = ", ".join(str(attempt.job.number) for attempt in seat.open)
        if not seat.open:
            _log.warning("an idle worker died (%s); it is replaced", death.reason)
        elif death.innocent:
            _log.warning("the worker of jobs %s was lost (%s); they are tried again", numbers, death.reason)
            self._lose(seat, death)
        elif len(seat.open) > 1:
            _log.warning("the worker of jobs %s died (%s); each is tried again, alone", numbers, death.reason)
            self._give_back(seat, alone=True)
        else:
            self._suspect(seat, seat.open.popleft(), death.reason)
        self._staff.replace(seat)

    def _suspect(self, seat: Seat[W], attempt: Attempt, reason: str) -> None:
        """Deal with a job that was alone on a worker that died."""
        job, deaths = attempt.job, attempt.deaths + 1
        if deaths < DEATHS_ALLOWED:
            _log.warning("the worker of job %d died (%s); the job is tried again on a new one", job.number, reason)
            self._queue.suspect(replace(attempt, alone=True, deaths=deaths, since=time.monotonic()))
            return
        self._quarantine(seat, job, f"killed {deaths} workers", reason)

    def _lose(self, seat: Seat[W], death: Death) -> None:
        """Deal with the jobs of a lost worker: it is none of their fault, unless it happens again and again."""
        most = max(attempt.lost for attempt in seat.open) + 1
        if len(seat.open) == 1 and most >= LOSSES_ALLOWED:
            deed = f"was on {LOSSES_ALLOWED} machines when they were lost or out of memory"
            self._quarantine(seat, seat.open.popleft().job, deed, death.reason)
        # Where the machine is still there, what all others take may be too much beside one of these jobs.
        self._give_back(seat, alone=not death.node or most >= LOSSES_ALLOWED // 2, lost=1)

    def _quarantine(self, seat: Seat[W], job: Job, deed: str, reason: str) -> None:
        _log.warning("job %d %s (%s); it is quarantined", job.number, deed, reason)
        self._tally.quarantined += 1
        # The reason is left to the log: it differs with the kind of workers, and scores may not.
        self._finish(job, crashed(f"quarantined: {deed}", time.monotonic() - seat.since))

    def _give_back(self, seat: Seat[W], *, alone: bool = False, lost: int = 0) -> None:
        """Queue again what a worker leaves unanswered."""
        now = time.monotonic()
        self._queue.give_back(
            replace(left, alone=alone or left.alone, since=now, lost=left.lost + lost) for left in seat.open
        )
        seat.open.clear()

    def _stop(self, seat: Seat[W]) -> None:
        """End a worker whose answer is overdue."""
        if len(self._running(seat)) == 1:
            self._time_out(seat.open.popleft().job, time.monotonic() - seat.since)
            self._give_back(seat)
        else:
            numbers = ", ".join(str(attempt.job.number) for attempt in seat.open)
            _log.warning("no answer to jobs %s within their time; each is tried again, alone", numbers)
            self._give_back(seat, alone=True)
        self._staff.replace(seat)

    def _time_out(self, job: Job, seconds: float) -> None:
        _log.warning("job %d gave no answer within its time; its worker is replaced", job.number)
        self._tally.timeouts += 1
        message = f"no answer within {self._limits.job:g} s"
        self._finish(job, Score(Status.TIMEOUT, None, (), 0, seconds, message=message))
