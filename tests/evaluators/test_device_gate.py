import json
from dataclasses import dataclass, replace

import pytest
from stub_evaluator import StubEvaluator

from evolion.evaluators.batch.evaluator import BatchEvaluator
from evolion.evaluators.batch.gate import GATE_PROGRAMS
from evolion.evaluators.device_classes import DeviceClasses
from evolion.evaluators.device_gate import gate_devices, refusal
from evolion.evaluators.inline import inline_evaluator
from evolion.evaluators.types import Job, Score


@dataclass
class Off(StubEvaluator):
    """Computes one task otherwise than others do."""

    factor: float = 1.0
    task: str = "zipf-lm"

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        factors = {True: self.factor, False: 1.0}
        return [
            (job, replace(score, loss=score.loss and score.loss * factors[job.task == self.task]))
            for job, score in StubEvaluator.collect(self, timeout)
        ]


STAGES = [("", "digits-mlp"), ("gpu", "digits-mlp"), ("gpu", "zipf-lm"), ("gpu", "zipf-lm")]


def test_every_class_is_compared_on_every_task_that_it_trains() -> None:
    """An op that one class computes wrongly may be used on one of the tasks alone."""
    classes = {"": StubEvaluator(numerics="cpu"), "gpu": Off(numerics="cuda", factor=1.001)}
    rows = gate_devices(DeviceClasses(classes), STAGES)
    assert [(row.device, row.task) for row in rows] == [("gpu", "digits-mlp"), ("gpu", "zipf-lm")]
    assert refusal(rows) == ""
    assert rows[1].verdict.worst == pytest.approx(0.001)
    assert [len(one.seen) for one in classes.values()] == [2 * len(GATE_PROGRAMS)] * 2
    assert json.loads(json.dumps([row.to_json() for row in rows]))[0]["passed"] is True


def test_a_class_that_computes_otherwise_is_refused_by_name() -> None:
    """The message says which class, which task and by how much."""
    classes = {"": StubEvaluator(numerics="cpu"), "gpu": Off(numerics="cuda", factor=1.1)}
    said = refusal(gate_devices(DeviceClasses(classes), STAGES))
    assert said.startswith("workers of class 'gpu' do not compute as the default ones on zipf-lm: ")
    assert "cannot be mixed" in said


def test_equal_numerics_need_no_comparison() -> None:
    """Workers that differ in their share of a machine alone give equal scores, and cost a run nothing."""
    classes = {"": StubEvaluator(), "many": StubEvaluator()}
    assert gate_devices(DeviceClasses(classes), [("many", "digits-mlp")]) == ()
    assert gate_devices(StubEvaluator(), [("", "digits-mlp")]) == ()
    assert not classes[""].seen


def test_a_job_that_is_lost_is_an_error() -> None:
    """The gate does not wait for ever for an evaluator that has given up."""

    @dataclass
    class Silent(StubEvaluator):
        def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
            return []

        def numerics_of(self, device: str) -> str:
            return device

    with pytest.raises(RuntimeError, match="gave up"):
        gate_devices(Silent(), [("gpu", "digits-mlp")])


@pytest.mark.slow
def test_batches_on_a_cpu_pass_the_real_gate() -> None:
    """Two real ways to compute that differ in last bits pass."""
    with inline_evaluator() as one, BatchEvaluator(batch=len(GATE_PROGRAMS)) as batches:
        rows = gate_devices(DeviceClasses({"": one, "batch": batches}), [("batch", "digits-mlp")])
    assert refusal(rows) == ""
    assert 0 < rows[0].verdict.worst < 0.01
