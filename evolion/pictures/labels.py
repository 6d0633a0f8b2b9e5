"""Names beside the ends of lines, where there is room for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from evolion.pictures.looks import plain

__all__ = ["End", "apart", "label_ends"]

MOST, LONGEST = 6, 14
"""More labels, or longer ones, leave it to the legend."""
SIZE = 7.5


@dataclass(frozen=True, slots=True)
class End:
    """The right end of a line: whose it is, its height in data units, and its colour."""

    name: str
    height: float
    colour: str


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Move rising places in 0 … 1 apart to at least a gap, as little as is needed, and keep them within."""
    moved = list(places)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    excess = moved[-1] - 1 if moved else 0.0
    if excess > 0:
        moved[-1] = 1.0
        for i in range(len(moved) - 2, -1, -1):
            moved[i] = min(moved[i], moved[i + 1] - gap)
    return moved


def label_ends(axes: Axes, ends: Sequence[End]) -> None:
    """Write names at the right of the axes, at the heights of their lines; nothing where they would not fit.

    Needs the limits and the scale of the y axis to be final.
    """
    if not ends or len(ends) > MOST or any(len(end.name) > LONGEST for end in ends):
        return
    transform = axes.yaxis.get_transform()
    low, high = (float(place) for place in transform.transform(list(axes.get_ylim())))
    heights = [(float(transform.transform([end.height])[0]) - low) / (high - low) for end in ends]
    ranked = sorted(zip(heights, ends, strict=True), key=lambda pair: (pair[0], pair[1].name))
    ranked = [(height, end) for height, end in ranked if -0.02 <= height <= 1.02]
    inches = axes.get_window_extent().height / axes.figure.dpi
    places = apart([height for height, _ in ranked], 1.25 * SIZE / 72 / inches)
    if places and places[0] < -0.05:
        return
    for place, (_, end) in zip(places, ranked, strict=True):
        axes.annotate(
            plain(end.name), (1, place), xytext=(4, 0), xycoords="axes fraction", textcoords="offset points",
            fontsize=SIZE, color=end.colour, verticalalignment="center", annotation_clip=False,
        )  # fmt: skip
