"""Bootstrap draws at several levels: families, tasks within them, seeds within tasks, and the tuning trials.

`scipy.stats.bootstrap` resamples one level; here an index array is drawn for each group of things that are resampled
together, so that what is paired (equal seeds, equal trials) stays paired in every draw. A group is named by what is in
it, and so are its random numbers: the draws of one task do not hang on which other tasks or optimizers are there.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evolion.evaluators.protocol.report import Estimate

__all__ = ["Floats", "Resampler", "estimate", "hierarchical", "ratio_estimate", "reselection", "unbiased"]

LARGEST_LOG = 700.0
"""The exponential of more is not a number of double precision."""

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Resampler:
    """Draws of indices with replacement.

    Attributes:
        draws: How many.
        seed: Of all of them.

    """

    draws: int
    seed: int
    _drawn: dict[Hashable, Indices] = field(default_factory=dict, compare=False, repr=False)

    def indices(self, group: str, members: Sequence[Hashable]) -> Indices:
        """Return draws of places in `members`, with replacement; shape (draws, len(members)).

        The same group and members give the same draws: two optimizers run on the same seeds stay paired.
        """
        key = (group, *members)
        if key not in self._drawn:
            # A hash of Python's own is salted for strings: it would differ from one process to the next.
            place = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big")
            stream = np.random.default_rng([self.seed, place])
            self._drawn[key] = stream.integers(0, len(members), (self.draws, len(members)))
        return self._drawn[key]

    def means(self, group: str, by_member: Mapping[int, float]) -> Floats:
        """Return the mean of each draw of the values, e.g. losses by seed; shape (draws,)."""
        members = sorted(by_member)
        values = np.array([by_member[member] for member in members], np.float64)
        return np.asarray(values[self.indices(group, members)].mean(axis=1))


def estimate(value: float, draws: Floats, level: float) -> Estimate:
    """Return a value with the percentile interval of its draws, widened to hold the value where it does not.

    Tuning luck moves draws to one side only, so a percentile interval may end just beside the value.
    """
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, min(float(low), value), max(float(high), value))


def ratio_estimate(
    log: float, draws: Floats, level: float, freedom: int, reach: tuple[float, float] = (-math.inf, math.inf)
) -> Estimate:
    """Return a ratio with its interval, from its logarithm and draws of that, shape (draws,).

    Percentiles of few seeds are too narrow: with four, a 95 % interval holds the truth four times in five. They are
    expanded about the value as Student's quantile is beyond the normal one (Hesterberg, arXiv:1411.5279, there
    by wider percentiles, which few seeds do not have).

    Args:
        log: Logarithm of the value.
        draws: Of logarithms, their variance that of the value (`unbiased`).
        level: Of the interval.
        freedom: Degrees of freedom of the noise of seeds; without any the percentiles stay as they are.
        reach: The least and the largest logarithm that can be told: beyond the horizons of the reference nothing is.

    """
    found = estimate(log, draws, level)
    quantile = (1 + level) / 2
    factor = float(stats.t.ppf(quantile, freedom) / stats.norm.ppf(quantile)) if freedom else 1.0
    low = min(log, max(reach[0], log + factor * (found.low - log)))
    high = max(log, min(reach[1], log + factor * (found.high - log)))
    return Estimate(*(math.exp(min(end, LARGEST_LOG)) for end in (log, low, high)))


def unbiased(mean: float, draws: Floats, count: int) -> Floats:
    """Return draws of a mean of `count` values, spread so that their variance is that of the mean.

    Values drawn from a sample vary less than those that it was drawn from, by (count - 1) / count.
    """
    return mean + math.sqrt(count / (count - 1)) * (draws - mean) if count > 1 else draws


def hierarchical(
    resampler: Resampler,
    families: Mapping[str, Sequence[str]],
    values: Mapping[str, Floats],
    *,
    over_families: bool,
) -> Floats:
    """Return draws of the mean within families and then over them; shape (draws,).

    Args:
        resampler: The source of the draws.
        families: Tasks by family, none empty.
        values: By task, its draws, shape (draws,): seeds and trials are resampled in them.
        over_families: Whether families are resampled too: then the interval says what other families may show, else it
            is about the families that are there.

    """
    names = sorted(families)
    rows = np.arange(resampler.draws)
    means = []
    for name in names:
        tasks = sorted(families[name])
        stacked = np.stack([values[task] for task in tasks])
        drawn = resampler.indices(f"tasks of {name}", tasks)
        means.append(stacked[drawn, rows[:, None]].mean(axis=1))
    by_family = np.stack(means)
    if not over_families:
        return np.asarray(by_family.mean(axis=0))
    return np.asarray(by_family[resampler.indices("families", names), rows[:, None]].mean(axis=1))


def reselection(resampler: Resampler, group: str, trials: Sequence[float], scale: Callable[[Floats], Floats]) -> Floats:
    """Return by how much the best of resampled trials is worse than the best of all; shape (draws,), none negative.

    Tuning luck: the trials are drawn with replacement and the best of those drawn is selected anew. A reselected trial
    has no reported seeds, so its reported loss is taken to differ from that of the selected one as their tuning losses
    differ, on the scale of the speed-up: reported + (tuning of reselected - tuning of selected). Extensions and
    refinement started at the best trial; they are taken to gain as much at a reselected one.

    Args:
        resampler: The source of the draws.
        group: Names the draws; the same for all optimizers on a task, whose trials are at the same points.
        trials: Losses in the order of the points, finite (`sensitivity.clipped`).
        scale: From losses to the scale on which losses are compared (`speedup.Scale`).

    """
    if not trials:
        return np.zeros(resampler.draws)
    values = scale(np.asarray(trials, np.float64))
    best = values[resampler.indices(group, range(len(trials)))].min(axis=1)
    return np.asarray(best - values.min())
