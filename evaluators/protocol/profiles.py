"""Time to target, performance profiles and their score, in the form of AlgoPerf.

Dolan and Moré (arXiv:cs/0102001) for profiles; `scoring/performance_profile.py` of AlgoPerf for the score. A time is
the horizon of a complete schedule whose mean loss over seeds reaches the target, never the first crossing within a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from evolion.evaluators.protocol.report import Profile

__all__ = ["TARGETS", "profile", "ratios_to_best", "ratios_to_reference", "score", "targets", "times"]

TARGETS = (0.5, 1.0, 2.0)
"""Targets are the mean losses of the reference at these shares of the task's horizon."""

LIMIT = 4.0
"""A time beyond this many times the best counts as never."""

BEST_RATIOS = tuple(np.linspace(1.0, LIMIT, 121).tolist())
REFERENCE_RATIOS = tuple(np.linspace(0.5, LIMIT, 141).tolist())

Times = Mapping[tuple[str, float], float | None]
"""By task and target the horizon that reaches it; None where none does."""


def targets(means: Mapping[float, float]) -> dict[float, float]:
    """Return the targets that the reference's mean losses by horizon set; none where a run diverged or is missing."""
    return {share: means[share] for share in TARGETS if share in means and math.isfinite(means[share])}


def times(means: Mapping[float, float], goals: Mapping[float, float]) -> dict[float, float | None]:
    """Return for each target the least horizon whose mean loss is at most the target; None where none is."""
    return {
        share: min((horizon for horizon, mean in means.items() if mean <= goal), default=None)
        for share, goal in goals.items()
    }


def ratios_to_best(found: Mapping[str, Times], optimizer: str, pool: Sequence[str]) -> list[float]:
    """Return for each task and target the time of an optimizer over the least of the pool; infinite without a time."""
    return [
        _ratio(found[optimizer][key], min((t for o in pool if (t := found[o][key]) is not None), default=None))
        for key in sorted(found[optimizer])
    ]


def ratios_to_reference(found: Mapping[str, Times], optimizer: str, reference: str) -> list[float]:
    """Return for each task and target the time of an optimizer over that of the reference; infinite without a time."""
    return [_ratio(found[optimizer][key], found[reference][key]) for key in sorted(found[optimizer])]


def _ratio(time: float | None, best: float | None) -> float:
    return math.inf if time is None or best is None else time / best


def score(ratios: Sequence[float]) -> float | None:
    """Return AlgoPerf's score: the integral of the profile over ratios from 1 to 4, over 3; None without targets.

    The profile is a sum of steps at the ratios, so its integral is the sum of what is right of them: 4 - ratio.
    """
    if not ratios:
        return None
    return math.fsum(max(0.0, LIMIT - max(1.0, ratio)) / (LIMIT - 1.0) for ratio in ratios) / len(ratios)


def profile(optimizer: str, ratios: Sequence[float], grid: Sequence[float]) -> Profile:
    """Return the share of ratios within each of the grid; zeros without targets."""
    found = np.sort(np.asarray(ratios, np.float64))
    # A ratio of horizons and a point of the grid may differ in their last bits.
    within = np.searchsorted(found, np.asarray(grid, np.float64) * (1 + 1e-9), side="right")
    return Profile(optimizer, tuple(grid), tuple((within / max(found.size, 1)).tolist()))
