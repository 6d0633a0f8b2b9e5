"""One optimizer on one task: from its rows to a cell of the report, and the draws that aggregates need."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from evolion.evaluators.protocol import profiles
from evolion.evaluators.protocol.report import Cell, Estimate, SpeedUp
from evolion.evaluators.protocol.resampling import Floats, Resampler, reselection
from evolion.evaluators.protocol.rows import Row, Stage, in_stage
from evolion.evaluators.protocol.sensitivity import basin, clipped, sensitivity, tuning_curve
from evolion.evaluators.protocol.speedup import Scale, exactly_one, ladder, scaled_mean, speed_up, task_scale
from evolion.evaluators.protocol.stages import DECADE, EDGE
from evolion.proxies.score import curve_steps

__all__ = ["Scored", "TaskRows", "score_task", "task_rows"]

TRIALS = (Stage.TUNING, Stage.EDGE, Stage.REFINEMENT)

COORDINATES = ("learning rate", "shrinkage")


@dataclass(frozen=True, slots=True)
class TaskRows:
    """The rows of one task.

    Attributes:
        task: Its name.
        family: Its family.
        floor: The least loss there is; None where it is not known.
        start: The median loss at the start of a run; None if no run has one.
        scale: On which its losses are interpolated.
        rows: By optimizer, in an order that does not hang on that of the table; empty for one without any.

    """

    task: str
    family: str
    floor: float | None
    start: float | None
    scale: Scale
    rows: Mapping[str, tuple[Row, ...]]


@dataclass(frozen=True, slots=True)
class Scored:
    """A cell with what aggregates are made of.

    Attributes:
        cell: The cell.
        logs: Draws of the logarithm of its speed-up, shape (draws,); None without one.
        reach: Between which logarithms speed-ups on the task can lie: the ends of the ladder of the reference.
        wins: By fresh seed, 1 if its loss is below the reference's, 1/2 if equal, else 0; empty for the reference.
        runs: How many runs it has.
        failed: How many of them did not end finite.

    """

    cell: Cell
    logs: Floats | None
    reach: tuple[float, float] = (0.0, 0.0)
    wins: Mapping[int, float] = field(default_factory=dict)
    runs: int = 0
    failed: int = 0


def loss_of(row: Row) -> float:
    """Return the loss of a run, infinite unless it is a number: NaN never ranks."""
    return row.ranked if math.isfinite(row.ranked) else math.inf


def task_rows(rows: Sequence[Row], optimizers: Sequence[str]) -> TaskRows:
    """Return the rows of one task by optimizer; none of `rows` is of another."""
    ordered = sorted(rows, key=lambda row: (row.stage, row.horizon, row.seed, row.learning_rate, row.id))
    compared = in_stage(ordered, Stage.TUNING, Stage.REPORT, Stage.HORIZON)
    starts = [row.start for row in ordered if row.start is not None and math.isfinite(row.start)]
    first = ordered[0]
    return TaskRows(
        first.task,
        first.family,
        first.floor,
        statistics.median(starts) if starts else None,
        task_scale(first.floor, [loss_of(row) for row in compared]),
        {name: tuple(row for row in ordered if row.optimizer == name) for name in optimizers},
    )


def rungs(rows: Sequence[Row]) -> dict[float, dict[int, float]]:
    """Return the losses of complete schedules with the tuned settings, by horizon and seed."""
    found: dict[float, dict[int, float]] = {}
    for row in in_stage(rows, Stage.REPORT, Stage.HORIZON):
        found.setdefault(row.horizon, {})[row.seed] = loss_of(row)
    return found


def means(rows: Sequence[Row]) -> dict[float, float]:
    """Return the mean losses by horizon; infinite where a run diverged."""
    return {horizon: math.fsum(losses.values()) / len(losses) for horizon, losses in rungs(rows).items()}


def score_task(
    task: TaskRows, reference: str, timed: Collection[str], resampler: Resampler, level: float
) -> dict[str, Scored]:
    """Return the scored cells of a task by optimizer, in their order; only those in `timed` have times to targets."""

    def luck(rows: Sequence[Row]) -> Floats:
        # Named by their points: renamed copies of the reference have points of their own, and draws of their own.
        places = [row.unit for row in _tuning(rows)]
        return reselection(resampler, f"trials of {task.task} {places}", _tuning_losses(task, rows), task.scale)

    seeds = f"seeds of {task.task}"
    base = task.rows[reference]
    reference_ladder = ladder(resampler, seeds, rungs(base), task.scale, luck(base))
    goals = profiles.targets(means(base))

    def speed(name: str, rows: Sequence[Row]) -> tuple[SpeedUp | None, Floats | None]:
        reported = rungs(rows).get(1.0)
        if reference_ladder is None or not reported:
            return None, None
        if name == reference:
            return exactly_one(resampler.draws)
        return speed_up(reference_ladder, scaled_mean(resampler, seeds, reported, task.scale, luck(rows)), level)

    corrected = _corrected(task, reference)
    scored = {}
    for name, rows in task.rows.items():
        found, logs = speed(name, rows)
        cell = replace(
            _own(name, task, rows),
            difference=None if name == reference else _difference(rows, base, level),
            corrected=corrected.get(name),
            speed_up=found,
            times=profiles.times(means(rows), goals) if name in timed else {},
        )
        wins = {} if name == reference else _wins(rows, base)
        reach = reference_ladder.reach if reference_ladder else (0.0, 0.0)
        scored[name] = Scored(cell, logs, reach, wins, len(rows), _failed(rows))
    return scored


def _wins(rows: Sequence[Row], base: Sequence[Row]) -> dict[int, float]:
    """Return by seed whether the loss is below the reference's at that seed: 1, at equal losses 1/2, else 0.

    Without a seed that both have, the share of the reference's seeds that it is below.
    """
    ours, theirs = rungs(rows).get(1.0, {}), rungs(base).get(1.0, {})

    def win(loss: float, other: float) -> float:
        return 0.5 if loss == other else float(loss < other)

    shared = ours.keys() & theirs.keys()
    if shared or not theirs:
        return {seed: win(ours[seed], theirs[seed]) for seed in sorted(shared)}
    return {seed: math.fsum(win(loss, other) for other in theirs.values()) / len(theirs) for seed, loss in ours.items()}


def _difference(rows: Sequence[Row], base: Sequence[Row], level: float) -> Estimate | None:
    """Return the mean difference with its interval: Student's paired by seed, Welch's where no seed is shared.

    None if a run diverged, or there are fewer than two pairs (or seeds, without pairs).
    """
    ours, theirs = rungs(rows).get(1.0, {}), rungs(base).get(1.0, {})
    shared = sorted(ours.keys() & theirs.keys())
    left = np.array([ours[seed] for seed in shared or sorted(ours)])
    right = np.array([theirs[seed] for seed in shared or sorted(theirs)])
    if min(left.size, right.size) < 2 or not (np.isfinite(left).all() and np.isfinite(right).all()):
        return None
    if shared:
        mean, error, freedom = float((left - right).mean()), float(stats.sem(left - right)), left.size - 1.0
    else:
        mean, parts = float(left.mean() - right.mean()), [float(stats.sem(left)) ** 2, float(stats.sem(right)) ** 2]
        error = math.sqrt(sum(parts))
        sizes = (left.size - 1, right.size - 1)
        freedom = error**4 / sum(part**2 / n for part, n in zip(parts, sizes, strict=True)) if error else 1.0
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    return Estimate(mean, mean - half, mean + half)


def _corrected(task: TaskRows, reference: str) -> dict[str, float]:
    """Return Dunnett's probabilities by optimizer; renamed copies are a family of their own."""
    samples = {
        name: values
        for name, rows in task.rows.items()
        if (values := np.array([loss for _, loss in sorted(rungs(rows).get(1.0, {}).items())])).size > 1
        and np.isfinite(values).all()
    }
    if reference not in samples:
        return {}
    copies = [name for name in samples if name != reference and task.rows[name][0].control]
    others = [name for name in samples if name != reference and name not in copies]
    found: dict[str, float] = {}
    for names in filter(None, (others, copies)):
        groups = [samples[name] for name in (reference, *names)]
        # Without any spread within the groups there is no error to measure a difference by.
        if all(np.ptp(group) == 0 for group in groups):
            continue
        # Its integral over several dimensions is quasi-random: a fixed stream keeps the report a function of the table.
        with warnings.catch_warnings():
            # It warns of each group without spread, which is no loss of precision: some group here has a spread.
            warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
            tested = stats.dunnett(*groups[1:], control=groups[0], rng=np.random.default_rng(0))
        found.update(zip(names, map(float, tested.pvalue), strict=True))
    return found


