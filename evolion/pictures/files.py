"""All pictures of a comparison: as files, each with all its panels, and as single panels for a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from evolion.evaluators.protocol.report import Report
from evolion.evaluators.protocol.rows import Row
from evolion.pictures.curves import learning_curves, tuning_curves, u_curves
from evolion.pictures.forest import forest
from evolion.pictures.looks import Look, plain
from evolion.pictures.material import Material, Panel, Picture, gather
from evolion.pictures.speeds import ladder, profiles
from evolion.pictures.style import image, styled

__all__ = ["PICTURES", "legend", "panel_image", "write_pictures"]

PICTURES: tuple[Callable[[Material], Picture], ...] = (
    forest,
    ladder,
    learning_curves,
    u_curves,
    tuning_curves,
    profiles,
)
"""In the order in which they are best read."""


def columns(panels: int) -> int:
    """Return how many columns a grid of panels has."""
    return panels if panels <= 3 else 2 if panels == 4 else 3 if panels <= 9 else 4


def handle(look: Look) -> Line2D:
    """Return what stands for an optimizer in a legend."""
    style: dict[str, Any] = {**look.mark(), **look.line()}
    return Line2D([], [], **style)


def legend(material: Material, picture: Picture) -> list[tuple[str, Look]]:
    """Return the names of a picture with their looks; renamed copies are one entry."""
    named = [(plain(name), material.looks[name]) for name in picture.keys if name not in material.controls]
    copies = [("renamed copies", material.looks[name]) for name in picture.keys if name in material.controls]
    return named + copies[:1]


def whole(material: Material, picture: Picture) -> Figure:
    """Draw all panels of a picture as one grid with one legend. Call within `styled`."""
    across = columns(len(picture.panels))
    down = -(-len(picture.panels) // across)
    width = max(panel.width for panel in picture.panels)
    height = max(panel.height for panel in picture.panels)
    entries = legend(material, picture)
    per_line = max(1, int(width * across / (0.6 + 0.065 * max((len(name) for name, _ in entries), default=1))))
    lines = -(-len(entries) // per_line)
    figure = Figure(figsize=(width * across, height * down + 0.2 * lines + 0.1), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    for i, panel in enumerate(picture.panels):
        draw(figure, panel, (down, across, i + 1))
    if entries:
        figure.legend(
            [handle(look) for _, look in entries],
            # Matplotlib leaves out names that begin with an underscore, unless something stands before it.
            [f"\u200b{name}" for name, _ in entries],
            loc="outside upper center",
            ncols=min(per_line, len(entries)),
        )
    return figure


def draw(figure: Figure, panel: Panel, place: tuple[int, int, int]) -> None:
    """Draw one panel at a place (rows, columns, number) of a figure."""
    axes = figure.add_subplot(*place)
    axes.set_title(plain(panel.title, 36))
    panel.draw(axes)


def panel_image(panel: Panel) -> bytes:
    """Return one panel as an SVG file of its own, without a legend."""
    with styled():
        figure = Figure(figsize=(panel.width, panel.height), layout="constrained")
        draw(figure, panel, (1, 1, 1))
        return image(figure, "svg")


def write_pictures(
    report: Report, rows: Sequence[Row], folder: Path, formats: Sequence[str] = ("svg", "png")
) -> list[Path]:
    """Write every picture for which there is something to draw, in every format, and return the files.

    The same report and rows give the same bytes.

    Args:
        report: What the comparison says.
        rows: Its table, for the spread over seeds, the reference's ladder and the losses before training.
        folder: Is made if there is none.
        formats: Of "svg", "png" and "pdf".

    Raises:
        ValueError: If a format is another one.
        OSError: If a file cannot be written.

    """
    unknown = [form for form in formats if form not in ("svg", "png", "pdf")]
    if unknown:
        raise ValueError(f"no pictures of the format {unknown[0]!r}; there are svg, png and pdf")
    material = gather(report, rows)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for picture in (make(material) for make in PICTURES):
        if not picture.panels:
            continue
        with styled():
            figure = whole(material, picture)
            for form in formats:
                path = folder / f"{picture.name}.{form}"
                path.write_bytes(image(figure, form))
                written.append(path)
    return written
