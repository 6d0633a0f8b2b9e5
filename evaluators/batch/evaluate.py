"""What jobs are worth, trained many at a time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from evolion.evaluators.batch.device import Device, lanes_of
from evolion.evaluators.batch.kernel import KernelTarget, takes
from evolion.evaluators.batch.loop import BatchLoop, Outcomes, batch_loop
from evolion.evaluators.batch.programs import Capacity, LaneProgram, Shape, arrange, capacity_of, lane_program
from evolion.evaluators.encoding import CapacityError, Encoding, encode, scalar_table
from evolion.evaluators.evaluate import evaluate_compiled, score_of_outcome, score_of_runs
from evolion.evaluators.loop import Outcome, flat_task
from evolion.evaluators.types import Job, Score
from evolion.proxies.curvature import Curvature
from evolion.proxies.schedules import multipliers

__all__ = ["evaluate_jobs"]


@dataclass(frozen=True, slots=True)
class _Group:
    """What the lanes of a batch have in common."""

    task: str
    steps: int
    split: Any
    seeds: tuple[int, ...]
    curvature: Curvature | None
    capacity: Capacity
    target: KernelTarget | None


@dataclass(frozen=True, slots=True)
class _Lane:
    """One program at one learning rate."""

    job: int
    rate: int
    encoding: Encoding
    program: LaneProgram


def evaluate_jobs(jobs: Sequence[Job], used: Device) -> list[Score]:
    """Return the scores of jobs in their order, each as `evaluators.evaluate.evaluate_job` gives it but for rounding.

    Jobs of equal task, steps, split and seeds are trained together, a lane for each program and learning rate, as many
    at a time as fit. Programs that cannot be interpreted are compiled one by one. `seconds` of a score is its share of
    the time of its batches.

    Raises ValueError if a program reads an estimate of the Hessian that its task cannot give.
    """
    groups: dict[_Group, list[_Lane]] = defaultdict(list)
    scores: dict[int, Score] = {}
    for number, job in enumerate(jobs):
        try:
            encoding = encode(job.program)
            program = lane_program(encoding)
            capacity = capacity_of(program, used.capacities)
        except CapacityError:
            # As in batches, so that devices can be compared.
            with jax.default_matmul_precision("highest"):
                scores[number] = evaluate_compiled(job)
            continue
        groups[_group(job, encoding, program, capacity, used)] += [
            _Lane(number, rate, encoding, program) for rate in range(len(job.learning_rates))
        ]
    found: dict[int, list[list[Score]]] = {
        number: [[] for _ in job.learning_rates] for number, job in enumerate(jobs) if number not in scores
    }
    seconds: dict[int, float] = defaultdict(float)
    for group, lanes in groups.items():
        started = time.perf_counter()
        for lane, runs in _trained(jobs, group, lanes, used):
            found[lane.job][lane.rate] = runs
        share = (time.perf_counter() - started) / len(lanes)
        for lane in lanes:
            seconds[lane.job] += share
    scores |= {number: score_of_runs(jobs[number], runs, seconds[number]) for number, runs in found.items()}
    return [scores[number] for number in range(len(jobs))]


def _group(job: Job, encoding: Encoding, program: LaneProgram, capacity: Capacity, used: Device) -> _Group:
    return _Group(
        task=job.task,
        steps=job.steps,
        split=job.split,
        seeds=job.seeds,
        curvature=job.curvature if encoding.hess >= 0 else None,
        capacity=capacity,
        target=used.target if used.target and takes(used.target, capacity.rows, program.opcodes) else None,
    )


def _trained(
    jobs: Sequence[Job], group: _Group, lanes: Sequence[_Lane], used: Device
) -> Iterator[tuple[_Lane, list[Score]]]:
    """Train lanes of one group; yield each with the scores of its seeds."""
    at_once = lanes_of(used, group.task, len(group.seeds), group.capacity)
    shape = Shape(at_once, len(group.seeds), group.capacity)
    loop = _loop(group.task, shape, group.target, group.curvature)
    running: list[tuple[Sequence[_Lane], Outcomes]] = []
    for first in range(0, len(lanes), at_once):
        part = lanes[first : first + at_once]
        programs = [lane.program for lane in part]
        batch = arrange(programs, at_once, group.capacity, used.slots, kernel=group.target is not None)
        # The device computes while the host lays out the next batch and reads the last one.
        running.append((part, loop(batch, _tables(jobs, group, part, at_once), group.seeds, group.split)))
        if len(running) > 1:
            yield from _read(jobs, *running.pop(0))
    for part, outcomes in running:
        yield from _read(jobs, part, outcomes)


def _read(jobs: Sequence[Job], lanes: Sequence[_Lane], outcomes: Outcomes) -> Iterator[tuple[_Lane, list[Score]]]:
    outcomes = Outcomes(*map(np.asarray, jax.device_get(outcomes)))
    for place, lane in enumerate(lanes):
        yield lane, list(_scores(jobs[lane.job], lane.rate, outcomes, place))


def _tables(jobs: Sequence[Job], group: _Group, lanes: Sequence[_Lane], at_once: int) -> NDArray[np.float32]:
    """Return the scalar tables of all lanes, shape (steps, lanes, columns)."""
    shape = multipliers(group.steps)
    tables = np.zeros((group.steps, at_once, group.capacity.columns), np.float32)
    for place, lane in enumerate(lanes):
        rates = (jobs[lane.job].learning_rates[lane.rate] * shape).astype(np.float32)
        tables[:, place] = scalar_table(lane.encoding, rates)[:, : group.capacity.columns]
    return tables


def _scores(job: Job, rate: int, outcomes: Outcomes, place: int) -> Iterator[Score]:
    for number, seed in enumerate(job.seeds):
        outcome = Outcome(
            losses=outcomes.losses[:, number, place],
            steps=outcomes.steps[number, place],
            final=outcomes.final[number, place],
            finite=outcomes.finite[number, place],
        )
        yield score_of_outcome(job, outcome, job.learning_rates[rate], seed)


@lru_cache(maxsize=8)
def _loop(task: str, shape: Shape, target: KernelTarget | None, curvature: Any) -> BatchLoop:
    return batch_loop(flat_task(task), shape, target, curvature)
