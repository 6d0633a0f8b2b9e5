"""Functions that stand in for `evaluate_job` in worker processes: the task of a job says how it behaves."""

import ctypes
import hashlib
import mmap
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice, repeat
from pathlib import Path

from evolion.evaluators.types import Job, Run, Score, Status
from evolion.proxies.data.source import DataError


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


def lack_data(job: Job) -> Score:
    raise DataError("no file")


def lack_data_once(job: Job) -> Score:
    """Find no data at the first attempt; the split of the job names the file that remembers it."""
    mark = Path(job.split)
    if not mark.exists():
        mark.touch()
        raise DataError("no file")
    return score(job)


def lack_data_on_a_node(job: Job) -> Score:
    """Find no data on the node that asked first; the split of the job names the file that remembers it."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    try:
        with Path(job.split).open("x") as file:
            file.write(node)
    except FileExistsError:
        pass
    if Path(job.split).read_text() == node:
        raise DataError("no file")
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


def hang_without_signals(job: Job) -> Score:
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    return hang(job)


def hang_with_the_interpreter(job: Job) -> Score:
    """Sleep in C without letting any other thread of Python run."""
    ctypes.PyDLL(None).sleep(600)
    return score(job)


def loop_in_jax(job: Job) -> Score:
    """Run a compiled loop, without end but for job 0."""
    import jax

    stop = 1 if job.number == 0 else 0
    jax.jit(lambda bound: jax.lax.while_loop(lambda i: i != bound, lambda i: i + 2, 1))(stop).block_until_ready()
    return score(job)


LARGE = 4 * 2**30
"""What those below take if nothing ends them."""


def take_in_pieces(job: Job) -> Score:
    pieces = [bytes([number % 256]) * 2**20 for number in range(LARGE // 2**20)]
    return score(job) if pieces else fail(job)


def take_at_once(job: Job) -> Score:
    import numpy as np

    np.empty(LARGE, np.uint8).fill(1)
    return score(job)


def take_with_the_interpreter(job: Job) -> Score:
    """Fill a list in C without letting any other thread of Python run."""
    return score(job) if list(islice(iter(int, 1), LARGE // 8)) else fail(job)


def take_blocks_with_the_interpreter(job: Job) -> Score:
    """As above, in small blocks; where Python is refused one, it has an error that names no cause (CPython 3.11)."""
    return score(job) if deque(repeat(None, LARGE // 8)) else fail(job)


def take_shared(job: Job) -> Score:
    """Fill memory that is shared, as far as there is anyone to share it with: the system sets no limit on it."""
    with mmap.mmap(-1, LARGE) as shared:
        for _ in range(LARGE // 2**20):
            shared.write(b"x" * 2**20)
    return score(job)


def take_through_jax(job: Job) -> Score:
    import jax.numpy as jnp

    jnp.ones(LARGE // 4).block_until_ready()
    return score(job)


def take_pieces_through_jax(job: Job) -> Score:
    import jax.numpy as jnp

    pieces = [(jnp.zeros(2**20) + number).block_until_ready() for number in range(LARGE // 2**22)]
    return score(job) if pieces else fail(job)


def end_process_if_refused(job: Job) -> Score:
    """Take too much memory as a library does that ends the process where it gets none."""
    try:
        return take_in_pieces(job)
    except MemoryError:
        os.abort()


BEHAVIOURS: Mapping[str, Callable[[Job], Score]] = {
    function.__name__: function
    for function in (
        score,
        process_id,
        sleep,
        diverge,
        lack_data,
        lack_data_once,
        lack_data_on_a_node,
        fail,
        run_out_of_memory,
        leave,
        end_process,
        end_process_once,
        violate_memory,
        loop_for_ever,
        hang,
        hang_without_signals,
        hang_with_the_interpreter,
        loop_in_jax,
        take_in_pieces,
        take_at_once,
        take_with_the_interpreter,
        take_blocks_with_the_interpreter,
        take_shared,
        take_through_jax,
        take_pieces_through_jax,
        end_process_if_refused,
    )
}

TROUBLE = {40: "end_process", 60: "hang", 61: "fail", 75: "hang_with_the_interpreter"}
"""Jobs of one kind, so that they travel together, and what those of these numbers do."""


def trouble_by_number(job: Job) -> Score:
    return BEHAVIOURS[TROUBLE.get(job.number, "score")](job)


def behave(job: Job) -> Score:
    return trouble_by_number(job) if job.task == "trouble_by_number" else BEHAVIOURS[job.task](job)


def nothing(job: Job) -> Score:
    return Score(Status.OK, 1.0, (), 0, 0.0)
