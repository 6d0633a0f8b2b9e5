"""The forest plot: the speed-up of every optimizer on every task with its interval, by family, and over all tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory

from evolion.evaluators.protocol.report import Estimate
from evolion.pictures.looks import GREY, INK, RULE, SHADE, plain
from evolion.pictures.material import Material, Panel, Picture, finite, listed, usable
from evolion.pictures.style import ratio_axis

__all__ = ["forest", "forest_lines"]

LANE, GAP = 1.0, 0.9
"""Heights, in lanes: of one optimizer in a line, and between lines."""
LANE_INCHES = 0.125
WIDEST = (0.2, 5.0)
LABEL_WIDTH = 22


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the plot: a task, the mean of a family, or all tasks.

    Attributes:
        label: At its left.
        kind: "task", "family" or "all".
        entries: By optimizer: the speed-up, and at which side it is a bound only ("low", "high" or "").

    """

    label: str
    kind: str
    entries: Mapping[str, tuple[Estimate, str]]


def forest_lines(material: Material) -> tuple[Line, ...]:
    """Return the lines from top to bottom: each family with its tasks, then all tasks."""
    lines = []
    aggregates = {aggregate.optimizer: aggregate for aggregate in material.report.aggregates}
    for family in dict.fromkeys(material.families.values()):
        means = {name: aggregates[name].by_family.get(family) for name in material.others if name in aggregates}
        known = {name: mean for name, mean in means.items() if mean is not None and math.isfinite(mean) and mean > 0}
        lines.append(Line(family, "family", {name: (Estimate(m, m, m), "") for name, m in known.items()}))
        for task in (task for task in material.tasks if material.families[task] == family):
            entries = {}
            for name in material.others:
                cell = material.cells.get((task, name))
                if cell is not None and cell.speed_up is not None and usable(cell.speed_up.estimate):
                    entries[name] = (cell.speed_up.estimate, cell.speed_up.censored)
            lines.append(Line(task, "task", entries))
    whole = {
        name: (aggregates[name].speed_up, "")
        for name in material.others
        if name in aggregates and usable(aggregates[name].speed_up)
    }
    return (*lines, Line("all tasks", "all", {name: (s, bound) for name, (s, bound) in whole.items() if s is not None}))


def _limits(material: Material, lines: tuple[Line, ...]) -> tuple[float, float]:
    ends = [end for line in lines for estimate, _ in line.entries.values() for end in (estimate.low, estimate.high)]
    ends += finite(material.report.band or ())
    # Room for the arrows of bounds.
    bounds = {bound for line in lines for _, bound in line.entries.values()}
    low = min([0.8, *ends]) / (1.2 if "low" in bounds else 1.06)
    high = max([1.25, *ends]) * (1.2 if "high" in bounds else 1.06)
    return max(low, WIDEST[0]), min(high, WIDEST[1])


def _draw_entry(
    axes: Axes, material: Material, name: str, height: float, line: Line, limits: tuple[float, float]
) -> None:
    estimate, bound = line.entries[name]
    look = material.looks[name]
    low, value, high = (min(max(x, limits[0]), limits[1]) for x in (estimate.low, estimate.value, estimate.high))
    if line.kind == "family":
        axes.plot(value, height, **{**look.mark(filled=False, size=5.5), "markeredgewidth": 1.1})
        return
    axes.plot([low, high], [height, height], color=look.colour, linewidth=2.2 if line.kind == "all" else 1.2)
    axes.plot(value, height, **look.mark(size=6.5 if line.kind == "all" else 4))
    # An arrow for what lies beyond the ladder, and for an interval that leaves the picture.
    for side, leaves, reach in (
        ("low", estimate.low < limits[0], limits[0]),
        ("high", estimate.high > limits[1], limits[1]),
    ):
        if bound == side or leaves:
            axes.plot([value, reach], [height, height], color=look.colour, linewidth=1.2)
            head = "<" if side == "low" else ">"
            axes.plot(reach, height, color=look.colour, marker=head, markersize=5, clip_on=False)
    if line.kind == "all":
        text = f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"
        beside = blended_transform_factory(axes.transAxes, axes.transData)
        axes.text(1.02, height, text, transform=beside, fontsize=7.5, verticalalignment="center", color=look.colour)