def best_trial(rows: Sequence[Row]) -> Row | None:
    """Return the trial that tuning ended with; None if all diverged. Of equal losses the first trial counts."""
    trials = [row for row in in_stage(rows, *TRIALS) if math.isfinite(loss_of(row))]

    def order(row: Row) -> tuple[float, float, str]:
        return loss_of(row), math.inf if row.trial is None else row.trial, row.id

    return min(trials, key=order, default=None)


def extended_box(rows: Sequence[Row]) -> tuple[list[tuple[float, float]], int]:
    """Return the faces of the box in both coordinates, as far as extensions moved them, and how many there were."""
    beyond = [row.unit for row in in_stage(rows, Stage.EDGE) if row.unit is not None]
    faces, count = [], 0
    for coordinate, decade in enumerate(DECADE):
        below = _decades(max((-unit[coordinate] for unit in beyond), default=0.0), decade)
        above = _decades(max((unit[coordinate] - 1.0 for unit in beyond), default=0.0), decade)
        faces.append((-below * decade, 1.0 + above * decade))
        count += below + above
    return faces, count


def _decades(distance: float, decade: float) -> int:
    return math.ceil(max(0.0, distance) / decade - 1e-9)


def _edges(rows: Sequence[Row], best: Row | None, faces: Sequence[tuple[float, float]]) -> tuple[str, ...]:
    """Return the faces near which the best trial lies, of the coordinates that trials differ in."""
    if best is None or best.unit is None:
        return ()
    trials = in_stage(rows, *TRIALS)
    tuned = (len({row.learning_rate for row in trials}) > 1, len({row.shrinkage for row in trials}) > 1)
    found = []
    for name, place, (low, high), differs in zip(COORDINATES, best.unit, faces, tuned, strict=True):
        if differs:
            found += [f"{name}, low"] * (place < low + EDGE) + [f"{name}, high"] * (place > high - EDGE)
    return tuple(found)


