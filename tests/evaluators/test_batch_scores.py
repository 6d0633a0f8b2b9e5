"""Jobs trained together against each trained alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest

from evolion.discovered.library import known
from evolion.evaluators.batch.device import Device, device, gradient_bytes, lanes_of
from evolion.evaluators.batch.evaluate import evaluate_jobs
from evolion.evaluators.batch.kernel import TARGETS
from evolion.evaluators.batch.programs import CAPACITIES, Capacity, lane_program
from evolion.evaluators.encoding import CapacityError, encode
from evolion.evaluators.evaluate import evaluate_compiled, evaluate_interpreted
from evolion.evaluators.loop import flat_task
from evolion.evaluators.types import Job, Score, Status
from evolion.primitives.parser import parse
from evolion.primitives.program import Program

TASK, STEPS, SEEDS, RATES = "digits-mlp", 24, (0, 3), (1e-2, 1e12)
"""At the second rate most programs diverge at once, in the same batch as those that train."""

OWN = {
    "w0, loss and horizon": (
        "def train(w, g, w0, lr, t, horizon, loss):\n    return lr * (g + 0.1 * loss * (w - w0)) * (t / horizon)\n"
    ),
    "noise": "def train(g, noise, lr):\n    return lr * (g + 0.01 * noise)\n",
    "norms in a row": (
        "def train(g, m, lr):\n    m = interp(g, m, 0.9)\n    x = m / norm(m)\n    return lr * x / norm(x), m\n"
    ),
}
NAMES = ("momentum", "adamw", "lion")


def all_programs() -> dict[str, Program]:
    return {name: known()[name] for name in NAMES} | {name: parse(text) for name, text in OWN.items()}


def job(number: int, program: Program, **options: Any) -> Job:
    settings = {"task": TASK, "steps": STEPS, "seeds": SEEDS, "learning_rates": RATES}
    return Job(number, program, **(settings | options))


def device_for(programs: Iterable[Program]) -> Device:
    """A device whose one loop knows the instructions of these programs alone, which is soon compiled."""
    used = [lane_program(encode(program)) for program in programs]
    opcodes = tuple(sorted({0}.union(*(program.opcodes for program in used))))
    sizes = (max(getattr(program, name) for program in used) for name in ("rows", "scratch", "columns"))
    return Device(None, 16, 8, 1 << 30, (Capacity(*sizes, opcodes),))


@cache
def small() -> Device:
    return device_for(all_programs().values())


def assert_alike(ours: Score, theirs: Score, name: str, tolerance: float = 1e-4) -> None:
    """Equal but for rounding, divergences included. A diverged run may be told a step sooner or later."""
    assert ours.status is theirs.status, name
    assert ours.learning_rate == theirs.learning_rate, name
    assert [run.status for run in ours.runs] == [run.status for run in theirs.runs], name
    assert [run.steps for run in ours.runs] == [run.steps for run in theirs.runs], name
    if ours.status is Status.OK:
        for field in ("loss", "train_loss", "curve"):
            np.testing.assert_allclose(getattr(ours, field), getattr(theirs, field), rtol=tolerance, err_msg=name)
    else:
        assert ours.message == theirs.message, name


def test_jobs_trained_together_score_as_each_alone() -> None:
    """Lanes of every program, rate and seed end as the loop of one program ends, diverged ones included."""
    jobs = [job(number, program) for number, program in enumerate(all_programs().values())]
    scores = evaluate_jobs(jobs, small())
    for name, item, score in zip(all_programs(), jobs, scores, strict=True):
        assert_alike(score, evaluate_interpreted(item), name)
    statuses = [run.status for score in scores for run in score.runs]
    assert {Status.OK, Status.DIVERGED} == set(statuses)
    assert any(run.steps < STEPS for score in scores for run in score.runs)


def test_a_score_does_not_hang_on_its_neighbours() -> None:
    """What else is pending is chance: alone, last of many or first, a job's score is the same bit for bit."""
    jobs = [job(number, program) for number, program in enumerate(all_programs().values())]
    together = evaluate_jobs(jobs, small())
    assert evaluate_jobs(jobs[::-1], small()) == together[::-1]
    for item, score in zip(jobs[2:4], together[2:4], strict=True):
        assert evaluate_jobs([item], small()) == [score]


