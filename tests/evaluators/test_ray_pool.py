import builtins
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from laws.evaluator_laws import PATIENT, EvaluatorLaws, LimitLaws, RealScoreLaws, Start, WorkerLaws, job, run
from laws.job_functions import behave, fixed_tag

from evolion.evaluators.pool import Limits, PoolEvaluator
from evolion.evaluators.ray_connection import check_address
from evolion.evaluators.ray_pool import RayWorker, RayWorkers, ray_evaluator
from evolion.evaluators.types import EvaluatorUnavailable, Job, Score
from evolion.evaluators.worker import Death, Event, Work


@pytest.fixture
def start(local_ray: None) -> Start:
    def start(
        function: Callable[[Job], Score],
        *,
        workers: int = 2,
        tag: Callable[[], str] = fixed_tag,
        limits: Limits = PATIENT,
    ) -> PoolEvaluator[RayWorker]:
        return ray_evaluator(workers, "local", limits=limits, function=function, tag=tag)

    return start


@pytest.mark.ray
class TestRayEvaluator(EvaluatorLaws, WorkerLaws):
    def test_more_workers_than_cpus_are_no_obstacle(self, start: Start) -> None:
        """Workers for which the cluster has no place yet wait for it, the others work."""
        with start(behave, workers=6) as evaluator:
            assert set(run(evaluator, [job(number) for number in range(8)])) == set(range(8))

    def test_a_full_cluster_is_an_error(self, start: Start) -> None:
        """Where no worker finds a CPU, the message says how many there are instead of waiting for ever."""
        with (
            start(behave, workers=4) as occupying,
            start(behave, workers=1, limits=Limits(start=3.0)) as waiting,
        ):
            assert occupying.numerics == fixed_tag()
            while not all(seat.ready for seat in occupying._seats):
                occupying._step(None)
            with pytest.raises(EvaluatorUnavailable, match="each takes 1 CPU, Ray has 4 CPU \\(0 free\\)"):
                assert waiting.numerics


@pytest.mark.ray
@pytest.mark.slow
class TestLimitsAndRealScoresOnRay(LimitLaws, RealScoreLaws):
    pass


WORK = Work("module:function", "module:tag", {})


class Silent:
    """Stands for an actor whose calls come to nothing, or are refused."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.place = self.start = self

    def remote(self, *_: object) -> "Silent":
        if self.error is not None:
            raise self.error
        return self

    def future(self) -> "Future[Event]":
        return Future()


@pytest.mark.parametrize(("node", "where"), [("0123456789abcdef", "on node 0123456789ab"), ("", "before it had said")])
def test_what_became_of_an_actor_is_said_in_words(node: str, where: str) -> None:
    """Ray's own words are of many lines with ids; a worker ended for want of memory may be anyone's neighbour."""
    import ray

    living: set[RayWorker] = set()
    kind = RayWorkers(WORK, owned=False, _living=living, _looked=float("inf"))
    worker = RayWorker(Silent(), living, lambda *_: None)
    worker.node = node
    for error, innocent, words in [
        (ray.exceptions.ActorDiedError(), False, where),
        (ray.exceptions.OutOfMemoryError("one\ntwo"), True, "the memory of its node ran out"),
    ]:
        for doubtful in ({}, {worker: 0.0}):
            kind._doubtful = doubtful
            future: Future[Event] = Future()
            future.set_exception(error)
            ((_, death),) = kind._outcome(worker, future)
            assert isinstance(death, Death)
            assert death.innocent is innocent
            assert words in death.reason
            assert "actor_id" not in death.reason


def test_an_actor_that_ray_refuses_is_no_place_for_one() -> None:
    """A head that does not answer for a moment ends no run: a pool asks again."""
    import ray

    kind = RayWorkers(WORK, owned=False, _actor=Silent(ray.exceptions.RaySystemError("the head is away")))
    with pytest.raises(OSError, match=r"Ray takes none: RaySystemError: .*the head is away"):
        kind.start()
    assert not kind._living


@contextmanager
def server(reply: bytes | None) -> Iterator[str]:
    """Something that listens: answers with `reply` and hangs up, or says nothing at all if None."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                if reply is not None:
                    connection.sendall(reply)
                else:
                    connection.recv(100)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_an_address_where_nobody_answers_is_one_clear_error() -> None:
    """A wrong address costs seconds and gives one line; ray.init itself tries for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    begun = time.monotonic()
    with pytest.raises(EvaluatorUnavailable, match=f"no Ray at '{address}': Connection refused") as caught:
        check_address(address)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begun < 10.0


@pytest.mark.parametrize("reply", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b"", None], ids=["http", "hangs up", "silent"])
def test_an_address_where_something_else_answers_is_one_clear_error(
    reply: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port of another service is told from Ray's, in bounded time."""
    monkeypatch.setattr("evolion.evaluators.ray_connection._CONNECT_SECONDS", 0.5)
    with server(reply) as address, pytest.raises(EvaluatorUnavailable, match=f"no Ray at '{address}'"):
        check_address(address)


