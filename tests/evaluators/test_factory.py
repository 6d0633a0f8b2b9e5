import subprocess
import sys
from dataclasses import Field, fields, replace

import pytest
from laws.evaluator_laws import job, run
from laws.job_functions import behave
from stub_evaluator import StubEvaluator

from evolion.evaluators import factory
from evolion.evaluators.factory import make_evaluator
from evolion.evaluators.pool import Limits
from evolion.evaluators.types import EvaluatorUnavailable
from evolion.evaluators.worker import answer
from evolion.evaluators.worker_class import WorkerClass


def test_processes_unless_asked_otherwise() -> None:
    """Workers alone mean processes on this machine."""
    with make_evaluator(2, function=behave) as evaluator:
        assert evaluator.workers == 2
        assert run(evaluator, [job(0, "end_process"), job(1)])[1] == answer(behave, job(1))


def test_inline_has_one_worker() -> None:
    """What cannot be had is refused, not ignored."""
    assert make_evaluator(inline=True, function=behave).workers == 1
    with pytest.raises(ValueError, match="one worker"):
        make_evaluator(2, inline=True, function=behave)
    with pytest.raises(ValueError, match="no Ray address"):
        make_evaluator(1, "local", inline=True, function=behave)
    with pytest.raises(ValueError, match="no limits"):
        make_evaluator(inline=True, limits=Limits(), function=behave)


def test_no_workers_and_wrong_addresses_are_errors() -> None:
    """Bad settings end before anything is started."""
    with pytest.raises(ValueError, match="at least 1, not 0"):
        make_evaluator(0, function=behave)
    with pytest.raises(EvaluatorUnavailable, match="neither 'local' nor 'auto' nor HOST:PORT"):
        make_evaluator(1, "nowhere", function=behave)


def test_classes_of_processes_share_the_cores() -> None:
    """Without a cluster, classes are processes: each has its own, as many as were asked for."""
    classes = [WorkerClass(count=1), WorkerClass("other", count=2, platform="cpu")]
    with make_evaluator(classes=classes, function=behave) as evaluator:
        jobs = [replace(job(number, "process_id"), device=("", "other")[number % 2]) for number in range(8)]
        processes = {
            device: {score.loss for number, score in run(evaluator, jobs).items() if jobs[number].device == device}
            for device in ("", "other")
        }
        assert evaluator.workers == 3
        assert len(processes[""]) == 1
        assert not processes[""] & processes["other"]
    with make_evaluator(classes=[WorkerClass(count=1)], function=behave) as evaluator:
        assert run(evaluator, [job(1)])[1] == answer(behave, job(1))


@pytest.mark.parametrize(
    ("one", "what"),
    [
        (WorkerClass(gpus=1.0), "a worker is to have GPU"),
        (WorkerClass(tpus=4), "a worker is to have TPU"),
        (WorkerClass(resources={"slots": 1.0}), "a worker is to have slots"),
        (WorkerClass(batch=8), "a worker is to have batches"),
    ],
)
def test_what_processes_cannot_have_is_refused(one: WorkerClass, what: str) -> None:
    """Nobody shares out the GPUs of a machine without Ray: said at once, with what to do."""
    with pytest.raises(ValueError, match=f"{what}: .* use --ray local, or --batch"):
        make_evaluator(classes=[one], function=behave)
    with pytest.raises(ValueError, match="no class of workers without a device"):
        make_evaluator(classes=[], function=behave)


def test_each_class_of_a_cluster_is_told_what_to_compute_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on asks for machines like those that began it, class by class."""
    told = {}

    def ray_evaluator(*_: object, worker_class: WorkerClass, numerics: str | None, **__: object) -> StubEvaluator:
        told[worker_class.device] = numerics
        return StubEvaluator()

    monkeypatch.setattr(factory, "connect", lambda *_: False)
    monkeypatch.setattr(factory, "place", lambda _: {})
    monkeypatch.setattr(factory, "ray_evaluator", ray_evaluator)
    classes = [WorkerClass(), WorkerClass("gpu", gpus=1.0), WorkerClass("other")]
    make_evaluator(ray_address="auto", classes=classes, numerics={"": "one", "gpu": "another"})
    assert told == {"": "one", "gpu": "another", "other": None}


@pytest.mark.parametrize("limit", fields(Limits), ids=lambda limit: limit.name)
def test_limits_are_positive(limit: Field[float]) -> None:
    """A limit of nothing would end every job."""
    with pytest.raises(ValueError, match="positive"):
        replace(Limits(), **{limit.name: -1})
    if limit.name not in ("set_up", "memory_set_up", "batch_seconds"):
        with pytest.raises(ValueError, match="positive"):
            replace(Limits(), **{limit.name: 0})


def test_evaluators_load_neither_jax_nor_ray() -> None:
    """Settings are made before jax starts, and who does not use Ray does not pay for it."""
    script = "import sys, evolion.evaluators.factory; print(*{'jax', 'ray'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "\n"
