"""How far a run is, as plain data and as the lines that `evolion status` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evolion.evaluators.stages import Reason
from evolion.evaluators.types import PoolStatus
from evolion.progress import fitness_text
from evolion.proposals import RECORD as PROPOSALS
from evolion.run_archive import archive_line, archive_of
from evolion.run_counts import best_of
from evolion.run_files import is_running
from evolion.shared_scores import StoreUse, store_use

if TYPE_CHECKING:
    from evolion.config import StageConfig
    from evolion.records import Counts
    from evolion.store import RunStore

__all__ = ["confirmations_of", "confirmations_text", "funnel", "status_lines", "status_of"]


def status_of(store: RunStore) -> dict[str, Any]:
    """Return the state of a run, for JSON."""
    counts, best, winner = store.counts(), best_of(store.database.connection), store.winner()
    shared = store_use(store.events())
    searched = [event.detail for event in store.events() if event.kind == "searched" and event.detail]
    state = "running" if is_running(store.folder) else "finished" if winner else "stopped"
    return {
        "folder": str(store.folder),
        "state": state,
        "budget": store.config.search.budget,
        "stages": [stage.task for stage in store.config.stages],
        "counts": {
            "generated": counts.generated,
            "told": counts.told,
            "evaluated": counts.evaluated,
            "reused": counts.reused,
            "failed": dict(counts.failed),
            "stages": dict(counts.stages),
            "scores": counts.scores,
        },
        "proposals": store.get_record(PROPOSALS),
        "archive": archive_of(store),
        "confirmations": confirmations_of(counts),
        "funnel": funnel(counts, store.config.stages),
        "best": {"number": best.number, "fitness": best.fitness} if best else None,
        "winner": {"number": winner.number, "text": winner.text} if winner else None,
        "table": store.get_record("table"),
        "workers": searched[-1] if searched else None,
        "store": shared.to_json() if shared else None,
        "environment": dict(store.environment),
    }


def funnel(counts: Counts, stages: Sequence[StageConfig]) -> list[dict[str, Any]]:
    """Return what became of the candidates that were told: the probe, then each stage.

    Those whose scores were all known by their key are left out; duplicates of what the probe stops are not.

    A row has `stage` (its name), `entered`, `dropped` (by reason) and `passed`; stages have `task` and `steps` too.
    What passed one row entered the next.
    """
    places: list[int | None] = [None, *range(len(stages))]
    by_place: dict[int | None, dict[Reason, int]] = {place: {} for place in places}
    for (place, reason), number in counts.drops.items():
        by_place[place][reason] = number
    rows: list[dict[str, Any]] = []
    entered = sum(counts.drops.values())
    for place in places:
        found = by_place[place]
        dropped = {reason.value: found[reason] for reason in Reason if reason in found}
        dropped.pop(Reason.FINISHED.value, None)
        passed = entered - sum(dropped.values())
        row: dict[str, Any] = {"stage": "probe" if place is None else f"stage {place + 1}"}
        if place is not None:
            row |= {"task": stages[place].task, "steps": stages[place].steps}
        rows.append(row | {"entered": entered, "dropped": dropped, "passed": passed})
        entered = passed
    return rows


def confirmations_of(counts: Counts) -> dict[str, Any]:
    """Return how many programs were confirmed, in how many trainings, and what share of all that time was."""
    cost = counts.cost
    return {"confirmed": counts.confirmed, "runs": cost.confirming_runs, "share_of_seconds": cost.share}


def status_lines(data: dict[str, Any]) -> list[str]:
    """Return what `status_of` says, a line each."""
    counts, folder = data["counts"], data["folder"]
    lines = [
        f"{folder}: {data['state']}",
        f"candidates  {counts['generated']:,} of {data['budget']:,} generated, {counts['told']:,} scored",
        f"            {counts['evaluated']:,} trained, {counts['reused']:,} known by their key",
        f"failed      {_listed(counts['failed'])}",
        *(f"{row['stage']:11} {_row_text(row)}" for row in data["funnel"]),
    ]
    if data["proposals"]:
        lines.append(f"proposals   {_proposals_text(data['proposals'])}")
    confirmations = data["confirmations"]
    if confirmations["confirmed"]:
        lines.append(f"confirmed   {confirmations_text(confirmations)}")
    if data["best"]:
        lines.append(f"best        {fitness_text(data['best']['fitness'], data['best']['number'])}")
    if data["archive"]:
        lines.append(archive_line(data["archive"]))
    if data["store"]:
        lines.append(f"store       {StoreUse(**data['store'])}")
    if data["workers"]:
        lines.append(f"workers     when the search ended: {PoolStatus(**data['workers'])}")
    if data["state"] == "stopped":
        lines.append(f"continue with: evolion resume {folder}")
    elif data["state"] == "finished":
        lines.append(f"its table: evolion resume {folder}; its program: evolion show {folder}")
    return lines


def confirmations_text(data: dict[str, Any]) -> str:
    """Return what `confirmations_of` says in words."""
    share = f"{data['share_of_seconds']:.0%} of the training time of the search"
    return f"{data['confirmed']:,} with fresh seeds, {data['runs']:,} trainings, {share}"


def _proposals_text(data: dict[str, Any]) -> str:
    failed = f" ({data['failed']:,} without an answer)" if data["failed"] else ""
    return f"{data['requests']:,} requests{failed}, {data['accepted']:,} programs; invalid: {_listed(data['invalid'])}"


def _row_text(row: dict[str, Any]) -> str:
    steps = f", {row['steps']:,} steps" if row.get("steps") else ""
    where = f" on {row['task']}{steps}" if "task" in row else ""
    return f"{row['entered']:,} entered{where}, dropped: {_listed(row['dropped'])}; {row['passed']:,} passed"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items())) or "none"
