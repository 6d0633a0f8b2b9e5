"""The known optimizer that a program comes nearest to, with the difference in words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from evolion.discovered.library import known
from evolion.primitives.dataflow import live_statements, remove_dead_code
from evolion.primitives.keys import behavioural_key
from evolion.primitives.measurement import VARIED_LAYOUT, Runner, runner, varied_inputs, without_weights
from evolion.primitives.op import Matrixwise
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program
from evolion.primitives.properties import measured_decay

__all__ = ["FAR", "SAME", "Nearest", "nearest"]

SAME = 1e-4
"""At most this distance apart, programs count as the same rule: rounding and protected division are below it."""

FAR = 0.9
"""Beyond this distance no known optimizer is near."""

_DECAY = "weight_decay"
_MOST_CONSTANTS = 12
_SWEEPS = 2
_MOST_COMBINATIONS = 250
_FEW_STEPS = 6
_CLOSER_LOOKS = 2
_TIE = 1e-9
_CANDIDATE = 1e-3
_MOST_SCREENED = 14
_MOST_FITTED = 3
_MOST_ALIKE = 6
_MOST_TOGETHER = 5
_FEW_CONSTANTS = 6
_UNCOMMON = frozenset(("w0", "loss", "hess", "noise", "horizon"))
_SAME_CONSTANT = 1e-6
_SMALLEST, _LARGEST = 1e-100, 1e100


@dataclass(frozen=True, slots=True)
class Nearest:
    """The known optimizer whose updates come closest.

    Attributes:
        name: Its name.
        exact: Whether its behavioural key is that of the program.
        distance: What remains between the sequences of updates after the changes below and a rescaling of the learning
            rate, both without decoupled weight decay: the norm of the difference over that of the program's updates,
            from 0 (the same) to 1 (nothing in common).
        changes: The hyperparameters with other values than the known program's: (its value, the value here).
            A `weight_decay` that one of the two lacks is 0 there.
        learning_rate_scale: The factor on the known program's learning rate.

    """

    name: str
    exact: bool
    distance: float
    changes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    learning_rate_scale: float = 1.0

    @property
    def same_rule(self) -> bool:
        """Whether nothing remains but the changes of constants."""
        return self.distance <= SAME

    def __str__(self) -> str:
        """Say it in words, such as `lion with b2 0.97 instead of 0.99, without weight decay`."""
        parts = [_in_words(name, *values) for name, values in self.changes.items()]
        said = f"{self.name} {', '.join(parts)}" if parts else self.name
        scale = f"{self.learning_rate_scale:.{6 if self.same_rule else 2}g}"
        if scale != "1":
            said += f", learning rate times {scale}"
        if self.same_rule:
            return said
        return f"{said}; its updates differ by {self.distance:.2g} (0 is the same, 1 has nothing in common)"


def _in_words(name: str, theirs: float, ours: float) -> str:
    plain = name.replace("_", " ")
    if ours == 0.0 and name in (_DECAY, "eps"):
        return f"without {plain}"
    if theirs == 0.0 and name == _DECAY:
        return f"with {plain} {ours:.6g} added"
    return f"with {plain} {ours:.6g} instead of {theirs:.6g}"


def nearest(program: Program) -> Nearest | None:
    """Find the known optimizer whose updates on fixed numbers come closest to those of a program.

    Programs are compared by what they compute, so names, order and form do not matter. Decoupled weight decay is
    measured and compared apart. For the hyperparameters of each known program, the constants of this program are tried
    in place of their defaults (with 1 - c, products of two, and 0): one hyperparameter at a time, and, where that
    matches nowhere, in combination for the nearest few. Among those that then compute the same, fewest changes win;
    otherwise the smallest distance.

    Returns:
        None if none is nearer than `FAR`, or the update on these numbers is infinite, NaN, beyond 1e100, below 1e-100
        or weight decay alone.

    """
    program = remove_dead_code(program)
    with np.errstate(all="ignore"):
        target = _target(program)
        if target is None:
            return None
        screened = _screened(program, target)
        key = behavioural_key(program)
        for name, distance in screened:
            if distance <= _CANDIDATE and _key(name) == key:
                return Nearest(name, exact=True, distance=0.0)
        constants = _constants(program)
        names = _promising([name for name, _ in screened[:_MOST_SCREENED]], target, constants)
        # Where all entries are of one size, as with signs, a wrong constant says nothing but how often they agree.
        alike = _alike([name for name, _ in screened], target)
        names = list(dict.fromkeys([*(alike or names), *names[: 1 if alike else None]]))
        found = sorted((_fit(name, target, constants) for name in names), key=_rank)
        if found and not found[0].same_rule:
            several = [one.name for one in found if 1 < len(_reference(one.name).hyperparameters) <= _MOST_TOGETHER]
            found += [_fit(name, target, constants, together=True) for name in several[:_CLOSER_LOOKS]]
    if not found:
        return None
    best = min(found, key=_rank)
    return best if best.distance <= FAR else None


@dataclass(frozen=True, slots=True)
class _Target:
    """What is compared: the updates, the same at weights zero, and the decoupled weight decay if that is all between.

    The updates at weights zero are the plain ones where the weights enter in another way.
    """

    updates: NDArray[np.float64]
    direction: NDArray[np.float64]
    decay: float | None


@dataclass(frozen=True, slots=True)
class _Reference:
    """A known program, ready to be run, with what it needs: inputs that few have, and whether it works on matrices."""

    run: Runner
    hyperparameters: Mapping[str, float]
    uncommon: frozenset[str]
    matrixwise: bool


@dataclass(frozen=True, slots=True)
class _Constants:
    """The constants of a program in the order of the text, and what they may make."""

    given: tuple[float, ...]
    derived: tuple[float, ...]

    def options(self, default: float) -> list[float]:
        """Return what a hyperparameter may be, the likeliest first."""
        first = (default,) if default in self.given else ()
        return list(dict.fromkeys([*first, *self.given, default, *self.derived]))


@cache
def _reference(name: str) -> _Reference:
    program = known()[name]
    hyperparameters = MappingProxyType({h.name: h.value for h in program.hyperparameters})
    return _Reference(runner(program, VARIED_LAYOUT), hyperparameters, _uncommon(program), _matrixwise(program))


def _uncommon(program: Program) -> frozenset[str]:
    return _UNCOMMON.intersection(program.inputs)


def _matrixwise(program: Program) -> bool:
    return any(isinstance(OPS[statement.op].meaning, Matrixwise) for statement in program.statements)


@cache
def _key(name: str) -> str:
    return behavioural_key(known()[name])


@cache
def _decoupled(name: str) -> bool:
    """Say whether weights enter a known program by decoupled decay, or not at all."""
    return measured_decay(_reference(name).run, varied_inputs()) is not None


@cache
def _few_updates(name: str, weights: bool) -> NDArray[np.float64]:
    """Return the first updates of a known program as it stands, or at weights zero."""
    inputs = varied_inputs()[:_FEW_STEPS]
    return _reference(name).run(inputs if weights else without_weights(inputs))


def _screened(program: Program, target: _Target) -> list[tuple[str, float]]:
    """Return the known programs that can be near, the nearest in a few steps, as they stand, first.

    A program without an input such as noise is near to none with it, and one without matrices to none with them.
    """
    uncommon, matrixwise = _uncommon(program), _matrixwise(program)
    wanted = (target.updates if target.decay is None else target.direction)[:_FEW_STEPS]
    distances = []
    for name in known():
        reference = _reference(name)
        if reference.uncommon == uncommon and (matrixwise or not reference.matrixwise):
            distances.append((name, _distance(wanted, _few_updates(name, target.decay is None))[0]))
    return sorted(distances, key=lambda one: one[1])


def _alike(names: list[str], target: _Target) -> list[str]:
    """Return the nearest known programs whose updates have the sizes of the target's, if these are all one size."""
    weights = target.decay is None
    wanted = np.abs((target.updates if weights else target.direction)[:_FEW_STEPS])
    if wanted.min(axis=1).min() <= 0.0 or float((wanted.max(axis=1) / wanted.min(axis=1)).max()) > 1.0 + SAME:
        return []
    near = [name for name in names if _distance(wanted, np.abs(_few_updates(name, weights)))[0] <= _CANDIDATE]
    return near[:_MOST_ALIKE]


