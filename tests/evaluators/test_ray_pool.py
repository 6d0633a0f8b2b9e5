import builtins
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from laws.evaluator_laws import PATIENT, EvaluatorLaws, LimitLaws, RealScoreLaws, Start, WorkerLaws, job, run
from laws.job_functions import behave, fixed_tag

from evolion.evaluators.pool import Limits, PoolEvaluator
from evolion.evaluators.ray_connection import check_address
from evolion.evaluators.ray_pool import RayWorker, ray_evaluator
from evolion.evaluators.types import EvaluatorUnavailable, Job, Score


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
