"""What every worker does, wherever it runs: find its function, say that it is ready, answer jobs."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from evolion.evaluators.environment import adopt
from evolion.evaluators.memory import resident_bytes
from evolion.evaluators.shapes import Shape
from evolion.evaluators.types import Job, Score, Status
from evolion.proxies.data.source import DataError

EvaluateFunction = Callable[[Job], Score]
TagFunction = Callable[[], str]

_MESSAGE_LENGTH = 500


@dataclass(frozen=True, slots=True)
class Placed:
    """A worker has a place to run and begins to start. `node` names the machine, "" if there is only one."""

    node: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has started and takes jobs.

    `numerics` is the tag of what it computes with, `resident` what it holds in memory, in bytes, 0 if it cannot tell:
    then it cannot hold a limit of memory either.
    """

    numerics: str
    resident: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one job.

    Attributes:
        score: Its score; without meaning if `overdue` or `unreadable`.
        resident: What the worker holds after the job, in bytes.
        peak: The most that the worker ever held, in bytes.
        exhausted: The job was given up because it took too much memory. It may still run: the worker has to go.
        overdue: The job was given up because it took too long. It may still run: the worker has to go.
        unreadable: Why the data of its task cannot be had where the worker is; "" if it can. The job is for another
            worker, as are those after it.
        seconds: How long the worker was busy with it.
        shape: What the worker set up for this job and keeps for others; None if it had set up all before, or keeps
            nothing.
        set_up: Whether the worker had to set up anything.

    """

    score: Score
    resident: int = 0
    peak: int = 0
    exhausted: bool = False
    overdue: bool = False
    unreadable: str = ""
    seconds: float = 0.0
    shape: Shape | None = None
    set_up: bool = False

    @property
    def gives_up(self) -> bool:
        """Whether the job may still run."""
        return self.exhausted or self.overdue


@dataclass(frozen=True, slots=True)
class Answers:
    """A worker has finished the next jobs of its batch, in their order.

    `done`: it takes the next batch. Where it leaves jobs of this one unanswered it has to be replaced.
    """

    answers: tuple[Answer, ...]
    done: bool = True


@dataclass(frozen=True, slots=True)
class Death:
    """A worker is gone, or will be as soon as it is killed.

    `reason` is for the log. `innocent`: no job is taken for the cause, as the worker had begun with none, was ended
    because the memory of its machine ran out, or was lost with its machine, which is named by `node`.
    """

    reason: str
    innocent: bool = False
    node: str = ""


Event = Placed | Ready | Answers | Death


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker process is started with: two functions by reference, and the settings of the driver's process.

    The functions are named, not sent, so that jax is imported in the worker only after the settings are made.
    """

    function: str
    tag: str
    settings: Mapping[str, str]

    def begin(self) -> tuple[EvaluateFunction, Ready]:
        """Make the settings and load the functions, in the worker."""
        adopt(self.settings)
        function: EvaluateFunction = resolve(self.function)
        tag: TagFunction = resolve(self.tag)
        return function, Ready(tag(), resident_bytes())


def default_function() -> EvaluateFunction:
    """The function that scores a job in earnest. Imports jax."""
    from evolion.evaluators.evaluate import evaluate_job

    return evaluate_job


def reference(function: Callable[..., object]) -> str:
    """The place of a function, as "module:name". Raises ValueError for one that cannot be imported from there."""
    place = f"{function.__module__}:{function.__qualname__}"
    try:
        found = resolve(place)
    except (ImportError, AttributeError):
        found = None
    if found is not function:
        raise ValueError(f"{place} cannot be imported by a worker process: define the function at the top of a module")
    return place


def resolve(place: str) -> Any:
    """The object at "module:name"."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def answer(function: EvaluateFunction, job: Job) -> Score:
    """Score a job; an exception that the function lets out is a score with status crashed that gives type and text.

    But for DataError: it says nothing of the job.
    """
    start = time.perf_counter()
    try:
        return function(job)
    except DataError:
        raise
    except (Exception, SystemExit) as error:
        return crashed(describe(error), time.perf_counter() - start)


def crashed(message: str, seconds: float) -> Score:
    """The score of a job that could not be evaluated."""
    return Score(Status.CRASHED, None, (), 0, seconds, message=message)


def describe(error: BaseException) -> str:
    """Type and text of an exception in one line of at most 500 characters."""
    text = " ".join(str(error).split()) or ("out of memory" if isinstance(error, MemoryError) else "no message")
    return f"{type(error).__name__}: {text}"[:_MESSAGE_LENGTH]
