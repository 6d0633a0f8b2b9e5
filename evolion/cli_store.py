"""The commands `evolion store …`: what a store of scores holds, whether it is sound, what may go."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from evolion.cli_text import JSON, aligned, size_text
from evolion.errors import InputError

if TYPE_CHECKING:
    from evolion.evaluators.score_store import ScoreStore
    from evolion.evaluators.score_upkeep import Group, Holdings, Merged, Trial

__all__ = ["store"]

_FILE = click.argument("file", required=False, envvar="EVOLION_STORE", metavar="[FILE]")
_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_DAY = 86400.0


@click.group(invoke_without_command=True)
@click.pass_context
def store(context: click.Context) -> None:
    """Look after the scores that runs share: ls, verify, merge, gc.

    A store is the file that `evolion search --store FILE` fills. Without FILE it is the one that the environment
    variable EVOLION_STORE names. Each command takes --json.
    """
    if context.invoked_subcommand is None:
        raise click.UsageError("a command is missing: choose one of ls, verify, merge, gc (see evolion store --help)")


@store.command(name="ls")
@_FILE
@JSON
def list_scores(file: str | None, as_json: bool) -> None:
    """Say what a store holds, by task and by what the scores were made with."""
    from evolion.evaluators.score_upkeep import holdings

    with _opened(file, readonly=True) as opened:
        found = holdings(opened)
    if as_json:
        print(json.dumps(_described(str(opened.path), found)))
        return
    saved = f"; {found.saved:,.0f} s saved by reusing {found.reused:,}" if found.reused else ""
    print(
        f"{opened.path}: {found.scores:,} scores of {found.programs:,} programs, {size_text(found.size)}, "
        f"{found.seconds:,.0f} s of training{saved}"
    )
    if not found.groups:
        return
    numbers = {text: str(n) for n, text in enumerate(dict.fromkeys(group.origin for group in found.groups), 1)}
    head = ("task", "numerics", "scores", "programs", "training", "oldest", "newest")
    rows = [head, *(_row(group, numbers[group.origin]) for group in found.groups)]
    print("\n".join(["", *aligned(rows), "", *(f"numerics {n}: {text}" for text, n in numbers.items())]))


def _row(group: Group, number: str) -> tuple[str, ...]:
    seconds = f"{group.seconds:,.1f} s"
    return (
        group.task,
        number,
        f"{group.scores:,}",
        f"{group.programs:,}",
        seconds,
        _day(group.oldest),
        _day(group.newest),
    )


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _described(file: str, found: Holdings) -> dict[str, Any]:
    return {
        "file": file,
        "bytes": found.size,
        "scores": found.scores,
        "programs": found.programs,
        "seconds": found.seconds,
        "reused": found.reused,
        "saved_seconds": found.saved,
        "groups": [
            {
                "task": group.task,
                "numerics": group.origin,
                "scores": group.scores,
                "programs": group.programs,
                "seconds": group.seconds,
                "oldest": group.oldest,
                "newest": group.newest,
            }
            for group in found.groups
        ],
    }


@store.command()
@_FILE
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Also train N of the programs again and compare.")
@click.option("--seed", type=click.IntRange(0), default=0, metavar="N", help="Which ones: of the draw, 0 without it.")
@JSON
def verify(file: str | None, sample: int | None, seed: int, as_json: bool) -> None:
    """Read every score of a store, and say what is damaged.

    With --sample, scores that were made with the numerics of this machine and version are computed again and compared
    bit for bit. Exit status 1 if anything is damaged or differs.
    """
    from evolion.evaluators.score_upkeep import damages, holdings

    with _opened(file, readonly=True) as opened:
        problems = list(damages(opened))
        counted = None if problems else holdings(opened)
        trials, elsewhere = ([], None) if problems or not sample else _sampled(opened, sample, seed)
    different = [trial for trial in trials if not trial.same]
    if as_json:
        said: dict[str, Any] = {"file": str(opened.path), "scores": counted.scores if counted else None}
        said |= {"problems": problems, "trained": len(trials), "different": [_difference(trial) for trial in different]}
        print(json.dumps(said | {"not_checkable": elsewhere}))
    else:
        lines = [f"{opened.path}: {problem}" for problem in problems]
        if counted:
            lines.append(f"{opened.path}: {counted.scores:,} scores of {counted.programs:,} programs, sound")
        if elsewhere is not None:
            lines.append(
                f"{len(trials):,} trained again, {len(different):,} of them differ; {elsewhere:,} scores were made "
                "with other numerics or on other tasks and cannot be checked here"
            )
        print("\n".join([*lines, *map(_difference, different)]))
    if problems or different:
        raise click.exceptions.Exit(1)


@store.command()
@click.argument("file", metavar="FILE")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@JSON
def merge(file: str, sources: tuple[str, ...], as_json: bool) -> None:
    """Put the scores of runs, finished or not, and of other stores into a store; it is made where there is none.

    A SOURCE is a run folder or a store. Scores stay with the numerics and code that made them; nothing is trained.
    Timeouts and crashes say as much about a machine as about a program and are left out. Where the store holds another
    score already, that one stays. Exit status 1 if there was such a conflict.
    """
    from evolion.evaluators.score_upkeep import Merged

    total, rows = Merged(), []
    with _opened(file, create=True) as opened:
        for source in sources:
            found, unreached = _merged(opened, source)
            total = total.plus(found)
            counts = {"new": found.new, "known": found.known, "refused": found.refused, "unreached": unreached}
            rows.append({"source": source, **counts, "conflicts": list(found.conflicts)})
    if as_json:
        print(json.dumps({"file": file, "sources": rows}))
    else:
        for row in rows:
            print(_merge_line(row))
        print("\n".join([f"{file}: {total.new:,} new scores", *total.conflicts]))
    if total.conflicts:
        raise click.exceptions.Exit(1)


def _merged(opened: ScoreStore, source: str) -> tuple[Merged, int]:
    from evolion.evaluators.score_store import ScoreStore
    from evolion.evaluators.score_upkeep import entries_of, merge

    if os.path.isdir(source):
        from evolion.run_scores import scores_of_run

        entries, unreached = scores_of_run(source)
        return merge(opened, entries), unreached
    with ScoreStore.open(source, readonly=True) as other:
        return merge(opened, entries_of(other)), 0


def _merge_line(row: dict[str, Any]) -> str:
    parts = [f"{row['new']:,} new", f"{row['known']:,} known"]
    parts += [f"{row['refused']:,} timeouts and crashes left out"] if row["refused"] else []
    parts += [f"{len(row['conflicts']):,} conflicts"] if row["conflicts"] else []
    if row["unreached"]:
        parts.append(f"{row['unreached']:,} left out, as this version comes to other candidates or has other tasks")
    return f"{row['source']}: {', '.join(parts)}"


def _sampled(opened: ScoreStore, count: int, seed: int) -> tuple[list[Trial], int]:
    """Return the scores that were computed again, and the number of those that cannot be on this machine."""
    from evolion.evaluators.environment import prepare
    from evolion.evaluators.score_upkeep import retrained, tasks_of

    prepare()
    from evolion.evaluators.inline import inline_evaluator
    from evolion.evaluators.score_keys import origin
    from evolion.evaluators.types import Job, Score

    with inline_evaluator() as evaluator:

        def train(job: Job) -> Score:
            evaluator.submit(job)
            return evaluator.collect()[0][1]

        here, digests = origin(evaluator.numerics), tasks_of(opened, _digest)[0]
        trials = list(retrained(opened, here, digests, count, seed, train))
        rows = opened.rows()
        return trials, sum(row.origin != here or row.task_digest not in digests for row in rows)


def _difference(trial: Trial) -> str:
    row, stored, trained = trial.row, trial.stored, trial.trained
    return (
        f"score {row.number}, {row.task}, {row.steps:,} steps: stored {stored.status.value} {stored.loss!r}, "
        f"trained again {trained.status.value} {trained.loss!r}; its program:\n{row.program}"
    )


def _digest(name: str) -> str | None:
    """Return the digest of a task, None if there is no such task, an empty text if its data is not here."""
    from evolion.proxies.data.source import DataError
    from evolion.proxies.registry import get_spec, get_task

    try:
        get_spec(name)
    except ValueError:
        return None
    try:
        return get_task(name).digest
    except DataError:
        return ""


def _bytes(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|B|kB|MB|GB)", value, re.ASCII)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a size: write 500kB, 20MB or 2GB", context, parameter)
    return int(float(found[1]) * _UNITS[found[2]])


@store.command()
@_FILE
@click.option("--other-numerics", is_flag=True, help="Scores that runs of this machine and version cannot use.")
@click.option("--older-than", type=click.FloatRange(0), metavar="DAYS", help="Scores that were made before.")
@click.option("--unknown-tasks", is_flag=True, help="Scores of tasks that are no more, or have changed.")
@click.option(
    "--keep-bytes", callback=_bytes, metavar="SIZE", help="The oldest, until about SIZE (such as 200MB) is left."
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@JSON
def gc(
    file: str | None,
    other_numerics: bool,
    older_than: float | None,
    unknown_tasks: bool,
    keep_bytes: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove scores of a store and give the space back; runs may go on meanwhile.

    With several options, what any of them names goes.
    """
    from evolion.evaluators.score_upkeep import doomed, holdings, remove, tasks_of

    if not (other_numerics or unknown_tasks or older_than is not None or keep_bytes is not None):
        raise click.UsageError("say what goes: --other-numerics, --older-than, --unknown-tasks or --keep-bytes")
    with _opened(file, readonly=dry_run) as opened:
        before = holdings(opened)
        numbers = doomed(
            opened,
            keep_origin=_origin_here() if other_numerics else None,
            made_before=None if older_than is None else time.time() - older_than * _DAY,
            unknown_digests=sorted(tasks_of(opened, _digest)[1]) if unknown_tasks else (),
            keep_bytes=keep_bytes,
        )
        gone = len(numbers) if dry_run else remove(opened, numbers)
        after = holdings(opened)
    if as_json:
        said = {"file": str(opened.path), "removed": gone, "dry_run": dry_run}
        print(json.dumps(said | {"bytes_before": before.size, "bytes_after": None if dry_run else after.size}))
        return
    ends = "would go" if dry_run else f"removed; {size_text(before.size)} have become {size_text(after.size)}"
    print(f"{opened.path}: {gone:,} of {before.scores:,} scores {ends}")


def _origin_here() -> str:
    from evolion.evaluators.environment import numerics_tag, prepare
    from evolion.evaluators.score_keys import origin

    prepare()
    return origin(numerics_tag())


@contextmanager
def _opened(file: str | None, *, readonly: bool = False, create: bool = False) -> Iterator[ScoreStore]:
    """Open a store; what is wrong with it is something that the caller gave."""
    from evolion.evaluators.score_store import ScoreStore, StoreError

    if file is None:
        raise click.UsageError("name the store, such as scores.sqlite, or set the environment variable EVOLION_STORE")
    try:
        with ScoreStore.open(file, readonly=readonly, create=create) as opened:
            yield opened
    except StoreError as error:
        raise InputError(str(error)) from None
