"""A run that begins with the candidates of another one, up to one of them, and goes its own way from there."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from evolion.checkpoints import RECORD, asked_at
from evolion.config import RunConfig, program_of
from evolion.config_text import to_toml, with_overrides
from evolion.confirmations import confirmation_seeds
from evolion.errors import ConfigError, RunError
from evolion.evaluators.stages import counting
from evolion.funnel import stage_of
from evolion.memos import forget_after
from evolion.proxies.registry import get_task
from evolion.run_database import Database
from evolion.run_files import DATABASE, UNFINISHED, check_format, check_free, locked
from evolion.run_formats import BEGAN, upgrade
from evolion.search_settings import algorithm_of
from evolion.store import RunStore

__all__ = ["FORK_EVENT", "fork", "forked_config"]

FORK_EVENT = "fork"
"""The first event of a fork: the run that it comes from, the last candidate that they share, what was set."""

_SHARED = ("timeout", "memory", "stages", "confirmation", "search.warm_start", "search.lag", "search.alike")
"""What the outcomes of candidates hang on."""


def forked_config(config: RunConfig, number: int, overrides: Sequence[str]) -> RunConfig:
    """Return the configuration of a fork.

    With another seed the draws of the search and the seeds of the retest are others. Those of the confirmations stay,
    so that all candidates meet the same.

    Args:
        config: That of the run that is forked.
        number: The last candidate that both share.
        overrides: KEY=VALUE pairs for what may change.

    Raises:
        ConfigError: If an override changes what the candidates that both share hang on, or the budget ends before them.

    """
    wanted = with_overrides(config, overrides).pinned()
    for key in _SHARED:
        if attrgetter(key)(wanted) != attrgetter(key)(config):
            raise ConfigError(
                f"--set {key}: a fork shares candidates with the run that it comes from, so what their scores and "
                "outcomes hang on stays; seed, search.… (but for warm_start, lag and alike), proposer.…, retest.…, "
                "ablation.… and workers.… may change"
            )
    if wanted.search.budget <= number:
        raise ConfigError(
            f"search.budget: candidates 0 to {number:,} are there already; for {wanted.search.budget:,} fork earlier"
        )
    if wanted.seed != config.seed and config.confirmation.seed is None:
        wanted = replace(wanted, confirmation=replace(config.confirmation, seed=config.seed))
    return wanted


def fork(source: Path | str, number: int, out: Path | str, *, overrides: Sequence[str] = ()) -> RunConfig:
    """Make a run that shares candidates 0 to `number` of another with it; `resume` takes it on from there.

    The other run may be finished, interrupted or under way: what the fork holds hangs on the number alone. Candidates
    that were asked for before candidate `number` was told, and have larger numbers, are asked for again.

    Args:
        source: The folder of the run that is forked.
        number: The last candidate that both share; it must have been told.
        out: The new folder.
        overrides: As in `forked_config`.

    Returns:
        The configuration of the fork.

    Raises:
        InputError: If there is no such run or candidate, the folder is taken, or an override changes what may not.

    """
    out = Path(out)
    with RunStore.open(source, readonly=True) as run:
        if run.outcome(number) is None:
            raise RunError(_untold(run, number))
        config = forked_config(run.config, number, overrides)
        algorithm_of(config, program_of(config.search.warm_start))  # it may refuse the warm start
        check_free(out)
        try:
            out.mkdir(parents=True, exist_ok=True)
            with locked(out):
                check_free(out)
                for leftover in out.glob(f"{UNFINISHED}*"):
                    leftover.unlink()
                _copy(run, out / UNFINISHED, number, config, overrides)
                os.replace(out / UNFINISHED, out / DATABASE)
        except (OSError, sqlite3.Error) as error:
            raise RunError(f"cannot fork {run.folder} into {out}: {error}") from None
    RunStore.open(out).close()  # which writes config.toml
    return config


def _untold(run: RunStore, number: int) -> str:
    told = run.counts().told
    known = f"its candidates 0 to {told - 1:,} were told so far" if told else "none of its candidates was told so far"
    return f"{run.folder} cannot be forked at candidate {number:,}: {known}"


def _copy(run: RunStore, path: Path, number: int, config: RunConfig, overrides: Sequence[str]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # At one moment of the run, even if its driver writes meanwhile.
        run.database.connection.backup(connection)
        version = check_format(connection, run.folder)
        upgrade(connection, version, len(run.config.stages), readonly=False)
        made = replace(run, folder=path.parent, config=config, database=Database(connection))
        with made.transaction():
            _cut(made, number)
            made.put_config(to_toml(config, run.environment))
            made.event(
                FORK_EVENT,
                {
                    "source": str(run.folder.absolute()),
                    "number": number,
                    "fingerprint": run.config.fingerprint(),
                    "set": list(overrides),
                },
            )
        connection.execute("VACUUM")
        connection.execute("PRAGMA journal_mode = DELETE")


def _cut(made: RunStore, number: int) -> None:
    """Remove what a run that has just told a candidate, and was alone with its numbers, would not hold."""
    write = made.database.write
    write("DELETE FROM candidates WHERE number > ?", (number,))
    write("DELETE FROM outcomes WHERE number > ?", (number,))
    _cut_scores(made)
    made.forget_confirmations(max(1, number + 1 - made.config.search.lag))
    forget_after(made.database, number)
    write("DELETE FROM events")
    write("DELETE FROM records WHERE name NOT IN ('config', ?, ?)", (BEGAN, RECORD))
    try:
        late = asked_at(made) > number + 1
    except (KeyError, TypeError, ValueError):
        late = True
    if late:
        made.forget_record(RECORD)


def _cut_scores(made: RunStore) -> None:
    """Keep the scores of stages that a candidate entered, and of confirmations that the run was told of.

    Later candidates shall find no others: programs that do the same up to rounding share scores, and which of them was
    trained must not hang on how far the other run had come.
    """
    write, stages = made.database.write, tuple(map(stage_of, made.config.stages))
    fresh = confirmation_seeds(made.config)
    write("CREATE TEMP TABLE kept (behaviour_key BLOB, budget INTEGER, PRIMARY KEY (behaviour_key, budget))")
    for place, stage in enumerate(stages):
        task = get_task(stage.task)
        for seeds, reached, rows in (
            (stage.seeds, range(place, len(stages)), "outcomes"),
            (fresh, [end for end in range(len(stages)) if place in counting(stages[: end + 1])], "confirmations"),
        ):
            ends = ", ".join(map(str, reached))
            chosen = "" if rows == "outcomes" else "JOIN confirmations USING (number)"
            write(
                "INSERT OR IGNORE INTO kept SELECT behaviour_key, budget FROM candidates "
                f"JOIN outcomes USING (number) {chosen} JOIN budgets ON task_digest = ? AND steps = ? AND seeds = ? "
                f"WHERE stage IN ({ends})",
                (task.digest, task.steps if stage.steps is None else stage.steps, json.dumps(seeds)),
            )
    write("DELETE FROM scores WHERE (behaviour_key, budget) NOT IN (SELECT behaviour_key, budget FROM kept)")
    write("DELETE FROM budgets WHERE budget NOT IN (SELECT budget FROM scores)")
    write("DROP TABLE kept")