@pytest.mark.parametrize(
    "address", ["", "6379", "host", "host:", "host:port", "host:99999", "ray://host:10001", "Local"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    """A mistyped address is named as such, with what would be right."""
    with pytest.raises(EvaluatorUnavailable, match="neither 'local' nor 'auto' nor HOST:PORT"):
        check_address(address)


def test_the_address_of_the_environment_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "auto" means RAY_ADDRESS where it is set, so that one must answer too."""
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(EvaluatorUnavailable, match="'nowhere'"):
        check_address("auto")


@pytest.mark.ray
def test_a_real_head_passes_the_check(local_ray: None) -> None:
    """The check lets through what is Ray."""
    import ray

    check_address(ray.get_runtime_context().gcs_address)


def test_missing_ray_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray everything else works, and who asks for it is told what to install."""
    original = builtins.__import__

    def without_ray(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return original(name, *arguments, **keywords)

    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(EvaluatorUnavailable, match=r"Ray cannot be imported .*pip install ray, or run without Ray"):
        ray_evaluator(1, "local", function=behave, tag=fixed_tag)


PRELUDE = """
import json, logging, os, sys, time
from laws.evaluator_laws import job, run
from laws.job_functions import BEHAVIOURS, behave, fixed_tag
from evolion.evaluators.pool import Limits
from evolion.evaluators.ray_pool import ray_evaluator

os.environ["RAY_worker_niceness"] = "0"
import ray
from ray.cluster_utils import Cluster

logging.basicConfig(level=logging.INFO)
ROOM = {"object_store_memory": 80 * 2**20}

def on_a_cluster(body):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **ROOM})
    try:
        body(cluster)
        ray.shutdown()
    finally:
        for node in cluster.list_all_nodes():
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
"""


def said_on_a_cluster(folder: Path, body: str) -> tuple[list[Any], str]:
    """What a driver on a cluster of its own says line by line, and its standard error; `body` defines `main`."""
    script = folder / "driver.py"
    script.write_text(f"{PRELUDE}{body}\non_a_cluster(main)\n", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, str(script), str(folder / "mark")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    lines = [line.removeprefix("said ") for line in ended.stdout.splitlines() if line.startswith("said ")]
    return [json.loads(line) for line in lines], ended.stderr


PREEMPTIBLE = """
def main(cluster):
    first = cluster.add_node(num_cpus=1, **ROOM)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    limits = Limits(start=120.0, job=120.0)
    with ray_evaluator(None, cluster.address, limits=limits, function=behave, tag=fixed_tag) as evaluator:
        print("said", json.dumps(evaluator.workers))
        for number in range(20):
            evaluator.submit(job(number, "sleep"))
        scores = dict(answer(evaluator) for _ in range(1))
        raylet = first.all_processes["raylet"][0].process
        raylet.kill()
        raylet.wait()
        while not evaluator.status.nodes_lost:
            scores |= collected(evaluator)
        print("said", json.dumps(evaluator.status.waiting))
        cluster.add_node(num_cpus=2, **ROOM)
        while len(scores) < 20:
            scores |= collected(evaluator)
        # Ray may take a while to give up the lost node: until then there seems to be room for three.
        while evaluator.status.ready < 2 or evaluator.workers > 2:
            evaluator.submit(job(0, "sleep"))
            collected(evaluator)
        status = evaluator.status
        print("said", json.dumps([evaluator.workers, status.nodes_lost, status.quarantined, status.waiting]))
        print("said", json.dumps(sorted((number, status) for number, status in scores.items())))

def collected(evaluator):
    return {item.number: score.status.value for item, score in evaluator.collect(timeout=1.0)}

def answer(evaluator):
    while not (found := collected(evaluator)):
        pass
    (one,) = found.items()
    return one
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_preemptible_cluster_costs_no_job(tmp_path: Path) -> None:
    """The only node is lost with its jobs: the pool waits, follows the cluster to others, and nobody is blamed."""
    (before, waiting, after, scores), log = said_on_a_cluster(tmp_path, PREEMPTIBLE)
    assert (before, after) == (1, [2, 1, 0, ""])
    assert waiting == "no worker is ready"
    assert scores == [[number, "ok"] for number in range(20)]
    assert "was lost (its node" in log
    assert "workers that there is room for: 2 now" in log


WITHOUT_DATA = """
def main(cluster):
    for _ in range(2):
        cluster.add_node(num_cpus=2, **ROOM)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    while ray.cluster_resources().get("CPU") != 4.0:
        time.sleep(0.1)
    limits = Limits(start=120.0, job=120.0)
    with ray_evaluator(None, cluster.address, limits=limits, function=behave, tag=fixed_tag) as evaluator:
        jobs = [job(number, "lack_data_on_a_node", split=sys.argv[1]) for number in range(20)]
        scores = run(evaluator, jobs)
        print("said", json.dumps([scores[each.number] == BEHAVIOURS["score"](each) for each in jobs]))
        print("said", json.dumps(evaluator.status.deaths))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_without_the_data_blames_no_candidate(tmp_path: Path) -> None:
    """Where one node of two has not the files, its workers are set aside, and each job has the score of the other."""
    (scores, deaths), log = said_on_a_cluster(tmp_path, WITHOUT_DATA)
    assert scores == [True] * 20
    assert deaths == 0
    assert log.count("cannot have the data of lack_data_on_a_node and is not used: DataError: no file") == 1
