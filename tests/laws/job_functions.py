"""Functions that stand in for `evaluate_job` in worker processes: the task of a job says how it behaves."""

import ctypes
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from evolion.evaluators.types import Job, Run, Score, Status


def fixed_tag() -> str:
    return "test numerics"


def tag_of_its_own() -> str:
    return f"process {os.getpid()}"


def failing_tag() -> str:
    raise LookupError("no device")


def fatal_tag() -> str:
    os._exit(5)


def hanging_tag() -> str:
    time.sleep(600)
    return "late"


def score(job: Job) -> Score:
    """A score that depends on every field of a job, to the last bit."""
    digest = hashlib.sha256(repr(job).encode()).digest()
    losses = [int.from_bytes(digest[i : i + 4], "little") / 3.0 for i in range(0, 32, 4)]
    runs = tuple(Run(0.1, seed, Status.OK, losses[0], losses[1], job.steps) for seed in job.seeds)
    return Score(Status.OK, losses[0], tuple(losses), job.steps, 0.0, losses[1], 0.1, runs)


def process_id(job: Job) -> Score:
    return Score(Status.OK, float(os.getpid()), (), job.steps, 0.0)


def sleep(job: Job) -> Score:
    time.sleep(0.2)
    return score(job)


def diverge(job: Job) -> Score:
    return Score(Status.DIVERGED, None, (2.3, 1e9), 2, 0.0, message="training diverged at step 2")


def fail(job: Job) -> Score:
    raise ValueError(f"no score\nfor job {job.number}")


def run_out_of_memory(job: Job) -> Score:
    return Score(Status.OK, float(len(bytearray(1 << 62))), (), 0, 0.0)


def leave(job: Job) -> Score:
    raise SystemExit(3)


def end_process(job: Job) -> Score:
    os._exit(3)


def end_process_once(job: Job) -> Score:
    """Die at the first attempt; the split of the job names the file that remembers it."""
    mark = Path(job.split)
    if not mark.exists():
        mark.touch()
        os._exit(3)
    return score(job)


def violate_memory(job: Job) -> Score:
    ctypes.string_at(0)
    return score(job)


def loop_for_ever(job: Job) -> Score:
    while True:
        pass


def hang(job: Job) -> Score:
    time.sleep(600)
    return score(job)


BEHAVIOURS: Mapping[str, Callable[[Job], Score]] = {
    function.__name__: function
    for function in (
        score,
        process_id,
        sleep,
        diverge,
        fail,
        run_out_of_memory,
        leave,
        end_process,
        end_process_once,
        violate_memory,
        loop_for_ever,
        hang,
    )
}


def behave(job: Job) -> Score:
    return BEHAVIOURS[job.task](job)


def nothing(job: Job) -> Score:
    return Score(Status.OK, 1.0, (), 0, 0.0)
