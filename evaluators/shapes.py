"""What a worker sets up once and uses for every job alike: data that it loads, loops that it compiles."""

from typing import NamedTuple

from evolion.evaluators.encoding import Loop, loop_of
from evolion.evaluators.types import Job
from evolion.proxies.curvature import Curvature

__all__ = ["JobKind", "Shape", "kind_of", "shape_of"]


class JobKind(NamedTuple):
    """What jobs of about the same cost share. It is read off a job in a microsecond."""

    task: str
    steps: int
    seeds: int
    learning_rates: int
    split: str
    curvature: Curvature


class Shape(NamedTuple):
    """What is compiled once for all jobs that share it. To tell it takes a look at the program, of a millisecond."""

    kind: JobKind
    loop: Loop


def kind_of(job: Job) -> JobKind:
    """The kind of a job."""
    return JobKind(job.task, job.steps, len(job.seeds), len(job.learning_rates), job.split, job.curvature)


def shape_of(job: Job) -> Shape | None:
    """The shape of a job; None if its program is compiled for itself alone, or fails before that."""
    try:
        loop = loop_of(job.program)
    except Exception:  # It fails again where it is evaluated, and there that is contained.
        return None
    if loop is None:
        return None
    kind = kind_of(job)
    return Shape(kind if loop.hess else kind._replace(curvature=Curvature()), loop)