def _promising(names: list[str], target: _Target, constants: _Constants) -> list[str]:
    """Return the few known programs that come nearest in a few steps with the constants of the program itself."""
    inputs = varied_inputs()[:_FEW_STEPS]
    inputs = inputs if target.decay is None else without_weights(inputs)
    wanted = (target.updates if target.decay is None else target.direction)[:_FEW_STEPS]
    distances: list[tuple[float, int, str]] = []
    for name in names:
        reference = _reference(name)
        values, best = dict(reference.hyperparameters), 1.0
        for one, default in reference.hyperparameters.items():
            options = list(dict.fromkeys([default, *constants.given[:_FEW_CONSTANTS]]))
            tried = [_distance(wanted, reference.run(inputs, values | {one: option}))[0] for option in options]
            best = min(tried)
            values[one] = options[tried.index(best)]
        if not reference.hyperparameters:
            best = _distance(wanted, _few_updates(name, target.decay is None))[0]
        # Of many that come as near, those with the fewest constants to choose.
        distances.append((round(best, 2), len(values), name))
    return [name for *_, name in sorted(distances)[:_MOST_FITTED]]


def _target(program: Program) -> _Target | None:
    run, inputs = runner(program, VARIED_LAYOUT), varied_inputs()
    updates = run(inputs)
    decay = measured_decay(run, inputs)
    # Where the updates are weight decay alone, no direction is left to compare.
    direction = updates if decay is None else run(without_weights(inputs))
    sizes = [float(np.abs(values).max()) for values in (updates, direction)]
    return _Target(updates, direction, decay) if all(_SMALLEST < size < _LARGEST for size in sizes) else None


