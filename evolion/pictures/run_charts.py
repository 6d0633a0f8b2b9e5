"""The pictures of a run: how the best value fell with the candidates told, and with what their training cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from evolion.pictures.curves import loss_axis
from evolion.pictures.looks import COLOURS, GREY, Look
from evolion.pictures.material import Panel
from evolion.pictures.run_material import Progress, Track
from evolion.pictures.style import linear_axis, log_axis

__all__ = ["LOOKS", "POINT", "legend_of", "panels_of"]

LOOKS = {
    "a candidate, at first sight": Look(GREY, "."),
    "the best, at first sight": Look(COLOURS[4], "s", (5.0, 1.5)),
    "the best that is confirmed, with its 95 % interval": Look(COLOURS[0], "o"),
    "the search began anew": Look(COLOURS[1], "v", (1.5, 1.2)),
}
"""How each thing is drawn; dashes and markers tell them apart without colours as well."""
POINT, _FIRST, _CONFIRMED, _RESTART = LOOKS

_WIDTH, _HEIGHT = 4.3, 2.9


def legend_of(progress: Progress) -> list[tuple[str, Look]]:
    """Return what is in the pictures of a run."""
    there = {
        POINT: progress.points.values,
        _FIRST: progress.first.values,
        _CONFIRMED: progress.confirmed.values,
        _RESTART: progress.restarts,
    }
    return [(name, look) for name, look in LOOKS.items() if there[name]]


def panels_of(progress: Progress) -> tuple[Panel, ...]:
    """Return the panels: over candidates told and over training cost; none where no candidate has a value."""
    if not progress.first.values:
        return ()
    titles = ("Candidates told", "Training cost") if progress.end[1] > 0 else ("Candidates told",)
    return tuple(
        Panel(title, partial(_draw, progress, over_cost), _WIDTH, _HEIGHT) for over_cost, title in enumerate(titles)
    )


def _places(track: Track, over_cost: int) -> list[float]:
    return [max(float(place), 1.0) for place in (track.cost if over_cost else track.told)]


def _stepped(places: Sequence[float], values: Sequence[float], end: float) -> tuple[list[float], list[float]]:
    """Return a line that stays at each value until the next one, and at the last until the end."""
    return [*places, max(end, places[-1])], [*values, values[-1]]


def _draw(progress: Progress, over_cost: int, axes: Axes) -> None:
    end = max(float(progress.end[over_cost]), 1.0)
    points, first, confirmed = progress.points, progress.first, progress.confirmed
    low, high = _range(progress)
    loss_axis(axes, low, high)
    axes.set_ylabel("value")
    starts = [*_places(first, over_cost), *_places(confirmed, over_cost), *_places(points, over_cost)]
    begin = min(starts)
    if end / begin > 20:
        log_axis(axes, "x", begin, end)
    else:
        linear_axis(axes, "x", begin, end, whole=not over_cost)
    axes.set_xlabel("training steps" if over_cost else "candidates told")
    for restart in progress.restarts:
        axes.axvline(
            max(float(restart[over_cost]), begin), linewidth=0.9, color=LOOKS[_RESTART].colour, dashes=(1.5, 1.2)
        )
    shown = [(x, y) for x, y in zip(_places(points, over_cost), points.values, strict=True) if low <= y <= high]
    if shown:
        mark = {**LOOKS[POINT].mark(size=5), "markeredgewidth": 0, "alpha": 0.7}
        axes.plot(*zip(*shown, strict=True), linestyle="none", **mark)
    for track, look in ((first, LOOKS[_FIRST]), (confirmed, LOOKS[_CONFIRMED])):
        if not track.values:
            continue
        places = _places(track, over_cost)
        if track.lows:
            across, below = _stepped(places, track.lows, end)
            above = _stepped(places, track.highs, end)[1]
            axes.fill_between(across, below, above, step="post", color=look.colour, alpha=0.18, linewidth=0)
        axes.plot(*_stepped(places, track.values, end), drawstyle="steps-post", **look.line())
        if len(places) <= 60:
            axes.plot(places, track.values, linestyle="none", **look.mark(size=3.5))


def _range(progress: Progress) -> tuple[float, float]:
    """Return the values to be shown: all of the lines, and of the single candidates what does not press them flat."""
    lines = [*progress.first.values, *progress.confirmed.values, *progress.confirmed.lows, *progress.confirmed.highs]
    low, high = min(lines), max(lines)
    if progress.points.values:
        high = max(high, float(np.quantile(progress.points.values, 0.8)))
    high = min(high, low + 4 * (max(lines) - low)) if max(lines) > low else high
    return low, high