def _heights(lines: tuple[Line, ...], lanes: int) -> tuple[list[float], float]:
    """Return the upper edge of each line, in lanes below the top, and the height of all."""
    tops, height = [], 0.0
    for line in lines:
        height += GAP / 2 if line.kind == "task" else GAP
        tops.append(height)
        height += lanes * LANE
    return tops, height + GAP / 2


def label(name: str) -> str:
    """Return the name of a task with its modifiers on a line of their own, if it is long."""
    task, colon, modifiers = name.partition(":")
    split = colon and len(name) > LABEL_WIDTH
    return f"{plain(task, LABEL_WIDTH)}\n{plain(modifiers, LABEL_WIDTH)}" if split else plain(name, LABEL_WIDTH)


def _draw_forest(material: Material, lines: tuple[Line, ...], axes: Axes) -> None:
    lanes = max(1, len(material.others))
    tops, height = _heights(lines, lanes)
    limits = _limits(material, lines)
    ratio_axis(axes, "x", *limits)
    axes.set_ylim(height, 0)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    band = material.report.band
    if band is not None and len(finite(band)) == 2:
        axes.axvspan(min(1.0, *band), max(1.0, *band), color=GREY, alpha=0.25, linewidth=0)
    axes.axvline(1, color=INK, linewidth=0.9)
    for top, line in zip(tops, lines, strict=True):
        if line.kind != "task":
            axes.axhspan(top - GAP / 4, top + lanes * LANE + GAP / 4, color=SHADE, linewidth=0, zorder=0)
        else:
            axes.axhline(top - GAP / 4, color=RULE, linewidth=0.6, zorder=0)
        if not line.entries:
            axes.text(limits[0], top + lanes / 2, " none", fontsize=7.5, color=GREY, verticalalignment="center")
        for lane, name in enumerate(material.others):
            if name in line.entries:
                _draw_entry(axes, material, name, top + (lane + 0.5) * LANE, line, limits)
    places = [top + lanes * LANE / 2 for top in tops]
    axes.set_yticks(places, [label(line.label) for line in lines])
    for text, line in zip(axes.get_yticklabels(), lines, strict=True):
        text.set_fontweight("normal" if line.kind == "task" else "bold")
    axes.set_xlabel(f"speed-up in steps of {plain(material.report.reference, 16)}")


def forest(material: Material) -> Picture:
    """The speed-ups by task, family and over all tasks, with the band of renamed copies."""
    lines = forest_lines(material)
    drawn = {name for line in lines for name in line.entries}
    lanes = max(1, len(material.others))
    size = 0.9 + LANE_INCHES * _heights(lines, lanes)[1]
    level = f"{100 * material.report.level:g} %"
    band = (
        " The grey band spans what renamed copies of the reference reached by chance." if material.report.band else ""
    )
    panel = Panel("", partial(_draw_forest, material, lines), width=5.2, height=size)
    missing = [name for name in material.others if name not in drawn]
    gaps = [f"No speed-up of {listed(missing)} could be computed."] if missing else []
    gaps += [] if material.others else ["There is no optimizer besides the reference."]
    gaps += [] if material.report.band else ["No renamed copies took part, so there is no band of chance."]
    return Picture(
        name="forest",
        title="Speed-up on each task",
        caption=f"Filled markers are speed-ups on one task with their {level} interval, open ones geometric means of "
        "a family, the large ones at the bottom the mean over families. Right of the line is faster than the "
        "reference; an interval that crosses the line leaves open which is faster. An arrow marks a speed-up beyond "
        f"what the reference's horizons can measure, or an interval that leaves the picture.{band}",
        alt=f"Speed-ups with intervals of {listed(drawn and material.keys(drawn))} on {listed(material.tasks)}, "
        "grouped by family, and over all tasks.",
        panels=(panel,) if drawn else (),
        keys=material.keys(drawn),
        gaps=tuple(gaps),
    )
