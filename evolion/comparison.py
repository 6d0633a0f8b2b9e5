"""Comparisons on fresh seeds: paired by seed, with intervals, and a verdict that may be "no difference shown"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["Interval", "Row", "Table", "interval", "paired_difference", "render", "short", "table_from_json", "verdict"]

CONFIDENCE = 0.95

NAME_WIDTH = 32
"""Names of programs are cut to this length in the text of a table."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its two-sided 95 % Student interval. All three are finite."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """Print mean and half-width, with as many decimals as the first two digits of the half-width need."""
        half = (self.high - self.low) / 2
        decimals = min(max(4, 1 - math.floor(math.log10(half))), 12) if half > 0 else 4
        return f"{self.mean:.{decimals}f} ± {half:.{decimals}f}"


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of values and its interval, assuming normal errors.

    Raises:
        ValueError: If there are fewer than two values, or one is not finite.

    """
    array = np.asarray(values, np.float64)
    if array.size < 2 or not np.isfinite(array).all():
        raise ValueError(f"an interval needs finite values, at least two, got {array.tolist()}")
    mean = float(array.mean())
    error = float(array.std(ddof=1)) / math.sqrt(array.size)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, array.size - 1)) * error
    return Interval(mean, mean - half, mean + half)


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Return the interval of the mean of ours - theirs, seed by seed: equal seeds share initial weights and batches."""
    return interval([a - b for a, b in zip(ours, theirs, strict=True)])


def verdict(difference: Interval | None) -> str:
    """Say in words what a difference of losses (smaller is better) shows about the first of the two."""
    if difference is None:
        return "not comparable: a run diverged"
    if difference.high < 0:
        return "better"
    return "worse" if difference.low > 0 else "no difference shown"


@dataclass(frozen=True, slots=True)
class Row:
    """One program on one task.

    Attributes:
        task: The task.
        program: Its name in the table.
        seeds: How many fresh seeds.
        diverged: How many of them did not end finite.
        loss: Final loss on the test split, None if a seed diverged.
        train_loss: Mean training loss over the last 5 % of the steps, None if a seed diverged.
        learning_rate: The tuned peak learning rate.
        weight_decay: The tuned weight decay, None for a program without.
        trials: Tuning trials.
        at_edge: Whether the best trial lay at the edge of the tuning box.
        difference: Loss of the winner minus loss of this program, paired by seed; None for the winner itself.
        train_difference: The same for the training loss.
        verdict: What the difference of the losses says about the winner.
        train_verdict: What the difference of the training losses says.

    """

    task: str
    program: str
    seeds: int
    diverged: int
    loss: Interval | None
    train_loss: Interval | None
    learning_rate: float
    weight_decay: float | None
    trials: int
    at_edge: bool
    difference: Interval | None = None
    train_difference: Interval | None = None
    verdict: str = ""
    train_verdict: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """The comparison that a run ends with; rows by task, the winner first. `steps` is the horizon by task."""

    winner: str
    steps: dict[str, int]
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data for JSON; `table_from_json` reads it."""
        return asdict(self)


def table_from_json(data: dict[str, Any]) -> Table:
    """Read what `Table.to_json` gave."""
    rows = []
    for fields in data["rows"]:
        intervals = {
            name: Interval(**fields[name]) if fields[name] else None
            for name in ("loss", "train_loss", "difference", "train_difference")
        }
        rows.append(Row(**{**fields, **intervals}))
    return Table(data["winner"], dict(data["steps"]), tuple(rows))


def render(table: Table) -> str:
    """Return the table as plain text of at most 120 columns."""
    lines = []
    for task in dict.fromkeys(row.task for row in table.rows):
        rows = [row for row in table.rows if row.task == task]
        lines.append(
            f"{task}, {table.steps[task]} steps: mean over {rows[0].seeds} fresh seeds ± 95 % interval, "
            f"tuned with {rows[0].trials} trial{'s' * (rows[0].trials != 1)} each"
        )
        header = ("program", "test loss", "training loss", "peak lr", "weight decay")
        cells = [header] + [
            (
                short(row.program),
                str(row.loss) if row.loss else f"diverged ({row.diverged} of {row.seeds})",
                str(row.train_loss) if row.train_loss else "",
                f"{row.learning_rate:.3g}" + ("*" if row.at_edge else ""),
                "" if row.weight_decay is None else f"{row.weight_decay:.3g}",
            )
            for row in rows
        ]
        widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
        lines += ["  " + "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
        lines += [f"  {table.winner} against {short(row.program)}, {said}" for row in rows for said in _said(row)]
        lines.append("")
    if any(row.at_edge for row in table.rows):
        lines.append("* the best trial lies at the edge of the tuning box: more tuning may improve this program")
    return "\n".join(lines).rstrip() + "\n"


def short(name: str) -> str:
    """Cut a long name of a program for a table."""
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1]}…"


def _said(row: Row) -> list[str]:
    if not row.verdict:
        return []
    if row.difference is None or row.train_difference is None:
        return [row.verdict]
    return [
        f"test loss: {row.verdict} ({row.difference})",
        f"training loss: {row.train_verdict} ({row.train_difference})",
    ]
