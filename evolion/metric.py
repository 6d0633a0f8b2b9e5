"""What a score is ranked by."""

from __future__ import annotations

import math

from evolion.config import RetestTask, StageConfig
from evolion.proxies.registry import get_task
from evolion.proxies.score import Score, Status

__all__ = ["excess", "metric_of"]


def metric_of(score: Score, metric: str) -> float:
    """Return the final loss ("loss") or training loss at the end ("train_loss"); infinity unless the score is ok."""
    if score.status is not Status.OK:
        return math.inf
    value = score.train_loss if metric == "train_loss" else score.loss
    return math.inf if value is None else value


def excess(score: Score, stage: StageConfig | RetestTask) -> float:
    """Return the metric of a score above the least value that its task allows, where that is known; infinity unless ok.

    Ratios of it compare tasks whose losses have different scales (the fitness of a candidate is its geometric mean over
    stages). The floor is one of expected loss, so a finite split can fall below it: never less than 1e-9.
    """
    floor = (get_task(stage.task).floor or 0.0) if stage.metric == "loss" else 0.0
    return max(metric_of(score, stage.metric) - floor, 1e-9)
