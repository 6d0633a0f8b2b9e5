"""A whole run: search, retest, export. The only place where a search meets an evaluator."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evolion.comparison import Table, render, table_from_json
from evolion.config import RunConfig, program_of
from evolion.continuation import continued_config, extend
from evolion.errors import JobError
from evolion.evaluators.score_store import ScoreStore
from evolion.evaluators.types import Evaluator, EvaluatorUnavailable
from evolion.funnel import run_search
from evolion.ledger import Ledger
from evolion.primitives.program import Program
from evolion.progress import IN_FLIGHT_FOR_A_WORKER, Observer, several, silent
from evolion.proposals import check_proposer
from evolion.proxies.data.source import DataError
from evolion.records import Counts
from evolion.retest import WINNER, Retested, finalists_of, removals_to_json, retest
from evolion.run_environment import check_devices, check_environment, environment_of, open_evaluator
from evolion.run_status import confirmations_of, confirmations_text
from evolion.run_watch import WorkersNote
from evolion.search_settings import algorithm_of
from evolion.shared_scores import STORE_EVENT, SharedScores, StoreUse, open_scores, store_use
from evolion.store import RunStore

__all__ = ["Result", "discover", "resume"]

_log = logging.getLogger(__name__)

_PROGRAM_FILE = "programs/discovered.txt"
_EXPORT_FILE = "exports/discovered_optax.py"
_TABLE_FILE = "table.txt"


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished run holds.

    Attributes:
        folder: The run folder.
        number: The candidate that the winner comes from.
        winner: The winner, simplified and ablated.
        table: The comparison with the baselines on the test split.
        counts: How many candidates were generated, evaluated, reused, failed.
        files: The winner as text, its Optax module, the table.
        store: What a store of scores was good for, None without one.

    """

    folder: Path
    number: int
    winner: Program
    table: Table
    removals: tuple[dict[str, Any], ...]
    counts: Counts
    files: tuple[Path, ...]
    store: StoreUse | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        counts = self.counts
        return {
            "folder": str(self.folder),
            "number": self.number,
            "winner": str(self.winner),
            "table": self.table.to_json(),
            "ablation": list(self.removals),
            "counts": {
                "generated": counts.generated,
                "evaluated": counts.evaluated,
                "reused": counts.reused,
                "failed": dict(counts.failed),
            },
            "confirmations": confirmations_of(counts),
            "files": [str(path) for path in self.files],
            "store": self.store.to_json() if self.store else None,
        }

    def __str__(self) -> str:
        """Print program, table and where the files are."""
        counts = self.counts
        failed = sum(counts.failed.values())
        confirmations = confirmations_of(counts)
        lines = [
            f"{counts.generated:,} candidates: {counts.evaluated:,} trained, {counts.reused:,} known by their key, "
            f"{failed:,} failed.",
            *([f"Confirmed: {confirmations_text(confirmations)}."] if confirmations["confirmed"] else []),
            f"The best is candidate {self.number}:",
            "",
            str(self.winner),
            render(self.table),
            *ablation_lines(self.removals),
            "",
            *(f"{path}" for path in self.files),
            *([str(self.store)] if self.store else []),
        ]
        return "\n".join(lines)


def ablation_lines(removals: tuple[dict[str, Any], ...]) -> list[str]:
    """Return what each statement of the winner is worth, a line each."""
    if not removals:
        return []
    lines = ["What each statement is worth (change of the metric without it ± standard error):"]
    for removal in removals:
        effects = ", ".join(
            f"{task} {effect[0]:+.4f} ± {effect[1]:.4f}" if effect else f"{task} a run diverged"
            for task, effect in removal["effects"].items()
        )
        said = "removed" if removal["removed"] else "kept"
        lines.append(f"  {said:8} {removal['statement']:40} {effects or 'the program does the same'}")
    return lines


def discover(
    config: RunConfig,
    out: Path | str,
    *,
    evaluator: Evaluator | None = None,
    workers: int | None = None,
    ray: str | None = None,
    batch: int | None = None,
    observer: Observer | None = None,
    store: Path | str | None = None,
) -> Result:
    """Make a run in a new or empty folder and take it to its end.

    Args:
        config: What determines the result.
        out: The run folder.
        evaluator: What evaluates; it stays open. Without it, `workers` processes or, with `ray`, actors.
        workers: The number of workers; without it, that of the processors of this machine or of the cluster.
        ray: "local", "auto" or the address of a Ray cluster.
        batch: Train so many candidates at a time on jax's first device, in this process, instead of workers.
        observer: Is told about progress.
        store: A file of scores that runs share; it is made where there is none. It changes nothing but the time taken,
            unless it holds scores of candidates that would need more memory than this run allows.

    Raises:
        InputError: For a folder that is taken, a program or a store that cannot be opened, or a cluster that does not
            answer.
        JobError: If every candidate failed, or no worker can go on, as where the data of a task is away.

    """
    algorithm_of(config, program_of(config.search.warm_start))  # before anything is made: it may refuse the warm start
    check_proposer(config)
    with (
        open_scores(store) as scores,
        open_evaluator(evaluator, workers, ray, batch, config) as working,
        RunStore.create(out, config, environment_of(working, config)) as run,
    ):
        run.event("start", {"workers": working.workers, "ray": ray})
        return _run(run, working, observer or silent(), scores)


