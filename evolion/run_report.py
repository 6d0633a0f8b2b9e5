"""The report of a run: one HTML page in its folder, made from the store alone."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolion.comparison import Interval, table_from_json
from evolion.config_text import to_toml
from evolion.errors import RunError
from evolion.evaluators.protocol.report import Estimate
from evolion.pictures.run_material import Evidence, FunnelStep, RunMaterial
from evolion.pictures.run_words import percent
from evolion.records import Counts, Event
from evolion.run_archive import archive_of, archive_table
from evolion.run_files import is_running, write_atomically
from evolion.run_history import Spending, read_history, spending
from evolion.run_lineage import lineage_of, source_of
from evolion.run_progress import leaders_of, learned, mutations_of, progress_of
from evolion.run_status import funnel
from evolion.run_watch import WORKERS_RECORD
from evolion.shared_scores import store_use
from evolion.store import RunStore

if TYPE_CHECKING:
    from evolion.config import StageConfig

__all__ = ["REPORT", "attempt_report", "material_of", "write_report"]

_LOG = logging.getLogger(__name__)

REPORT = "report.html"
"""The name of the page in a run folder."""

_LONGEST_CONFIGURATION = 60_000
_MOST_SESSIONS = 8
_MOST_QUARANTINED = 10
_SESSIONS = {"start": "begun", "resume": "resumed", "extended": "extended"}


def write_report(folder: Path | str, path: Path | str | None = None) -> Path:
    """Write the page of a run, finished or not, whole or not at all; the run is only read.

    Args:
        folder: The run folder.
        path: Where to; without it `report.html` in the run folder. What is there is replaced.

    Returns:
        The path of the page.

    Raises:
        RunError: If there is no run that can be read, or the page cannot be written.

    """
    from evolion.pictures.run_page import page

    with RunStore.open(folder, readonly=True) as store:
        text = page(material_of(store))
    path = Path(folder, REPORT) if path is None else Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise RunError(f"cannot write the report {path}: {error.strerror}; choose another file with -o") from None
    return path


def attempt_report(folder: Path | str) -> Path | None:
    """Write the page of a run as `write_report` does; where that fails, log a line and return None.

    For the end of a run, whose result must not hang on a picture of it.
    """
    try:
        return write_report(folder)
    except Exception as error:
        _LOG.warning("no report was written for %s: %s; try 'evolion report %s'", folder, error, folder)
        return None


def material_of(store: RunStore) -> RunMaterial:
    """Return all that the page of a run says."""
    history, counts, events = read_history(store), store.counts(), tuple(store.events())
    totals, spent = spending(history)
    errors, state = history.errors(), learned(store)
    winner = store.winner()
    leaders = leaders_of(store, history, winner.number if winner else None)
    shown = winner.number if winner else next((leader.number for leader in leaders if leader.place == 1), None)
    lineage, notes = ((), ()) if shown is None else lineage_of(store, history, shown, errors)
    return RunMaterial(
        name=store.folder.resolve().name,
        state="running" if is_running(store.folder) else "finished" if winner else "stopped",
        told=counts.told,
        generated=counts.generated,
        budget=store.config.search.budget,
        evidence=_evidence(store.get_record("table")),
        horizons=dict((store.get_record("table") or {}).get("steps", {})),
        progress=progress_of(history, totals, state.restarts),
        funnel=tuple(_funnel(counts, store.config.stages)),
        leaders=leaders,
        lineage=lineage,
        lineage_notes=notes,
        source=None if shown is None else source_of(store, shown),
        mutations=mutations_of(history, errors, state.weights),
        costs=_costs(counts, spent, events),
        faults=_faults(counts, _pools(store, events)),
        quarantined=_quarantined(events),
        configuration=to_toml(store.config)[:_LONGEST_CONFIGURATION],
        environment=dict(store.environment),
        commands=_commands(store.folder, finished=winner is not None),
        archive=archive_table(kept) if (kept := archive_of(store)) else None,
    )


def _evidence(table: dict[str, Any] | None) -> tuple[Evidence, ...]:
    if table is None:
        return ()
    return tuple(
        Evidence(
            task=row.task,
            program=row.program,
            seeds=row.seeds,
            diverged=row.diverged,
            loss=_estimate(row.loss),
            train_loss=_estimate(row.train_loss),
            difference=_estimate(row.difference),
            train_difference=_estimate(row.train_difference),
            verdict=row.verdict,
            learning_rate=row.learning_rate,
            weight_decay=row.weight_decay,
            trials=row.trials,
            at_edge=row.at_edge,
        )
        for row in table_from_json(table).rows
    )


def _estimate(found: Interval | None) -> Estimate | None:
    return None if found is None else Estimate(found.mean, found.low, found.high)


_REASONS = {
    "dead": "dead: they do not move the weights",
    "no descent": "did not descend",
    "timeout": "timed out",
    "hurdle": "missed the hurdle of the next stage",
}
"""Reasons that say little by themselves."""


def _funnel(counts: Counts, stages: Sequence[StageConfig]) -> list[FunnelStep]:
    """Return what became of the candidates: told, known by key, probed, through the stages, confirmed."""
    rows = funnel(counts, stages)
    flight = (("not told yet", counts.generated - counts.told),) if counts.generated > counts.told else ()
    found = [
        FunnelStep("generated", counts.generated, flight, counts.told),
        FunnelStep("compared by key", counts.told, (("known by key", counts.reused),), rows[0]["entered"]),
    ]
    for row in rows:
        name = row["stage"] if "task" not in row else f"{row['stage']}: {row['task']}"
        steps = f"{row['steps']:,} steps" if row.get("steps") else ""
        dropped = tuple((_REASONS.get(reason, reason), number) for reason, number in row["dropped"].items())
        found.append(FunnelStep(name, row["entered"], dropped, row["passed"], steps))
    if counts.confirmed:
        note = "again, with fresh seeds"
        found.append(FunnelStep("confirmed", counts.confirmed, (), counts.confirmed, note))
    return found


def _costs(counts: Counts, spent: Spending, events: Sequence[Event]) -> tuple[tuple[str, str], ...]:
    """Return what the run has cost and what was saved, as terms with what is said of each."""
    cost = counts.cost
    rows = [
        ("Trainings of the search", f"{cost.runs:,}, one for each learning rate and seed"),
        ("Their time, added up over workers", _time(cost.seconds)),
        ("Share of confirmations in it", f"{percent(cost.share)} of the time, {cost.confirming_runs:,} trainings"),
    ]
    full = spent.trained + spent.known + spent.stopped + spent.hurdles
    if full > 0 and spent.trained > 0:
        per_step = cost.seconds / spent.total
        saved = (("keys", spent.known), ("the probe", spent.stopped), ("hurdles and failed trainings", spent.hurdles))
        said = "; ".join(f"{name} {percent(steps / full)}, about {_time(steps * per_step)}" for name, steps in saved)
        rows.append(("Saved, of what all stages for all candidates would take", said))
    rows += [("Scores kept", f"{counts.scores:,}, those of tuning and retest included")]
    use = store_use(events)
    rows += [("Shared store of scores", str(use))] if use else []
    return (*rows, *_sessions(events))


def _sessions(events: Sequence[Event]) -> list[tuple[str, str]]:
    """Say when processes were at the run, with how many workers."""
    starts = [event for event in events if event.kind in _SESSIONS]
    if not starts:
        return []
    rows = [("From the first event to the last", _time(events[-1].time - events[0].time))]
    said = []
    for event in starts[:_MOST_SESSIONS]:
        detail = event.detail if isinstance(event.detail, dict) else {}
        on = f" on Ray ({detail['ray']})" if detail.get("ray") else ""
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(event.time))
        workers = f" with {detail['workers']} workers" if "workers" in detail else ""
        budget = f" to {detail['to']} candidates" if "to" in detail else ""
        said.append(f"{_SESSIONS[event.kind]} {when}{workers}{on}{budget}")
    more = len(starts) - len(said)
    return [*rows, ("Processes at it", "; ".join(said) + (f"; and {more:,} more" if more > 0 else ""))]


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {rest} min" if hours else f"{rest} min"


_FAULTS = {
    "deaths": "workers died",
    "timeouts": "jobs without an answer in time",
    "over_memory": "jobs over their limit of memory",
    "recycled": "workers replaced for what they held",
    "quarantined": "programs that ended every worker that tried them, quarantined",
    "nodes_lost": "nodes lost",
}
"""Numbers in the status of a pool, and what they count."""


def _pools(store: RunStore, events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return what is known of the workers of each process that was at the run, when its search ended or it was lost."""
    found = [event.detail for event in events if event.kind == "searched" and isinstance(event.detail, dict)]
    begun = max((event.time for event in events if event.kind in ("start", "resume")), default=0.0)
    noted = store.get_record(WORKERS_RECORD)
    # The note of a process that came to the end of its search says the same once more.
    if noted is not None and noted[0] >= begun and not any(e.kind == "searched" and e.time >= begun for e in events):
        found.append(noted[1])
    return found


