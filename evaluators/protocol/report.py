"""What a comparison says, as plain data: `scoring.report` makes it from the table, tables and pictures show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Aggregate", "Cell", "Estimate", "Profile", "Report", "SpeedUp", "TuningPoint"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with the interval that its uncertainty leaves, at the level of the report."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """How many steps of the tuned reference one step is worth: T' / T, with T' its horizon of the same final loss.

    Attributes:
        estimate: With its interval over seeds and trials.
        censored: "low" or "high" where the loss lies outside of what the horizons of the reference reach, so that the
            value is a bound; "" elsewhere.

    """

    estimate: Estimate
    censored: str = ""


@dataclass(frozen=True, slots=True)
class TuningPoint:
    """The expected best loss of `trials` random trials, and its standard deviation."""

    trials: int
    loss: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One optimizer on one task. What cannot be computed is None or empty, never guessed.

    Attributes:
        optimizer: Its name.
        task: Name of the task.
        family: Family of the task.
        learning_rate: The tuned peak.
        shrinkage: The tuned total shrinkage; None without decoupled weight decay.
        edges: Faces of the extended box within a tenth of which the best trial still lies ("learning rate, high").
        extensions: How often the box was extended.
        trials: Trials spent, extensions and refinement included.
        losses: Final loss by fresh seed, at the task's horizon; infinite for a run that diverged.
        mean: Their mean; None if one diverged.
        deviation: Their standard deviation; None with fewer than two.
        diverged: The share of all runs of the cell that did not end finite.
        difference: Mean minus that of the reference, paired by seed, with its interval; None for the reference.
        corrected: Probability of so large a difference by chance, corrected for the number of optimizers that are
            compared with the reference on the task (Dunnett's test); None for the reference.
        speed_up: In steps of the reference; None where the reference has no horizons to compare with.
        times: By target (0.5, 1, 2: the mean loss of the reference at that share of the horizon) the least horizon of
            its own, as a share of the task's, whose mean loss reaches the target; None where none does.
        sensitivity: Mean over log-spaced learning rates, three decades around the best, of min(loss, start) - least
            loss; None without such runs.
        basin: Decades of learning rate within which the excess loss is at most 5 % above the best; None as above.
        rates: Learning rate and loss of the sensitivity runs and the tuned point, by rate: the U-curve.
        tuning: Expected best of k trials, for k = 1 … K.
        curve_steps: Steps at which the curve is sampled.
        curve: Mean training loss over the fresh seeds at these steps.
        seconds: Median time of a run at the task's horizon, over all that are ok, trials included; None without any.
        slots: Numbers of optimizer state for each parameter.
        operations: Arithmetic operations of the update for each parameter and step.
        steps: Steps of the task's horizon; None without runs of it.

    """

    optimizer: str
    task: str
    family: str
    learning_rate: float | None
    shrinkage: float | None
    edges: tuple[str, ...]
    extensions: int
    trials: int
    losses: tuple[float, ...]
    mean: float | None
    deviation: float | None
    diverged: float
    difference: Estimate | None
    corrected: float | None
    speed_up: SpeedUp | None
    times: Mapping[float, float | None]
    sensitivity: float | None
    basin: float | None
    rates: tuple[tuple[float, float], ...]
    tuning: tuple[TuningPoint, ...]
    curve_steps: tuple[int, ...]
    curve: tuple[float, ...]
    seconds: float | None
    slots: float | None
    operations: float | None
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """The share of tasks (and targets) reached within tau times the time of the best, or of the reference.

    Attributes:
        optimizer: Its name.
        ratios: Values of tau, rising.
        shares: The share at each.

    """

    optimizer: str
    ratios: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One optimizer over all tasks of the comparison.

    Attributes:
        optimizer: Its name.
        control: The optimizer of which it is a renamed copy; "" for others.
        tasks: How many tasks it has a speed-up on.
        speed_up: Geometric mean of the speed-ups, first within families and then over them, with a two-level interval
            (tasks within families, then seeds and tuning trials within tasks); None without any.
        wall: The same for the speed-up in time, by the median times of runs; None without any.
        by_family: The geometric mean of each family.
        better: The share of (task, seed) pairs on which its loss is below the reference's, with an interval; None for
            the reference.
        score: AlgoPerf's: the integral of the profile against the best over ratios 1 to 4, over 3; None without
            targets.
        score_without: The same with each other optimizer left out, by its name.
        diverged: The share of all its runs that did not end finite.
        over_families: The same speed-up with an interval in which families are resampled too: what other families may
            show, where the interval of `speed_up` is about those that are there.
        kind: What its program works on ("element-wise", "per-tensor", "matrix"), as kinds are ranked apart; "" where it
            was not said.

    """

    optimizer: str
    control: str
    tasks: int
    speed_up: Estimate | None
    wall: Estimate | None
    by_family: Mapping[str, float]
    better: Estimate | None
    score: float | None
    score_without: Mapping[str, float]
    diverged: float
    over_families: Estimate | None = None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a comparison says.

    Attributes:
        reference: The optimizer in whose steps speed-ups are.
        level: Of the intervals: 0.95.
        cells: In the order of tasks, then of optimizers.
        aggregates: In the order of optimizers, controls last.
        profiles: Against the best (AlgoPerf's form), by optimizer.
        reference_profiles: Against the reference.
        band: The least and the largest aggregate speed-up among the renamed copies of the reference: what chance alone
            does; None without copies.
        notes: What a reader has to know: tasks left out, optima at an edge, cells that are empty.
        missing: Tasks that were left out, as their data are missing.

    """

    reference: str
    level: float
    cells: tuple[Cell, ...]
    aggregates: tuple[Aggregate, ...]
    profiles: tuple[Profile, ...]
    reference_profiles: tuple[Profile, ...]
    band: tuple[float, float] | None
    notes: tuple[str, ...]
    missing: tuple[str, ...] = ()
