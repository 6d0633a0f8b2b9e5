"""Properties of a program, measured on fixed numbers.

A measurement proves nothing about all inputs; it says what held, within `TOLERANCE`, on those of
`evolion.primitives.measurement`. True and False are what was seen; None means that it cannot be said, because an update
was infinite or NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.measurement import (
    EVEN_LAYOUT,
    Inputs,
    Runner,
    even_inputs,
    runner,
    scaled_loss,
    spiked,
    without_weights,
)
from evolion.primitives.program import Program

__all__ = ["TOLERANCE", "Properties", "Reach", "measured_decay", "properties"]

Reach = Literal["entry", "row", "column", "row and column", "tensor", "tree"]

Updates = NDArray[np.float64]

TOLERANCE = 1e-3
"""Two sequences of updates count as equal if their difference is at most this, relative to their norm."""

_DECADES = range(-8, 7)
_COUNTS_FROM = 100.0
_QUIET_STEPS = 300
_LARGEST_DEGREE = 20.0


@dataclass(frozen=True, slots=True)
class Properties:
    """What was measured. "The update without weight decay" is the update at weights zero if `weight_decay` is known.

    Attributes:
        gradient_scale_invariant: Whether the update without weight decay stays as it is when the loss, and with it all
            gradients and the Hessian estimate, is multiplied by a positive constant from the start.
        gradient_scale_equivariant: Whether it is then multiplied by the same constant.
        gradient_scale_from: The gradient size from which that holds, up to 1e6: the effect of an epsilon ends there.
            A power of ten; 0 if it holds from 1e-8, the smallest size tried; None if neither holds from 100 on.
        odd: Whether the update without weight decay changes sign, and nothing else, when all gradients do.
        bounded: Whether it stops growing with the gradients, up to 1e6.
        bound: The largest entry seen, over `lr` if linear in it; None unless bounded. Gradients are of one size, or
            tiny for 300 steps and then large.
        linear_in_lr: Whether the update is multiplied by any constant that multiplies the learning rate of every step.
        weight_decay: The c of decoupled weight decay, where the weights enter the update as lr c w and no other way; 0
            if they have no effect; None if they enter otherwise, or an update is not finite.
        inputs: The reserved inputs that the update depends on.
        reach: What a gradient entry and a weight influence: only their own entry of the update, their row or column of
            the matrix view, their parameter tensor, or the whole tree.

    """

    gradient_scale_invariant: bool | None
    gradient_scale_equivariant: bool | None
    gradient_scale_from: float | None
    odd: bool | None
    bounded: bool | None
    bound: float | None
    linear_in_lr: bool | None
    weight_decay: float | None
    inputs: tuple[str, ...]
    reach: Reach | None


def properties(program: Program) -> Properties:
    """Measure the properties of a program, in some ten milliseconds; the same on every machine but for last bits."""
    program = remove_dead_code(program)
    run = runner(program, EVEN_LAYOUT)
    inputs = even_inputs()
    with np.errstate(all="ignore"):
        decay = measured_decay(run, inputs) if "w" in program.inputs else 0.0
        linear = _linear_in_lr(run, inputs)
        base = inputs if decay is None else without_weights(inputs)
        degree, above = _homogeneity(run, base)
        bounded, bound = _bound(run, base, per_lr=linear is True)
        return Properties(
            gradient_scale_invariant=None if degree is None else degree == 0.0,
            gradient_scale_equivariant=None if degree is None else degree == 1.0,
            gradient_scale_from=above if degree in (0.0, 1.0) else None,
            odd=_odd(run, base),
            bounded=bounded,
            bound=bound,
            linear_in_lr=linear,
            weight_decay=decay,
            inputs=program.inputs,
            reach=_reach(run, inputs),
        )


def measured_decay(run: Runner, inputs: Inputs) -> float | None:
    """Return the c for which the updates are those at weights zero plus lr c w; None if there is none.

    Floating-point warnings are the caller's to silence.
    """
    found = []
    for scale in (1.0, 100.0, 1e-3):
        scaled = scaled_loss(inputs, scale)
        updates, others = run(scaled), run(without_weights(scaled))
        if not (np.isfinite(updates).all() and np.isfinite(others).all()):
            return None
        effect = updates - others
        # What remains of weights that cancel is rounding.
        if _size(effect) <= 1e-13 * _size(updates):
            found.append(0.0)
            continue
        unit = np.array([step["lr"] * step["w"] for step in inputs])
        decay = float(np.vdot(effect, unit) / np.vdot(unit, unit))
        if not _equal(effect, decay * unit):
            return None
        found.append(decay)
    return found[0] if all(math.isclose(found[0], other, rel_tol=TOLERANCE) for other in found[1:]) else None


def _size(updates: Updates) -> float:
    largest = float(np.abs(updates).max())
    return largest * float(np.linalg.norm(updates / largest)) if 0.0 < largest < np.inf else largest


def _equal(one: Updates, other: Updates) -> bool | None:
    """Compare two sequences of updates; None if either is not finite."""
    difference = one - other
    if not np.isfinite(difference).all():
        return None
    return _size(difference) <= TOLERANCE * _size(other)


def _all(findings: Iterable[bool | None]) -> bool | None:
    found = list(findings)
    if False in found:
        return False
    return None if None in found else True


def _homogeneity(run: Runner, inputs: Inputs) -> tuple[float | None, float | None]:
    """Return the k for which a loss times c gives an update times c to the k, and the gradient size where that begins.

    The degree is NaN if there is none, None if an update is not finite.
    """
    top, below = (run(scaled_loss(inputs, 10.0**decade)) for decade in (6, 5))
    if not (np.isfinite(top).all() and np.isfinite(below).all()):
        return None, None
    size, smaller = _size(top), _size(below)
    if size == 0.0 or smaller == 0.0:
        return (0.0, 0.0) if size == smaller else (math.nan, None)
    exponent = math.log10(size) - math.log10(smaller)
    if not abs(exponent) < _LARGEST_DEGREE:  # NaN included
        return math.nan, None
    degree = float(round(exponent))
    above = None
    for decade in reversed(_DECADES):
        scaled = run(scaled_loss(inputs, 10.0**decade)) * 10.0 ** (degree * (6 - decade))
        if not _equal(scaled, top):
            break
        above = 10.0**decade
    else:
        above = 0.0
    return (degree, above) if above is not None and above <= _COUNTS_FROM else (math.nan, None)


def _odd(run: Runner, inputs: Inputs) -> bool | None:
    def mirrored(scale: float) -> bool | None:
        scaled = scaled_loss(inputs, scale)
        return _equal(run([{**step, "g": -step["g"]} for step in scaled]), -run(scaled))

    return _all(map(mirrored, (0.01, 1.0, 100.0)))


def _bound(run: Runner, inputs: Inputs, *, per_lr: bool) -> tuple[bool | None, float | None]:
    rates = np.array([[step["lr"]] for step in inputs]) if per_lr else np.ones((len(inputs), 1))
    kinds: tuple[Callable[[float], Updates], ...] = (
        lambda scale: run(scaled_loss(inputs, scale)) / rates,
        lambda scale: run(spiked(inputs, _QUIET_STEPS, 1e-6, scale)) / rates[0],
    )
    largest = 0.0
    grows = False
    for updates in kinds:
        small, middle, large = (float(np.abs(updates(scale)).max()) for scale in (1e-3, 1e3, 1e6))
        if not math.isfinite(small + middle + large):
            return None, None
        grows = grows or large > middle * (1.0 + TOLERANCE)
        largest = max(largest, small, middle, large)
    return (False, None) if grows else (True, largest)


def _linear_in_lr(run: Runner, inputs: Inputs) -> bool | None:
    updates = run(inputs)

    def follows(factor: float) -> bool | None:
        return _equal(run([{**step, "lr": step["lr"] * factor} for step in inputs]), factor * updates)

    return _all(map(follows, (0.1, 3.0)))


def _reach(run: Runner, inputs: Inputs) -> Reach | None:
    """Change one entry of every tensor input at every step, for gradients of several sizes, and see what follows."""
    (rows, columns), end = EVEN_LAYOUT.sides[0], int(EVEN_LAYOUT.sizes[0])
    changed: NDArray[np.bool_] | None = None
    for scale in (1.0, 1e-4, 1e4):
        steps = scaled_loss(inputs, scale)
        before, after = run(steps), run([_nudged(step) for step in steps])
        if not (np.isfinite(before).all() and np.isfinite(after).all()):
            continue
        other = (before != after).any(axis=0)
        if other[end:].any():
            return "tree"
        other = other[:end].reshape(rows, columns)
        changed = other if changed is None else changed | other
    if changed is None:
        return None
    # What changes is the first entry: all of its row and column, and then the rest of the tensor.
    if changed[1:, 1:].any():
        return "tensor"
    in_row, in_column = changed[0, 1:].any(), changed[1:, 0].any()
    if in_row and in_column:
        return "row and column"
    return "row" if in_row else "column" if in_column else "entry"


def _nudged(step: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    changed = dict(step)
    for name in ("g", "w", "w0", "hess", "noise"):
        changed[name] = step[name].copy()
        changed[name][0] *= 1.75
    return changed
