"""Budget-matched tuning: every program gets the same number of trials, at the same points of a scaled box.

The box is in coordinates that do not hang on how an optimizer scales its update (after Wortsman et al.,
arXiv:2309.14322, and the practice of AlgoPerf's quasi-random tuning): the peak learning rate relative to the size of
the program's own update, and the total shrinkage of the weights by decoupled weight decay over the schedule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.layout import Layout
from evolion.primitives.numpy_interpreter import initial_slots, stepper
from evolion.primitives.program import Program
from evolion.proxies.registry import get_task
from evolion.proxies.schedules import multipliers

__all__ = [
    "DECAY",
    "Box",
    "Point",
    "Trial",
    "Tuned",
    "best_trial",
    "box",
    "decays_weights",
    "finds_its_rate",
    "trials",
    "unit_points",
    "weight_decay",
]

DECAY = "weight_decay"
"""The hyperparameter that is tuned beside the learning rate, where it decays the weights (see `decays_weights`)."""

RATE_CENTRE = 0.004
"""The peak learning rate times the root mean square of the program's update per unit of rate: the middle of the box."""

RATE_DECADES = 3.0
"""The width of the box in the learning rate, in powers of ten."""

SHRINKAGE = (0.03, 30.0)
"""The box of learning rate * weight decay * sum of the schedule, on a logarithmic scale."""

_DRY_STEPS = 10
_DRY_RATE = 0.01
_SMALL_RATE = 1e-5
_DECAYS_TRIED = (0.1, 1.0, 10.0)

_GROWTH_STEPS = 200
_GROWTH = 1000.0


@dataclass(frozen=True, slots=True)
class Trial:
    """A point of the box for one program: the program with its weight decay set, and a peak learning rate."""

    program: Program
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """A program at its best trial.

    Attributes:
        program: The program with the tuned weight decay as its default.
        learning_rate: The tuned peak learning rate.
        value: The metric of that trial, on the tuning seed: selected, so too good; never to be reported.
        trials: How many trials there were.
        diverged: How many of them did not end finite.
        at_edge: Whether the best trial lies within a tenth of the box from one of its faces.
        edges: Which faces those are: "learning rate, low", "weight decay, high".
        tuned: What was tuned: "learning rate", "weight decay".

    """

    program: Program
    learning_rate: float
    value: float
    trials: int
    diverged: int
    at_edge: bool
    edges: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()


@lru_cache(maxsize=16)
def _dry_gradients(task: str) -> tuple[list[NDArray[np.float64]], list[list[NDArray[np.float64]]]]:
    """Return the initial weights of a task and the gradients of its first batches there."""
    import jax

    found = get_task(task)
    params = found.init(0)
    data = found.data("train")
    gradient = jax.jit(jax.grad(found.loss))
    order = found.order(0, _DRY_STEPS)
    batches = [jax.tree.map(lambda leaf, rows=rows: leaf[rows], data) for rows in order]

    def leaves(tree: object) -> list[NDArray[np.float64]]:
        return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]

    return leaves(params), [leaves(gradient(params, batch)) for batch in batches]


def update_size(program: Program, task: str) -> float:
    """Return the root mean square of the program's tenth update, per unit of learning rate, on gradients at the start.

    The weights are held where they are, else weight decay would feed on its own steps. Rounded to two digits, so that
    it does not hang on the last bits of a gradient; 1.0 where it is zero or not finite.
    """
    with np.errstate(all="ignore"):
        size = float(np.sqrt(np.mean(np.square(_dry_update(program, task, _DRY_STEPS))))) / _DRY_RATE
    return float(f"{size:.1e}") if math.isfinite(size) and size > 0.0 else 1.0


def _dry_update(program: Program, task: str, steps: int, rate: float = _DRY_RATE) -> NDArray[np.float64]:
    """Return the last of some updates on gradients at the start, with the weights held; shape (parameters,)."""
    weights, gradients = _dry_gradients(task)
    layout = Layout(tuple(leaf.shape for leaf in weights))
    step, slots = stepper(program, layout), initial_slots(program, layout)
    held = layout.flatten(weights)
    values: dict[str, Any] = {h.name: np.float64(h.value) for h in program.hyperparameters}
    # The task's own horizon: a program that decays its steps itself would have decayed them to nothing.
    values |= {"w": held, "w0": held, "lr": rate, "loss": 1.0, "horizon": float(get_task(task).steps)}
    update: Any = 0.0
    with np.errstate(all="ignore"):
        for t, leaves in enumerate(gradients[:steps], start=1):
            g = layout.flatten(leaves)
            values |= {"g": g, "noise": g, "hess": np.square(g), "t": float(t)}
            update, slots = step(values | slots)
    return np.asarray(update, np.float64)


