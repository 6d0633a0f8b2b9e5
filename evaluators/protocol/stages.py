"""What is still to be run of a comparison, as a pure function of what has been: nothing else is ever remembered.

The stages of one optimizer on one task, in this order: quasi-random trials at the same unit points for all; trials
beyond a face of the box at which the best lies; refinement around the best (coordinate descent, as in phase I of Wen et
al., arXiv:2509.02046); then, at the settings of the best trial, fresh seeds, other horizons and other learning rates.
Every run is a complete schedule of its own: a curve that is cut short ranks optimizers by how fast they start.

Each call goes through the stages from the beginning, with the rows that are there as its memory. So it does not matter
in which order runs finish, where a comparison was killed, or on how many workers it ran.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from evolion.evaluators.protocol.plan import Entrant, Plan
from evolion.evaluators.protocol.rows import Row, Stage
from evolion.evaluators.tuning import RATE_DECADES, SHRINKAGE, Box, Point, unit_points, weight_decay

__all__ = [
    "DECADE",
    "EDGE",
    "Extent",
    "Request",
    "StaleRow",
    "Subject",
    "expected",
    "nearest_face",
    "requests",
    "split_of",
]

EDGE = 0.1
"""How near to a face, in widths of the box, the best trial makes the box grow there."""

DECADE = (1.0 / RATE_DECADES, 1.0 / math.log10(SHRINKAGE[1] / SHRINKAGE[0]))
"""A power of ten in each coordinate of the unit square."""

FACTORS = (0.5, 2.0)
_RETUNING = (0.5, 1.0, 2.0)
_RETUNED_FROM = 4.0
_SENSITIVITY_DECADES = 3.0

Extent = tuple[tuple[float, float], tuple[float, float]]
"""Lowest and highest place of a box in both coordinates of the unit square."""

UNIT: Extent = ((0.0, 1.0), (0.0, 1.0))


class StaleRow(ValueError):
    """A row is not what the plan says that it is; the message names it."""


def split_of(stage: Stage) -> str:
    """Return where the final loss of a run is taken: what is reported, on examples that no choice has seen."""
    return "test" if stage in (Stage.REPORT, Stage.HORIZON) else "validation"


@dataclass(frozen=True, slots=True)
class Subject:
    """One optimizer on one task.

    Attributes:
        entrant: The optimizer.
        task: Name of the task.
        steps: Its horizon.
        box: Where the optimizer is tuned on it.

    """

    entrant: Entrant
    task: str
    steps: int
    box: Box


@dataclass(frozen=True, slots=True)
class Request:
    """A training run that is to be done; the fields are those of its row."""

    id: str
    stage: Stage
    trial: int | None
    unit: tuple[float, float] | None
    learning_rate: float
    shrinkage: float | None
    weight_decay: float | None
    horizon: float
    steps: int
    seed: int

    @property
    def split(self) -> str:
        """Where the final loss is taken."""
        return split_of(self.stage)

    @property
    def point(self) -> Point:
        """The settings."""
        return Point(self.learning_rate, self.shrinkage)

    @property
    def run(self) -> tuple[object, ...]:
        """What is computed: requests of one subject for which this is equal are run once."""
        return self.learning_rate, self.weight_decay, self.steps, self.seed, self.split


@dataclass(frozen=True, slots=True)
class _Done:
    """Trials so far with what is known of them; `wanted` is what has to run before more can be said."""

    trials: tuple[Request, ...]
    wanted: tuple[Request, ...] = ()


def requests(plan: Plan, subject: Subject, rows: Iterable[Row]) -> tuple[Request, ...]:
    """Return the runs that can be done now, given the rows of this optimizer and task so far; () at its end.

    A renamed copy of the reference (the A/A control) is tuned at points of its own scramble and at seeds of its own,
    and so is what is reported of it. Were they the same, a copy would give the same numbers bit for bit; with its own
    randomness, the spread of the copies is what chance alone makes of an optimizer that is no better than the
    reference: the null distribution of everything that is said of the others.

    Raises:
        StaleRow: If a row is not at the settings that the plan has for it.

    """
    have = {row.id: row for row in rows}
    done = _trials(plan, subject, have)
    wanted = done.wanted or _tuned(plan, subject, done, have)
    return _missing(wanted, have)


def expected(plan: Plan, entrant: Entrant) -> int:
    """Return about how many rows an optimizer has on a task, with half of the refinement and no extension."""
    rows = plan.trials + plan.refinements // 2 + plan.seeds
    if entrant.control:
        return rows
    horizons = _horizons(plan, entrant)
    retuned = len(_RETUNING) * sum(_is_retuned(plan, entrant, horizon) for horizon in horizons)
    return rows + len(horizons) * plan.seeds + retuned + plan.sensitivity_points


def nearest_face(unit: tuple[float, float], extent: Extent, tunes: tuple[bool, bool]) -> tuple[int, bool] | None:
    """Return the coordinate and whether it is the high face, of the face that is within a tenth of a box's width.

    The nearest of them, the learning rate before the shrinkage and the low face first; None if no face is that near.
    """
    near = [
        (distance, axis, high)
        for axis, (bottom, top) in enumerate(extent)
        if tunes[axis]
        for high, distance in ((False, unit[axis] - bottom), (True, top - unit[axis]))
        if distance < EDGE
    ]
    return min(near)[1:] if near else None


def _request(
    plan: Plan,
    subject: Subject,
    stage: Stage,
    place: str,
    point: Point,
    *,
    trial: int | None = None,
    unit: tuple[float, float] | None = None,
    horizon: float = 1.0,
    seed: int | None = None,
) -> Request:
    steps = max(1, round(horizon * subject.steps))
    return Request(
        id="|".join((subject.entrant.name, subject.task, stage.value, place)),
        stage=stage,
        trial=trial,
        unit=unit,
        learning_rate=point.learning_rate,
        shrinkage=point.shrinkage,
        weight_decay=weight_decay(point, steps),
        horizon=horizon,
        steps=steps,
        seed=plan.shift(subject.entrant) + (plan.tuning_seed if seed is None else seed),
    )


def _result(request: Request, have: Mapping[str, Row]) -> float:
    return have[request.id].ranked


def _check(request: Request, row: Row) -> None:
    if (row.learning_rate, row.shrinkage, row.steps, row.seed) != (
        request.learning_rate,
        request.shrinkage,
        request.steps,
        request.seed,
    ):
        raise StaleRow(
            f"the row {row.id!r} is at a peak learning rate of {row.learning_rate:.4g}, and the plan has it at "
            f"{request.learning_rate:.4g}: it was made on another machine or by another version; begin in a new folder"
        )


def _best(trials: Sequence[Request], have: Mapping[str, Row]) -> Request:
    """Return the trial of the lowest loss, the first of equals: the first of all where all diverged."""
    return min(trials, key=lambda request: _result(request, have))


def _missing(trials: Sequence[Request], have: Mapping[str, Row]) -> tuple[Request, ...]:
    for request in trials:
        if request.id in have:
            _check(request, have[request.id])
    return tuple(request for request in trials if request.id not in have)


def _trials(plan: Plan, subject: Subject, have: Mapping[str, Row]) -> _Done:
    """Return all trials up to the end of the refinement, or what is missing of the stage that is not complete."""
    done = _extended(plan, subject, have)
    if done.wanted or not math.isfinite(_result(_best(done.trials, have), have)):
        return done
    return _refined(plan, subject, done.trials, have)


@lru_cache(maxsize=256)
def _unit(count: int, scramble: tuple[int, ...]) -> tuple[tuple[float, float], ...]:
    return tuple((x, y) for x, y in unit_points(count, *scramble).tolist())


def _sobol(
    plan: Plan, subject: Subject, stage: Stage, extent: Extent, count: int, first: int, round_: int
) -> tuple[Request, ...]:
    """Return trials at the points of a Sobol sequence in a box, the same for all but the copies of the reference."""
    number = subject.entrant.number
    # Without a place the sequence is that of all tuning; extensions and copies have scrambles of their own.
    scramble = (number, round_) if number or round_ else ()
    made = []
    for i, unit in enumerate(_unit(count, scramble), start=first):
        x, y = (low + (high - low) * u for u, (low, high) in zip(unit, extent, strict=True))
        place = (x if subject.box.rate else 0.5, y if subject.box.decay else 0.5)
        made.append(_request(plan, subject, stage, str(i), subject.box.at((x, y)), trial=i, unit=place))
    return tuple(made)


def _extended(plan: Plan, subject: Subject, have: Mapping[str, Row]) -> _Done:
    """Return the quasi-random trials, and those beyond each face at which the best of them lay."""
    trials = _sobol(plan, subject, Stage.TUNING, UNIT, plan.trials, 0, 0)
    extent = UNIT
    for round_ in range(1, plan.extensions + 1):
        wanted = _missing(trials, have)
        if wanted:
            return _Done(trials, wanted)
        best = _best(trials, have)
        tunes = (subject.box.rate, subject.box.decay)
        face = nearest_face(best.unit or (0.5, 0.5), extent, tunes)
        if face is None or not math.isfinite(_result(best, have)):
            break
        extent, strip = _grown(extent, *face)
        trials += _sobol(plan, subject, Stage.EDGE, strip, plan.edge_points, len(trials), round_)
    return _Done(trials, _missing(trials, have))


def _grown(extent: Extent, axis: int, high: bool) -> tuple[Extent, Extent]:
    """Return a box with one face moved out by a decade, and the strip that it has gained."""
    bottom, top = extent[axis]
    grown, gained = list(extent), list(extent)
    grown[axis] = (bottom, top + DECADE[axis]) if high else (bottom - DECADE[axis], top)
    gained[axis] = (top, top + DECADE[axis]) if high else (bottom - DECADE[axis], bottom)
    return (grown[0], grown[1]), (gained[0], gained[1])


def _refined(plan: Plan, subject: Subject, trials: tuple[Request, ...], have: Mapping[str, Row]) -> _Done:
    """Return the trials with those of a coordinate descent by factors of two, which ends where no neighbour is better.

    A neighbour that was a trial before is not run again, nor does it count: it cannot be better than the best.
    """
    axes = [axis for axis, tuned in enumerate((subject.box.rate, subject.box.decay)) if tuned]
    best, first = _best(trials, have), len(trials)
    turn = idle = 0
    while axes and idle < len(axes) and len(trials) - first < plan.refinements:
        seen = {trial.point for trial in trials}
        points = [_moved(best.point, axes[turn % len(axes)], factor) for factor in FACTORS]
        room = plan.refinements - (len(trials) - first)
        tried = tuple(
            _request(plan, subject, Stage.REFINEMENT, str(number), point, trial=number, unit=subject.box.unit(point))
            for number, point in enumerate([p for p in points if p not in seen][:room], start=len(trials))
        )
        trials += tried
        wanted = _missing(tried, have)
        if wanted:
            return _Done(trials, wanted)
        better = _best((best, *tried), have)
        turn, idle, best = turn + 1, 0 if better is not best else idle + 1, better
    return _Done(trials)


def _moved(point: Point, axis: int, factor: float) -> Point:
    if axis == 0:
        return replace(point, learning_rate=point.learning_rate * factor)
    assert point.shrinkage is not None
    return replace(point, shrinkage=point.shrinkage * factor)


def _tuned(plan: Plan, subject: Subject, done: _Done, have: Mapping[str, Row]) -> tuple[Request, ...]:
    """Return what is run at the settings of the best trial; little where no trial ended finite."""
    best = _best(done.trials, have)
    seeds = range(plan.first_seed, plan.first_seed + plan.seeds)
    wanted = [_request(plan, subject, Stage.REPORT, f"seed {s}", best.point, seed=s) for s in seeds]
    if subject.entrant.control or not math.isfinite(_result(best, have)):
        return tuple(wanted)
    trial = len(done.trials)
    for horizon in _horizons(plan, subject.entrant):
        point: Point | None = best.point
        if subject.box.rate and _is_retuned(plan, subject.entrant, horizon):
            retuning = _retuning(plan, subject, best.point, horizon, trial)
            trial += len(retuning)
            wanted += retuning
            point = None if _missing(retuning, have) else _retuned(retuning, have)
        if point is not None:
            place = f"{horizon:g}, seed "
            wanted += [
                _request(plan, subject, Stage.HORIZON, f"{place}{s}", point, horizon=horizon, seed=s) for s in seeds
            ]
    return (*wanted, *_sensitivity(plan, subject, best.point))


def _horizons(plan: Plan, entrant: Entrant) -> tuple[float, ...]:
    return plan.reference_horizons if entrant.name == plan.reference else plan.horizons


def _is_retuned(plan: Plan, entrant: Entrant, horizon: float) -> bool:
    """Return whether the learning rate is tuned anew: for the reference, where the horizon is far from the task's."""
    return entrant.name == plan.reference and max(horizon, 1.0 / horizon) >= _RETUNED_FROM


def _retuning(plan: Plan, subject: Subject, point: Point, horizon: float, first: int) -> list[Request]:
    return [
        _request(
            plan,
            subject,
            Stage.RETUNING,
            f"{horizon:g}, rate x {factor:g}",
            _moved(point, 0, factor),
            trial=first + i,
            horizon=horizon,
        )
        for i, factor in enumerate(_RETUNING)
    ]


def _retuned(retuning: Sequence[Request], have: Mapping[str, Row]) -> Point:
    """Return the settings of the best; the tuned ones where all diverged."""
    best = _best(retuning, have)
    return best.point if math.isfinite(_result(best, have)) else retuning[_RETUNING.index(1.0)].point


def _sensitivity(plan: Plan, subject: Subject, point: Point) -> list[Request]:
    """Return runs at log-spaced learning rates around the best, with its shrinkage."""
    count = plan.sensitivity_points if subject.box.rate else 0
    middle = (count - 1) / 2
    return [
        _request(
            plan,
            subject,
            Stage.SENSITIVITY,
            str(i),
            _moved(point, 0, 10 ** (_SENSITIVITY_DECADES * (i - middle) / max(count - 1, 1))),
        )
        for i in range(count)
    ]