def _constants(program: Program) -> _Constants:
    statements, _ = live_statements(program)
    literals = [a for i in sorted(statements) for a in program.statements[i].args if isinstance(a, float)]
    found = dict.fromkeys([*(h.value for h in program.hyperparameters), *literals])
    given = [value for value in found if 0.0 <= value < 2.0 and value != 1.0][:_MOST_CONSTANTS]
    products = [a * b for i, a in enumerate(given) for b in given[i:] if 0.5 < a * b < 1.0]
    complements = [1.0 - value for value in given if value < 1.0]
    return _Constants(tuple(given), (*complements, *products[:_MOST_CONSTANTS], 0.0))


def _fit(name: str, target: _Target, constants: _Constants, *, together: bool = False) -> Nearest:
    """Choose the hyperparameters of a known program that bring it nearest to the target, one by one or together."""
    reference = _reference(name)
    separate = target.decay is not None and _decoupled(name)
    wanted = target.direction if separate else target.updates
    theirs = dict(reference.hyperparameters)
    apart = {_DECAY: 0.0} if separate and _DECAY in theirs else {}
    values = theirs | apart
    free = {one: constants.options(default) for one, default in theirs.items() if one not in apart}
    if together:
        values = _best_together(reference.run, wanted, values, free)
    seen: dict[tuple[float, ...], float] = {}
    for _ in range(_SWEEPS):
        before = values
        for one, options in free.items():
            values = _best_of(reference.run, wanted, [values | {one: option} for option in options], seen)
        if values == before:
            break
    distance, scale = _distance(wanted, reference.run(varied_inputs(), values))
    if abs(scale - 1.0) <= SAME:
        scale = 1.0
    if separate:
        theirs.setdefault(_DECAY, 0.0)
        values[_DECAY] = float(f"{(target.decay or 0.0) / scale:.9g}")  # free of the rounding of its measurement
    changes = {
        one: (theirs[one], value)
        for one, value in values.items()
        if not math.isclose(theirs[one], value, rel_tol=_SAME_CONSTANT)
    }
    return Nearest(name, False, distance, MappingProxyType(changes), scale)


def _best_together(
    run: Runner, wanted: NDArray[np.float64], values: dict[str, float], options: dict[str, list[float]]
) -> dict[str, float]:
    """Return the nearest of many combinations: those that come nearest in a few steps, compared over all steps.

    Of signs, one wrong constant can hide that another is right.
    """
    few = max(1, int(_MOST_COMBINATIONS ** (1.0 / max(1, len(options)))))
    combinations = itertools.product(*(choice[:few] for choice in options.values()))
    tried = [values | dict(zip(options, one, strict=True)) for one in combinations]
    inputs = varied_inputs()[:_FEW_STEPS]
    distances = [_distance(wanted[:_FEW_STEPS], run(inputs, one))[0] for one in tried]
    return _best_of(run, wanted, [tried[i] for i in sorted(np.argsort(distances, kind="stable")[:_MOST_CONSTANTS])])


def _best_of(
    run: Runner,
    wanted: NDArray[np.float64],
    tried: list[dict[str, float]],
    seen: dict[tuple[float, ...], float] | None = None,
) -> dict[str, float]:
    """Return the first of the settings that comes nearest; `seen` remembers distances from call to call."""
    nearest_yet, best = math.inf, tried[0]
    seen = {} if seen is None else seen
    for values in tried:
        setting = tuple(values.values())
        distance = seen.get(setting, -1.0)
        if distance < 0.0:
            distance = seen[setting] = _distance(wanted, run(varied_inputs(), values))[0]
        if distance < nearest_yet - _TIE:
            nearest_yet, best = distance, values
    return best


def _distance(wanted: NDArray[np.float64], updates: NDArray[np.float64]) -> tuple[float, float]:
    """Return what remains relative to the norm of `wanted`, and the factor on `updates` that leaves least of it."""
    largest = float(np.abs(updates).max())
    if not 0.0 < largest < _LARGEST:
        return 1.0, 1.0
    unit, other = wanted / np.abs(wanted).max(), updates / largest
    factor = float(np.vdot(unit, other) / np.vdot(other, other))
    if factor <= 0.0:
        return 1.0, 1.0
    distance = float(np.linalg.norm(unit - factor * other) / np.linalg.norm(unit))
    return distance, factor * float(np.abs(wanted).max()) / largest


def _rank(one: Nearest) -> tuple[int, float, int, float, str]:
    """Order by changes among those that compute the same, otherwise by distance."""
    if not one.same_rule:
        return 1, round(one.distance, 2), len(one.changes), one.distance, one.name
    # That a known program has no such term is a greater difference than another value of a constant.
    added = one.changes.get(_DECAY, (1.0, 1.0))[0] == 0.0
    return 0, 0.0, len(one.changes) + added + (one.learning_rate_scale != 1.0), one.distance, one.name
