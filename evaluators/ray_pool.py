"""An evaluator over Ray actors, on this machine or a cluster. The one module that imports ray, inside functions.

Ray restarts nothing here (`max_restarts=0`): its own retries run a fatal job again and again, and its restarted actors
come back without saying so. It has no time limit for a call either; the pool's limits end in `ray.kill`.

When the head of a cluster is lost, Ray ends the driver's process after about a minute, without an exception. What must
survive that has to be on disk before.
"""

import logging
import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from evolion.evaluators.containment import Assignment, Containment
from evolion.evaluators.environment import numerics_tag, processors, settings
from evolion.evaluators.pool import Limits, PoolEvaluator, check_workers
from evolion.evaluators.types import EvaluatorUnavailable
from evolion.evaluators.worker import (
    Answer,
    Death,
    EvaluateFunction,
    Event,
    TagFunction,
    Work,
    default_function,
    describe,
    reference,
)

_CONNECT_SECONDS = 5.0
_LEAVE_SECONDS = 2.0
_OBJECT_STORE_BYTES = 200 * 2**20
_LOCAL_ENVIRONMENT = {
    # Ray runs its workers at niceness 15; on a machine that does anything else they would starve.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # The behaviour to come, and no warning about it: an actor without a GPU sees the environment as it is.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def ray_evaluator(
    workers: int | None,
    address: str = "local",
    *,
    limits: Limits | None = None,
    function: EvaluateFunction | None = None,
    tag: TagFunction = numerics_tag,
) -> "PoolEvaluator[RayWorker]":
    """Start `workers` actors and return an `Evaluator` over them, without waiting for them to be ready.

    `address`: "local" starts Ray on this machine, "auto" joins the cluster that this machine belongs to, "host:port"
    the cluster at this address. Where this process is connected to Ray already, that connection is used and left open.
    `function` and `tag` as in `process_evaluator`. Each actor takes one CPU; those for which there is none yet start
    when one becomes free.

    Raises EvaluatorUnavailable if ray is missing or nobody answers at the address, ValueError for less than one worker
    or a function that a worker cannot import.
    """
    if workers is not None:
        check_workers(workers)
    work = Work(reference(function or default_function()), reference(tag), settings())
    owned = connect(address, workers or processors())
    return PoolEvaluator(RayWorkers(work, owned), workers or _cluster_processors(), limits or Limits())


def _cluster_processors() -> int:
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(1, int(resources.get("CPU", 1)))


def connect(address: str, workers: int) -> bool:
    """Connect this process to Ray; whether it was not connected before. Raises EvaluatorUnavailable."""
    for name, value in _LOCAL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise EvaluatorUnavailable(
            f"Ray cannot be imported ({describe(error)}): install it with pip install ray, or run without Ray"
        ) from error
    if address != "local":
        check_address(address)
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"num_cpus": workers, "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        ray.init(address=address, **options)
    except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        if address == "auto" and isinstance(error, ConnectionError):
            raise EvaluatorUnavailable(
                "no Ray runs on this machine and RAY_ADDRESS is not set: start it with ray start --head, or use 'local'"
            ) from error
        hint = "" if address == "local" else "; a cluster with token authentication needs RAY_AUTH_MODE=token here too"
        raise EvaluatorUnavailable(f"no Ray at {address!r} ({describe(error)}){hint}") from error
    return True


def check_address(address: str) -> None:
    """Raise EvaluatorUnavailable, within seconds, unless something that can be Ray listens at "host:port".

    `ray.init` itself goes on trying for minutes, and logs at each attempt.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
        if address == "auto":
            return  # Ray looks for its processes on this machine and fails at once if there are none.
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or "//" in host:
        raise EvaluatorUnavailable(
            f"Ray address {address!r} is neither 'local' nor 'auto' nor HOST:PORT, as in 10.0.0.7:6379"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as connection:
            spoken = _speaks_grpc(connection)
    except OSError as error:
        raise EvaluatorUnavailable(f"no Ray at {address!r}: {error.strerror or error}") from error
    if not spoken:
        raise EvaluatorUnavailable(
            f"no Ray at {address!r}: what listens there is something else (Ray's port is 6379 if not set)"
        )


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether a server answers the preface of HTTP/2 (RFC 9113, 3.4) with a frame of settings, as gRPC servers do."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return True
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    header = b""
    while len(header) < 4:
        received = connection.recv(4 - len(header))
        if not received:
            return False
        header += received
    return header[3] == 4


class RemoteWorker:
    """What runs in an actor's process."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._containment: Containment | None = None

    def start(self) -> Event:
        """Load the function."""
        try:
            function, ready = self._work.begin()
        except Exception as error:
            return Death(describe(error))
        self._containment = Containment(function)
        return ready

    def evaluate(self, assignment: Assignment) -> Answer:
        """Score a job."""
        if self._containment is None:
            raise RuntimeError("evaluate before start")
        answer = self._containment.run(assignment)
        if answer.exhausted:
            # The job may still be running. The driver ends this process when it has the answer; if there is none, this.
            timer = threading.Timer(_LEAVE_SECONDS, os._exit, [1])
            timer.daemon = True
            timer.start()
        return answer


@final
class RayWorker:
    """An actor and the one call that it is busy with."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.call: Any = actor.start.remote()

    def send(self, assignment: Assignment) -> None:
        """Hand over a job."""
        self.call = self.actor.evaluate.remote(assignment)

    def kill(self) -> None:
        """End the actor's process."""
        import ray

        ray.kill(self.actor)


@final
@dataclass(frozen=True, slots=True)
class RayWorkers:
    """Ray actors, as a pool wants them. `owned`: the connection to Ray is closed with the pool."""

    work: Work
    owned: bool

    def start(self) -> RayWorker:
        """Ask for an actor; it says when it is ready."""
        import ray

        actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(RemoteWorker)
        return RayWorker(actor.remote(self.work))

    def wait(self, workers: Sequence[RayWorker], timeout: float | None) -> list[tuple[RayWorker, Event]]:
        """Wait for calls to end. An idle actor's death shows when it gets its next job."""
        import ray

        busy = {worker.call: worker for worker in workers if worker.call is not None}
        ray.wait(list(busy), num_returns=1, timeout=timeout)
        ended, _ = ray.wait(list(busy), num_returns=len(busy), timeout=0)
        return [(busy[call], _outcome(busy[call])) for call in ended]

    def diagnose(self) -> str:
        """What the cluster has and has not."""
        import ray

        cluster: Any = ray  # These two functions have no types.
        total, free = cluster.cluster_resources().get("CPU", 0.0), cluster.available_resources().get("CPU", 0.0)
        return f": each needs one CPU, Ray has {total:g}, of which {free:g} are free"

    def close(self) -> None:
        """Leave Ray, if it was this evaluator that joined."""
        import ray

        if self.owned:
            ray.shutdown()


def _outcome(worker: RayWorker) -> Event:
    import ray

    call, worker.call = worker.call, None
    try:
        event: Event = ray.get(call)
    except ray.exceptions.RayError as error:
        return Death(describe(error))
    return event
