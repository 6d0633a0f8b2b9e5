"""An evaluator over Ray actors, on this machine or a cluster. Ray is imported inside functions.

Ray restarts nothing here (`max_restarts=0`): its own retries run a fatal job again and again, and its restarted actors
come back without saying so. It has no time limit for a call either; the pool's limits end in `ray.kill`.

When the head of a cluster is lost, Ray ends the driver's process after about a minute, without an exception. What must
survive that has to be on disk before.
"""

import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any, cast, final

from evolion.evaluators.batch.contained import BatchContainment, batch_numerics, train_batch
from evolion.evaluators.batch.evaluator import BatchFunction
from evolion.evaluators.containment import Assignment, Containment
from evolion.evaluators.environment import numerics_tag, processors, settings
from evolion.evaluators.pool import Limits, PoolEvaluator, check_workers
from evolion.evaluators.ray_connection import connect
from evolion.evaluators.ray_data import References, take
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
from evolion.evaluators.worker_class import WorkerClass, fitting

_LEAVE_SECONDS = 2.0
_IDLE_SECONDS = 0.5
_LOOK_SECONDS = 2.0
_DOUBT_SECONDS = 6.0
"""How long Ray may take to tell of a death on a node that is there. It took 0.03 s."""
_PLAIN = WorkerClass()
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

_log = logging.getLogger(__name__)


def ray_evaluator(
    workers: int | None,
    address: str = "local",
    *,
    limits: Limits | None = None,
    function: EvaluateFunction | BatchFunction | None = None,
    tag: TagFunction | None = None,
    data: References | None = None,
    worker_class: WorkerClass = _PLAIN,
    beside: Sequence[WorkerClass] = (),
    numerics: str | None = None,
) -> "PoolEvaluator[RayWorker]":
    """Start `workers` actors and return an `Evaluator` over them, without waiting for them to be ready.

    Without a number there are as many as the cluster has room for, at every moment: they follow it as it grows and
    shrinks. A cluster that is to grow with what is asked of it (autoscaling) needs a number: those for which there is
    no room are what makes it grow.

    `address`: "local" starts Ray on this machine, "auto" joins the cluster that this machine belongs to, "host:port"
    the cluster at this address. Where this process is connected to Ray already, that connection is used and left open.
    `function` and `tag` as in `process_evaluator`. What each actor takes is said by its class; those for which there is
    no room yet start when some becomes free. `beside`: classes that take their places on the same nodes. `data`: what
    was placed in the object store for them. A class of batches has functions of batches. `numerics`: those which the
    workers of a cluster are to have, see `Staff`; without it those of the first.

    Raises EvaluatorUnavailable if ray is missing or nobody answers at the address, ValueError for less than one worker
    or a function that a worker cannot import.
    """
    if workers is not None:
        check_workers(workers)
    one = replace(worker_class, count=workers or worker_class.count)
    limits = limits or Limits()
    if one.batch is not None:
        limits = replace(limits, batch_seconds=math.inf, batch_jobs=one.batch)
    score, says = (train_batch, batch_numerics) if one.batch else (default_function(), numerics_tag)
    work = Work(reference(function or score), reference(tag or says), one.settings(settings()))
    owned = connect(address, processors() if one.count is None else math.ceil(one.count * one.cpus))
    joined = address != "local"
    kind = RayWorkers(work, owned, one, tuple(beside), data or {}, joined)
    return PoolEvaluator(kind, one.count or kind.wanted() or 1, limits, numerics if joined else None)


