"""Pictures of losses: learning curves, losses over learning rates (U-curves), and what tuning is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from evolion.evaluators.protocol.report import Cell
from evolion.evaluators.protocol.rows import Stage
from evolion.pictures.labels import End, label_ends
from evolion.pictures.looks import GREY, INK
from evolion.pictures.material import Material, Panel, Picture, finite, listed
from evolion.pictures.style import linear_axis, log_axis

__all__ = ["learning_curves", "tuning_curves", "u_curves"]


def loss_axis(axes: Axes, low: float, high: float) -> None:
    """Make the axis of losses: logarithmic where they span more than a factor of eight."""
    if low > 0 and high / low > 8:
        log_axis(axes, "y", low, high)
    else:
        linear_axis(axes, "y", low, high)
    axes.set_ylabel("loss")


def without(tasks: Sequence[str], what: str) -> tuple[str, ...]:
    """Say on which tasks something is missing."""
    return (f"{what} on {listed(tasks)}.",) if tasks else ()


def spread(material: Material, cell: Cell) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the least and the largest loss over fresh seeds at each step of a cell's curve; None with one seed."""
    rows = material.staged(cell.task, cell.optimizer, Stage.REPORT)
    curves = [
        row.curve for row in rows if len(row.curve) == len(cell.curve) and len(finite(row.curve)) == len(row.curve)
    ]
    if len(curves) < 2:
        return None
    return np.min(curves, axis=0), np.max(curves, axis=0)


def _learning_axes(material: Material, task: str, cells: Sequence[Cell], axes: Axes) -> None:
    """Set the axes so that what is left to learn late is seen: the first fall is left out where there is room to."""
    long = all(len(cell.curve) > 4 for cell in cells)
    late = finite(value for cell in cells for value in (cell.curve[1:] if long else cell.curve))
    start, floor = material.start(task), material.floor(task)
    low, high = min(late), max(late)
    # What blows up must not press what learns into one line.
    high = max(low, high if start is None else min(high, start))
    if floor is not None:
        axes.axhline(floor, color=GREY, linestyle=":", linewidth=1)
        low = floor if 0 <= low - floor < 0.5 * (high - low) else low
    loss_axis(axes, low, high)
    last = max(cell.curve_steps[len(cell.curve) - 1] for cell in cells) + 1
    first = min(cell.curve_steps[1] for cell in cells) + 1 if long else 1
    if last / first > 5:
        log_axis(axes, "x", first, last)
    else:
        linear_axis(axes, "x", first, last, whole=True)


def _draw_learning(material: Material, task: str, axes: Axes) -> None:
    cells = learned(material, task)
    ends = []
    for cell in cells:
        look = material.looks[cell.optimizer]
        # Steps count from zero; the loss at step 0 is that before any update, and zero has no place on a log axis.
        steps = [step + 1 for step in cell.curve_steps[: len(cell.curve)]]
        band = spread(material, cell)
        if band is not None and not look.control:
            axes.fill_between(steps, *band, color=look.colour, alpha=0.16, linewidth=0)
        axes.plot(steps, cell.curve, **look.line())
        if not look.control:
            axes.plot(steps, cell.curve, linestyle="none", markevery=(0.06, 0.16), **look.mark())
            ends.append(End(cell.optimizer, cell.curve[-1], look.colour))
    _learning_axes(material, task, cells, axes)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    label_ends(axes, ends)


def learned(material: Material, task: str) -> list[Cell]:
    """Return the cells of a task that have a learning curve, with as many steps as losses, all of them finite."""
    return [
        cell
        for cell in material.present(task)
        if 0 < len(cell.curve) <= len(cell.curve_steps) and len(finite(cell.curve)) == len(cell.curve)
    ]


def learning_curves(material: Material) -> Picture:
    """Training loss over steps, mean over fresh seeds, one panel for each task."""
    drawn = {task: learned(material, task) for task in material.tasks}
    missing = [task for task in material.tasks if not drawn[task]]
    return Picture(
        name="learning-curves",
        title="Learning curves",
        caption="Training loss over steps with tuned settings: the line is the mean over fresh seeds, the band reaches "
        "from the least to the largest seed, the dotted line is the least loss there is, where it is known and near. "
        "The first fall is left out. Only the right end compares: the learning rate falls to zero there, and one curve "
        "may well lie below another half way and end above it.",
        alt=f"Training loss over steps on {listed(t for t in material.tasks if drawn[t])}, a line for each optimizer.",
        panels=tuple(Panel(task, partial(_draw_learning, material, task)) for task in material.tasks if drawn[task]),
        keys=material.keys(cell.optimizer for cells in drawn.values() for cell in cells),
        gaps=without(missing, "No run left a learning curve"),
    )


def valley(cell: Cell, ceiling: float) -> tuple[list[tuple[float, float]], list[float]]:
    """Return the points of a U-curve below the ceiling, and the rates at which training did not get below it."""
    points = [(rate, loss) for rate, loss in sorted(cell.rates) if rate > 0 and math.isfinite(rate)]
    below = [(rate, loss) for rate, loss in points if math.isfinite(loss) and loss <= ceiling]
    return below, [rate for rate, loss in points if not (math.isfinite(loss) and loss <= ceiling)]


def over_the_edge(lines: Sequence[Line2D]) -> None:
    """Let markers at the edge of their axes be drawn whole, and the layout not make room for them."""
    for line in lines:
        line.set_clip_on(False)
        line.set_in_layout(False)


