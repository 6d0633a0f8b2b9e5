"""How many workers a pool has: starting them, replacing them, following a cluster that grows and shrinks."""

import logging
import math
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar, final

from evolion.evaluators.data_lack import DataLack
from evolion.evaluators.seats import Seat, Seats
from evolion.evaluators.types import EvaluatorUnavailable
from evolion.evaluators.worker import Death, Placed, Ready
from evolion.evaluators.workers import Limits, Worker, Workers

__all__ = ["Staff"]

_log = logging.getLogger(__name__)

FAILED_STARTS_ALLOWED = 3

_SAY_AFTER = 10.0
_LONGEST_PAUSE = 60.0

W = TypeVar("W", bound=Worker)


@dataclass(frozen=True, slots=True)
class _Refused:
    """Why a worker gets no jobs, and until when its place is left to it."""

    why: str
    until: float = math.inf


@final
class Staff(Generic[W]):
    """The workers of a pool: `wanted` of them, or as many as their kind says that there could be.

    Until a first worker is ready, workers that do not start are an error. After that nothing is: where workers go and
    none can be had, `waiting` says so, and they are asked for again and again, ever more slowly. Where places come
    late, as machines have to boot, the time for the first start begins when a worker has found a place.

    All compute with the numerics that are `expected`, else with those of the first. Where places come late, a worker
    with others is kept where it is, without jobs: in its place another like it would be started again and again. So is,
    for a while, a worker that cannot have the data of a task.

    `tick` and what deals with an event raise EvaluatorUnavailable.
    """

    def __init__(self, kind: Workers[W], wanted: int, limits: Limits, expected: str | None = None) -> None:
        self.kind = kind
        self.wanted = wanted
        self.seats: Seats[W] = Seats()
        self.numerics: str | None = None
        self.waiting = "no worker is ready yet"
        self._limits = limits
        self._expected = expected
        self._begun = self._next_start = time.monotonic()
        self._first_placed: float | None = None
        self._refused: dict[W, _Refused] = {}
        self._said_refused: set[tuple[str, str]] = set()
        self._lack = DataLack(places_differ=kind.patient)
        self._next_read = self._begun
        self._failed_starts = 0
        self._complete = False
        self._follows = False
        self._without_since: float | None = None
        self._said = ""

    @property
    def start_deadline(self) -> float:
        """When it is an error that no worker is ready yet; infinite while none has a place and places come late."""
        begun: float | None = self._begun
        if self.kind.patient:
            starting = self.seats.longest_starting()
            begun = starting.since if starting else self._first_placed if self._refused else None
        return math.inf if begun is None else begun + self._limits.start

    def fill(self, now: float) -> None:
        """Ask for the workers that are missing."""
        wanted = self.wanted
        if not self._follows:  # Each that is set aside is replaced once: a cluster would grow without end.
            wanted -= max(0, sum(math.isfinite(refused.until) for refused in self._refused.values()) - wanted)
        while len(self.seats) < wanted and now >= max(self._next_start, self._next_read):
            try:
                worker = self.kind.start()
            except OSError as error:
                if self.numerics is None and not self.kind.patient:
                    raise EvaluatorUnavailable(f"no worker can be started: {error.strerror or error}") from error
                _log.warning("no worker can be started now (%s)", error.strerror or error)
                self._pause()
                return
            self.seats.add(worker, now)

    def tick(self, now: float) -> None:
        """Follow the cluster, and look after the workers that are starting."""
        for worker in [worker for worker, refused in self._refused.items() if now >= refused.until]:
            self.forget(worker)
        self._resize()
        self._check_starts(now)
        self.fill(now)
        self._tell(now)

    def place(self, seat: Seat[W], placed: Placed) -> None:
        """Note that a worker has found a place and begins to start."""
        now = time.monotonic()
        seat.node = placed.node
        self._first_placed = self._first_placed or now
        self.seats.place(seat, now)

    def welcome(self, seat: Seat[W], worker: Ready) -> None:
        """Let a worker that has started take jobs, if it computes with the numerics of the others."""
        due = self.numerics or self._expected
        if due is not None and worker.numerics != due:
            self._refuse(seat, worker.numerics, due)
            return
        self.numerics = worker.numerics
        self._failed_starts = 0
        self._next_start = time.monotonic()
        self.seats.welcome(seat, worker.resident)
        self._complete = self._complete or self.seats.ready >= self.wanted

    def _refuse(self, seat: Seat[W], numerics: str, due: str) -> None:
        said = f"one with [{due}], another with [{numerics}]"
        if not self._complete and not self.kind.patient:
            raise EvaluatorUnavailable(
                f"workers compute with different numerics, so their scores cannot be compared: {said}"
            )
        if not self.kind.patient or (seat.node, numerics) not in self._said_refused:
            who = f"a worker on node {seat.node[:12]}" if seat.node else "a worker that joined"
            _log.error("%s computes with other numerics than the run and is not used: %s", who, said)
        self._said_refused.add((seat.node, numerics))
        if self.kind.patient:
            self._set_aside(seat, _Refused(f"compute with [{numerics}] and the run with [{due}]"))
            return
        self._pause()
        self.replace(seat)

    def dismiss_without_data(self, seat: Seat[W], task: str, why: str) -> None:
        """Do without a worker that cannot have the data of a task, as `why` says."""
        now = time.monotonic()
        pause = self._lack.failed(task, now)
        if math.isinf(pause):
            raise EvaluatorUnavailable(f"no worker can have the data of {task}: {why}")
        if self.kind.patient:
            if (seat.node, why) not in self._said_refused:
                who = f"a worker on node {seat.node[:12]}" if seat.node else "a worker"
                _log.error("%s cannot have the data of %s and is not used: %s", who, task, why)
            self._said_refused.add((seat.node, why))
            self._set_aside(seat, _Refused(f"cannot have the data of {task}", now + self._lack.aside(seat.node)))
            return
        _log.warning("a worker could not have the data of %s (%s); another one is started", task, why)
        self._next_read = now + pause
        self.replace(seat)

    def has_data(self, seat: Seat[W], task: str) -> None:
        """Note that a worker has the data of a task."""
        if task not in seat.tasks:
            seat.tasks.add(task)
            self._lack.had(task)

    def _set_aside(self, seat: Seat[W], why: _Refused) -> None:
        self.seats.remove(seat)
        self._refused[seat.worker] = why
        self._resize()
        self.fill(time.monotonic())

    def forget(self, worker: W) -> None:
        """Deal with the end of a worker that has no seat."""
        if self._refused.pop(worker, None) is not None:
            worker.kill()

    def failed_start(self, seat: Seat[W], death: Death) -> None:
        """Deal with a worker that died before it was ready."""
        _log.warning("a worker died while starting (%s); another one is started", death.reason)
        if not (death.innocent and death.node):
            self._pause()
        if self.numerics is None and self._failed_starts >= FAILED_STARTS_ALLOWED:
            raise EvaluatorUnavailable(
                f"no worker starts: {self._failed_starts} died in a row while starting, the last with {death.reason}"
            )
        self.replace(seat)

    def replace(self, seat: Seat[W]) -> None:
        """Have another worker in the place of this one."""
        self.remove(seat)
        self.fill(time.monotonic())

    def remove(self, seat: Seat[W]) -> None:
        """Do without a worker."""
        self.seats.remove(seat)
        seat.worker.kill()

    def close(self) -> None:
        """Do without any worker."""
        with ExitStack() as stack:  # One that cannot be ended leaves no other behind, nor what they share.
            stack.callback(self.kind.close)
            for seat in self.seats:
                stack.callback(self.remove, seat)
            for worker in self._refused:
                stack.callback(worker.kill)

    def _pause(self) -> None:
        """Count a start that failed: if many do, one after another, the next ones wait."""
        self._failed_starts += 1
        # A machine that is lost takes all that are starting there with it: that is no reason to wait.
        beyond = self._failed_starts - FAILED_STARTS_ALLOWED
        pause = 0.0 if beyond < 0 else min(_LONGEST_PAUSE, 2.0 ** min(beyond, 10))
        self._next_start = time.monotonic() + pause

    def _resize(self) -> None:
        room = self.kind.wanted()
        self._follows = room is not None
        wanted = None if room is None else max(1, room - len(self._refused))
        if wanted is None or wanted == self.wanted:
            return
        _log.info("workers that there is room for: %d now, %d before", wanted, self.wanted)
        self.wanted = wanted
        # Those at work go when they are done, or with their machine.
        while len(self.seats) > wanted and (seat := self.seats.spare()):
            self.remove(seat)

    def _check_starts(self, now: float) -> None:
        if now >= self.start_deadline:
            self._complete = True
            if self.numerics is None:
                why = self._refusals() or self.kind.diagnose()
                raise EvaluatorUnavailable(f"no worker was ready within {self._limits.start:g} s{why}")
        while (seat := self.seats.longest_starting()) and now >= seat.since + self._limits.start:
            _log.warning("a worker was not ready after %g s; another one is started", self._limits.start)
            self._pause()
            self.replace(seat)

    def _tell(self, now: float) -> None:
        """Say when there is nobody to work, and when there is again."""
        if self.seats.ready:
            if self._said:
                _log.warning("there are workers%s: the run goes on", self._said)
            self.waiting, self._without_since, self._said = "", None, ""
        elif self._without_since is None:
            self._without_since = now
            self.waiting = "no worker is ready" if self.numerics else "no worker is ready yet"
        elif not self._said and now - self._without_since >= _SAY_AFTER:
            if self.numerics is not None:
                self._said, what = " again", "all workers are gone, waiting for others"
            elif self.kind.patient and self.seats.longest_starting() is None:
                self._said, what = " now", "no node has a place for a worker yet, waiting for one"
            else:
                return
            self.waiting = f"{what}{self._refusals() or self.kind.diagnose()}"
            _log.warning("%s; the run goes on by itself when there are some", self.waiting)

    def _refusals(self) -> str:
        if not self._refused:
            return ""
        reasons = Counter(refused.why for refused in self._refused.values())
        return ": " + "; ".join(f"{count} not used, as they {why}" for why, count in sorted(reasons.items()))
