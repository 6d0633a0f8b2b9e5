"""The tables of a comparison's page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from evolion.evaluators.protocol.report import Aggregate, Cell, Estimate, SpeedUp
from evolion.pictures.material import Material
from evolion.pictures.words import number, ranged

__all__ = ["overall", "scores", "table", "task_table", "times"]


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table in a box that scrolls; the first cell of each row is its heading. Escapes everything."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in row[1:])
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )


def percent(share: float | None) -> str:
    """Return a share in percent."""
    return "–" if share is None else f"{100 * share:.0f} %"


def bounded(speed_up: SpeedUp | None) -> str:
    """Return a speed-up with its interval, or as the bound that it is."""
    if speed_up is None:
        return "–"
    if speed_up.censored:
        return f"{'≤' if speed_up.censored == 'low' else '≥'} {number(speed_up.estimate.value)}"
    return ranged(speed_up.estimate)


def spanned(estimate: Estimate | None) -> str:
    """Return an interval without its estimate, which stands beside it."""
    return "–" if estimate is None else f"{number(estimate.low)} to {number(estimate.high)}"


def overall(material: Material) -> str:
    """Return the table over all tasks."""
    reference = material.report.reference
    families = list(dict.fromkeys(material.families.values()))
    heads = [
        "optimizer",
        "works on",
        "speed-up in steps",
        "interval over other families",
        "in time",
        "tasks",
        f"runs below {reference}'s loss",
        "AlgoPerf score",
    ]
    heads += ["diverged", *(f"speed-up, {family}" for family in families)]

    def line(aggregate: Aggregate) -> list[str]:
        name = aggregate.optimizer
        control = f" (copy of {aggregate.control})" if aggregate.control else ""
        own = name == reference
        return [
            f"{name}{control}",
            aggregate.kind or "–",
            "1, the reference" if own else ranged(aggregate.speed_up),
            "1" if own else spanned(aggregate.over_families),
            "1" if own else ranged(aggregate.wall),
            str(aggregate.tasks),
            ranged(aggregate.better),
            number(aggregate.score),
            percent(aggregate.diverged),
            *("1" if own else number(aggregate.by_family.get(family)) for family in families),
        ]

    return table("All tasks", heads, [line(aggregate) for aggregate in material.report.aggregates])


def task_table(material: Material, task: str) -> str:
    """Return the table of one task."""
    heads = ["optimizer", "final loss", "± seeds", "runs", "difference", "p, corrected", "speed-up in steps"]
    heads += ["learning rate", "shrinkage", "best trial at an edge", "trials", "sensitivity", "basin, decades"]
    heads += ["diverged", "seconds a run", "state, numbers a parameter", "operations a parameter"]

    def line(cell: Cell) -> list[str]:
        own = cell.optimizer == material.report.reference
        return [
            cell.optimizer,
            "diverged" if cell.mean is None and cell.losses else number(cell.mean, 4),
            number(cell.deviation, 2),
            str(len(cell.losses)),
            "the reference" if own else ranged(cell.difference),
            number(cell.corrected, 2),
            "1" if own else bounded(cell.speed_up),
            number(cell.learning_rate),
            number(cell.shrinkage),
            ", ".join(cell.edges) + (f" (box extended {cell.extensions}×)" if cell.extensions else "") or "no",
            str(cell.trials),
            number(cell.sensitivity),
            number(cell.basin),
            percent(cell.diverged),
            number(cell.seconds),
            number(cell.slots),
            number(cell.operations),
        ]

    cells = [material.cells[task, name] for name in material.optimizers if (task, name) in material.cells]
    return table(f"{task} ({material.families[task]})", heads, [line(cell) for cell in cells])


def times(material: Material) -> str:
    """Return the table of times to targets."""
    targets = sorted({target for cell in material.report.cells for target in cell.times})
    if not targets:
        return ""
    heads = ["optimizer", "task", *(f"target at {target:g} of the horizon" for target in targets)]

    def reached(cell: Cell, target: float) -> str:
        time = cell.times.get(target)
        return "not reached" if time is None else f"{time:g}"

    rows = [[cell.optimizer, cell.task, *(reached(cell, t) for t in targets)] for cell in material.report.cells]
    return table(
        f"Least horizon, as a share of the task's, that reaches the loss of {material.report.reference} at each target",
        heads,
        rows,
    )


def scores(material: Material) -> str:
    """Return the table of AlgoPerf scores with each other optimizer left out."""
    aggregates = material.report.aggregates
    left_out = list(dict.fromkeys(name for aggregate in aggregates for name in aggregate.score_without))
    if not left_out:
        return ""
    rows = [
        [a.optimizer, number(a.score), *(number(a.score_without.get(name)) for name in left_out)] for a in aggregates
    ]
    heads = ["optimizer", "with all", *(f"without {name}" for name in left_out)]
    return table("AlgoPerf score, and how much of it hangs on who else takes part", heads, rows)