def resume(
    folder: Path | str,
    *,
    evaluator: Evaluator | None = None,
    workers: int | None = None,
    ray: str | None = None,
    batch: int | None = None,
    observer: Observer | None = None,
    store: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> Result:
    """Take an interrupted run to the end that it would have had; give back what a finished run holds.

    `overrides` are KEY=VALUE pairs for what may change, see `continued_config`: with a larger `search.budget` a run,
    finished or not, goes on to the end that it would have had with that budget from its beginning.

    Raises:
        InputError: If there is no run, another process is at it, an override changes what may not change, or this
            machine or this version computes otherwise than the one that began it.
        JobError: As `discover`.

    """
    with RunStore.open(folder, readonly=True) as begun:
        config = continued_config(begun.config, overrides)
        if begun.winner() is not None and config.search.budget == begun.config.search.budget:
            return _result(begun)
    with (
        open_scores(store) as scores,
        open_evaluator(evaluator, workers, ray, batch, config, begun.environment) as working,
    ):
        # Before anything opens the run for writing: that brings it to this version's format, for good.
        check_environment(begun, working)
        extend(folder, config)
        with RunStore.open(folder) as run:
            run.event("resume", {"workers": working.workers, "ray": ray})
            return _run(run, working, observer or silent(), scores)


def _run(store: RunStore, evaluator: Evaluator, observer: Observer, scores: ScoreStore | None) -> Result:
    config = store.config
    shared = None if scores is None else SharedScores(scores, evaluator.numerics, config.timeout)
    ledger = Ledger(store, evaluator, shared)
    observer = several(observer, WorkersNote(store))  # one that raises ends no run
    _advise(config, evaluator.workers)
    try:
        if not any(event.kind == "gate" for event in store.events()) and (gated := check_devices(evaluator, config)):
            store.event("gate", gated)
        run_search(config, program_of(config.search.warm_start), ledger, observer)
        store.event("searched", asdict(evaluator.status))
        finalists = finalists_of(store, config.retest.finalists)
        if not finalists:
            raise JobError(f"every candidate of {store.folder} failed; see 'evolion status {store.folder}'")
        with store.database.grouped():
            retested = retest(config, finalists, ledger, observer)
        _finish(store, retested)
    except (EvaluatorUnavailable, DataError) as error:
        kept = f"what was scored is kept; continue with: evolion resume {store.folder}"
        raise JobError(f"{error}: {kept}") from error
    finally:
        if shared is not None:
            store.event(STORE_EVENT, shared.finish().to_json())
    return _result(store)


def _advise(config: RunConfig, workers: int) -> None:
    """Say so if workers will wait for work: of the candidates in flight most need no training."""
    held, wanted = config.search.lag + 1, IN_FLIGHT_FOR_A_WORKER * workers
    if workers > 1 and held < wanted:
        _log.warning(
            "search.lag lets %d candidates be in flight, of which some %d are in training at a time: most of the %d "
            "workers will wait; a run that is begun with search.lag=%d keeps them busy",
            held,
            max(1, held // IN_FLIGHT_FOR_A_WORKER),
            workers,
            wanted,
        )


def _finish(store: RunStore, retested: Retested) -> None:
    from evolion.discovered.optax_source import to_source

    table = render(retested.table)
    source = to_source(retested.program, "optax", name=WINNER, evidence=table)
    store.put_file(_PROGRAM_FILE, str(retested.program))
    store.put_file("programs/found.txt", str(retested.found))
    store.put_file(_EXPORT_FILE, source)
    store.put_file(_TABLE_FILE, table)
    with store.transaction():
        store.put_record("table", retested.table.to_json())
        store.put_record("ablation", removals_to_json(retested.removals))
        store.event("finish", {"winner": retested.number})
        # Last: a run with a winner is a finished run.
        store.set_winner(retested.number, str(retested.program))


def _result(store: RunStore) -> Result:
    from evolion.primitives.parser import parse

    winner = store.winner()
    assert winner is not None
    files = tuple(store.folder / name for name in (_PROGRAM_FILE, _EXPORT_FILE, _TABLE_FILE))
    return Result(
        folder=store.folder,
        number=winner.number,
        winner=parse(winner.text),
        table=table_from_json(store.get_record("table")),
        removals=tuple(store.get_record("ablation")),
        counts=store.counts(),
        files=files,
        store=store_use(store.events()),
    )
