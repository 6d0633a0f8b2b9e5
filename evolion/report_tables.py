"""The report of a comparison as plain text for the terminal, and as plain data for JSON."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from evolion.cli_text import aligned
from evolion.evaluators.protocol.profiles import TARGETS
from evolion.evaluators.protocol.report import Aggregate, Cell, Estimate, Report, SpeedUp

__all__ = ["render", "to_json"]

WIDTH = 110
NAME_WIDTH = 16
NONE = "-"

CENSORED = {"low": "<", "high": ">", "": ""}


def render(report: Report) -> str:
    """Return the report as plain text of at most 110 columns: a summary, a table for each task, and the notes."""
    tasks = list(dict.fromkeys(cell.task for cell in report.cells))
    parts = [_summary(report, len(tasks))]
    parts += [_task(report, [cell for cell in report.cells if cell.task == task]) for task in tasks]
    parts.append(list(_notes(report)))
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def to_json(report: Report) -> dict[str, Any]:
    """Return everything in the report as plain data for JSON, which knows no infinite numbers: they are None."""
    data = {
        **asdict(report),
        "cells": [
            {**asdict(cell), "verdict": _verdict(cell.difference) if cell.difference else None} for cell in report.cells
        ],
    }
    plain: dict[str, Any] = _plain(data)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        # Keys of JSON are text: 0.5 and 1.0 as in tables.
        return {f"{key:g}" if isinstance(key, float) else key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lay out rows under their head, without the columns that say nothing."""
    kept = [column for column in zip(*rows, strict=True) if set(column[1:]) - {"", NONE}]
    return [f"  {line}" for line in aligned(list(zip(*kept, strict=True)))]


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ")


def _name(optimizer: str) -> str:
    return optimizer if len(optimizer) <= NAME_WIDTH else f"{optimizer[: NAME_WIDTH - 1]}…"


def _number(value: float | None, digits: int = 3) -> str:
    return NONE if value is None else f"{value:.{digits}g}"


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.0%}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.3g}"


def _interval(found: Estimate | None) -> str:
    return NONE if found is None else f"[{_ratio(found.low)}, {_ratio(found.high)}]"


def _estimate(found: Estimate | None) -> str:
    return NONE if found is None else f"{_ratio(found.value)} {_interval(found)}"


def _percent(found: Estimate | None) -> str:
    return NONE if found is None else f"{found.value:.0%} [{found.low * 100:.0f}, {found.high * 100:.0f}]"


def _speed_up(found: SpeedUp | None) -> str:
    return NONE if found is None else f"{CENSORED[found.censored]}{_estimate(found.estimate)}"


def _verdict(difference: Estimate) -> str:
    if difference.high < 0:
        return "better"
    return "worse" if difference.low > 0 else "unresolved"


# ---------------------------------------------------------------------------------------------------------------------
# Over all tasks


def _order(found: Aggregate) -> tuple[bool, float, str]:
    return bool(found.control), -found.speed_up.value if found.speed_up else math.inf, found.optimizer


def _summary(report: Report, tasks: int) -> list[str]:
    ranked = sorted(report.aggregates, key=_order)
    shown = [found for found in ranked if not found.control]
    head = ("optimizer", "speed-up", "families", "wall time", "score", "better", "diverged")
    rows = [head] + [
        (
            _name(found.optimizer),
            _estimate(found.speed_up),
            _interval(found.over_families),
            _estimate(found.wall),
            NONE if found.score is None else f"{found.score:.2f}",
            _percent(found.better),
            _share(found.diverged),
        )
        for found in shown
    ]
    said = f"{tasks} task{'s' * (tasks != 1)}, speed-ups in steps of tuned {report.reference}"
    lines = [f"{said}, {report.level:.0%} intervals", *_table(rows)]
    if report.missing:
        lines += _wrapped(f"left out, as their data are missing: {', '.join(report.missing)}")
    for found in shown:
        if found.tasks < tasks:
            lines += _wrapped(f"{_name(found.optimizer)} has speed-ups on {found.tasks} of {tasks} tasks")
    lines += list(_bounds(report, shown))
    if report.band:
        copies = sum(found.control == report.reference for found in ranked)
        low, high = map(_ratio, report.band)
        lines += _wrapped(
            f"chance alone: {copies} renamed cop{'ies' if copies != 1 else 'y'} of {report.reference} "
            f"gave speed-ups from {low} to {high}"
        )
    return lines + list(_kinds(shown)) + list(_pool(shown))


def _bounds(report: Report, shown: Sequence[Aggregate]) -> Iterator[str]:
    """Say whose mean is made of bounds: it may be nearer to 1 than the truth."""
    for found in shown:
        bounds = [c for c in report.cells if c.optimizer == found.optimizer and c.speed_up and c.speed_up.censored]
        if bounds:
            yield from _wrapped(
                f"{_name(found.optimizer)}: {len(bounds)} of its {found.tasks} speed-ups "
                f"{'is a bound' if len(bounds) == 1 else 'are bounds'}"
            )


def _kinds(shown: Sequence[Aggregate]) -> Iterator[str]:
    """Rank the kinds of program apart: small tasks favour matrix rules."""
    kinds = sorted({found.kind for found in shown if found.kind})
    for kind in kinds if len(kinds) > 1 else ():
        places = [found for found in shown if found.kind == kind and found.speed_up]
        said = ", ".join(f"{i}. {_name(found.optimizer)}" for i, found in enumerate(places, start=1))
        yield from _wrapped(f"{kind}: {said}") if said else ()


