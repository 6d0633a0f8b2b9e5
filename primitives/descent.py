"""Whether a program can train at all: a few steps down two small losses that mirror each other.

The losses are sums over the weights w of h (sqrt(1 + (w - c)^2 / s^2) - 1), quadratic near the minimum c and of bounded
slope far from it, with gradients of the size that they have in training, noise and exact zeros included. Both start
from the same weights, with gradients of opposite sign. Their sum is convex and even in what the two have moved in
common, so nothing that moves both alike lowers it: no decay, no constant, no power of the gradient without its sign.
What lowers it follows the gradient.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evolion.primitives.layout import Layout
from evolion.primitives.numpy_interpreter import Value, stepper
from evolion.primitives.program import Program

__all__ = ["LEAST_DESCENT", "RATES", "STEPS", "Descent", "descent"]

RATES = (1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Peak learning rates; one of them must do. With a rate of 1 a rule that is linear in it goes as far as in a training
run of 500 steps with 0.03."""

STEPS = 16

LEAST_DESCENT = 1e-6
"""The share of both losses that a rule must take away. Those that train on a task take away a thousandth or more."""

_LAYOUT = Layout(((6, 8), (8,)))
_DISTANCE = 0.12
_LARGEST_GRADIENT, _OCTAVES = 0.03, 6.0
_NOISE, _GAINS, _DEAD_SHARE = 0.7, 0.3, 0.06
# Training starts slowly; the large rates stand for a whole training run in a few coarse steps.
_SLOW_START, _START, _COARSE = (1 / 32, 1 / 8, 1 / 2), (1 / 8, 1 / 2, 1.0), 0.1

_RATES_OF_WAYS = (0.003, 0.03, 0.3)
_ROUNDING = 16.0  # to the octave: 4 %


@dataclass(frozen=True, slots=True)
class Descent:
    """What a program does on the two losses.

    Attributes:
        left: Their sum after the last step over that at the start, for each of `RATES`; infinite where not finite.
        way: A digest of how far the weights and the losses have come at three of the rates, rounded to 4 %, as 32
            hexadecimal digits; "" where that is no number or nothing at one of them, which many have in common.

    """

    left: tuple[float, ...]
    way: str

    @property
    def succeeds(self) -> bool:
        """Whether the losses are lower in the end for one of the learning rates."""
        return min(self.left) < 1.0 - LEAST_DESCENT


class _Problem(NamedTuple):
    """The fixed numbers: of shape (entries,) unless told otherwise.

    Attributes:
        start: The weights at the start; zero for the vector, as biases are.
        minimum: What lies between them and the minimum of the first loss.
        slopes: The size of gradients far from it.
        slopes_of_steps: What takes their place in the gradient of each step, negative, shape (steps, entries): the
            loss does not see the noise.
        noise: What is added to the gradient, shape (steps, members, entries).
        normal: Standard normal numbers.
        rates: The learning rates, shape (steps, members, 1).
        sign: Which of the two losses a member of the batch is at, 1 or -1, shape (members, 1).

    """

    start: NDArray[np.float64]
    minimum: NDArray[np.float64]
    slopes: NDArray[np.float64]
    slopes_of_steps: NDArray[np.float64]
    noise: NDArray[np.float64]
    normal: NDArray[np.float64]
    rates: NDArray[np.float64]
    sign: NDArray[np.float64]

    def loss(self, ahead: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the loss of each member; `ahead` is its way to the minimum."""
        return np.asarray((self.slopes * (np.sqrt(_DISTANCE**2 + ahead * ahead) - _DISTANCE)).sum(axis=-1))


@cache
def _problem() -> _Problem:
    entries, rows = _LAYOUT.entries, 5 + 2 * STEPS
    # From SHAKE-256, which no library version or platform can change. Sums of twelve are normal enough.
    stream = hashlib.shake_256(b"evolion descent").digest(8 * 12 * rows * entries)
    uniform = (np.frombuffer(stream, "<u8") >> np.uint64(11)).astype(np.float64).reshape(12, rows, entries) / 2.0**53
    normal = uniform.sum(axis=0) - 6.0
    start = 0.18 * normal[0]
    start[_LAYOUT.starts[1] :] = 0.0
    slopes = _LARGEST_GRADIENT * np.ldexp(1.0, -np.floor(_OCTAVES * uniform[2, 1]).astype(int))
    slopes = np.where(uniform[3, 1] < _DEAD_SHARE, 0.0, slopes)
    cosine = 0.5 + 0.5 * np.cos(np.pi * np.arange(STEPS - 3) / (STEPS - 3))
    schedules = [rate * np.append(_SLOW_START if rate < _COARSE else _START, cosine) for rate in RATES]
    sign = np.tile([[1.0], [-1.0]], (len(RATES), 1))
    return _Problem(
        start=start,
        minimum=_DISTANCE * np.where(uniform[0, 1] < 0.5, -1.0, 1.0) * (0.5 + uniform[1, 1]),
        slopes=slopes,
        slopes_of_steps=-slopes * (1.0 + _GAINS * normal[5 : 5 + STEPS]),
        noise=-_NOISE * slopes * normal[5 + STEPS :, None] * sign,
        normal=normal[2],
        rates=np.repeat(np.transpose(schedules), 2, axis=1)[:, :, None],
        sign=sign,
    )


def descent(program: Program) -> Descent:
    """Run a program down both losses at all learning rates: less than a millisecond, but for ops on matrices."""
    problem = _problem()
    minimum = problem.sign * problem.minimum
    with np.errstate(all="ignore"):
        moved = _moved(program, problem)
        length = np.sqrt(np.square(moved).reshape(len(RATES), -1).mean(axis=1))
        start, end = (problem.loss(ahead).reshape(-1, 2).sum(axis=1) for ahead in (minimum, minimum - moved))
        left = end / start
        ways = np.log2(np.abs(np.stack([length, 1.0 - left])))[:, [RATES.index(rate) for rate in _RATES_OF_WAYS]]
    left = tuple(np.where(np.isfinite(left), left, np.inf).tolist())
    if not np.isfinite(ways).all():
        return Descent(left, "")
    return Descent(left, hashlib.blake2b(np.rint(_ROUNDING * ways).astype("<i4").tobytes(), digest_size=16).hexdigest())


def _moved(program: Program, problem: _Problem) -> NDArray[np.float64]:
    """Return how far the weights of all members have moved in the end, shape (members, entries)."""
    members = len(problem.sign)
    step = stepper(program, _LAYOUT, batched=True)
    reads = frozenset(program.inputs)
    given: dict[str, Value] = {h.name: np.float64(h.value) for h in program.hyperparameters}
    given |= {"w0": problem.start, "noise": problem.normal, "horizon": np.float64(STEPS)}
    slots: dict[str, Value] = {}
    for slot in program.slots:
        slots[slot.name] = np.zeros((members, *(_LAYOUT.shape(slot.kind) or (1,))))
    minimum = problem.sign * problem.minimum
    moved = np.zeros_like(minimum)
    for index in range(STEPS):
        ahead = minimum - moved
        root = np.sqrt(_DISTANCE**2 + ahead * ahead)
        given["g"] = problem.slopes_of_steps[index] * ahead / root + problem.noise[index]
        given["lr"], given["t"] = problem.rates[index], np.float64(index + 1)
        if "w" in reads:
            given["w"] = problem.start + moved
        if "hess" in reads:
            given["hess"] = problem.slopes * _DISTANCE**2 / root**3
        if "loss" in reads:
            given["loss"] = problem.loss(ahead)[:, None]
        update, slots = step(given | slots)
        moved = moved - update
    return moved
