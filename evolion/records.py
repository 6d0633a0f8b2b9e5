"""What a run store holds, as plain data, and scores as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from evolion.proxies.score import Run, Score, Status

__all__ = [
    "CandidateRecord",
    "Counts",
    "Event",
    "Outcome",
    "ScoreKey",
    "Winner",
    "dump_score",
    "read_score",
]


@dataclass(frozen=True, slots=True)
class CandidateRecord:
    """A generated candidate.

    `structural_key` and `behaviour_key` are hexadecimal digits, `probe_status` is that of `evolion.primitives.keys`.
    """

    number: int
    parent: int | None
    mutation: str
    text: str
    structural_key: str
    behaviour_key: str
    probe_status: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the search was told about a candidate.

    Attributes:
        number: The candidate.
        status: A `Status`, or what the probe found ("dead", "unbounded").
        fitness: Smaller is better, compared from the left; None for a candidate that failed.
        stage: The last stage that it reached, from 0; None for one that was never trained.
        reused: Whether the scores were those of an earlier candidate with the same behavioural key.

    """

    number: int
    status: str
    fitness: tuple[float, ...] | None
    stage: int | None
    reused: bool


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


@dataclass(frozen=True, slots=True)
class Winner:
    """The program that a run ends with, and the candidate that it comes from."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `time` is in seconds since 1970."""

    time: float
    kind: str
    detail: Any


@dataclass(frozen=True, slots=True)
class Counts:
    """How far a run is.

    Attributes:
        generated: Candidates.
        told: Candidates whose outcome the search knows.
        evaluated: Candidates that were trained.
        reused: Candidates whose scores were known by their key.
        failed: Candidates without fitness, by status.
        stages: Told candidates by the last stage that they reached, reused ones included.
        scores: Stored scores, those of tuning and retest included.

    """

    generated: int
    told: int
    evaluated: int
    reused: int
    failed: Mapping[str, int]
    stages: Mapping[int, int]
    scores: int


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
