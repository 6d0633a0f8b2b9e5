import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from laws.evaluator_laws import PATIENT, EvaluatorLaws, LimitLaws, RealScoreLaws, Start, WorkerLaws, gone
from laws.job_functions import fixed_tag

from evolion.evaluators.pool import Limits, PoolEvaluator
from evolion.evaluators.processes import ProcessWorker, process_evaluator
from evolion.evaluators.types import Job, Score

DRIVER = """
from laws.evaluator_laws import job, run
from laws.job_functions import behave, fixed_tag
from evolion.evaluators.pool import Limits
from evolion.evaluators.processes import process_evaluator

if __name__ == "__main__":
    with process_evaluator(2, limits=Limits(job={seconds}, set_up=0.0), function=behave, tag=fixed_tag) as evaluator:
        found = {{int(score.loss) for score in run(evaluator, [job(n, "process_id") for n in range(20)]).values()}}
        evaluator.submit(job(20, "{task}"))
        print(*found, flush=True)
        evaluator.collect()
"""


@pytest.fixture
def start() -> Start:
    def start(
        function: Callable[[Job], Score],
        *,
        workers: int = 2,
        tag: Callable[[], str] = fixed_tag,
        limits: Limits = PATIENT,
    ) -> PoolEvaluator[ProcessWorker]:
        return process_evaluator(workers, limits=limits, function=function, tag=tag)

    return start


@contextmanager
def driver(
    tmp_path: Path, task: str = "hang", seconds: float = 60.0
) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """A driver process, in a process group of its own, whose one pending job hangs; and its workers."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(task=task, seconds=seconds), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            workers = [int(word) for word in process.stdout.readline().split()]
            assert workers
            yield process, workers
        finally:
            process.kill()


class TestProcessEvaluator(EvaluatorLaws, WorkerLaws, LimitLaws, RealScoreLaws):
    def test_an_interrupt_reaches_the_driver_alone(self, tmp_path: Path) -> None:
        """Ctrl-C goes to all processes of a terminal: one message, not one for each worker, and nothing left behind."""
        with driver(tmp_path) as (process, workers):
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=60)
            assert errors.count("Traceback") == 1
            assert errors.rstrip().endswith("KeyboardInterrupt")
            assert all(gone(worker) for worker in workers)

    def test_workers_end_with_a_killed_driver(self, tmp_path: Path) -> None:
        """kill -9 of the driver leaves no worker computing."""
        with driver(tmp_path) as (process, workers):
            process.kill()
            process.wait()
            assert all(gone(worker) for worker in workers)

    def test_a_hung_worker_ends_with_its_limit_where_no_driver_is(self, tmp_path: Path) -> None:
        """A job that keeps the interpreter to itself, so that its worker cannot see the driver gone, is ended too."""
        with driver(tmp_path, "hang_with_the_interpreter", 1.0) as (process, workers):
            process.kill()
            process.wait()
            assert all(gone(worker) for worker in workers)