def _pool(shown: Sequence[Aggregate]) -> Iterator[str]:
    """Say whose score hangs on whom it is compared with."""
    for found in shown:
        if found.score is None:
            continue
        other, without = max(
            found.score_without.items(), key=lambda item: abs(item[1] - (found.score or 0.0)), default=("", found.score)
        )
        if abs(without - found.score) >= 0.005:
            yield from _wrapped(f"score of {_name(found.optimizer)} without {_name(other)}: {without:.2f}")


# ---------------------------------------------------------------------------------------------------------------------
# One task


def _task(report: Report, cells: Sequence[Cell]) -> list[str]:
    copies = {found.optimizer for found in report.aggregates if found.control}
    shown = sorted(
        (cell for cell in cells if cell.optimizer not in copies),
        key=lambda cell: (cell.mean is None, cell.mean or 0.0, cell.optimizer),
    )
    steps = next((cell.steps for cell in cells if cell.steps is not None), None)
    seeds = max((len(cell.losses) for cell in cells), default=0)
    said = [cells[0].task, f"family {cells[0].family}"] + ([f"{steps} steps"] if steps else [])
    said.append(f"mean over {seeds} fresh seed{'s' * (seeds != 1)} ± standard deviation")
    lines = textwrap.wrap(", ".join(said), WIDTH, subsequent_indent="  ")
    lines += _table([RESULT_HEAD, *(_result(cell) for cell in shown)])
    lines += _table([SETTING_HEAD, *(_setting(cell) for cell in shown)])
    return lines


RESULT_HEAD = ("optimizer", "loss", "difference", "", "p", "speed-up", "times")


def _result(cell: Cell) -> tuple[str, ...]:
    difference, verdict = "", ""
    if cell.difference is not None:
        half = (cell.difference.high - cell.difference.low) / 2
        difference, verdict = _with_error(cell.difference.value, half, "+"), _verdict(cell.difference)
    return (
        _name(cell.optimizer),
        _loss(cell),
        difference,
        verdict,
        "" if cell.corrected is None else f"{cell.corrected:.3f}" if cell.corrected >= 0.001 else "<0.001",
        _speed_up(cell.speed_up),
        " ".join(_number(cell.times[share]) for share in TARGETS if share in cell.times),
    )


def _loss(cell: Cell) -> str:
    if not cell.losses:
        return "no runs"
    if cell.mean is None:
        ended = sum(map(math.isfinite, cell.losses))
        return f"{len(cell.losses) - ended} of {len(cell.losses)} diverged"
    return f"{cell.mean:.4g}" if cell.deviation is None else _with_error(cell.mean, cell.deviation)


def _with_error(value: float, error: float, sign: str = "-") -> str:
    """Print both with the decimals of the first two digits of the error, small numbers with an exponent."""
    if 0 < max(abs(value), error) < 0.01:
        return f"{value:{sign}.3g} ± {error:.2g}"
    decimals = min(max(2, 1 - math.floor(math.log10(error))), 6) if error > 0 else 4
    return f"{value:{sign}.{decimals}f} ± {error:.{decimals}f}"


SETTING_HEAD = (
    "optimizer", "peak lr", "shrinkage", "trials", "diverged", "sensitivity", "basin", "ms/step", "slots", "operations",
)  # fmt: skip


def _setting(cell: Cell) -> tuple[str, ...]:
    step = cell.seconds / cell.steps * 1000 if cell.seconds is not None and cell.steps else None
    return (
        _name(cell.optimizer),
        _number(cell.learning_rate) + _mark(cell, "learning rate"),
        _number(cell.shrinkage) + _mark(cell, "shrinkage"),
        str(cell.trials),
        _share(cell.diverged),
        _number(cell.sensitivity),
        _number(cell.basin, 2),
        _number(step),
        _number(cell.slots),
        _number(cell.operations),
    )


def _mark(cell: Cell, coordinate: str) -> str:
    return "*" if any(edge.startswith(coordinate) for edge in cell.edges) else ""


# ---------------------------------------------------------------------------------------------------------------------
# Notes


def _notes(report: Report) -> Iterator[str]:
    yield "notes"
    for note in report.notes:
        yield from _wrapped(note)
    if any(cell.edges for cell in report.cells):
        yield from _wrapped("* at an edge of the box in this coordinate: more tuning may improve this optimizer")
    if any(cell.speed_up and cell.speed_up.censored for cell in report.cells):
        yield from _wrapped(
            f"< and >: the loss lies outside of what {report.reference} reaches, and the speed-up is a bound"
        )
    if any(cell.times for cell in report.cells):
        yield from _wrapped(
            f"times: the shortest horizon that reaches the mean loss of {report.reference} at half of, once "
            f"and twice the task's; {NONE} where none does. score: AlgoPerf's, 1 for the fastest to every target"
        )
    yield from _wrapped(
        "intervals of speed-ups: tasks within families, seeds and tuning trials resampled; families: families too. "
        "difference: from the reference, paired by seed. p: corrected for the number of optimizers (Dunnett)"
    )
