"""What pictures are made of: the report and the table by task and optimizer, and a picture as panels to be drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evolion.evaluators.protocol.report import Cell, Estimate, Report
from evolion.evaluators.protocol.rows import Row, Stage
from evolion.pictures.looks import Look, looks, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Material", "Panel", "Picture", "finite", "gather", "listed", "usable"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes: its title, its size in inches, and what draws it."""

    title: str
    draw: Callable[[Axes], None]
    width: float = 3.5
    height: float = 2.6


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, as small multiples.

    Attributes:
        name: Of its file, without ending.
        title: Heading.
        caption: How to read it.
        alt: What it shows, for those who do not see it.
        panels: Its parts; none where there is nothing to draw.
        keys: The optimizers in it, for the legend.
        gaps: What is missing, in sentences.

    """

    name: str
    title: str
    caption: str
    alt: str
    panels: tuple[Panel, ...]
    keys: tuple[str, ...]
    gaps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Material:
    """A report and its table, in the order in which pictures need them.

    Attributes:
        report: The report.
        optimizers: All names: the reference first, renamed copies last.
        controls: Names of renamed copies.
        looks: How each is drawn.
        tasks: In the report's order.
        families: By task.
        cells: By task and optimizer.
        rows: By task and optimizer.

    """

    report: Report
    optimizers: tuple[str, ...]
    controls: frozenset[str]
    looks: Mapping[str, Look]
    tasks: tuple[str, ...]
    families: Mapping[str, str]
    cells: Mapping[tuple[str, str], Cell]
    rows: Mapping[tuple[str, str], tuple[Row, ...]]

    @property
    def others(self) -> tuple[str, ...]:
        """All but the reference and its copies."""
        return tuple(name for name in self.optimizers if name != self.report.reference and name not in self.controls)

    def present(self, task: str) -> list[Cell]:
        """The cells of a task: copies first, so that they lie below, and the reference last."""
        cells = [self.cells[task, name] for name in reversed(self.optimizers) if (task, name) in self.cells]
        return sorted(cells, key=lambda cell: (cell.optimizer not in self.controls, cell.optimizer in self.reference))

    @property
    def reference(self) -> tuple[str, ...]:
        """The name of the reference."""
        return (self.report.reference,)

    def staged(self, task: str, optimizer: str, *stages: Stage) -> list[Row]:
        """The rows of an optimizer on a task that belong to some stages."""
        return [row for row in self.rows.get((task, optimizer), ()) if row.stage in stages]

    def start(self, task: str) -> float | None:
        """Return the mean training loss of the reference at its first step: the loss of what has learned nothing."""
        starts = [row.start for row in self.rows.get((task, self.report.reference), ())]
        known = [start for start in starts if start is not None and math.isfinite(start)]
        return math.fsum(known) / len(known) if known else None

    def floor(self, task: str) -> float | None:
        """Return the least loss there is on a task, where it is known."""
        floors = (row.floor for name in self.optimizers for row in self.rows.get((task, name), ()))
        return next((floor for floor in floors if floor is not None and math.isfinite(floor)), None)

    def keys(self, drawn: Iterable[str]) -> tuple[str, ...]:
        """Return the names that were drawn, in the order of legends."""
        drawn = set(drawn)
        return tuple(name for name in self.optimizers if name in drawn)


def gather(report: Report, rows: Sequence[Row]) -> Material:
    """Sort a report and its table by task and optimizer; rows of optimizers or tasks that it leaves out are left."""
    named = [aggregate.optimizer for aggregate in report.aggregates] + [cell.optimizer for cell in report.cells]
    names = list(dict.fromkeys(named))
    copies = {aggregate.optimizer for aggregate in report.aggregates if aggregate.control}
    controls = frozenset(copies | {row.optimizer for row in rows if row.control})
    ordered = sorted(names, key=lambda name: (name in controls, name != report.reference))
    by_place: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_place.setdefault((row.task, row.optimizer), []).append(row)
    return Material(
        report=report,
        optimizers=tuple(ordered),
        controls=controls,
        looks=looks(ordered, report.reference, controls),
        tasks=tuple(dict.fromkeys(cell.task for cell in report.cells)),
        families={cell.task: cell.family for cell in report.cells},
        cells={(cell.task, cell.optimizer): cell for cell in report.cells},
        rows={place: tuple(found) for place, found in by_place.items()},
    )


def finite(values: Iterable[float | None]) -> list[float]:
    """Return those values that are finite numbers."""
    return [value for value in values if value is not None and math.isfinite(value)]


def usable(estimate: Estimate | None) -> bool:
    """Whether an estimate of a ratio can be drawn on a logarithmic axis."""
    return estimate is not None and all(
        math.isfinite(part) and part > 0 for part in (estimate.value, estimate.low, estimate.high)
    )


def listed(names: Iterable[str]) -> str:
    """Return names in one phrase: "a, b and c"."""
    shown = [plain(name) for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"