def _rates(task: TaskRows, rows: Sequence[Row], best: Row | None) -> tuple[tuple[float, float], ...]:
    """Return the U-curve: mean loss by learning rate, the tuned point included; infinite for runs that diverged."""
    by_rate: dict[float, list[float]] = {}
    for row in in_stage(rows, Stage.SENSITIVITY):
        by_rate.setdefault(row.learning_rate, []).append(loss_of(row))
    # Where the tuned rate is one of the grid, the two may differ in their last bits.
    if by_rate and best is not None and not any(math.isclose(best.learning_rate, rate) for rate in by_rate):
        by_rate[best.learning_rate] = [loss_of(best)]
    return tuple((rate, math.fsum(losses) / len(losses)) for rate, losses in sorted(by_rate.items()))


def _own(name: str, task: TaskRows, rows: Sequence[Row]) -> Cell:
    """Return a cell with all that the optimizer's own rows say; comparisons are left to fill in."""
    reported = in_stage(rows, Stage.REPORT)
    losses = tuple(loss_of(row) for row in reported)
    ended = bool(losses) and all(map(math.isfinite, losses))
    best = best_trial(rows)
    tuned = reported[0] if reported else best
    faces, extensions = extended_box(rows)
    rates = _rates(task, rows, best)
    heights = clipped([loss for _, loss in rates], task.start)
    points = min((len(row.curve) for row in reported), default=0)
    curves = [row.curve[:points] for row in reported]
    return Cell(
        optimizer=name,
        task=task.task,
        family=task.family,
        learning_rate=tuned.learning_rate if tuned else None,
        shrinkage=tuned.shrinkage if tuned else None,
        edges=_edges(rows, best, faces),
        extensions=extensions,
        trials=len(in_stage(rows, *TRIALS)),
        losses=losses,
        mean=math.fsum(losses) / len(losses) if ended else None,
        deviation=statistics.stdev(losses) if ended and len(losses) > 1 else None,
        diverged=_failed(rows) / len(rows) if rows else 0.0,
        difference=None,
        corrected=None,
        speed_up=None,
        times={},
        sensitivity=sensitivity(heights, task.start) if heights and task.start is not None else None,
        basin=basin([rate for rate, _ in rates], heights, task.floor) if heights else None,
        rates=rates,
        tuning=tuning_curve(_tuning_losses(task, rows)),
        curve_steps=curve_steps(reported[0].steps)[:points] if points else (),
        curve=tuple(math.fsum(at) / len(at) for at in zip(*curves, strict=True)),
        seconds=_seconds(rows),
        slots=tuned.slots if tuned else None,
        operations=tuned.operations if tuned else None,
        steps=reported[0].steps if reported else None,
    )


def at_horizon(rows: Sequence[Row]) -> list[Row]:
    """Return the runs at the task's horizon that ended finite, of any stage."""
    return [row for row in rows if row.horizon == 1.0 and math.isfinite(loss_of(row))]


def _seconds(rows: Sequence[Row]) -> float | None:
    """Return the median time of a run; trials count, as the few reported runs may include compilation."""
    return statistics.median(times) if (times := [row.seconds for row in at_horizon(rows)]) else None


def _failed(rows: Sequence[Row]) -> int:
    return sum(not math.isfinite(loss_of(row)) for row in rows)


def _tuning_losses(task: TaskRows, rows: Sequence[Row]) -> list[float]:
    """Return the losses of the quasi-random trials by their number, none above the start."""
    return clipped([loss_of(row) for row in _tuning(rows)], task.start)


def _tuning(rows: Sequence[Row]) -> list[Row]:
    return sorted(in_stage(rows, Stage.TUNING), key=lambda row: -1 if row.trial is None else row.trial)
