"""Workers that follow a script, for what a pool makes of what they say, without a process."""

import time
from dataclasses import dataclass, field

from evolion.evaluators.containment import Assignment
from evolion.evaluators.types import Score, Status
from evolion.evaluators.worker import Answer, Answers, Death, Event, Placed, Ready

MIB = 2**20
SCORE = Score(Status.OK, 1.0, (), 100, 0.0)
SILENCE = Answers(())
AS_USUAL = None


@dataclass(eq=False)
class Actor:
    """Answers one batch after another from the script of its kind."""

    kind: "Script"
    said: list[Event]
    killed: bool = False
    tasks: set[str] = field(default_factory=set)

    def send(self, assignments: tuple[Assignment, ...]) -> None:
        self.kind.sent += assignments
        self.kind.batches.append([assignment.job.number for assignment in assignments])
        self.kind.users.append(self)
        events = self.kind.events
        task = assignments[0].job.task
        event = events.pop(0) if events else None
        if event is None:
            event = answers(len(assignments), self.kind.seconds, set_up=task not in self.tasks)
        if self.kind.fatal & {assignment.job.number for assignment in assignments}:
            event = Death("abort")
        self.tasks.add(task)
        self.said += [] if event is SILENCE else [event]

    def kill(self) -> None:
        self.killed = True
        self.kind.living.remove(self)


@dataclass
class Script:
    """Workers that hold `resident` when they start, and what becomes of batches in the order in which they are sent."""

    events: list[Event | None] = field(default_factory=list)
    resident: int = MIB
    delay: float = 0.0
    seconds: float = 0.0
    streams: bool = False
    patient: bool = False
    room: int | None = None
    starts: bool = True
    fatal: set[int] = field(default_factory=set)
    numerics: list[str] = field(default_factory=list)
    sent: list[Assignment] = field(default_factory=list)
    batches: list[list[int]] = field(default_factory=list)
    users: list[Actor] = field(default_factory=list)
    started: list[Actor] = field(default_factory=list)
    living: list[Actor] = field(default_factory=list)
    closed: bool = False

    def start(self) -> Actor:
        numerics = self.numerics.pop(0) if self.numerics else "script"
        said: list[Event] = [Placed(), Ready(numerics, self.resident)] if self.starts else []
        self.started.append(Actor(self, said))
        self.living.append(self.started[-1])
        return self.started[-1]

    def wait(self, timeout: float | None) -> list[tuple[Actor, Event]]:
        time.sleep(self.delay)
        return [(worker, worker.said.pop(0)) for worker in self.living if worker.said]

    def wanted(self) -> int | None:
        return self.room

    def diagnose(self) -> str:
        return ": the script has none"

    def close(self) -> None:
        self.closed = True


def answers(jobs: int, seconds: float = 0.0, *, resident: int = MIB, set_up: bool = False) -> Answers:
    return Answers(tuple(Answer(SCORE, resident, resident, seconds=seconds, set_up=set_up) for _ in range(jobs)))
