"""An evaluator over worker processes on this machine.

Each worker is one spawned process with a pipe of its own, not a member of `concurrent.futures.ProcessPoolExecutor`:
that pool breaks as a whole when one process dies, cannot tell which job did it, and has no public way to stop a job.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, cast, final

from evolion.evaluators.containment import Assignment, Containment
from evolion.evaluators.environment import numerics_tag, settings
from evolion.evaluators.memory import go_first
from evolion.evaluators.pool import Limits, PoolEvaluator, check_workers
from evolion.evaluators.worker import (
    Death,
    EvaluateFunction,
    Event,
    Placed,
    TagFunction,
    Work,
    default_function,
    describe,
    reference,
)

if TYPE_CHECKING:
    Pipe = Connection[tuple[Assignment, ...], Event]


def process_evaluator(
    workers: int,
    *,
    limits: Limits | None = None,
    function: EvaluateFunction | None = None,
    tag: TagFunction = numerics_tag,
    platform: str | None = None,
) -> "PoolEvaluator[ProcessWorker]":
    """Start `workers` processes and return an `Evaluator` over them, without waiting for them to be ready.

    `function` scores a job, `evaluate_job` unless given; `tag` says what it computes with. Both must stand at the top
    of a module. The processes are spawned, so a script that calls this needs the usual `if __name__ == "__main__":`.
    `platform` is what jax computes on there (JAX_PLATFORMS), the same as here unless given.

    Raises ValueError for less than one worker or a function that a worker cannot import.
    """
    check_workers(workers)
    shared = settings() if platform is None else settings() | {"JAX_PLATFORMS": platform}
    work = Work(reference(function or default_function()), reference(tag), shared)
    return PoolEvaluator(ProcessWorkers(work), workers, limits or Limits())


@final
@dataclass(slots=True, eq=False)
class ProcessWorker:
    """A worker process and the driver's end of its pipe.

    `living` holds all that were not killed; `late`: it had ended before it was handed jobs.
    """

    process: SpawnProcess
    connection: "Pipe"
    living: "set[ProcessWorker]" = field(repr=False)
    late: bool = False

    def send(self, assignments: tuple[Assignment, ...]) -> None:
        """Hand over jobs."""
        self.late = self.process.exitcode is not None
        try:
            self.connection.send(assignments)
        except (BrokenPipeError, ConnectionResetError):
            self.late = True  # It has died: `receive` will say so.

    def receive(self) -> list[Event]:
        """The messages that have arrived, or the end of the process."""
        events: list[Event] = []
        try:
            while self.connection.poll():
                events.append(self.connection.recv())
        except (EOFError, OSError):
            pass
        else:
            if events:
                return events
        self.process.join(1.0)
        return [*events, Death(_ending(self.process.exitcode), innocent=self.late)]

    def kill(self) -> None:
        """End the process and wait until it is gone."""
        self.living.discard(self)
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()


@final
@dataclass(frozen=True, slots=True)
class ProcessWorkers:
    """Worker processes, as a pool wants them. Each answer comes at once, through a pipe."""

    work: Work
    living: set[ProcessWorker] = field(default_factory=set)

    @property
    def streams(self) -> bool:
        """Answers come one by one."""
        return True

    @property
    def patient(self) -> bool:
        """This machine is there."""
        return False

    def start(self) -> ProcessWorker:
        """Spawn a process; it says when it is ready."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        # A daemon, so that a driver which forgets to close takes its workers along when it ends.
        process = context.Process(target=_serve, args=(theirs, self.work), daemon=True, name="evolion worker")
        try:
            with _without_interrupts():
                process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = ProcessWorker(process, ours, self.living)
        self.living.add(worker)
        return worker

    def wait(self, timeout: float | None) -> list[tuple[ProcessWorker, Event]]:
        """Wait for messages and deaths."""
        sources = {worker.connection: worker for worker in self.living}
        sentinels = {worker.process.sentinel: worker for worker in self.living}
        ready = wait([*sources, *sentinels], timeout)
        found = dict.fromkeys(_owner(item, sources, sentinels) for item in ready)
        return [(worker, event) for worker in found for event in worker.receive()]

    def wanted(self) -> int | None:
        """As many as were asked for."""
        return None

    def diagnose(self) -> str:
        """Nothing more is known."""
        return ""

    def close(self) -> None:
        """Nothing is shared."""


def _owner(item: object, sources: "dict[Pipe, ProcessWorker]", sentinels: dict[int, ProcessWorker]) -> ProcessWorker:
    return sentinels[item] if isinstance(item, int) else sources[cast("Pipe", item)]


def _ending(code: int | None) -> str:
    if code is None:
        return "closed its pipe"
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Keep Ctrl-C away from a new process from its first moment: a blocked signal is inherited."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # Started by the way, it would unblock the signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: "Connection[Event, tuple[Assignment, ...]]", work: Work) -> None:
    """Answer jobs until the driver is gone: what a worker process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    go_first()
    connection.send(Placed())
    try:
        function, ready = work.begin()
    except Exception as error:
        connection.send(Death(describe(error)))
        return
    connection.send(ready)
    containment = Containment(function)
    while True:
        try:
            assignments = connection.recv()
        except EOFError:
            return
        for part in containment.run_batch(assignments):
            connection.send(part)
            if part.answers[-1].gives_up:
                os._exit(1)  # The job may still be running.


def _end_with_driver() -> None:
    """End a worker in the middle of a job when its driver was killed."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)