def decays_weights(program: Program, task: str) -> bool:
    """Return whether the program has a hyperparameter `weight_decay` that pulls the weights to zero and does no more.

    A mutation may have given the name another use, such as a constant that is added to the update. Values from the box
    would only harm such a program: it keeps its own, and so does one that adds the decay to the gradient before it is
    rescaled entry by entry. A decay that shrinks the new weights instead of the old (a proximal step, or a decay after
    the step) differs by the size of a step, which is small here, and counts; so does one under a trust ratio.
    """
    if not any(h.name == DECAY for h in program.hyperparameters):
        return False
    pulls = _pulls_alone(program, task) or _pulls_within_a_ratio(program, task)
    return pulls and _follows_the_rate(program, task)


def _follows_the_rate(program: Program, task: str) -> bool:
    """Return whether what a decay adds to an update doubles with the learning rate: the box is of their product."""
    if "lr" not in remove_dead_code(program).inputs:
        return True
    once, twice = (_pull(program, task, rate) for rate in (_SMALL_RATE, 2 * _SMALL_RATE))
    with np.errstate(all="ignore"):
        return bool(np.linalg.norm(twice - 2 * once) <= 0.05 * np.linalg.norm(2 * once))


def _pull(program: Program, task: str, rate: float) -> NDArray[np.float64]:
    """Return what a decay of 1 adds to the second update; shape (parameters,)."""
    none, some = (_dry_update(program.with_hyperparameters(weight_decay=x), task, 2, rate) for x in (0.0, 1.0))
    with np.errstate(all="ignore"):
        return some - none


def _pulls_alone(program: Program, task: str) -> bool:
    """Return whether the decay adds a multiple of the weights to the update, the same for all tensors."""
    pull = _pull(program, task, _SMALL_RATE)
    weights = np.concatenate([np.ravel(leaf) for leaf in _dry_gradients(task)[0]])
    with np.errstate(all="ignore"):
        strength = float(pull @ weights / (weights @ weights))
        rest = float(np.abs(pull - strength * weights).max())
    return strength > 0.0 and rest <= 0.05 * strength * float(np.abs(weights).max())


def _pulls_within_a_ratio(program: Program, task: str) -> bool:
    """Return whether each tensor's update with decay is a positive multiple of (update without it + share of weights).

    So it is where the sum of direction and decay is scaled by a norm (LARS, LAMB, DoG). The multiple has to stay
    positive for decays from far below to far above what the box holds: `interp(g, w, weight_decay)` turns against the
    gradient at 1.
    """
    weights = _dry_gradients(task)[0]
    bounds = np.cumsum([leaf.size for leaf in weights])[:-1]
    updates = [_dry_update(program.with_hyperparameters(weight_decay=x), task, 1) for x in (0.0, *_DECAYS_TRIED)]
    if not all(update.shape == (bounds[-1] + weights[-1].size,) and np.isfinite(update).all() for update in updates):
        return False
    none, *some = [np.split(update, bounds) for update in updates]
    return all(
        _is_scaled_sum(leaf, alone, np.ravel(weight))
        for leaves in some
        for leaf, alone, weight in zip(leaves, none, weights, strict=True)
    )


def _is_scaled_sum(update: NDArray[np.float64], alone: NDArray[np.float64], weights: NDArray[np.float64]) -> bool:
    basis = np.stack([alone, weights], axis=1)
    scale = np.abs(basis).max(axis=0)
    scale[scale == 0.0] = 1.0
    (kept, share), *_ = np.linalg.lstsq(basis / scale, update, rcond=None)
    rest = np.abs(update - basis / scale @ np.array([kept, share])).max()
    rounding = 1e-6 * np.abs(update).max()
    decays = share * np.abs(weights).max() / scale[1] > rounding or not weights.any()
    return bool(rest <= rounding and decays and (kept > 0.0 or not alone.any()))


@lru_cache(maxsize=256)
def finds_its_rate(program: Program) -> bool:
    """Return whether the program looks for the scale of its steps itself, so that its learning rate is a factor near 1.

    Such programs (D-adaptation, Prodigy, DoG, Mechanic) start with steps that are as good as none: the size of a first
    update says nothing about the rate. Told by their path on a small quadratic with a rate of 1, where steps grow a
    thousandfold and still end: others are as large at the start as they ever are, or diverge.
    """
    layout, rng = Layout(((6, 4), (4,), ())), np.random.default_rng(0)
    weights = start = rng.normal(size=layout.entries)
    target, curvature = start + rng.normal(size=layout.entries), np.linspace(0.05, 0.5, layout.entries)
    step, slots = stepper(program, layout), initial_slots(program, layout)
    values: dict[str, Any] = {h.name: np.float64(h.value) for h in program.hyperparameters}
    values |= {"w0": start, "hess": curvature, "lr": 1.0, "loss": 1.0, "horizon": float(_GROWTH_STEPS)}
    sizes = []
    with np.errstate(all="ignore"):
        for t in range(1, _GROWTH_STEPS + 1):
            values |= {"w": weights, "g": curvature * (weights - target), "noise": start, "t": float(t)}
            update, slots = step(values | slots)
            weights = weights - update
            sizes.append(float(np.sqrt(np.mean(np.square(np.broadcast_to(update, weights.shape))))))
    # The second step: the first of a program that fills its slots before it moves is zero.
    largest = max(sizes) if all(map(math.isfinite, sizes)) else math.inf
    return sizes[1] > 0.0 and _GROWTH * sizes[1] < largest < 10.0


