"""What a task is worth for ranking optimizers: its noise, and whether it says what is agreed. A function of the table.

A task is for ranking if (1) one run resolves a speed-up of a tenth, (2) the facts hold on it that larger studies agree
on, with tuned settings, and (3) it orders the anchors about as those studies do. Else it is diagnostic. Loads neither
jax nor ray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from evolion.evaluators.protocol.report import Cell, Report
from evolion.evaluators.protocol.rows import Row, Stage, in_stage

__all__ = ["ANCHORS", "RESOLUTION", "TAU", "Fact", "TaskQuality", "quality"]

ANCHORS: Mapping[str, int] = {
    "muon": 1,
    "soap": 1,
    "ademamix": 2,
    "mars_adamw": 3,
    "nadamw": 3,
    "cautious_adamw": 3,
    "adamw": 4,
    "lion": 5,
    "adafactor": 5,
    "signum": 6,
    "sgdm": 7,
}
"""Place of optimizers at 130 M to 1.2 B parameters; those that the studies do not tell apart share one.

Wen et al. (arXiv:2509.02046) for Muon, SOAP, MARS, NAdamW, Cautious AdamW, AdamW and Lion; Semenov et al.
(arXiv:2509.01440) for AdEMAMix and Signum; Zhao et al. (arXiv:2407.07972) for Adafactor, Signum and momentum SGD.
"""

RESOLUTION = 0.10
"""The largest noise of one run, in speed-up, of a task for ranking."""

TAU = 0.5
"""The least rank correlation with the published order of a task for ranking."""

ENOUGH = 6
"""With fewer anchors than this a rank correlation says nothing."""

NEAR = (0.5, 2.0)
BEHIND = 0.95
ABOUT = 0.7
LION = (0.8, 1.25)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that studies agree on, and whether it holds on a task.

    Attributes:
        text: What is agreed.
        speed_up: The measured speed-up over tuned AdamW.
        holds: Whether it is as agreed.
        binding: Whether a task that contradicts it is not for ranking.

    """

    text: str
    speed_up: float
    holds: bool
    binding: bool = True


@dataclass(frozen=True, slots=True)
class TaskQuality:
    """What one task is worth.

    Attributes:
        task: Its name.
        family: Its family.
        resolution: Seed noise of one AdamW run over the change of its loss for e times the steps: what one run resolves
            of log speed-up; None if the loss does not fall with the horizon.
        speed_ups: In steps of AdamW, by optimizer; the bound where the horizons of AdamW end.
        facts: What is agreed on for its family.
        tau: Kendall's rank correlation (tau-b) of the anchors' mean losses with their published places; None with
            fewer than six of them.
        seconds: Median time of an AdamW run.
        ranking: Whether optimizers may be ranked by it.
        reasons: Why not.

    """

    task: str
    family: str
    resolution: float | None
    speed_ups: Mapping[str, float]
    facts: tuple[Fact, ...]
    tau: float | None
    seconds: float | None
    ranking: bool
    reasons: tuple[str, ...]


def quality(rows: Sequence[Row], report: Report, wider: Sequence[Cell] = ()) -> tuple[TaskQuality, ...]:
    """Return what each task of a comparison is worth, in their order; the reference of the report has to be AdamW.

    `wider`: cells of a comparison of more optimizers, whose order counts on the tasks that it has.
    """
    names = dict.fromkeys(cell.task for cell in report.cells)
    return tuple(
        _of_task(
            [row for row in rows if row.task == name and row.optimizer == report.reference],
            [cell for cell in report.cells if cell.task == name],
            report.reference,
            [cell for cell in wider if cell.task == name],
        )
        for name in names
    )


def _of_task(own: Sequence[Row], cells: Sequence[Cell], reference: str, wider: Sequence[Cell]) -> TaskQuality:
    family = cells[0].family
    resolution = _resolution(own)
    speed_ups = {cell.optimizer: cell.speed_up.estimate.value for cell in cells if cell.speed_up is not None}
    facts = _facts(family, speed_ups)
    tau = _tau(wider or cells)
    reasons = []
    if resolution is None:
        reasons.append("the loss does not fall with the horizon")
    elif resolution > RESOLUTION:
        reasons.append(f"one run resolves {resolution:.0%}")
    reasons += [f"not so: {fact.text}" for fact in facts if fact.binding and not fact.holds]
    if tau is None:
        reasons.append("too few anchors measured")
    elif tau < TAU:
        reasons.append(f"tau {tau:.2f}")
    return TaskQuality(
        task=cells[0].task,
        family=family,
        resolution=resolution,
        speed_ups=speed_ups,
        facts=facts,
        tau=tau,
        seconds=next((cell.seconds for cell in cells if cell.optimizer == reference), None),
        ranking=not reasons,
        reasons=tuple(reasons),
    )


def _resolution(rows: Sequence[Row]) -> float | None:
    """Return pooled standard deviation over slope of the mean loss in log horizon, by complete schedules.

    Of horizons near the task's: far from it, both noise and slope are others.
    """
    by_horizon: dict[float, list[float]] = {}
    for row in in_stage(rows, Stage.REPORT, Stage.HORIZON):
        if NEAR[0] <= row.horizon <= NEAR[1]:
            by_horizon.setdefault(row.horizon, []).append(row.ranked)
    groups = {horizon: losses for horizon, losses in by_horizon.items() if all(map(math.isfinite, losses))}
    freedom = sum(len(losses) - 1 for losses in groups.values())
    if len(groups) < 2 or freedom < 1:
        return None
    squares = sum(float(np.var(losses, ddof=1)) * (len(losses) - 1) for losses in groups.values() if len(losses) > 1)
    slope = float(np.polyfit(np.log(list(groups)), [np.mean(losses) for losses in groups.values()], 1)[0])
    return math.sqrt(squares / freedom) / -slope if slope < 0.0 else None


def _facts(family: str, speed_ups: Mapping[str, float]) -> tuple[Fact, ...]:
    facts = []
    if family == "transformer":
        if "sgdm" in speed_ups:
            facts.append(Fact("momentum SGD is behind AdamW", speed_ups["sgdm"], speed_ups["sgdm"] < BEHIND))
        for name in ("muon", "soap"):
            if name in speed_ups:
                facts.append(Fact(f"{name} is ahead of AdamW", speed_ups[name], speed_ups[name] > 1.0))
        if "lion" in speed_ups:
            value = speed_ups["lion"]
            facts.append(Fact("Lion is beside AdamW", value, LION[0] <= value <= LION[1], binding=False))
    if family == "convolution" and "sgdm" in speed_ups:
        value = speed_ups["sgdm"]
        # Momentum SGD ahead of AdamW is what small convolutional nets often show: no contradiction.
        facts.append(Fact("momentum SGD is about equal to AdamW", value, value >= ABOUT))
    return tuple(facts)


def _tau(cells: Sequence[Cell]) -> float | None:
    places = [(ANCHORS[cell.optimizer], _loss(cell)) for cell in cells if cell.optimizer in ANCHORS]
    if len(places) < ENOUGH:
        return None
    published, measured = zip(*places, strict=True)
    value = float(kendalltau(published, measured).statistic)
    return value if math.isfinite(value) else None


def _loss(cell: Cell) -> float:
    return cell.mean if cell.mean is not None else math.inf
