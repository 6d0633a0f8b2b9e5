"""Pictures of speed: performance profiles, and speed-ups read off the reference's ladder of horizons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from evolion.evaluators.protocol.report import Cell, Profile
from evolion.evaluators.protocol.rows import Row, Stage
from evolion.evaluators.protocol.speedup import never_rising, task_scale
from evolion.pictures.curves import loss_axis, without
from evolion.pictures.labels import End, label_ends
from evolion.pictures.looks import GREY
from evolion.pictures.material import Material, Panel, Picture, finite, listed, usable
from evolion.pictures.style import fraction, ratio_axis

__all__ = ["ladder", "profiles"]


def _draw_profiles(material: Material, found: Sequence[Profile], against: str, axes: Axes) -> None:
    ratios = [ratio for profile in found for ratio in profile.ratios if ratio > 0 and math.isfinite(ratio)]
    ratio_axis(axes, "x", min(ratios), max(max(ratios), min(ratios) * 1.5))
    axes.set_ylim(-0.02, 1.04)
    axes.set_xlabel(f"time, as a multiple of {against}")
    axes.set_ylabel("share of targets reached")
    ends = []
    for profile in sorted(found, key=lambda profile: profile.optimizer not in material.controls):
        look = material.looks.get(profile.optimizer)
        points = [p for p in zip(profile.ratios, profile.shares, strict=True) if len(finite(p)) == 2 and p[0] > 0]
        if look is None or not points:
            continue
        places, shares = zip(*points, strict=True)
        axes.plot(places, shares, drawstyle="steps-post", **look.line())
        if not look.control:
            axes.plot(places, shares, linestyle="none", markevery=(0.08, 0.25), **look.mark())
            ends.append(End(profile.optimizer, shares[-1], look.colour))
    label_ends(axes, ends)


def profiles(material: Material) -> Picture:
    """The shares of targets reached within a multiple of a time, against the best and against the reference."""
    report = material.report
    forms = (
        ("Against the best of each target", "the least time", report.profiles),
        ("Against the reference", "the reference's time", report.reference_profiles),
    )
    shown = [
        (title, against, found)
        for title, against, found in forms
        if any(math.isfinite(ratio) and ratio > 0 for profile in found for ratio in profile.ratios)
    ]
    return Picture(
        name="performance-profiles",
        title="Performance profiles",
        caption="A point (x, y) says: on a share y of the targets this optimizer took at most x times the steps that "
        "the best one took (first panel: Dolan and Moré 2002, as in AlgoPerf) or that the reference took (second). "
        "Higher is better. At 1 in the first panel stands the share of targets on which it was the fastest; where a "
        "line stays below 1 some targets were never reached. The first form depends on who takes part, the second "
        "does not.",
        alt=f"Step lines of the share of targets reached over the ratio of times, for {listed(material.optimizers)}.",
        panels=tuple(
            Panel(title, partial(_draw_profiles, material, found, against)) for title, against, found in shown
        ),
        keys=material.keys(profile.optimizer for _, _, found in shown for profile in found),
        gaps=tuple(f"No times to compare {title.lower()}." for title, _, found in forms if not _reaches(found)),
    )


def _reaches(found: Sequence[Profile]) -> bool:
    return any(math.isfinite(ratio) and ratio > 0 for profile in found for ratio in profile.ratios)


def rungs(rows: Sequence[Row]) -> Mapping[float, list[float]]:
    """Return final losses by horizon, rising; a horizon on which a seed diverged is left out."""
    by_horizon: dict[float, list[float]] = {}
    for row in rows:
        by_horizon.setdefault(row.horizon, []).append(row.ranked)
    return {horizon: by_horizon[horizon] for horizon in sorted(by_horizon) if len(finite(by_horizon[horizon])) > 0
            and len(finite(by_horizon[horizon])) == len(by_horizon[horizon])}  # fmt: skip


def climbed(material: Material, task: str, optimizer: str) -> Mapping[float, list[float]]:
    """Return the ladder of an optimizer on a task: final losses on fresh seeds by horizon."""
    return rungs(material.staged(task, optimizer, Stage.REPORT, Stage.HORIZON))


def fitted(
    steps: Mapping[float, list[float]], floor: float | None, losses: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Return horizons and losses of the line that speed-ups are read from, as `speedup.ladder` has it.

    It never rises, and is straight in the logarithms of horizon and excess over the floor where that is known.
    """
    scale = task_scale(floor, losses)
    means = np.asarray([np.mean(found) for found in steps.values()])
    weights = np.asarray([len(found) for found in steps.values()], np.float64)
    heights = never_rising(scale(means), weights)
    logs = np.log(list(steps))
    places = np.unique(np.concatenate([logs, np.linspace(logs[0], logs[-1], 64)]))
    values = np.interp(places, logs, heights)
    shown = values if scale.floor is None else scale.floor + np.exp(values)
    return np.exp(places).tolist(), shown.tolist()


