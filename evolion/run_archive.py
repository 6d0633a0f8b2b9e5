"""What a search keeps besides its best: the cells of quality-diversity or the front of pareto, from its checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from evolion.checkpoints import RECORD
from evolion.pictures.run_material import Archive
from evolion.pictures.run_words import percent
from evolion.pictures.words import number
from evolion.search.cells import Cells, diversity_of
from evolion.search.fronts import Points, front_of
from evolion.search.traits import EXPENSES

if TYPE_CHECKING:
    from evolion.store import RunStore

__all__ = ["archive_line", "archive_of", "archive_table"]


def archive_of(store: RunStore) -> dict[str, Any] | None:
    """Return what the search of a run has kept, for JSON; None for other algorithms and before the first checkpoint.

    `algorithm`, `told` (candidates told when the checkpoint was written), and for quality-diversity `cells`, `filled`,
    `coverage`, `qd_score`, for pareto `front` (its size), `objectives` and `ends`: for the value and each objective the
    member that has least of it, with its `number`, `value` and `expenses`.
    """
    search, record = store.config.search, store.get_record(RECORD)
    kinds: dict[str, type] = {"quality-diversity": Cells, "pareto": Points}
    if search.algorithm not in kinds or not isinstance(record, dict) or not isinstance(record.get("told"), int):
        return None
    state = record.get("state")
    inner = state.get("inner", state) if isinstance(state, dict) else None
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kinds[search.algorithm])
        kept = adapter.validate_python(inner)
    except ValidationError:
        return None  # as another version may have written it
    found = {"algorithm": search.algorithm, "told": record["told"]}
    if isinstance(kept, Cells):
        diversity = diversity_of(search.quality_diversity.descriptors, kept)
        return found | {
            "cells": diversity.cells,
            "filled": diversity.filled,
            "coverage": diversity.filled / diversity.cells,
            "qd_score": diversity.score,
        }
    return found | _front(kept, search.pareto.objectives)


def _front(kept: Points, objectives: tuple[str, ...]) -> dict[str, Any]:
    front = [(point.number, point.fitness[-1], point.expenses) for point in front_of(kept)]
    ends = []
    for place, name in enumerate(("value", *objectives)):
        least = min(front, key=lambda row: ((row[1], *row[2])[place], row[1], row[0]), default=None)
        if least is not None:
            expenses = dict(zip(objectives, least[2], strict=True))
            ends.append({"least": name, "number": least[0], "value": least[1], "expenses": expenses})
    return {"front": len(front), "objectives": list(objectives), "ends": ends}


def archive_line(data: dict[str, Any]) -> str:
    """Return what `archive_of` says in a line."""
    if "cells" in data:
        said = f"{data['filled']:,} of {data['cells']:,} filled, coverage {percent(data['coverage'])}"
        return f"cells       {said}, QD score {number(data['qd_score'])}, after {data['told']:,} candidates"
    ends = [
        f"least {end['least']} {number(_amount(end, end['least']))} (candidate {end['number']:,})"
        for end in data["ends"]
    ]
    said = ", ".join([f"{data['front']:,} programs", *ends])
    return f"front       {said}, after {data['told']:,} candidates"


def archive_table(data: dict[str, Any]) -> Archive:
    """Return what `archive_of` says as a table."""
    when = f"after {data['told']:,} candidates"
    if "cells" in data:
        row = [f"{data['filled']:,}", f"{data['cells']:,}", percent(data["coverage"]), number(data["qd_score"])]
        return Archive(
            f"Kinds of programs that the search holds, {when}",
            ("cells filled", "of", "coverage", "QD score"),
            (tuple(row),),
            "A cell is one kind of program and keeps the best of it. The QD score adds up all cells: each counts with "
            "the stages that its best has passed, and less than one for the value in the last.",
        )
    names = data["objectives"]
    rows = []
    for end in data["ends"]:
        amounts = [number(_amount(end, name)) for name in ("value", *names)]
        rows.append((end["least"], f"{end['number']:,}", *amounts))
    said = "; ".join(f"{name}: {EXPENSES[name].summary}" for name in names)
    return Archive(
        f"Ends of the front, {data['front']:,} programs {when}",
        ("least", "candidate", "value", *names),
        tuple(rows),
        f"Of the programs of the front none is better in one way and no worse in any. {said[:1].upper()}{said[1:]}. "
        "All of these are counted in the program, none is measured.",
    )


def _amount(end: dict[str, Any], name: str) -> float:
    return float(end["value"] if name == "value" else end["expenses"][name])
