"""The workers of a pool and what each is doing, kept so that no question needs a look at all of them."""

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar, final

from evolion.evaluators.batching import Attempt
from evolion.evaluators.shapes import JobKind, Shape

__all__ = ["Seat", "Seats"]

W = TypeVar("W")


@dataclass(slots=True, eq=False)
class Seat(Generic[W]):
    """A worker and what it is doing.

    Attributes:
        worker: The worker.
        since: When it was asked for, then when it began to start, then when it began with the first of its open jobs.
        ready: Whether it takes jobs.
        open: The jobs that it has and has not answered.
        deadline: When its answer is overdue; None never.
        extended: Whether the deadline allows for what the open jobs have to set up.
        kinds: The kinds of jobs that it has had.
        shapes: What it has set up, as far as it has said.
        tasks: Those that it has answered jobs on.
        answers: How many jobs it has answered.
        resident: What it holds, in bytes.
        node: The machine that it is on, "" if there is only one or it has not said.

    """

    worker: W
    since: float
    ready: bool = False
    open: deque[Attempt] = field(default_factory=deque)
    deadline: float | None = None
    extended: bool = False
    kinds: set[JobKind] = field(default_factory=set)
    shapes: set[Shape] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)
    answers: int = 0
    resident: int = 0
    node: str = ""
    _noted: float | None = None


@final
class Seats(Generic[W]):
    """The seats of a pool. A worker here is hashable, by identity."""

    def __init__(self) -> None:
        self._seats: dict[W, Seat[W]] = {}
        self._asked: dict[Seat[W], None] = {}
        self._starting: dict[Seat[W], None] = {}
        self._fresh: dict[Seat[W], None] = {}
        self._idle: dict[Seat[W], None] = {}
        self._deadlines: list[tuple[float, int, Seat[W]]] = []
        self._order = count()
        self.resident = 0

    def __len__(self) -> int:
        """How many workers there are, those that are starting included."""
        return len(self._seats)

    def __iter__(self) -> Iterator[Seat[W]]:
        """All seats, as they were at this moment."""
        return iter(list(self._seats.values()))

    @property
    def ready(self) -> int:
        """How many workers take jobs."""
        return len(self._seats) - len(self._asked) - len(self._starting)

    @property
    def idle(self) -> int:
        """How many workers wait for jobs."""
        return len(self._fresh) + len(self._idle)

    @property
    def busy(self) -> int:
        """How many workers have jobs."""
        return self.ready - self.idle

    def of(self, worker: W) -> Seat[W] | None:
        """The seat of a worker; None once it was removed."""
        return self._seats.get(worker)

    def add(self, worker: W, now: float) -> None:
        """Take a worker that has been asked for."""
        seat = Seat(worker, now)
        self._seats[worker] = seat
        self._asked[seat] = None

    def place(self, seat: Seat[W], now: float) -> None:
        """Note that a worker has begun to start."""
        if seat in self._asked:
            del self._asked[seat]
            seat.since = now
            self._starting[seat] = None

    def remove(self, seat: Seat[W]) -> None:
        """Forget a worker."""
        del self._seats[seat.worker]
        self._leave_start(seat)
        self._leave_idle(seat)
        self.resident -= seat.resident
        seat.deadline = None

    def welcome(self, seat: Seat[W], resident: int) -> None:
        """Note that a worker takes jobs."""
        self._leave_start(seat)
        seat.ready = True
        self.hold(seat, resident)
        self._fresh[seat] = None

    def hold(self, seat: Seat[W], resident: int) -> None:
        """Note what a worker holds."""
        self.resident += resident - seat.resident
        seat.resident = resident

    def begin(self, seat: Seat[W], attempts: list[Attempt]) -> None:
        """Note that a worker has these jobs."""
        self._leave_idle(seat)
        seat.open.extend(attempts)

    def rest(self, seat: Seat[W]) -> None:
        """Note that a worker has answered its jobs."""
        seat.deadline = None
        self._idle[seat] = None

    def free(self, *, fresh: bool = False) -> Seat[W] | None:
        """A worker that waits for jobs, one that has had some rather than a `fresh` one; None if there is none."""
        idle = self._fresh if fresh or not self._idle else self._idle
        return next(iter(idle), None)

    def spare(self) -> Seat[W] | None:
        """The worker that can be done without best: the last one asked for, else one without jobs; None if none."""
        return next(reversed(self._asked), None) or next(reversed(self._starting), None) or self.free()

    def longest_starting(self) -> Seat[W] | None:
        """The worker that began to start first of those that are not ready; None if there is none."""
        return next(iter(self._starting), None)

    def expect(self, seat: Seat[W], deadline: float | None) -> None:
        """Note when the next answer of a worker is overdue."""
        seat.deadline = deadline
        # One note for each seat is enough as long as it comes up early enough: `overdue` moves it.
        if deadline is not None and (seat._noted is None or deadline < seat._noted):
            self._note(seat, deadline)

    @property
    def next_deadline(self) -> float | None:
        """When to ask for those that are overdue next, or earlier."""
        return self._deadlines[0][0] if self._deadlines else None

    def overdue(self, now: float) -> list[Seat[W]]:
        """The workers whose answer is overdue. Each call tells of a deadline once."""
        found: list[Seat[W]] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            noted, _, seat = heapq.heappop(self._deadlines)
            if noted != seat._noted:
                continue
            seat._noted = None
            if seat.deadline is None:
                continue
            if seat.deadline <= now:
                found.append(seat)
            else:
                self._note(seat, seat.deadline)
        return found

    def _note(self, seat: Seat[W], deadline: float) -> None:
        seat._noted = deadline
        heapq.heappush(self._deadlines, (deadline, next(self._order), seat))

    def _leave_start(self, seat: Seat[W]) -> None:
        self._asked.pop(seat, None)
        self._starting.pop(seat, None)

    def _leave_idle(self, seat: Seat[W]) -> None:
        self._idle.pop(seat, None)
        self._fresh.pop(seat, None)
