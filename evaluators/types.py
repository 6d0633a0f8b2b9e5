"""What evaluators take and give, as plain data, and the protocol they follow. Loads neither jax nor ray."""

from dataclasses import dataclass, field
from typing import Protocol

from evolion.primitives.program import Program
from evolion.proxies.curvature import Curvature
from evolion.proxies.score import Run, Score, Status

__all__ = ["Evaluator", "EvaluatorUnavailable", "Job", "Run", "Score", "Status"]


@dataclass(frozen=True, slots=True)
class Job:
    """One program to be scored: trained on `task` for `steps` steps, once for each seed and learning rate.

    `number` is the caller's; `split` is where the final loss is taken; `curvature` is the `hess` that is given to a
    program which reads it.
    """

    number: int
    program: Program
    task: str
    steps: int
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]
    split: str = "validation"
    curvature: Curvature = field(default_factory=Curvature)


class EvaluatorUnavailable(RuntimeError):
    """Evaluations cannot be done at all: a library is missing, nobody answers, no worker starts. One line says what."""


class Evaluator(Protocol):
    """Something that scores jobs. Every job submitted is answered once, in any order; a failure is a score too.

    An evaluator is used by one thread. It is a context manager that closes itself.
    """

    @property
    def numerics(self) -> str:
        """What computes the scores: scores of equal jobs under equal tags are equal bit for bit."""
        ...

    @property
    def workers(self) -> int:
        """How many jobs run at a time."""
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
