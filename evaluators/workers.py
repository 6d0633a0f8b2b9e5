"""Workers as a pool sees them, of whatever kind, and what it allows them."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from evolion.evaluators.containment import Assignment
from evolion.evaluators.worker import Event

__all__ = ["Limits", "Worker", "Workers", "check_workers"]


class Worker(Protocol):
    """One worker, equal to itself alone. What it does shows in `Workers.wait`."""

    def send(self, assignments: tuple[Assignment, ...]) -> None:
        """Hand over jobs, to be done one after another. A worker that is dead meanwhile raises nothing here."""
        ...

    def kill(self) -> None:
        """End the worker at once, alive or dead, and release what belongs to it. `wait` tells no more of it."""
        ...


W = TypeVar("W", bound=Worker)


class Workers(Protocol[W]):
    """One kind of workers."""

    @property
    def streams(self) -> bool:
        """Whether a worker tells each answer at once, so that the job which a worker is at is always known."""
        ...

    @property
    def patient(self) -> bool:
        """Whether places may come late, and on machines of any kind, as on a cluster whose machines have to boot."""
        ...

    def start(self) -> W:
        """Begin to start a worker and return at once; `wait` says when it has a place and when it is ready.

        Raises OSError if the system has no place for another one.
        """
        ...

    def wait(self, timeout: float | None) -> list[tuple[W, Event]]:
        """Wait until something happens to workers that have been started and not killed, and say what, in order."""
        ...

    def wanted(self) -> int | None:
        """How many workers there could be now; None if that never changes. Cheap: it is asked for all the time."""
        ...

    def diagnose(self) -> str:
        """Why no worker may be starting, for the message."""
        ...

    def close(self) -> None:
        """Release what is shared; all workers have been killed before."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job may take, and how long a pool waits. Seconds and bytes.

    The first job of a shape (task, steps, number of runs, split, loop of the interpreter) that a worker gets loads data
    and compiles: it may take more. So may every job whose program is compiled for itself.

    Attributes:
        job: Time until the answer to a job; None for ever.
        set_up: Time for the first job of a shape, in addition.
        start: Time until a first worker is ready, on a cluster from when one has found a place; also what any worker
            may take to start where it has found a place.
        memory: What a job may take beyond what its worker held when it began, as the sum of what it asks for and as
            what it uses, shared memory included; memory of a GPU and of other processes does not count. None: no limit.
        memory_set_up: Memory for the first job of a shape, in addition.
        recycle: A worker that holds more than this after a job is replaced; None never. A fresh one costs seconds and
            compiles again, so that it should be far above what one job leaves behind.
        batch_seconds: How long a worker should be busy with the jobs that it is handed at a time. No score depends on
            it; 0 hands out jobs one by one.
        batch_jobs: How many jobs a worker is handed at a time at most.

    """

    job: float | None = None
    set_up: float = 120.0
    start: float = 120.0
    memory: int | None = None
    memory_set_up: int = 2**30
    recycle: int | None = 3 * 2**30
    batch_seconds: float = 1.0
    batch_jobs: int = 64

    def __post_init__(self) -> None:
        optional = [limit for limit in (self.job, self.memory, self.recycle) if limit is not None]
        least = min(self.set_up, self.memory_set_up, self.batch_seconds)
        if min([self.start, *optional]) <= 0 or least < 0 or self.batch_jobs < 1:
            raise ValueError(f"limits must be positive numbers of seconds, bytes and jobs: {self}")


def check_workers(workers: int) -> None:
    """Raise ValueError unless there is at least one worker."""
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