class RemoteWorker:
    """What runs in an actor's process."""

    def __init__(self, work: Work, data: References, together: bool) -> None:
        self._work = work
        self._data = data
        self._together = together
        self._containment: Containment | BatchContainment | None = None

    def place(self) -> Event:
        """Tell where this is."""
        import ray

        return Placed(ray.get_runtime_context().get_node_id())

    def start(self) -> Event:
        """Load the function."""
        try:
            function, ready = self._work.begin()
            take(self._data)
        except Exception as error:
            return Death(describe(error))
        self._containment = BatchContainment(cast(BatchFunction, function)) if self._together else Containment(function)
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
    """An actor. What becomes of the calls to it goes to `report`, from a thread of Ray's.

    `node` is where it is; `heard` when it last said something; `in_question`: nothing was heard since it was asked.
    """

    def __init__(self, actor: Any, living: "set[RayWorker]", report: Report) -> None:
        self.node = ""
        self.heard = time.monotonic()
        self.in_question = False
        self._actor = actor
        self._living = living
        self._report = report
        self.probe()
        self._follow(actor.start.remote())
        living.add(self)

    def send(self, assignments: tuple[Assignment, ...]) -> None:
        """Hand over jobs, in one call: each costs a millisecond."""
        if time.monotonic() > self.heard + _IDLE_SECONDS:
            # It may have died since, and Ray tells of that only when it is called: that is no fault of these jobs.
            self.in_question = True
            self.probe()
        self._follow(self._actor.evaluate.remote(assignments))

    def probe(self) -> None:
        """Call, to hear of what has become of it."""
        self._follow(self._actor.place.remote())

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
        worker_class: What each takes of its node. Without a count there are as many as the cluster has room for.
        beside: Classes that take their places on the same nodes.
        data: What was placed in the object store for them.
        patient: The cluster was joined: its nodes may come late.

    """

    work: Work
    owned: bool
    worker_class: WorkerClass = _PLAIN
    beside: tuple[WorkerClass, ...] = ()
    data: References = field(default_factory=dict)
    patient: bool = False
    _living: set[RayWorker] = field(default_factory=set)
    _ended: "SimpleQueue[tuple[RayWorker, Future[Event]]]" = field(default_factory=SimpleQueue)
    _doubtful: dict[RayWorker, float] = field(default_factory=dict)
    _looked: float | None = None
    _blind: bool = False
    _actor: Any = None
    _nodes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def streams(self) -> bool:
        """The answers to a batch come together."""
        return False

    def start(self) -> RayWorker:
        """Ask for an actor; it says when it is ready."""
        import ray

        one, needs = self.worker_class, self.worker_class.needs()
        options: dict[str, Any] = {"num_cpus": needs.pop("CPU", 0), "num_gpus": needs.pop("GPU", 0), "resources": needs}
        try:
            if self._actor is None:  # Ray keeps a copy of each class that it is given, for as long as it runs.
                self._actor = ray.remote(max_restarts=0, max_task_retries=0, **options)(RemoteWorker)
            actor = self._actor.remote(self.work, self.data, one.batch is not None)
            return RayWorker(actor, self._living, self._report)
        except ray.exceptions.RayError as error:
            raise OSError(f"Ray takes none: {describe(error)}") from error

    def _report(self, worker: RayWorker, call: "Future[Event]") -> None:
        self._ended.put((worker, call))

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

        if worker not in self._living:
            return []
        error = future.exception()
        in_question = worker.in_question
        if error is None:
            worker.heard, worker.in_question = time.monotonic(), False
        ends = ray.exceptions.ActorDiedError, ray.exceptions.OutOfMemoryError
        if worker in self._doubtful and not isinstance(error, ends):
            return []
        if error is None:
            event = future.result()
            if isinstance(event, Placed):
                worker.node = event.node
            return [(worker, event)]
        if self._is_lost(worker, look=True):
            return [(worker, _loss(worker))]
        if worker.node and isinstance(error, ray.exceptions.ActorUnavailableError):
            # The connection is broken, and Ray does not know why. If the process has ended it will say so at once.
            self._doubtful[worker] = time.monotonic() + _DOUBT_SECONDS
            return []
        # On a node that is out of memory Ray ends neighbours of the one that takes it as well.
        innocent = in_question or isinstance(error, ray.exceptions.OutOfMemoryError)
        return [(worker, Death(_reason(worker, error), innocent))]

    def _lost(self) -> list[tuple[RayWorker, Event]]:
        """The workers on nodes that are lost."""
        self._doubtful = {worker: end for worker, end in self._doubtful.items() if worker in self._living}
        if not self._look(0.5 if self._doubtful else _LOOK_SECONDS):
            return []
        found = [worker for worker in self._living if self._is_lost(worker)]
        for worker, end in self._doubtful.items():
            if self._is_lost(worker):
                continue
            if time.monotonic() < end:
                worker.probe()
            else:  # Nobody there tells of an end: it is not the process that is gone, but what is around it.
                found.append(worker)
        return [(worker, _loss(worker)) for worker in found]

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
        try:
            nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        except ray.exceptions.RayError as error:
            if not self._blind:
                _log.warning("the head of the cluster does not answer (%s); it is asked again", describe(error))
            self._blind = True
            return False
        self._blind = False
        self._nodes = {node["NodeID"]: node for node in nodes}
        return True

    def wanted(self) -> int | None:
        """For how many the nodes have room. At least one: that it waits is what makes a cluster grow from nothing."""
        if self.worker_class.count is not None:
            return None
        self._look(_LOOK_SECONDS)
        nodes = [node["Resources"] for node in self._nodes.values() if node["Alive"]]
        return fitting([self.worker_class, *self.beside], nodes)[self.worker_class.device]

    def diagnose(self) -> str:
        """What the cluster has and has not."""
        import ray

        cluster: Any = ray  # These two functions have no types.
        try:
            total, free = cluster.cluster_resources(), cluster.available_resources()
        except ray.exceptions.RayError as error:
            return f": the head of the cluster does not answer ({describe(error)})"
        needs = self.worker_class.needs()
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in needs.items())
        has = ", ".join(f"{total.get(name, 0.0):g} {name} ({free.get(name, 0.0):g} free)" for name in needs)
        return f": each takes {wanted}, Ray has {has}"

    def close(self) -> None:
        """Leave Ray, if it was this evaluator that joined."""
        import ray

        if self.owned:
            ray.shutdown()


def _reason(worker: RayWorker, error: BaseException) -> str:
    """What has become of an actor, in words. Ray's own are for the log of who looks into it."""
    import ray

    _log.debug("Ray on a worker that died: %s", error)
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "Ray ended it, as the memory of its node ran out"
    if isinstance(error, ray.exceptions.ActorDiedError):
        return f"its process on node {worker.node[:12]} ended" if worker.node else "it ended before it had said where"
    return _COLOURS.sub("", describe(error))


def _loss(worker: RayWorker) -> Death:
    return Death(f"its node {worker.node[:12]} is lost", innocent=True, node=worker.node)
