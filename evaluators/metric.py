"""What a score is ranked by."""

from __future__ import annotations

import math
from typing import Protocol

from evolion.proxies.registry import get_task
from evolion.proxies.score import Score, Status

__all__ = ["Measured", "excess", "excess_of", "metric_of"]

LEAST_EXCESS = 1e-9


class Measured(Protocol):
    """A task with the metric that ranks programs on it: a stage of a search, a task of a retest."""

    @property
    def task(self) -> str:
        """The name of the task."""
        ...

    @property
    def metric(self) -> str:
        """The metric, "loss" or "train_loss"."""
        ...


def metric_of(score: Score, metric: str) -> float:
    """Return the final loss ("loss") or training loss at the end ("train_loss"); infinity unless the score is ok."""
    if score.status is not Status.OK:
        return math.inf
    value = score.train_loss if metric == "train_loss" else score.loss
    return math.inf if value is None else value


def excess(score: Score, measured: Measured) -> float:
    """Return the metric of a score above the least value that its task allows, where that is known; infinity unless ok.

    Ratios of it compare tasks whose losses have different scales (the fitness of a candidate is its geometric mean over
    stages). The floor is one of expected loss, so a finite split can fall below it: never less than 1e-9.
    """
    return excess_of(metric_of(score, measured.metric), measured)


def excess_of(value: float, measured: Measured) -> float:
    """Return the same of a metric that is known already, such as that of a single training run."""
    floor = (get_task(measured.task).floor or 0.0) if measured.metric == "loss" else 0.0
    return max(value - floor, LEAST_EXCESS)
