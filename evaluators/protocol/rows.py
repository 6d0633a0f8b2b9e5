"""The flat table of a comparison: one row for each training run, appended to a file of JSON lines.

Everything that is said about optimizers is a pure function of this table. Loads neither jax nor ray.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from evolion.proxies.score import Status

__all__ = ["Row", "Stage"]


class Stage(StrEnum):
    """What a run is for."""

    TUNING = "tuning"
    """One of the quasi-random trials, the same unit points for every optimizer; at the tuning seed."""
    EDGE = "edge"
    """A trial beyond a face of the box at which the best one lay; at the tuning seed."""
    REFINEMENT = "refinement"
    """A trial next to the best: half or twice its learning rate or its shrinkage; at the tuning seed."""
    REPORT = "report"
    """The tuned settings at a fresh seed: what is reported."""
    HORIZON = "horizon"
    """The tuned settings at a fresh seed with another horizon, as a complete schedule of its own."""
    RETUNING = "retuning"
    """A trial of the learning rate at another horizon; at the tuning seed."""
    SENSITIVITY = "sensitivity"
    """The tuned shrinkage at another learning rate, at the tuning seed."""


@dataclass(frozen=True, slots=True)
class Row:
    """One training run.

    Attributes:
        id: What the run is within the comparison; the file has one row for each.
        optimizer: Name in tables.
        program: Structural key of the optimizer's program, before its constants are tuned.
        control: The optimizer of which this one is a renamed copy, for the A/A control; "" for others.
        task: Name of the task, with its modifiers.
        family: Its family.
        task_digest: What the task is; losses of different digests are not comparable.
        parameters: The number of parameters of its model.
        floor: The least loss there is; None where it is not known.
        stage: What the run is for.
        trial: The number of the trial among those of its optimizer and task; None for runs of tuned settings.
        unit: Place in the unit square of (learning rate, shrinkage), outside of it beyond the faces; None as above.
        learning_rate: Peak.
        shrinkage: Peak learning rate * weight decay * sum of the schedule; None without decoupled weight decay.
        weight_decay: As the program was given it; None as above.
        horizon: Steps of the schedule over those of the task.
        steps: Steps of the schedule.
        batch_size: Training examples per step.
        seed: Of initialization and batch order.
        status: How the run ended.
        loss: Final loss on the test split for reported stages, on the validation split for trials; None unless ok.
        train_loss: Mean training loss over the last 5 % of the steps; None unless ok.
        start: Training loss at the first step; None if not even that is finite.
        curve: Training losses at up to 20 evenly spaced steps (`score.curve_steps`).
        seconds: Time of the run, compilation included if it was the first of its kind in its process.
        slots: Numbers of optimizer state for each parameter.
        operations: Arithmetic operations of the update for each parameter and step.
        numerics: What computed it (`environment.numerics_tag`).

    """

    id: str
    optimizer: str
    program: str
    control: str
    task: str
    family: str
    task_digest: str
    parameters: int
    floor: float | None
    stage: Stage
    trial: int | None
    unit: tuple[float, float] | None
    learning_rate: float
    shrinkage: float | None
    weight_decay: float | None
    horizon: float
    steps: int
    batch_size: int
    seed: int
    status: Status
    loss: float | None
    train_loss: float | None
    start: float | None
    curve: tuple[float, ...]
    seconds: float
    slots: float
    operations: float
    numerics: str

    @property
    def ranked(self) -> float:
        """The loss, infinite unless the run is ok: a run that diverged is worse than any that did not."""
        return self.loss if self.status is Status.OK and self.loss is not None else float("inf")


def in_stage(rows: Iterable[Row], *stages: Stage) -> list[Row]:
    """The rows of some stages, in their order."""
    return [row for row in rows if row.stage in stages]
