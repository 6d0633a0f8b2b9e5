from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from run_contents import contents
from stub_evaluator import StubEvaluator, stub_config

from evolion.config import RunConfig, WorkersConfig
from evolion.driver import discover, resume
from evolion.errors import JobError
from evolion.evaluators.device_classes import DeviceClasses
from evolion.evaluators.types import EvaluatorUnavailable, Job, Score
from evolion.store import RunStore


@dataclass
class Other(StubEvaluator):
    """A device that computes a little otherwise."""

    numerics: str = "another device"

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        return [
            (job, replace(score, loss=score.loss and 1.0001 * score.loss))
            for job, score in StubEvaluator.collect(self, timeout)
        ]


def config() -> RunConfig:
    plain = stub_config(60)
    first, second = plain.stages
    workers = (WorkersConfig(), WorkersConfig("other", gpus=1.0))
    return replace(plain, workers=workers, stages=(first, replace(second, device="other")))


def run(folder: Path, *, shuffle: int | None, workers: int, given: RunConfig) -> dict[str, Any]:
    default, other = (kind(shuffle=shuffle, workers=workers) for kind in (StubEvaluator, Other))
    discover(given, folder, evaluator=DeviceClasses({"": default, "other": other}))
    return contents(folder)


def test_two_device_classes_give_one_result(tmp_path: Path) -> None:
    """Whatever the number of workers and the order in which they finish, every score comes from the class named."""
    found = [
        run(tmp_path / str(number), shuffle=shuffle, workers=workers, given=config())
        for number, (shuffle, workers) in enumerate([(None, 1), (3, 2), (8, 7)])
    ]
    assert found[0] == found[1] == found[2]
    numerics = {text.partition("numerics=")[2].partition(")")[0] for text, *_ in found[0]["scores"]}
    assert numerics == {"'stub'", "'another device'"}


def test_what_belongs_to_the_machine_changes_nothing(tmp_path: Path) -> None:
    """Other counts and shares of the machine for the same devices give the same run."""
    workers = (WorkersConfig(count=5), WorkersConfig("other", gpus=0.5, batch=64))
    one = run(tmp_path / "one", shuffle=None, workers=1, given=config())
    two = run(tmp_path / "two", shuffle=2, workers=3, given=replace(config(), workers=workers))
    assert one == two


def test_the_class_that_a_stage_names_decides_its_scores(tmp_path: Path) -> None:
    """A class is no detail of the machine: naming another one is another configuration, with other scores."""
    mixed = run(tmp_path / "mixed", shuffle=None, workers=1, given=config())
    plain = run(tmp_path / "plain", shuffle=None, workers=1, given=stub_config(60))
    assert config().fingerprint() != stub_config(60).fingerprint()
    assert mixed["scores"] != plain["scores"]


def test_jobs_of_a_stage_go_to_its_class_and_the_rest_to_the_default_one(tmp_path: Path) -> None:
    """Confirmations follow their stage, the comparison the last stage on its task."""
    default, other = StubEvaluator(), Other()
    discover(config(), tmp_path / "run", evaluator=DeviceClasses({"": default, "other": other}))
    # Those of the gate, which trains on both, have numbers below 0.
    assert {job.task for job in default.seen if job.number >= 0} == {"digits-mlp"}
    assert {job.task for job in other.seen if job.number >= 0} == {"zipf-lm"}
    assert {job.split for job in other.seen} >= {"validation", "test"}


def test_classes_that_were_not_compared_are_compared_on_resume(tmp_path: Path) -> None:
    """A run that ends within the gate of scores goes on with it: no score of a class comes before."""
    folder, lost = tmp_path / "run", StubEvaluator()

    def collect(timeout: float | None = None) -> Any:
        raise EvaluatorUnavailable("no worker can have the data of zipf-lm: no file")

    lost.collect = collect  # type: ignore[method-assign]
    with pytest.raises(JobError, match="no file: what was scored is kept; continue with"):
        discover(config(), folder, evaluator=DeviceClasses({"": lost, "other": Other()}))
    for _ in range(2):
        resume(folder, evaluator=DeviceClasses({"": StubEvaluator(), "other": Other()}))
    with RunStore.open(folder, readonly=True) as store:
        assert [event.kind for event in store.events()].count("gate") == 1
    assert contents(folder) == run(tmp_path / "undisturbed", shuffle=None, workers=1, given=config())


def test_a_stage_for_which_the_evaluator_has_no_class_is_an_error(tmp_path: Path) -> None:
    """Nothing is trained by whoever happens to be there."""
    with pytest.raises(ValueError, match="no workers of class 'other'"):
        discover(config(), tmp_path / "run", evaluator=DeviceClasses({"": StubEvaluator()}))
