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
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, final

from evolion.evaluators.containment import Assignment, Containment
from evolion.evaluators.environment import numerics_tag, processors, settings
from evolion.evaluators.pool import Limits, PoolEvaluator, check_workers
from evolion.evaluators.types import EvaluatorUnavailable
from evolion.evaluators.worker import (
    Answers,
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

_CONNECT_SECONDS = 5.0
_LEAVE_SECONDS = 2.0
_LOOK_SECONDS = 2.0
_VERDICT_SECONDS = 10.0
_CPU = {"CPU": 1.0}
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

    Without a number there are as many as the cluster has room for, at every moment: they follow it as it grows and
    shrinks. A cluster that is to grow with what is asked of it (autoscaling) needs a number: those for which there is
    no room are what makes it grow.

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
    kind = RayWorkers(work, owned, follows=workers is None)
    return PoolEvaluator(kind, workers or kind.wanted() or 1, limits or Limits())


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

    def place(self) -> Event:
        """Tell where this is."""
        import ray

        return Placed(ray.get_runtime_context().get_node_id())

    def start(self) -> Event:
        """Load the function."""
        try:
            function, ready = self._work.begin()
        except Exception as error:
            return Death(describe(error))
        self._containment = Containment(function)
        return ready

    def evaluate(self, assignments: Sequence[Assignment]) -> Event:
        """Score jobs."""
        if self._containment is None:
            raise RuntimeError("evaluate before start")
        answers = tuple(answer for part in self._containment.run_batch(assignments) for answer in part.answers)
        if answers[-1].gives_up:
            # The job may still be running. The driver ends this process when it has the answer; if there is none, this.
            timer = threading.Timer(_LEAVE_SECONDS, os._exit, [1])
            timer.daemon = True
            timer.start()
        return Answers(answers)


Report = Callable[["RayWorker", "Future[Event]"], None]


@final
class RayWorker:
    """An actor. What becomes of the calls to it goes to `report`, from a thread of Ray's; `node` is where it is."""

    def __init__(self, actor: Any, living: "set[RayWorker]", report: Report) -> None:
        self.node = ""
        self._actor = actor
        self._living = living
        self._report = report
        living.add(self)
        self._follow(actor.place.remote())
        self._follow(actor.start.remote())

    def send(self, assignments: tuple[Assignment, ...]) -> None:
        """Hand over jobs, in one call: each costs a millisecond."""
        self._follow(self._actor.evaluate.remote(assignments))

    def kill(self) -> None:
        """End the actor's process."""
        import ray

        self._living.discard(self)
        ray.kill(self._actor)

    def _follow(self, call: Any) -> None:
        call.future().add_done_callback(lambda future: self._report(self, future))


@final
@dataclass(slots=True)
class RayWorkers:
    """Ray actors, as a pool wants them.

    Attributes:
        work: What they do.
        owned: The connection to Ray is closed with the pool.
        requirement: What each takes of its node, by Ray's names of resources.
        follows: There are to be as many as the cluster has room for.

    """

    work: Work
    owned: bool
    requirement: Mapping[str, float] = field(default_factory=lambda: _CPU)
    follows: bool = False
    _living: set[RayWorker] = field(default_factory=set)
    _ended: "SimpleQueue[tuple[RayWorker, Future[Event]]]" = field(default_factory=SimpleQueue)
    _doubtful: dict[RayWorker, tuple[float, str]] = field(default_factory=dict)
    _looked: float | None = None
    _nodes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def streams(self) -> bool:
        """The answers to a batch come together."""
        return False

    def start(self) -> RayWorker:
        """Ask for an actor; it says when it is ready."""
        import ray

        actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(RemoteWorker)
        return RayWorker(actor.remote(self.work), self._living, lambda *ended: self._ended.put(ended))

    def wait(self, timeout: float | None) -> list[tuple[RayWorker, Event]]:
        """Wait for calls to end and for nodes to be lost. Other deaths of idle actors show at their next job."""
        longest = 0.2 if self._doubtful else _LOOK_SECONDS
        events = [
            event for ended in self._taken(min(longest, longest if timeout is None else timeout)) for event in ended
        ]
        return events + self._lost()

    def _taken(self, timeout: float) -> Iterable[list[tuple[RayWorker, Event]]]:
        try:
            yield self._outcome(*self._ended.get(timeout=timeout))
            while True:
                yield self._outcome(*self._ended.get_nowait())
        except Empty:
            return

    def _outcome(self, worker: RayWorker, future: "Future[Event]") -> list[tuple[RayWorker, Event]]:
        """What has come of a call."""
        import ray

        if worker not in self._living or worker in self._doubtful:
            return []
        error = future.exception()
        if error is None:
            event = future.result()
            if isinstance(event, Placed):
                worker.node = event.node
            return [(worker, event)]
        reason = describe(error)
        if self._is_lost(worker, look=True):
            return [(worker, _loss(worker))]
        if isinstance(error, ray.exceptions.ActorUnavailableError):
            # Ray knows no more than that the connection is broken; if the node is lost it will know soon.
            self._doubtful[worker] = time.monotonic() + _VERDICT_SECONDS, reason
            return []
        return [(worker, Death(reason))]

    def _lost(self) -> list[tuple[RayWorker, Event]]:
        """The workers on nodes that are lost, and those of which nothing better will be known."""
        looked = self._look(0.5 if self._doubtful else _LOOK_SECONDS)
        if not looked:
            return []
        found: list[tuple[RayWorker, Event]] = []
        now = time.monotonic()
        for worker in list(self._living):
            end, reason = self._doubtful.get(worker, (None, ""))
            if self._is_lost(worker):
                found.append((worker, _loss(worker)))
            elif end is not None and now >= end:
                found.append((worker, Death(reason)))
        for worker, _ in found:
            self._doubtful.pop(worker, None)
        self._doubtful = {worker: said for worker, said in self._doubtful.items() if worker in self._living}
        return found

    def _is_lost(self, worker: RayWorker, *, look: bool = False) -> bool:
        if look:
            self._look(0.0)
        return bool(worker.node) and worker.node in self._nodes and not self._nodes[worker.node]["Alive"]

    def _look(self, age: float) -> bool:
        """Ask Ray for its nodes unless that was done within `age` seconds; whether it was asked."""
        import ray

        now = time.monotonic()
        if self._looked is not None and now < self._looked + age:
            return False
        self._looked = now
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        self._nodes = {node["NodeID"]: node for node in nodes}
        return True

    def wanted(self) -> int | None:
        """For how many the nodes have room. At least one: that it waits is what makes a cluster grow from nothing."""
        if not self.follows:
            return None
        self._look(_LOOK_SECONDS)
        return max(1, sum(room(self.requirement, node["Resources"]) for node in self._nodes.values() if node["Alive"]))

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


def room(requirement: Mapping[str, float], resources: Mapping[str, float]) -> int:
    """How many workers a node has room for, by what each takes and what the node has; 0 or more."""
    # Ray counts resources in steps of 0.0001.
    return int(min(resources.get(name, 0.0) / amount + 1e-6 for name, amount in requirement.items() if amount > 0))


def _loss(worker: RayWorker) -> Death:
    return Death(f"its node {worker.node[:12]} is lost", innocent=True, node=worker.node)
