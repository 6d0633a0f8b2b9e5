"""Job functions for whole runs with faults: the behaviour of a program decides what it does to its worker.

Light to import, as every worker that dies costs one import: no jax, no configuration.
"""

import ctypes
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from laws.job_functions import (
    end_process,
    hang,
    hang_with_the_interpreter,
    leave,
    take_in_pieces,
    violate_memory,
)

from evolion.evaluators.types import Job, Score, Status
from evolion.primitives.keys import behavioural_key
from evolion.primitives.program import Program
from evolion.proxies.score import Run

LIMITS = {"job": 2.5, "set_up": 0.0, "memory": 60 * 2**20, "memory_set_up": 0}
"""The limits under which `faulty_score` is to be run."""

MARKS = "EVOLION_TEST_MARKS"
"""The variable that names the folder in which jobs note what others are to know of them."""


def sound_score(job: Job) -> Score:
    """A score that hangs on behaviour, task, split and seed alone."""
    key = behavioural_key(job.program)
    losses = {seed: 1.0 + _drawn(key, job.task) + 0.01 * _drawn(key, seed, job.split) for seed in job.seeds}
    runs = tuple(
        Run(rate, seed, Status.OK, losses[seed], losses[seed] / 2, job.steps)
        for rate in job.learning_rates
        for seed in job.seeds
    )
    loss = sum(losses.values()) / len(losses)
    return Score(Status.OK, loss, (loss,), job.steps, 0.01, loss / 2, job.learning_rates[0], runs)


def slow_score(job: Job) -> Score:
    """A score that takes long enough for something to happen meanwhile."""
    time.sleep(float(os.environ.get("EVOLION_TEST_SECONDS", "0.05")))
    return sound_score(job)


def _drawn(*name: object) -> float:
    return int.from_bytes(hashlib.sha256(repr(name).encode()).digest()[:4], "little") / 2**32


def stop_itself(job: Job) -> Score:
    """Be stopped, as by a debugger: alive, and deaf to all signals but one."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return sound_score(job)


def end_by_signal(job: Job) -> Score:
    os.kill(os.getpid(), signal.SIGTERM)
    return hang(job)


def close_files(job: Job) -> Score:
    """Close what the worker answers through, and go on."""
    os.closerange(3, 256)
    return sound_score(job)


def overflow_the_stack(job: Job) -> Score:
    """Call back and forth between C and Python, where nothing counts how deep."""
    sys.setrecursionlimit(2**30)
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    numbers = (ctypes.c_int * 2)()

    def deeper(*_: object) -> int:
        ctypes.CDLL(None).qsort(numbers, 2, 4, compare(deeper))
        return 0

    deeper(0, 0)
    return sound_score(job)


def wait_for_a_killer(job: Job) -> Score:
    """At the first attempt, note the process and wait until somebody ends it; answer at the second."""
    mark = Path(os.environ[MARKS], f"{behavioural_key(job.program)} {job.task} {job.seeds[0]}")
    try:
        with open(mark, "x", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    except FileExistsError:
        return sound_score(job)
    return hang(job)


OVERDUE = Score(Status.TIMEOUT, None, (), 0, 0.0, message="no answer within 2.5 s")
TOO_LARGE = Score(Status.CRASHED, None, (), 0, 0.0, message="needed more than 60 MiB of memory")
LEFT = Score(Status.CRASHED, None, (), 0, 0.0, message="SystemExit: 3")
QUARANTINED = Score(Status.CRASHED, None, (), 0, 0.0, message="quarantined: killed 2 workers")
FAULTS: Mapping[Callable[[Job], Score], Score] = {
    hang: OVERDUE,
    hang_with_the_interpreter: OVERDUE,
    stop_itself: OVERDUE,
    take_in_pieces: TOO_LARGE,
    leave: LEFT,
    violate_memory: QUARANTINED,
    end_process: QUARANTINED,
    end_by_signal: QUARANTINED,
    close_files: QUARANTINED,
    overflow_the_stack: QUARANTINED,
}
"""What a job does instead of an answer, and what its candidate has from it."""


def fault_of(program: Program) -> Callable[[Job], Score] | None:
    """What becomes of the jobs of a program: a fault for about one in three."""
    drawn = int(behavioural_key(program)[:8], 16) % (3 * len(FAULTS))
    return list(FAULTS)[drawn] if drawn < len(FAULTS) else None


def faulty_score(job: Job) -> Score:
    """For workers under the limits above."""
    return (fault_of(job.program) or sound_score)(job)


def named_fault(job: Job) -> Score:
    """The fault that the task of a job names; a score for any other task."""
    return next((act for act in FAULTS if act.__name__ == job.task), sound_score)(job)


def expected_score(job: Job) -> Score:
    """What a driver gets for `faulty_score`, said without doing it."""
    fault = fault_of(job.program)
    return sound_score(job) if fault is None else FAULTS[fault]


def disturbed_score(job: Job) -> Score:
    """Two of three jobs of the search wait for somebody who ends their worker; the score is that of `sound_score`."""
    chosen = int(behavioural_key(job.program)[:8], 16) % 3 and job.split == "validation" and len(job.learning_rates) > 1
    return (wait_for_a_killer if chosen else sound_score)(job)
