"""What a job is worth: every learning rate and seed of it trained, in whichever process this runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from evolion.evaluators.compiled import compile_and_run
from evolion.evaluators.compiler_memory import hand_back
from evolion.evaluators.encoding import CapacityError, Encoding, encode, scalar_table
from evolion.evaluators.interpreter import interpret
from evolion.evaluators.loop import Outcome
from evolion.evaluators.promotion import Path, choose, size_of
from evolion.evaluators.types import Job
from evolion.primitives.dataflow import remove_dead_code
from evolion.proxies.schedules import multipliers
from evolion.proxies.score import Score, Status, score_of_run

__all__ = ["evaluate_compiled", "evaluate_interpreted", "evaluate_job", "score_of_outcome", "score_of_runs"]

Train = Callable[[NDArray[np.float32], int], Outcome]
"""(the learning rate of every step, seed) to the outcome of one training run."""


def evaluate_job(job: Job) -> Score:
    """Train the job's program at each learning rate and seed, and return the score at its best learning rate.

    The program is interpreted, or compiled where that costs less or the interpreter cannot take it: see
    `promotion.plan`. The peak learning rate is warmed up and decayed by the schedule of `evolion.proxies.schedules`.
    The best rate is that of the lowest mean loss over seeds among those at which every seed ended finite; without one
    the status is "diverged".

    Raises ValueError if the program reads an estimate of the Hessian that the task cannot give.
    """
    try:
        encoding = encode(job.program)
    except CapacityError:
        return evaluate_compiled(job)
    if choose(job, encoding, size_of(job.task)).path is Path.COMPILED:
        return evaluate_compiled(job)
    return _interpreted(job, encoding)


def evaluate_interpreted(job: Job) -> Score:
    """Return the same score as `evaluate_job` but for rounding, by interpreting the program.

    Raises `encoding.CapacityError` for a program that cannot be interpreted.
    """
    return _interpreted(job, encode(job.program))


def _interpreted(job: Job, encoding: Encoding) -> Score:
    def train(rates: NDArray[np.float32], seed: int) -> Outcome:
        table = scalar_table(encoding, rates)
        return interpret(encoding, table, job.task, seed=seed, split=job.split, curvature=job.curvature)

    return _score(job, train)


def evaluate_compiled(job: Job) -> Score:
    """Return the same score as `evaluate_job` but for rounding, by compiling the program into the training loop."""
    program = remove_dead_code(job.program)

    def train(rates: NDArray[np.float32], seed: int) -> Outcome:
        return compile_and_run(program, rates, job.task, seed=seed, split=job.split, curvature=job.curvature)

    return _score(job, train)


def _score(job: Job, train: Train) -> Score:
    started = time.perf_counter()
    shape = multipliers(job.steps)
    by_rate = [
        [score_of_outcome(job, train((rate * shape).astype(np.float32), seed), rate, seed) for seed in job.seeds]
        for rate in job.learning_rates
    ]
    seconds = time.perf_counter() - started
    hand_back()
    return score_of_runs(job, by_rate, seconds)


def score_of_runs(job: Job, by_rate: Sequence[Sequence[Score]], seconds: float) -> Score:
    """Return the score of a job from those of its runs, one for each learning rate and seed."""
    runs = tuple(run for scores in by_rate for score in scores for run in score.runs)
    finished = [scores for scores in by_rate if all(score.status is Status.OK for score in scores)]
    if not finished:
        longest = max((score for scores in by_rate for score in scores), key=lambda score: score.steps)
        message = f"training diverged at every learning rate, at the latest at step {longest.steps} of {job.steps}"
        return Score(Status.DIVERGED, None, longest.curve, longest.steps, seconds, runs=runs, message=message)
    best = min(finished, key=lambda scores: _mean([score.loss for score in scores]))
    return Score(
        status=Status.OK,
        loss=_mean([score.loss for score in best]),
        curve=tuple(_mean(point) for point in zip(*(score.curve for score in best), strict=True)),
        steps=job.steps,
        seconds=seconds,
        train_loss=_mean([score.train_loss for score in best]),
        learning_rate=best[0].learning_rate,
        runs=runs,
    )


def score_of_outcome(job: Job, outcome: Outcome, rate: float, seed: int) -> Score:
    """Return the score of one training run of a job."""
    steps = int(outcome.steps)
    losses = np.asarray(outcome.losses)[:steps].tolist()
    return score_of_run(
        losses,
        horizon=job.steps,
        final=float(outcome.final),
        finite=bool(outcome.finite),
        seed=seed,
        seconds=0.0,
        learning_rate=rate,
    )


def _mean(values: Sequence[float | None]) -> float:
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers)
