"""What evaluators take and give, as plain data, and the protocol they follow. Loads neither jax nor ray."""

from dataclasses import dataclass, field
from typing import Protocol

from evolion.primitives.program import Program
from evolion.proxies.curvature import Curvature
from evolion.proxies.score import Run, Score, Status

__all__ = ["Evaluator", "EvaluatorUnavailable", "Job", "PoolStatus", "Run", "Score", "Status"]


@dataclass(frozen=True, slots=True)
class Job:
    """One program to be scored: trained on `task` for `steps` steps, once for each seed and learning rate.

    `number` is the caller's; `split` is where the final loss is taken; `curvature` is the `hess` that is given to a
    program which reads it. `device` names the class of workers that trains it; "" is the default class.
    """

    number: int
    program: Program
    task: str
    steps: int
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]
    split: str = "validation"
    curvature: Curvature = field(default_factory=Curvature)
    device: str = ""


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """What the workers of an evaluator do, hold and have been through: for people to look at, nothing is decided by it.

    Attributes:
        workers: How many there are to be.
        ready: Those that have started.
        busy: Those with a job.
        resident_bytes: What all of them held together after the latest job of each; 0 where the system does not say.
        peak_resident_bytes: The most that one of them has held at any time, those that are gone included.
        recycled: Workers replaced between two jobs, for what they held.
        deaths: Workers that died once they were ready.
        timeouts: Jobs without an answer in time.
        over_memory: Jobs that needed more memory than their limit.
        wanted: How many workers there would be if the machines had room for them; 0: as many as `workers`.
        quarantined: Jobs that were given up, as they ended every worker that tried them.
        nodes_lost: Machines that went away with the workers on them.
        waiting: Why nothing runs, "" if it does.

    """

    workers: int
    ready: int = 0
    busy: int = 0
    resident_bytes: int = 0
    peak_resident_bytes: int = 0
    recycled: int = 0
    deaths: int = 0
    timeouts: int = 0
    over_memory: int = 0
    wanted: int = 0
    quarantined: int = 0
    nodes_lost: int = 0
    waiting: str = ""

    def __str__(self) -> str:
        """One line: "2 of 2 workers busy, 0.8 GiB held, 0.5 GiB at most by one; 3 died"."""
        past = {
            "replaced for what they held": self.recycled,
            "died": self.deaths,
            "timed out": self.timeouts,
            "over the limit of memory": self.over_memory,
            "quarantined": self.quarantined,
            "machines lost": self.nodes_lost,
        }
        said = ", ".join(f"{count:,} {what}" for what, count in past.items() if count)
        now = f"{self.busy:,} of {self.workers:,} workers busy, {self.resident_bytes / 2**30:.1f} GiB held"
        held = f"{now}, {self.peak_resident_bytes / 2**30:.1f} GiB at most by one"
        return "; ".join(part for part in (held, said, self.waiting) if part)


class EvaluatorUnavailable(RuntimeError):
    """Evaluations cannot be done at all: a library is missing, nobody answers, no worker starts. One line says what."""


class Evaluator(Protocol):
    """Something that scores jobs. Every job submitted is answered once, in any order; a failure is a score too.

    An evaluator is used by one thread. It is a context manager that closes itself.
    """

    @property
    def numerics(self) -> str:
        """What computes the scores of the default class: equal jobs under equal tags have scores equal bit for bit."""
        ...

    def numerics_of(self, device: str) -> str:
        """What computes the scores of jobs that name this class of workers. What has one class trains all jobs by it.

        Raises ValueError if there are several classes, and none of this name.
        """
        ...

    @property
    def workers(self) -> int:
        """How many jobs run at a time."""
        ...

    @property
    def status(self) -> PoolStatus:
        """What the workers do and hold at this moment."""
        ...

    def submit(self, job: Job) -> None:
        """Take a job and return at once. Raises RuntimeError once closed."""
        ...

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        """Wait for at least one finished job and return all that are finished.

        Returns [] if nothing is pending or nothing finished within `timeout` seconds. Raises EvaluatorUnavailable if no
        worker can be had, RuntimeError once closed.
        """
        ...

    def close(self) -> None:
        """Stop all work at once and drop what is pending; may be repeated. No process stays behind."""
        ...
