"""What a score belongs to, and scores as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from evolion.proxies.score import Run, Score, Status

__all__ = ["ScoreKey", "dump_score", "read_score"]


@dataclass(frozen=True, slots=True)
class ScoreKey:
    """What a score belongs to; equal keys have equal scores.

    `behaviour` and `task_digest` are hexadecimal digits, `numerics` is the evaluator's tag.
    """

    behaviour: str
    task_digest: str
    steps: int
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]
    split: str
    numerics: str


_SINGLE = "float32"


def _dump_curve(curve: tuple[float, ...]) -> Any:
    """Write the losses of single runs, which are of single precision, in the half as many digits that they need."""
    with np.errstate(over="ignore"):
        single = np.asarray(curve, np.float32)
    if not np.array_equal(single, np.asarray(curve, np.float64)):
        return curve
    return {_SINGLE: [float(str(value)) for value in single]}


def _read_curve(curve: Any) -> tuple[float, ...]:
    if isinstance(curve, dict):
        return tuple(np.asarray(curve[_SINGLE], np.float32).tolist())
    return tuple(curve)


def dump_score(score: Score) -> str:
    """Write a score as compact JSON; `read_score` gives it back exactly."""
    runs = [[run.learning_rate, run.seed, run.status.value, run.loss, run.train_loss, run.steps] for run in score.runs]
    fields: dict[str, Any] = {
        "status": score.status.value,
        "loss": score.loss,
        "curve": _dump_curve(score.curve),
        "steps": score.steps,
        "seconds": score.seconds,
        "train_loss": score.train_loss,
        "learning_rate": score.learning_rate,
        "runs": runs,
        "message": score.message,
    }
    return json.dumps(fields, separators=(",", ":"))


def read_score(text: str) -> Score:
    """Read a score that `dump_score` wrote."""
    fields = json.loads(text)
    runs = tuple(
        Run(rate, seed, Status(status), loss, train_loss, steps)
        for rate, seed, status, loss, train_loss, steps in fields.pop("runs")
    )
    status, curve = Status(fields.pop("status")), _read_curve(fields.pop("curve"))
    return Score(status=status, curve=curve, runs=runs, **fields)