def _draw_valley(material: Material, task: str, axes: Axes) -> None:
    cells = [cell for cell in material.present(task) if cell.rates]
    losses = finite(loss for cell in cells for _, loss in cell.rates)
    start = material.start(task)
    ceiling = start if start is not None else max(losses, default=1.0)
    below = [loss for loss in losses if loss <= ceiling]
    low = min(below, default=0.9 * ceiling)
    rates = [rate for cell in cells for rate, _ in cell.rates if rate > 0 and math.isfinite(rate)]
    log_axis(axes, "x", min(rates), max(rates))
    loss_axis(axes, low, ceiling)
    axes.set_ylabel("final loss")
    axes.set_xlabel("peak learning rate")
    if start is not None:
        axes.axhline(ceiling, color=GREY, linestyle=":", linewidth=1)
    for cell in cells:
        look = material.looks[cell.optimizer]
        points, lost = valley(cell, ceiling)
        over_the_edge(axes.plot(lost, [ceiling] * len(lost), linestyle="none", **look.mark(filled=False, size=4.5)))
        if not points:
            continue
        # The way up to the runs that were lost is part of the shape.
        way = sorted(points + [(rate, ceiling) for rate in lost])
        axes.plot(*zip(*way, strict=True), **{**look.line(), "linewidth": 0.6, "alpha": 0.5})
        axes.plot(*zip(*points, strict=True), **look.line())
        if look.control:
            continue
        axes.plot(*zip(*points, strict=True), linestyle="none", **look.mark(size=3))
        best = min(points, key=lambda point: point[1])
        # From the lower end of the axis: zero lies infinitely far down on a logarithmic one.
        axes.vlines(best[0], axes.get_ylim()[0], best[1], color=look.colour, linewidth=0.7, linestyle=(0, (1, 2)))
        over_the_edge(axes.plot(*best, **{**look.mark(size=7.5), "markeredgecolor": INK, "markeredgewidth": 0.8}))


def u_curves(material: Material) -> Picture:
    """Final loss over the peak learning rate, one panel for each task."""
    shown = {
        task: [cell for cell in material.present(task) if any(r > 0 and math.isfinite(r) for r, _ in cell.rates)]
        for task in material.tasks
    }
    return Picture(
        name="u-curves",
        title="Final loss over learning rate",
        caption="Each point is a full run at the tuned shrinkage, with the validation loss of the tuning seed: the "
        "lowest was chosen for being low, so fresh seeds end a little above it. The large marker is the best rate, and "
        "a dotted line leads from it to the axis. The dotted horizontal line is the loss before training; open markers "
        "on it are runs that diverged or ended above it. A wide valley means that the learning rate matters little. A "
        "best rate at an end of its curve has not been found yet. Positions of valleys of different optimizers cannot "
        "be compared, their depths can.",
        alt=f"Final loss over learning rate on {listed(t for t in material.tasks if shown[t])}, "
        "a valley for each optimizer, with its lowest point marked.",
        panels=tuple(Panel(task, partial(_draw_valley, material, task)) for task in material.tasks if shown[task]),
        keys=material.keys(cell.optimizer for cells in shown.values() for cell in cells),
        gaps=without([t for t in material.tasks if not shown[t]], "No runs at other learning rates"),
    )


def _draw_tuning(material: Material, task: str, axes: Axes) -> None:
    cells = [cell for cell in material.present(task) if finite(point.loss for point in cell.tuning)]
    tops, bottoms, ends = [], [], []
    for cell in cells:
        look = material.looks[cell.optimizer]
        points = [point for point in cell.tuning if math.isfinite(point.loss)]
        trials = [point.trials for point in points]
        losses = np.asarray([point.loss for point in points])
        spreads = [point.deviation if math.isfinite(point.deviation) else 0.0 for point in points]
        deviations = np.asarray(spreads)
        bottoms.append(float(losses.min()))
        if not look.control:
            low, high = losses - deviations, losses + deviations
            bottoms.append(float(low[-1]))
            axes.fill_between(trials, low, high, color=look.colour, alpha=0.13, linewidth=0)
            axes.plot(trials, losses, linestyle="none", markevery=max(1, len(trials) // 6), **look.mark())
            ends.append(End(cell.optimizer, float(losses[-1]), look.colour))
        axes.plot(trials, losses, **look.line())
        # The first trial may be anywhere; the picture is about what more of them bring.
        tops.append(losses[min(1, len(losses) - 1)] if len(losses) > 2 else losses[0])
    loss_axis(axes, min(bottoms), float(max(tops)))
    last = max(point.trials for cell in cells for point in cell.tuning)
    linear_axis(axes, "x", 1, max(last, 2), whole=True)
    axes.set_xlabel("random trials")
    axes.set_ylabel("best loss, expected")
    label_ends(axes, ends)


def tuning_curves(material: Material) -> Picture:
    """The expected best loss of k random trials, one panel for each task."""
    shown = {t: [c for c in material.present(t) if finite(p.loss for p in c.tuning)] for t in material.tasks}
    return Picture(
        name="tuning-curves",
        title="What tuning is worth",
        caption="The validation loss that the best of k random trials is expected to have (Dodge et al. 2019), with "
        "plus and minus one standard deviation. An optimizer that lies below another at every k is better at any "
        "budget of tuning; lines that cross say that the order depends on the budget. Losses of trials are "
        "optimistic: they were chosen for being small, at one seed. What is reported comes from fresh seeds.",
        alt=f"Expected best loss over the number of trials on {listed(t for t in material.tasks if shown[t])}, "
        "a falling line with a band for each optimizer.",
        panels=tuple(Panel(task, partial(_draw_tuning, material, task)) for task in material.tasks if shown[task]),
        keys=material.keys(cell.optimizer for cells in shown.values() for cell in cells),
        gaps=without([t for t in material.tasks if not shown[t]], "No finite trials"),
    )
