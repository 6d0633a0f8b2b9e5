"""What the table of a comparison says: a pure function of its rows, in whatever order they come.

Choices that a reader of the numbers should know:

- A run that diverged, crashed or ran out of time has an infinite loss. It is never left out: a cell with one has no
  mean loss, its speed-up is censored at the shortest horizon of the reference, and it reaches no target.
- Intervals are percentiles of bootstrap draws over tasks within families, seeds within tasks (the same seeds for all
  optimizers, so that they stay paired) and the quasi-random tuning trials (`resampling.reselection`), expanded for the
  small number of seeds (`resampling.ratio_estimate`).
- The difference of losses has a Student interval, paired by seed; its corrected probability is Dunnett's, which knows
  no pairs. Renamed copies of the reference have seeds of their own: theirs is Welch's interval.
- Losses are interpolated as logarithms of the excess over the floor where that is known (`speedup.task_scale`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from evolion.evaluators.protocol import profiles
from evolion.evaluators.protocol.aggregates import Comparison, aggregate, profiles_of
from evolion.evaluators.protocol.cells import at_horizon, score_task, task_rows
from evolion.evaluators.protocol.report import Aggregate, Cell, Report
from evolion.evaluators.protocol.resampling import Resampler
from evolion.evaluators.protocol.rows import Row, Stage

__all__ = ["RowsError", "report"]


class RowsError(ValueError):
    """A table that cannot be scored: rows contradict each other, or the reference is not among them."""


def report(
    rows: Iterable[Row],
    *,
    reference: str,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    missing: Sequence[str] = (),
    kinds: Mapping[str, str] | None = None,
) -> Report:
    """Return everything that is said about the optimizers of a table.

    Args:
        rows: The table, in any order.
        reference: The optimizer in whose steps speed-ups are.
        level: Of all intervals, between 0 and 1.
        draws: Of the bootstrap.
        seed: Of the draws.
        missing: Tasks that were left out, as their data are missing.
        kinds: By optimizer, what its program works on ("element-wise", "per-tensor", "matrix").

    Raises:
        RowsError: If the reference has no row, or rows contradict each other (`_check`).
        ValueError: If `level` or `draws` is out of range.

    """
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"level must lie between 0 and 1 and draws be positive, got {level} and {draws}")
    table = sorted(rows, key=lambda row: row.id)
    _check(table, reference)
    compared = _compared(table, reference, Resampler(draws, seed), level)
    aggregates = tuple(aggregate(compared, name, (kinds or {}).get(name, "")) for name in compared.controls)
    cells = tuple(found.cell for by_name in compared.scored.values() for found in by_name.values())
    return Report(
        reference=reference,
        level=level,
        cells=cells,
        aggregates=aggregates,
        profiles=profiles_of(compared),
        reference_profiles=profiles_of(compared, to_reference=True),
        band=_band(aggregates, reference),
        notes=tuple(_notes(table, cells, reference, missing)),
        missing=tuple(missing),
    )


def _compared(table: Sequence[Row], reference: str, resampler: Resampler, level: float) -> Comparison:
    """Score the cells, in an order that does not hang on that of the table."""
    of = {row.optimizer: row.control for row in table}
    controls = {name: of[name] for name in sorted(of, key=lambda name: (bool(of[name]), name != reference, name))}
    timed = [name for name in controls if name == reference or _is_timed(table, name)]
    by_task: dict[str, list[Row]] = {}
    for row in sorted(table, key=lambda row: (row.family, row.task)):
        by_task.setdefault(row.task, []).append(row)
    scored = {
        task: score_task(task_rows(rows, list(controls)), reference, timed, resampler, level)
        for task, rows in by_task.items()
    }
    return Comparison(reference, controls, timed, scored, resampler, level)


def _is_timed(table: Sequence[Row], name: str) -> bool:
    """Whether times to targets mean something: with horizons of its own, or if no run at the task's is ok.

    A renamed copy has the task's horizon alone: its time to a loose target would be that horizon, however good it is.
    """
    rows = [row for row in table if row.optimizer == name]
    return any(row.stage is Stage.HORIZON for row in rows) or not at_horizon(rows)


def _check(table: Sequence[Row], reference: str) -> None:
    """Refuse a table without the reference, or with rows that contradict each other.

    Those are two rows of one id or of one reported run, rows of a task that differ in its digest, family or floor, and
    rows of an optimizer that differ in what it is a copy of.
    """
    if all(row.optimizer != reference for row in table):
        names = ", ".join(sorted({row.optimizer for row in table})) or "no rows"
        raise RowsError(f"the reference {reference!r} has no row in the table, which has {names}")
    for before, after in itertools.pairwise(table):
        if before.id == after.id:
            raise RowsError(f"two rows have the id {after.id!r}: the table must hold each run once")
    digests: dict[str, tuple[object, ...]] = {}
    controls: dict[str, str] = {}
    runs: dict[tuple[object, ...], Row] = {}
    for row in table:
        said = (row.task_digest, row.family, row.floor)
        known = digests.setdefault(row.task, said)
        for name, first, second in zip(("digest", "family", "floor"), known, said, strict=True):
            if first != second:
                raise RowsError(
                    f"rows of task {row.task!r} differ in its {name} ({first} and {second}): "
                    "losses of different tasks are not comparable; score them apart, or run the older ones again"
                )
        if controls.setdefault(row.optimizer, row.control) != row.control:
            raise RowsError(f"rows of {row.optimizer!r} differ in what it is a renamed copy of")
        if row.stage in (Stage.REPORT, Stage.HORIZON):
            other = runs.setdefault((row.optimizer, row.task, row.horizon, row.seed), row)
            if other is not row:
                raise RowsError(
                    f"rows {other.id!r} and {row.id!r} are both {row.optimizer!r} on {row.task!r} "
                    f"at horizon {row.horizon:g} and seed {row.seed}: keep one of them"
                )


def _band(aggregates: Sequence[Aggregate], reference: str) -> tuple[float, float] | None:
    values = [found.speed_up.value for found in aggregates if found.control == reference and found.speed_up]
    return (min(values), max(values)) if values else None


def _notes(table: Sequence[Row], cells: Sequence[Cell], reference: str, missing: Sequence[str]) -> Iterator[str]:
    """Say what a reader has to know, tasks left out first."""
    for task in missing:
        yield f"{task}: left out, its data are missing"
    for cell in cells:
        where = f"{cell.optimizer} on {cell.task}"
        if not cell.trials and not cell.losses:
            yield f"{where}: no runs"
        elif not cell.losses:
            yield f"{where}: no run of tuned settings"
        elif cell.speed_up is None and cell.optimizer == reference:
            yield f"{cell.task}: {reference} has fewer than two horizons without divergence, so there are no speed-ups"
        if cell.edges:
            after = f" after {cell.extensions} extension{'s' * (cell.extensions != 1)}" if cell.extensions else ""
            yield f"{where}: the best trial lies at an edge of the box{after} ({'; '.join(cell.edges)})"
        if cell.optimizer == reference and (lacking := [t for t in profiles.TARGETS if t not in cell.times]):
            said = ", ".join(f"{share:g}" for share in lacking)
            yield f"{cell.task}: no target at {said} of the horizon, as {reference} has no finite mean loss there"
        if len(cell.losses) == 1:
            yield f"{where}: one seed, so its intervals leave out the noise of seeds"
    computed = sorted({row.numerics for row in table})
    if len(computed) > 1:
        yield f"runs were computed in several ways, which may differ in losses: {', '.join(computed)}"