def _draw_arrival(material: Material, cell: Cell, limits: tuple[float, float], axes: Axes) -> None:
    """Draw how a speed-up is read off: from the final loss across to the ladder, from there down to the axis."""
    if cell.mean is None or not math.isfinite(cell.mean):
        return
    look = material.looks[cell.optimizer]
    speed_up = cell.speed_up
    if speed_up is not None and usable(speed_up.estimate):
        place = min(max(speed_up.estimate.value, limits[0]), limits[1])
        style = {**look.line(), "linewidth": 0.9}
        axes.plot([1, place, place], [cell.mean, cell.mean, axes.get_ylim()[0]], **style)
        if speed_up.censored:
            arrow = {"arrowstyle": "->", "color": look.colour}
            end = place * (1.12 if speed_up.censored == "high" else 1 / 1.12)
            axes.annotate("", (end, cell.mean), (place, cell.mean), arrowprops=arrow, annotation_clip=False)
    axes.plot(1, cell.mean, **look.mark(size=5.5))


def _draw_ladder(material: Material, task: str, axes: Axes) -> None:
    steps = climbed(material, task, material.report.reference)
    arrivals = [c for c in material.present(task) if c.optimizer in material.others and finite([c.mean])]
    losses = finite([loss for found in steps.values() for loss in found] + [cell.mean for cell in arrivals])
    loss_axis(axes, min(losses), max(losses))
    limits = (min(*steps, 0.5), max(*steps, 2.0))
    ratio_axis(axes, "x", *limits)
    axes.set_xlabel("steps, as a multiple of the task's")
    axes.set_ylabel("final loss")
    axes.axvline(1, color=GREY, linewidth=0.8)
    look = material.looks[material.report.reference]
    means = [float(np.mean(found)) for found in steps.values()]
    lows, highs = [min(found) for found in steps.values()], [max(found) for found in steps.values()]
    axes.fill_between(list(steps), lows, highs, color=look.colour, alpha=0.13, linewidth=0)
    axes.plot(*fitted(steps, material.floor(task), losses), **look.line())
    axes.plot(list(steps), means, linestyle="none", **look.mark())
    for cell in arrivals:
        _draw_arrival(material, cell, limits, axes)
    ends = [End(c.optimizer, c.mean, material.looks[c.optimizer].colour) for c in arrivals if c.mean is not None]
    label_ends(axes, ends)


def ladder(material: Material) -> Picture:
    """The reference's final losses over horizons with the others' final losses, one panel for each task."""
    reference = material.report.reference
    shown = [task for task in material.tasks if len(climbed(material, task, reference)) > 1]
    drawn = [c.optimizer for task in shown for c in material.present(task) if c.optimizer not in material.controls]
    horizons = sorted({h for task in shown for h in climbed(material, task, reference)})
    return Picture(
        name="speed-over-horizon",
        title="How a speed-up is read off",
        caption="The line with round markers joins final losses of the reference at "
        f"{listed(map(fraction, horizons))} times the task's steps, each the end of a complete schedule of its own; "
        "its band reaches from the least to the largest seed. The others stand at 1 with their mean final loss. Go "
        "from a marker level to that line and from there down: the number on the axis is the speed-up. An arrow says "
        "that the line would have to be longer, so that the number is only a bound.",
        alt=f"Falling line of the reference's final loss over steps on {listed(shown)}, with lines from the final "
        "losses of the others to it.",
        panels=tuple(Panel(task, partial(_draw_ladder, material, task)) for task in shown),
        keys=material.keys([reference, *drawn] if shown else []),
        gaps=without([t for t in material.tasks if t not in shown], "The reference has no runs at other horizons"),
    )