def test_nothing_is_compiled_after_the_first_batch(caplog: pytest.LogCaptureFixture) -> None:
    """A batch costs no compilation, whatever its programs are made of and however many lanes it fills."""

    def compilations(jobs: list[Job]) -> list[str]:
        caplog.clear()
        with jax.log_compiles(True), caplog.at_level(logging.WARNING, logger="jax"):
            evaluate_jobs(jobs, used)
        return [record.getMessage() for record in caplog.records if "Compiling" in record.getMessage()]

    programs = [known()[name] for name in ("sgd", "momentum", "adam")]
    used = device_for(programs)
    task = f"{TASK}:delay=2"  # a loop that other tests have not compiled
    first = compilations([job(0, programs[0], task=task, steps=3)])
    assert any("run" in message for message in first), "the way of counting has to see the compilation of the loop"
    others = [
        job(number, program, task=task, steps=2 + number, learning_rates=(0.1,) * (1 + 5 * number), seeds=(1, 2))
        for number, program in enumerate(programs)
    ]
    # The initial weights of a seed are made when it first comes.
    compilations([job(0, programs[0], task=task, steps=3, seeds=(1, 2))])
    assert compilations(others) == []


def test_what_fits_no_loop_is_compiled() -> None:
    """A batch may hold any program: matrices are answered as ever."""
    matrices = parse("def train(g, lr):\n    return lr * orthogonalize(g, 3.4445, -4.775, 2.0315, 5)\n")
    item = job(1, matrices, steps=4, seeds=(0,), learning_rates=(0.1,))
    simple = job(0, known()["momentum"], steps=4, learning_rates=(0.1,))
    scores = evaluate_jobs([simple, item], small())
    assert scores[1] == evaluate_compiled(item)
    assert scores[0].status is Status.OK


def test_the_kernel_trains_as_super_steps_do() -> None:
    """The kernel inside the loop, run by Pallas as ordinary JAX: several passes, with norms of tensors between them."""
    program = all_programs()["norms in a row"]
    plain = device_for([program])
    item = job(0, program, task="noisy-quadratic", steps=3, learning_rates=(1e-2,))
    (ours,) = evaluate_jobs([item], replace(plain, target=TARGETS["interpret"]))
    (theirs,) = evaluate_jobs([item], plain)
    assert_alike(ours, theirs, "norms in a row", 1e-5)


def test_lanes_are_as_many_as_fit() -> None:
    """A batch takes no more than its share of memory, and its loops come in few sizes."""
    width = flat_task(TASK).layout.entries
    lane = gradient_bytes(TASK) + 4 * width * (CAPACITIES[0].rows + CAPACITIES[0].scratch + 4)
    assert gradient_bytes(TASK) > 3 * 4 * width
    for fitting, expected in ((5, 16), (16, 16), (70, 64), (5000, 256)):
        used = Device(None, 256, 8, 2 * lane * fitting)
        assert lanes_of(used, TASK, 2, CAPACITIES[0]) == expected
    assert device().target is None
    assert "batch of 16 lanes in 1073741824 bytes, super-steps" in device().numerics()
    with pytest.raises(ValueError, match="lanes must be one of 16, 64"):
        device(lanes=17)
    with pytest.raises(ValueError, match="memory must be a positive number"):
        device(memory=0)


@pytest.mark.slow
def test_every_known_program_scores_as_alone() -> None:
    """All known programs that can be interpreted, in all loops for batches, those that read the Hessian included."""
    jobs = []
    for name, program in known().items():
        try:
            encode(program)
        except CapacityError:
            continue
        jobs.append((name, job(len(jobs), program)))
    assert len(jobs) > 80
    scores = evaluate_jobs([item for _, item in jobs], device())
    for (name, item), score in zip(jobs, scores, strict=True):
        assert_alike(score, evaluate_interpreted(item), name, 1e-3)
