"""Batches on an accelerator: `pytest -m gpu` on a machine that has one, with JAX_PLATFORMS unset."""

from __future__ import annotations

from dataclasses import replace

import jax
import pytest
from laws.evaluator_laws import run

from evolion.discovered.library import known
from evolion.evaluators.batch.device import Device, device
from evolion.evaluators.batch.evaluate import evaluate_jobs
from evolion.evaluators.batch.evaluator import BatchEvaluator
from evolion.evaluators.batch.gate import GATE_PROGRAMS, gate
from evolion.evaluators.factory import make_evaluator
from evolion.evaluators.types import Job, Score, Status
from evolion.primitives.parser import parse

pytestmark = pytest.mark.gpu

STEPS, RATES = 200, (1e-3, 1e-2)
SPECIAL = {
    "norms": "def train(g, m, lr):\n    m = interp(g, m, 0.9)\n    x = m / norm(m)\n    return lr * x / norm(x), m\n",
    "noise": "def train(g, noise, lr):\n    return lr * (g + 0.01 * noise)\n",
    "w0 and loss": "def train(w, g, w0, lr, loss):\n    return lr * (g + 0.1 * loss * (w - w0))\n",
    "diverges": "def train(g, lr):\n    return -1e6 * g\n",
}


@pytest.fixture(scope="module")
def used() -> Device:
    if jax.devices()[0].platform == "cpu":
        pytest.skip("no accelerator: jax finds only CPUs")
    return device(lanes=64)


def jobs() -> list[Job]:
    programs = [known()[name] for name in GATE_PROGRAMS]
    return [Job(n, program, "digits-mlp", STEPS, (0, 1), RATES) for n, program in enumerate(programs)]


def by_name(scores: list[Score]) -> dict[str, Score]:
    return dict(zip(GATE_PROGRAMS, scores, strict=True))


def test_the_kernel_agrees_with_super_steps(used: Device) -> None:
    """On the device itself, ten known programs and the special cases end alike with the kernel and without."""
    if used.target is None:
        pytest.skip("this accelerator has no kernel")
    special = [Job(n, parse(text), "digits-mlp", 20, (0,), RATES) for n, text in enumerate(SPECIAL.values())]
    plain = replace(used, target=None)
    assert gate(by_name(evaluate_jobs(jobs(), used)), by_name(evaluate_jobs(jobs(), plain))).message == ""
    for name, ours, theirs in zip(SPECIAL, evaluate_jobs(special, used), evaluate_jobs(special, plain), strict=True):
        assert ours.status is theirs.status, name
        assert ours.loss == (None if theirs.loss is None else pytest.approx(theirs.loss, rel=1e-3)), name
    assert evaluate_jobs(special, used)[-1].status is Status.DIVERGED


def test_scores_of_the_device_pass_the_gate_to_those_of_a_cpu(used: Device) -> None:
    """The same candidates on an accelerator and on a worker with a CPU: equal losses but for rounding, equal order."""
    with make_evaluator(1) as evaluator:
        theirs = run(evaluator, jobs())
        assert "cpu" in evaluator.numerics
    assert gate(by_name(evaluate_jobs(jobs(), used)), by_name([theirs[n] for n in range(len(theirs))])).message == ""


def test_scores_are_equal_bit_for_bit_from_call_to_call(used: Device) -> None:
    """Equal tags promise equal scores: whatever the neighbours of a job, in whatever place of the batch."""
    together = evaluate_jobs(jobs(), used)
    assert evaluate_jobs(jobs()[::-1], used)[::-1] == together
    assert evaluate_jobs(jobs()[3:4], used) == together[3:4]


def test_the_evaluator_takes_the_accelerator(used: Device) -> None:
    """Without being told, the evaluator of batches computes on jax's first device and says so in its tag."""
    with BatchEvaluator() as evaluator:
        assert jax.devices()[0].platform in evaluator.numerics
        assert run(evaluator, jobs()[:2])[0].status is Status.OK
