"""The speed-up in steps of the tuned reference: at which horizon would it end with the loss of the other optimizer?

The estimator of Wen et al. (arXiv:2509.02046, `speedup_estimation.py`), with two differences: every point of the
reference is the end of a complete schedule of its own, and its losses are interpolated, not fitted, so that no law is
assumed and nothing is extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from evolion.evaluators.protocol.report import Estimate, SpeedUp
from evolion.evaluators.protocol.resampling import Floats, Resampler, ratio_estimate, unbiased

__all__ = ["Ladder", "Scale", "Scaled", "ladder", "never_rising", "speed_up", "task_scale"]


@dataclass(frozen=True, slots=True)
class Scale:
    """The scale on which losses are interpolated: log of the excess over a known floor, else the loss itself.

    A power law of the horizon is a straight line on the first.
    """

    floor: float | None

    def __call__(self, losses: Floats) -> Floats:
        """Return losses on the scale; infinite losses stay infinite."""
        if self.floor is None:
            return losses
        return np.asarray(np.log(np.maximum(losses - self.floor, np.finfo(np.float64).tiny)))


def task_scale(floor: float | None, losses: Sequence[float]) -> Scale:
    """Return the scale of a task: its floor counts only if every finite loss that is compared lies above it."""
    above = floor is not None and all(loss > floor for loss in losses if math.isfinite(loss))
    return Scale(floor if above else None)


@dataclass(frozen=True, slots=True)
class Scaled:
    """A mean loss on the scale of its task.

    Attributes:
        value: Of all seeds; infinite if one of them diverged.
        draws: Of resampled seeds and trials, shape (draws,).
        seeds: How many seeds.

    """

    value: float
    draws: Floats
    seeds: int


@dataclass(frozen=True, slots=True)
class Ladder:
    """The losses of the reference by horizon, never rising: noise may make a longer run worse, its best fit does not.

    Attributes:
        logs: Logarithms of the horizons, rising; shape (rungs,).
        fitted: The isotonic fit of the mean losses, on the scale of the task; shape (rungs,).
        draws: The same of resampled seeds and trials; shape (draws, rungs).
        scale: The scale.

    """

    logs: Floats
    fitted: Floats
    draws: Floats
    scale: Scale

    @property
    def reach(self) -> tuple[float, float]:
        """The logarithms of the shortest and the longest horizon."""
        return float(self.logs[0]), float(self.logs[-1])


def never_rising(values: Floats, weights: Floats) -> Floats:
    """Return the never rising values that fit best by weighted least squares."""
    return np.asarray(isotonic_regression(values, weights=weights, increasing=False).x)


def ladder(
    resampler: Resampler, group: str, rungs: Mapping[float, Mapping[int, float]], scale: Scale, luck: Floats
) -> Ladder | None:
    """Return the ladder of the reference on a task; None with fewer than two horizons at which no run diverged.

    Args:
        resampler: The source of the draws.
        group: Names the draws of seeds.
        rungs: By horizon (a share of the task's), loss by seed; infinite for a run that diverged.
        scale: The scale of the task.
        luck: By how much the settings are worse with resampled trials (`resampling.reselection`), shape (draws,).

    """
    horizons = sorted(h for h, losses in rungs.items() if losses and all(map(math.isfinite, losses.values())))
    if len(horizons) < 2:
        return None
    weights = np.array([len(rungs[h]) for h in horizons], np.float64)
    scaled = [scaled_mean(resampler, group, rungs[h], scale, luck) for h in horizons]
    drawn = np.stack([rung.draws for rung in scaled], axis=1)
    return Ladder(
        logs=np.log(np.array(horizons)),
        fitted=never_rising(np.array([rung.value for rung in scaled]), weights),
        draws=np.stack([never_rising(row, weights) for row in drawn]),
        scale=scale,
    )


def scaled_mean(resampler: Resampler, group: str, losses: Mapping[int, float], scale: Scale, luck: Floats) -> Scaled:
    """Return the mean of losses by seed on the scale, with draws of seeds and the luck of tuning added."""
    # In the order of the seeds, as in the draws: a sum in another order differs in its last bits.
    mean = float(np.mean([losses[seed] for seed in sorted(losses)]))
    value, draws = float(scale(np.array([mean]))[0]), scale(resampler.means(group, losses))
    if math.isfinite(mean):
        # On the scale: spread as losses, draws of few seeds that differ much would fall below the floor.
        draws = unbiased(value, draws, len(losses))
    return Scaled(value, draws + luck, len(losses))


def invert(fitted: Floats, logs: Floats, value: float) -> float:
    """Return the logarithm of the horizon of a loss, within those there are; the middle of a plateau of that loss."""
    # On a plateau np.interp takes its end with the greater abscissa: once from each side, they are both ends.
    shortest = np.interp(value, fitted[::-1], logs[::-1])
    longest = np.interp(-value, -fitted, logs)
    return float(shortest + longest) / 2


def speed_up(reference: Ladder, loss: Scaled, level: float) -> tuple[SpeedUp, Floats]:
    """Return the speed-up of an optimizer with a mean loss, and the logarithms of its draws, shape (draws,).

    A loss that diverged is one worse than all of the reference: it is censored at the shortest horizon, not left out,
    as else divergence would pay.
    """
    log = invert(reference.fitted, reference.logs, loss.value)
    censored = "low" if loss.value > reference.fitted[0] else "high" if loss.value < reference.fitted[-1] else ""
    draws = np.array(
        [invert(row, reference.logs, float(drawn)) for row, drawn in zip(reference.draws, loss.draws, strict=True)]
    )
    return SpeedUp(ratio_estimate(log, draws, level, loss.seeds - 1, reference.reach), censored), draws


def exactly_one(draws: int) -> tuple[SpeedUp, Floats]:
    """Return the speed-up of the reference, which is 1 by definition."""
    return SpeedUp(Estimate(1.0, 1.0, 1.0)), np.zeros(draws)
