"""What tuning costs: the expected best of k trials, and how much a wrong learning rate loses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evolion.evaluators.protocol.report import TuningPoint

__all__ = ["basin", "clipped", "sensitivity", "tuning_curve"]

BASIN_EXCESS = 1.05
"""The basin is where the excess loss is at most this many times the best."""


def clipped(losses: Sequence[float], start: float | None) -> list[float]:
    """Return losses, none above the loss at the start: a run that diverged could have been left where it began.

    Without a known start the largest finite loss takes its place; no loss is left if there is none.
    """
    limit = start if start is not None else max(filter(math.isfinite, losses), default=None)
    return [] if limit is None else [min(loss, limit) for loss in losses]


def tuning_curve(losses: Sequence[float]) -> tuple[TuningPoint, ...]:
    """Return the expected best of k of the trials drawn with replacement, and its deviation, for k = 1 … K.

    Dodge et al. (arXiv:1909.03004): with the losses sorted, the i-th is the least of k with probability
    ((K - i + 1) / K)^k - ((K - i) / K)^k.

    Args:
        losses: Of the K trials, finite (`clipped`).

    """
    values = np.sort(np.asarray(losses, np.float64))
    count = values.size
    left = np.arange(count, -1, -1) / max(count, 1)
    points = []
    for trials in range(1, count + 1):
        chances = -np.diff(left**trials)
        mean = float(chances @ values)
        points.append(TuningPoint(trials, mean, math.sqrt(float(chances @ np.square(values - mean)))))
    return tuple(points)


def sensitivity(losses: Sequence[float], start: float) -> float:
    """Return the mean of min(loss, start) - least loss over log-spaced learning rates.

    Wortsman et al. (arXiv:2309.14322).
    """
    values = clipped(losses, start)
    return math.fsum(values) / len(values) - min(values)


def basin(rates: Sequence[float], losses: Sequence[float], floor: float | None) -> float | None:
    """Return the decades of learning rate around the best in which the excess loss is at most 5 % above the best.

    Between learning rates the loss is linear in their logarithm; the basin ends with the rates there are.

    Args:
        rates: Rising.
        losses: Finite.
        floor: What the excess is over; zero where it is not known.

    Returns:
        The width; None if the best loss has no positive excess, so that a share of it means nothing.

    """
    excess = np.asarray(losses, np.float64) - (floor or 0.0)
    best = int(np.argmin(excess))
    if excess[best] <= 0:
        return None
    logs, limit = np.log10(np.asarray(rates, np.float64)), BASIN_EXCESS * excess[best]

    def end(step: int) -> float:
        place = best
        while 0 <= place + step < len(excess):
            near, far = excess[place], excess[place + step]
            if far > limit:
                return float(logs[place] + (logs[place + step] - logs[place]) * (limit - near) / (far - near))
            place += step
        return float(logs[place])

    return end(1) - end(-1)
