"""Programs that read an estimate of the Hessian: the same training by either path and by the Optax transform."""

from typing import Any

import pytest

from evolion.discovered.library import known
from evolion.discovered.optax_transform import to_optax
from evolion.evaluators.evaluate import evaluate_compiled, evaluate_job
from evolion.evaluators.types import Job, Score, Status
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.proxies.curvature import Curvature, Estimator
from evolion.proxies.registry import get_task
from evolion.proxies.schedules import warmup_cosine
from evolion.proxies.training import train

TASK, STEPS, RATE = "digits-mlp", 12, 0.01
READERS = {name: program for name, program in known().items() if "hess" in program.inputs}
SETTINGS = {
    "adahessian": (0.1, Curvature(period=1)),
    "sophia_g": (3e-3, Curvature(Estimator.GAUSS_NEWTON_BARTLETT)),
    "sophia_h": (3e-3, Curvature()),
}
"""Learning rate and estimate of each. A single draw that is held for ten steps is no second moment for AdaHessian."""

NEWTON = parse("def train(g, hess, m, lr):\n    m = interp(g, m, 0.9)\n    return lr * m / (abs(hess) + 0.1), m\n")


def job(program: Program, **options: Any) -> Job:
    return Job(0, program, TASK, **({"steps": STEPS, "seeds": (0,), "learning_rates": (RATE,)} | options))


def agree(ours: Score, theirs: Score) -> bool:
    assert ours.status is theirs.status is Status.OK
    return ours.loss == pytest.approx(theirs.loss, rel=2e-3) and ours.curve == pytest.approx(theirs.curve, rel=2e-3)


@pytest.mark.slow
def test_all_ways_of_training_agree() -> None:
    """Interpreted, compiled and as an Optax transform in the plain loop: one seed draws one sequence of estimates."""
    curvature = Curvature(period=5)
    one = job(NEWTON, curvature=curvature, seeds=(3,))
    interpreted = evaluate_job(one)
    assert interpreted == evaluate_job(one)
    assert agree(interpreted, evaluate_compiled(one))
    tx = to_optax(NEWTON, warmup_cosine(RATE, STEPS))
    assert agree(interpreted, train(get_task(TASK), tx, steps=STEPS, curvature=curvature, seed=3))
    assert interpreted != evaluate_job(job(NEWTON, curvature=curvature, seeds=(4,)))


def test_estimator_and_period_enter_the_training() -> None:
    """Each setting is another input; a program that does not use what it takes does not depend on it."""
    settings = [Curvature(), Curvature(period=1), Curvature(Estimator.GAUSS_NEWTON_BARTLETT)]
    assert len({evaluate_compiled(job(NEWTON, curvature=setting)).loss for setting in settings}) == 3
    plain = parse("def train(g, hess, lr):\n    unused = g * hess\n    return lr * g\n")
    assert len({evaluate_compiled(job(plain, curvature=setting)).loss for setting in settings}) == 1


@pytest.mark.parametrize("name", READERS)
def test_programs_of_curvature_train_to_a_sensible_loss(name: str) -> None:
    """At the task's own horizon each comes near what AdamW reaches there (validation loss about 0.1)."""
    rate, curvature = SETTINGS[name]
    score = evaluate_compiled(job(READERS[name], learning_rates=(rate,), steps=500, curvature=curvature))
    assert score.status is Status.OK
    assert score.loss is not None
    assert score.loss < 0.3