def rate_centre(program: Program, task: str) -> float:
    """Return the peak learning rate in the middle of the box of a program."""
    return 1.0 if finds_its_rate(program) else RATE_CENTRE / update_size(program, task)


def unit_points(count: int, *place: int) -> NDArray[np.float64]:
    """Return the first points of a scrambled Sobol sequence in the unit square, shape (count, 2).

    The scramble hangs on `place` alone: without one it is the same for every program and task.
    """
    exponent = max(0, math.ceil(math.log2(count)))
    return np.asarray(qmc.Sobol(2, scramble=True, rng=np.random.default_rng(place or 0)).random_base2(exponent)[:count])


@dataclass(frozen=True, slots=True)
class Point:
    """Where a program is tuned.

    Attributes:
        learning_rate: The peak.
        shrinkage: Peak learning rate * weight decay * sum of the schedule; None without decoupled weight decay.

    """

    learning_rate: float
    shrinkage: float | None


@dataclass(frozen=True, slots=True)
class Box:
    """Where a program is tuned on a task: the unit square stands for its learning rates and shrinkages.

    Attributes:
        centre: The learning rate in the middle.
        rate: Whether the program has a learning rate to tune; it is 1 everywhere else.
        decay: Whether it has a decoupled weight decay to tune.

    """

    centre: float
    rate: bool
    decay: bool

    def at(self, unit: tuple[float, float]) -> Point:
        """Return the point at a place of the unit square, or beyond its faces."""
        x, y = unit
        low, high = map(math.log10, SHRINKAGE)
        rate = float(f"{self.centre * 10 ** (RATE_DECADES * (x - 0.5)):.3g}") if self.rate else 1.0
        return Point(rate, 10 ** (low + (high - low) * y) if self.decay else None)

    def unit(self, point: Point) -> tuple[float, float]:
        """Return the place of a point in the unit square; 0.5 in a coordinate that is not tuned."""
        low, high = map(math.log10, SHRINKAGE)
        x = math.log10(point.learning_rate / self.centre) / RATE_DECADES + 0.5 if self.rate else 0.5
        y = 0.5 if point.shrinkage is None else (math.log10(point.shrinkage) - low) / (high - low)
        return x, y


def box(program: Program, task: str) -> Box:
    """Return where a program is tuned on a task, by its updates on gradients at the start."""
    return Box(rate_centre(program, task), "lr" in remove_dead_code(program).inputs, decays_weights(program, task))


def weight_decay(point: Point, steps: int) -> float | None:
    """Return the weight decay that shrinks the weights as a point says over the schedule of that many steps."""
    if point.shrinkage is None:
        return None
    return float(f"{point.shrinkage / (point.learning_rate * float(multipliers(steps).sum())):.3g}")


def trials(program: Program, task: str, steps: int, count: int) -> list[Trial]:
    """Return the trials of a program: a learning rate each, and a weight decay where the program has one.

    Without a learning rate that it reads, its rate is 1 in all of them.
    """
    own = box(program, task)
    row = []
    for x, y in unit_points(count).tolist():
        point = own.at((x, y))
        decay = weight_decay(point, steps)
        tuned = program if decay is None else program.with_hyperparameters(weight_decay=decay)
        row.append(Trial(tuned, point.learning_rate))
    return row


def best_trial(row: Sequence[Trial], values: Sequence[float]) -> Tuned:
    """Return the trial of the lowest value; the first one if all diverged."""
    best = min(range(len(row)), key=lambda index: values[index])
    coordinates: dict[str, set[Any]] = {
        "learning rate": {trial.learning_rate for trial in row},
        "weight decay": {trial.program for trial in row},
    }
    tuned = tuple(name for name, values_of in coordinates.items() if len(values_of) > 1)
    places: dict[str, float] = dict(zip(coordinates, map(float, unit_points(len(row))[best]), strict=True))
    edges = [f"{name}, {'low' if places[name] < 0.5 else 'high'}" for name in tuned if abs(places[name] - 0.5) > 0.4]
    return Tuned(
        program=row[best].program,
        learning_rate=row[best].learning_rate,
        value=values[best],
        trials=len(row),
        diverged=sum(math.isinf(value) for value in values),
        at_edge=bool(edges),
        edges=tuple(edges),
        tuned=tuned,
    )
