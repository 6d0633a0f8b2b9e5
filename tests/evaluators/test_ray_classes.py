import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from laws.evaluator_laws import PATIENT, EvaluatorLaws, Start, job, run
from laws.job_functions import behave, fixed_tag
from worker_reports import one_tag, other_tag, report, report_batch, report_data

from evolion.evaluators import data_lack
from evolion.evaluators.device_classes import DeviceClasses
from evolion.evaluators.device_gate import gate_devices
from evolion.evaluators.factory import make_evaluator
from evolion.evaluators.pool import Limits
from evolion.evaluators.ray_data import Placed, place
from evolion.evaluators.ray_pool import ray_evaluator
from evolion.evaluators.types import Evaluator, EvaluatorUnavailable, Job, Score
from evolion.evaluators.worker_class import WorkerClass
from evolion.proxies.registry import get_task

pytestmark = pytest.mark.ray

SMALL = WorkerClass(count=1, cpus=0.5)
SLOTS = WorkerClass("slots", count=2, cpus=0.5, resources={"slots": 1.0})


def classes_of_actors(
    classes: Sequence[WorkerClass], function: Callable[..., Any], tags: Sequence[Callable[[], str]], **options: Any
) -> DeviceClasses:
    pools: dict[str, Evaluator] = {
        one.device: ray_evaluator(None, worker_class=one, function=function, tag=tag, limits=PATIENT, **options)
        for one, tag in zip(classes, tags, strict=True)
    }
    return DeviceClasses(pools)


@pytest.fixture
def start(local_ray: None) -> Start:
    def start(function: Callable[[Job], Score], *, tag: Callable[[], str] = fixed_tag) -> DeviceClasses:
        return classes_of_actors([SMALL, SLOTS], function, [tag, tag])

    return start


@pytest.mark.slow
class TestClassesOfActors(EvaluatorLaws):
    pass


def said(score: Score) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(score.message)
    return found


def test_each_class_gets_what_it_asks_for(local_ray: None) -> None:
    """Ray places the workers of a class where its resources are, and jax sees no device that is not the class's."""
    with classes_of_actors([SMALL, SLOTS], report, [one_tag, other_tag]) as evaluator:
        assert (evaluator.numerics, evaluator.numerics_of("slots")) == ("one kind", "another kind")
        jobs = [replace(job(number), device=("", "slots")[number % 2]) for number in range(8)]
        scores = run(evaluator, jobs)
    found = {
        item.device: [said(scores[other.number]) for other in jobs if other.device == item.device] for item in jobs
    }
    assert all(one["assigned"] == {"CPU": 0.5} for one in found[""])
    assert all(one["assigned"] == {"CPU": 0.5, "slots": 1.0} for one in found["slots"])
    assert all(one["settings"]["JAX_PLATFORMS"] == "cpu" for one in [*found[""], *found["slots"]])
    processes = {device: {one["process"] for one in reports} for device, reports in found.items()}
    assert len(processes[""]) == 1
    assert not processes[""] & processes["slots"]


def test_what_the_cluster_does_not_have_is_said(local_ray: None) -> None:
    """A class for which there is no machine is named with what it takes and what there is."""
    gpu = WorkerClass("gpu", count=1, cpus=0.5, gpus=0.25)
    limits = Limits(start=1.0)
    with (
        closing(make_evaluator(ray_address="local", classes=[SMALL, gpu], function=behave, limits=limits)) as evaluator,
        pytest.raises(EvaluatorUnavailable, match=r"takes 0.5 CPU and 0.25 GPU, Ray has 4 CPU \(.* free\), 0 GPU"),
    ):
        evaluator.numerics_of("gpu")


@pytest.mark.slow
def test_a_class_of_batches_is_handed_many_jobs(local_ray: None) -> None:
    """An accelerator trains as many programs at a time as its class says; one that fails costs the others nothing."""
    one = WorkerClass(count=1, batch=16)
    with ray_evaluator(None, worker_class=one, function=report_batch, tag=one_tag, limits=PATIENT) as evaluator:
        first = run(evaluator, [job(0), job(1)])
        together = run(evaluator, [job(number) for number in range(40)])
        failing = run(evaluator, [job(number, "fail" if number == 2 else "score") for number in range(5)])
    assert first[0].loss == 1.0
    assert max(score.loss or 0 for score in together.values()) == 16
    assert failing[2].message == "ValueError: no score"
    assert all(failing[number].loss for number in (0, 1, 3, 4))


@pytest.mark.slow
def test_actors_map_the_data_that_the_driver_has_placed(local_ray: None) -> None:
    """Data is made once for a node: an actor neither opens its source nor copies it, and scores are the same."""
    data = place(["digits-mlp", "digits-mlp:width=2", "digits-cnn"])
    assert len(data) == 1  # three tasks on the same data
    with ray_evaluator(1, function=report_data, tag=one_tag, limits=PATIENT, data=data) as evaluator:
        mapped, made = run(evaluator, [job(0, "digits-mlp"), job(1, "zipf-lm")]).values()
    assert said(mapped)["digest"] == get_task("digits-mlp").digest
    assert not any(said(mapped)[what] for what in ("opened", "owned", "writeable", "address"))
    assert said(made)["digest"] == get_task("zipf-lm").digest
    assert said(made)["opened"]


@pytest.mark.slow
def test_data_that_is_lost_is_made_anew(local_ray: None) -> None:
    """Arrays that are gone, as when their node is lost, cost the time to make them again."""
    import ray

    class Owner:
        def put(self) -> list[Any]:
            return [ray.put({"train": 1})]

    owner = ray.remote(num_cpus=0)(Owner).remote()
    (reference,) = ray.get(owner.put.remote())
    ray.kill(owner)
    data = {key: replace(placed, reference=reference) for key, placed in place(["digits-mlp"]).items()}
    with ray_evaluator(1, function=report_data, tag=one_tag, limits=PATIENT, data=data) as evaluator:
        (score,) = run(evaluator, [job(0, "digits-mlp")]).values()
    assert said(score)["digest"] == get_task("digits-mlp").digest
    assert said(score)["opened"]


@pytest.mark.slow
def test_data_that_is_not_the_drivers_gives_no_score(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that makes data itself, and comes to other numbers than the driver, is not used."""
    monkeypatch.setattr(data_lack, "DATA_PATIENCE", 0.0)
    data = {key: Placed("0" * 64) for key in place(["digits-mlp"])}
    with (
        ray_evaluator(1, function=report_data, tag=one_tag, limits=PATIENT, data=data) as evaluator,
        pytest.raises(EvaluatorUnavailable, match=r"of digits-mlp: DataError: the data .* is not here what it is"),
    ):
        run(evaluator, [job(0, "digits-mlp")])


@pytest.mark.slow
def test_real_classes_pass_the_gate_and_give_the_scores_of_one(local_ray: None) -> None:
    """Two classes of the same machine compute alike, whatever each is given of it: there is nothing to refuse."""
    with closing(make_evaluator(ray_address="local", classes=[SMALL, SLOTS], tasks=["digits-mlp"])) as evaluator:
        assert gate_devices(evaluator, [("slots", "digits-mlp")]) == ()
        jobs = [Job(n, job(n).program, "digits-mlp", 20, (0,), (0.1,), device=("", "slots")[n // 2]) for n in range(4)]
        scores = run(evaluator, jobs)
    assert [scores[n].loss for n in (0, 1)] == [scores[n].loss for n in (2, 3)]
