"""The command `evolion compare`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evolion.cli_interrupt import interruptible
from evolion.cli_text import JSON
from evolion.errors import InputError

if TYPE_CHECKING:
    from evolion.compare import Comparison
    from evolion.evaluators.protocol.plan import Manifest
    from evolion.evaluators.types import Evaluator

__all__ = ["compare"]

QUICK_TASKS = 2
"""How many tasks of a set the quick profile takes."""

VARIANTS = 8
"""How many held-out variants a locked set is joined by."""

TIMEOUT = 3600
"""Seconds after which a run is given up."""


@click.command()
@click.argument("specs", nargs=-1, metavar="OPTIMIZER...")
@click.option("--set", "source", metavar="NAME", help="A set of tasks, such as search or validation.")
@click.option("--task", "names", multiple=True, metavar="NAME", help="A task, instead of a set; repeatable.")
@click.option("--trials", type=click.IntRange(1), metavar="K", help="Tuning trials of each on a task; 16 without it.")
@click.option("--seeds", type=click.IntRange(1), metavar="S", help="Fresh seeds of what is reported; 4 without it.")
@click.option("--controls", type=click.IntRange(0), metavar="N", help="Renamed copies of the reference; 2 without it.")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Horizon; each task's own without it.")
@click.option("--quick", is_flag=True, help="6 trials, 2 seeds, 1 copy, 2 horizons, the 2 fastest tasks of the set.")
@click.option("--reference", metavar="NAME", help="In whose steps speed-ups are; adamw, or the first, without it.")
@click.option("--variants", type=click.IntRange(0), metavar="N", help="Held-out variants; else 8 for a locked set.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes; as many as CPUs without it.")
@click.option("--timeout", type=click.IntRange(1), metavar="S", help="Seconds that a run has; 3600 without it.")
@click.option("--out", metavar="DIR", help="The folder; one that goes by the plan, in comparisons/, without it.")
@click.option("--resume", metavar="DIR", help="Go on with a comparison from its folder alone.")
@click.option("--progress", is_flag=True, help="Write a plain line now and then, for a log.")
@JSON
def compare(
    specs: tuple[str, ...],
    source: str | None,
    names: tuple[str, ...],
    resume: str | None,
    workers: int | None,
    timeout: int | None,
    out: str | None,
    progress: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Tune optimizers alike on a set of tasks and say how many steps of tuned AdamW one of their steps is worth.

    Every optimizer gets the same number of trials at the same points of its box of peak learning rate and total
    shrinkage, and is reported on fresh seeds and the test split. The same command in the same folder goes on where it
    was stopped. The folder gets table.jsonl, plan.json, report.txt, report.html and pictures/.

    A run that takes longer than --timeout, or crashes, is a row with that status and never holds up the others. With
    --workers 1 all is computed in this process, and no run is given up.
    """
    from evolion.compare import default_folder, read_manifest

    if timeout is not None and workers == 1:
        raise click.UsageError("--timeout needs processes that can be ended: give --workers 2, or leave it out")
    if resume is not None:
        if (
            specs
            or source
            or names
            or out
            or any(value is not None and value is not False for value in options.values())
        ):
            raise click.UsageError("--resume takes all from the folder: give --workers and --timeout at most beside it")
        asked, folder = read_manifest(Path(resume)), Path(resume)
    else:
        asked = _asked(specs, source, names, **options)
        folder = default_folder(asked.plan, asked.source) if out is None else Path(out)
    kept = f"interrupted, what was run is kept in {folder}; the same command goes on"
    with interruptible(lambda: kept):
        comparison = _run(asked, folder, workers, timeout or TIMEOUT, quiet=as_json, progress=progress)
    if as_json:
        print(_json(comparison))
        return
    print(comparison.text.rstrip())
    print(f"\nin {folder}: {', '.join(comparison.files)}")


def _tasks(source: str | None, names: tuple[str, ...], quick: bool) -> tuple[str, ...]:
    from evolion.api import check_task

    if (source is None) == (not names):
        raise click.UsageError("name a set with --set, or tasks with --task, one of the two")
    if source is None:
        for name in names:
            check_task(name)
        return tuple(dict.fromkeys(names))
    from evolion.proxies.sets import get_set

    try:
        tasks = get_set(source).tasks
    except ValueError as error:
        raise InputError(str(error)) from None
    return tasks[:QUICK_TASKS] if quick else tasks


def _variants(source: str | None, quick: bool) -> int:
    """Return how many held-out variants there are where nobody says."""
    from evolion.proxies.sets import get_set

    return VARIANTS if source is not None and get_set(source).locked and not quick else 0


def _asked(
    specs: tuple[str, ...],
    source: str | None,
    names: tuple[str, ...],
    *,
    variants: int | None,
    quick: bool,
    **options: Any,
) -> Manifest:
    from evolion.api import load
    from evolion.compare import variants_for
    from evolion.evaluators.protocol.plan import Manifest, PlanError, make_plan

    tasks = _tasks(source, names, quick)
    if not specs:
        raise click.UsageError("name at least one OPTIMIZER")
    twice = next((spec for i, spec in enumerate(specs) if spec in specs[:i]), None)
    if twice is not None:
        raise InputError(f"the optimizer {twice!r} stands there twice: name each once")
    programs = {spec: str(load(spec)) for spec in specs}
    count = _variants(source, quick) if variants is None else variants
    drawn = variants_for(programs.values(), tasks, count) if count else ()
    try:
        plan = make_plan(programs, (*tasks, *drawn), quick=quick, **options)
    except PlanError as error:
        raise InputError(str(error)) from None
    return Manifest(plan, source=source or "", variants=drawn)


def _run(
    asked: Manifest, folder: Path, workers: int | None, timeout: int, *, quiet: bool, progress: bool
) -> Comparison:
    from evolion.evaluators.environment import prepare

    prepare()
    from evolion.compare import compare, manifest_of
    from evolion.evaluators.factory import make_evaluator
    from evolion.evaluators.pool import Limits
    from evolion.view import view_on

    manifest = manifest_of(asked.plan, asked.source, asked.variants)
    for task, reason in manifest.missing.items():
        print(f"evolion: {task} is left out: {reason}", file=sys.stderr)

    def make() -> Evaluator:
        inline = workers == 1
        return make_evaluator(workers, limits=None if inline else Limits(job=timeout), inline=inline)

    with view_on(sys.stderr, quiet=quiet, lines=progress) as observer:
        return compare(manifest, folder, make, observer=observer)


def _json(found: Comparison) -> str:
    from evolion.report_tables import to_json

    return json.dumps({"folder": str(found.folder), "missing": dict(found.manifest.missing), **to_json(found.report)})
