"""What every worker does, wherever it runs: find its function, say that it is ready, answer jobs."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from evolion.evaluators.environment import adopt
from evolion.evaluators.memory import resident_bytes
from evolion.evaluators.types import Job, Score, Status

EvaluateFunction = Callable[[Job], Score]
TagFunction = Callable[[], str]

_MESSAGE_LENGTH = 500


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
    """A worker has finished its job, or has given it up because it took too much memory (`exhausted`).

    `resident` is what the worker holds after the job, `peak` the most that it ever held, in bytes.
    """

    score: Score
    resident: int = 0
    peak: int = 0
    exhausted: bool = False


@dataclass(frozen=True, slots=True)
class Death:
    """A worker is gone, or will be as soon as it is killed. `reason` is for the log."""

    reason: str


Event = Ready | Answer | Death


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
    """Score a job; an exception that the function lets out is a score with status crashed that gives type and text."""
    start = time.perf_counter()
    try:
        return function(job)
    except (Exception, SystemExit) as error:
        return crashed(describe(error), time.perf_counter() - start)


def crashed(message: str, seconds: float) -> Score:
    """The score of a job that could not be evaluated."""
    return Score(Status.CRASHED, None, (), 0, seconds, message=message)


def describe(error: BaseException) -> str:
    """Type and text of an exception in one line of at most 500 characters."""
    text = " ".join(str(error).split()) or ("out of memory" if isinstance(error, MemoryError) else "no message")
    return f"{type(error).__name__}: {text}"[:_MESSAGE_LENGTH]