def _faults(counts: Counts, pools: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, int], ...]:
    """Return what went wrong with workers, over all processes that were at the run, with how often."""
    total = {name: sum(int(pool.get(name, 0)) for pool in pools) for name in _FAULTS}
    failed: Mapping[str, int] = counts.failed
    rows = [(said, total[name]) for name, said in _FAULTS.items() if total[name]]
    ended = [name for name in ("timeout", "crashed") if name in failed]
    rows += [(f"candidates that ended with status {name}", failed[name]) for name in ended]
    return tuple(rows)


def _quarantined(events: Sequence[Event]) -> tuple[str, ...]:
    """Say which programs ended every worker that tried them, where their text is, and how it ended."""
    details = [event.detail for event in events if event.kind == "quarantined" and isinstance(event.detail, dict)]
    said = [f"{detail.get('file', '?')}: {detail.get('message', '?')}"[:300] for detail in details[:_MOST_QUARANTINED]]
    more = len(details) - len(said)
    return (*said, f"and {more:,} more") if more > 0 else tuple(said)


def _commands(folder: Path, *, finished: bool) -> tuple[tuple[str, str], ...]:
    run = shlex.quote(str(folder))
    again = shlex.quote(str(folder / "config.toml"))
    rows = [("Make the same run again", f"evolion search {again} --out NEW_DIR")]
    if finished:
        rows += [
            ("Print its result", f"evolion resume {run}"),
            ("Look at the winner", f"evolion show {run}"),
            ("Export it to Optax", f"evolion export {run} --to optax -o optimizer.py --verify"),
            ("Export it to PyTorch", f"evolion export {run} --to torch -o optimizer.py"),
            ("Compare it on tasks that it has not seen", f"evolion compare {run} adamw --set validation"),
        ]
    else:
        rows += [("Go on with it", f"evolion resume {run}"), ("See how far it is", f"evolion status {run}")]
    return (*rows, ("Look at a candidate", f"evolion show {run}:NUMBER"))
