"""The command line: `evolion`.

Exit status 0: done; 1: the job failed or was interrupted; 2: bad usage or input, one line on standard error.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evolion.cli_compare import compare
from evolion.cli_data import data
from evolion.cli_evaluate import evaluate
from evolion.cli_interrupt import Interrupted, interruptible
from evolion.cli_programs import COMMANDS
from evolion.cli_report import report
from evolion.cli_runs import fork
from evolion.cli_store import store
from evolion.cli_text import JSON
from evolion.errors import InputError, JobError

if TYPE_CHECKING:
    from evolion.driver import Result

__all__ = ["main"]

_WORKERS = click.option("--workers", type=click.IntRange(1), metavar="N", help="Workers; as many as CPUs without it.")
_PROGRESS = click.option("--progress", is_flag=True, help="Write a plain line now and then, for a log.")
_LOG = click.option("--log", metavar="FILE", help="The log, as JSON lines; log.jsonl in the run folder without it.")
_TENSORBOARD = click.option(
    "--tensorboard", is_flag=True, help="Write event files for TensorBoard into the folder tensorboard of the run."
)
_TENSORBOARD_DIR = click.option("--tensorboard-dir", metavar="DIR", help="Write event files into this folder.")
_STORE = click.option(
    "--store",
    envvar="EVOLION_STORE",
    metavar="FILE",
    help="Scores that runs share; made where there is none. Without it $EVOLION_STORE, else none.",
)
_BATCH = click.option(
    "--batch",
    type=click.IntRange(1),
    metavar="N",
    help="Train so many candidates at a time on one device instead of workers: on a GPU with JAX_PLATFORMS=cuda.",
)
_RAY = click.option("--ray", metavar="ADDRESS|local", help="Work on a Ray cluster, or on one started here.")


@click.group()
def cli() -> None:
    """Discover, simplify, compare and export neural-network optimizers.

    PROGRAM is a known name (see `evolion known`), the path of a program text, RUN_DIR for the program that a run
    ended with, or RUN_DIR:ID for a candidate of a run.
    """


@cli.command()
@click.argument("config", required=False, metavar="[CONFIG.toml]")
@click.option("--out", required=True, metavar="DIR", help="The run folder, new or empty.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Such as search.budget=500; repeatable.")
@_WORKERS
@_RAY
@_BATCH
@_STORE
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), metavar="N", help="The seed of the search.")
@_PROGRESS
@_LOG
@_TENSORBOARD
@_TENSORBOARD_DIR
@JSON
def search(
    config: str | None,
    out: str,
    overrides: tuple[str, ...],
    workers: int | None,
    ray: str | None,
    batch: int | None,
    store: str | None,
    seed: int | None,
    progress: bool,
    log: str | None,
    tensorboard: bool,
    tensorboard_dir: str | None,
    as_json: bool,
) -> None:
    """Search for an optimizer, retest it beside the baselines, export it."""
    from evolion.cli_watch import Watching, observed
    from evolion.config_text import read_config
    from evolion.run_files import check_free

    settings = read_config(config, overrides, seed=seed).pinned()
    check_free(Path(out))
    from evolion.driver import discover
    from evolion.evaluators.environment import prepare

    prepare()
    if batch is not None and batch > settings.search.lag + 1:
        held = settings.search.lag + 1
        click.echo(
            f"search.lag lets {held} candidates be in flight: for a full batch --set search.lag={batch}", err=True
        )
    options: dict[str, Any] = {"workers": workers, "ray": ray, "batch": batch, "store": store}
    watching = Watching.of(out, as_json, progress, log, tensorboard, tensorboard_dir)
    with interruptible(lambda: _kept(out)), observed(watching, "search") as observer:
        result = discover(settings, Path(out), observer=observer, **options)
    _print_result(result, as_json)


@cli.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="search.budget=N with a larger N, or workers.0.cpus=2 and the like; repeatable.",
)
@_WORKERS
@_RAY
@_BATCH
@_STORE
@_PROGRESS
@_LOG
@_TENSORBOARD
@_TENSORBOARD_DIR
@JSON
def resume(
    folder: str,
    overrides: tuple[str, ...],
    workers: int | None,
    ray: str | None,
    batch: int | None,
    store: str | None,
    progress: bool,
    log: str | None,
    tensorboard: bool,
    tensorboard_dir: str | None,
    as_json: bool,
) -> None:
    """Continue an interrupted run; print the table of a finished one.

    With --set search.budget=N a run, finished or not, goes on to the end that it would have had with that budget.
    """
    from evolion.cli_watch import Watching, observed
    from evolion.continuation import continued_config
    from evolion.store import RunStore

    with RunStore.open(folder, readonly=True) as run:  # what cannot go on is said before anything heavy loads
        continued_config(run.config, overrides)
    from evolion.driver import resume
    from evolion.evaluators.environment import prepare

    prepare()
    options: dict[str, Any] = {"workers": workers, "ray": ray, "batch": batch, "store": store, "overrides": overrides}
    watching = Watching.of(folder, as_json, progress, log, tensorboard, tensorboard_dir)
    with interruptible(lambda: _kept(folder)), observed(watching, "resume") as observer:
        result = resume(Path(folder), observer=observer, **options)
    _print_result(result, as_json)


@cli.command()
@click.argument("folder", metavar="DIR")
@click.option("--watch", "watched", is_flag=True, help="Go on saying it until the run is finished, or Ctrl-C.")
@click.option("--interval", type=click.FloatRange(0.1), default=2.0, show_default=True, metavar="SECONDS")
@JSON
def status(folder: str, watched: bool, interval: float, as_json: bool) -> None:
    """Say how far a run is, whether or not a process is at it; with --json --watch a line of JSON each time."""
    from evolion.run_status import status_lines, status_of
    from evolion.store import RunStore

    if watched:
        from evolion.cli_watch import watch

        with suppress(KeyboardInterrupt):
            watch(Path(folder), sys.stdout, interval=interval, as_json=as_json)
        return
    with RunStore.open(folder, readonly=True) as store:
        data = status_of(store)
    print(json.dumps(data) if as_json else "\n".join(status_lines(data)))


for command in (*COMMANDS, data, store, evaluate, compare, report, fork):
    cli.add_command(command)


def _print_result(result: Result, as_json: bool) -> None:
    from evolion.run_report import attempt_report

    report = attempt_report(result.folder)
    if as_json:
        print(json.dumps(result.to_json() | {"report": str(report) if report else None}))
    else:
        print(result)
        if report is not None:
            print(report)


def _kept(folder: str) -> str:
    """Say what a stopped run has kept, and how it goes on."""
    started = Path(folder, "run.sqlite").exists()
    return f"interrupted, what was scored is kept{f'; continue with: evolion resume {folder}' if started else ''}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    try:
        code = cli.main(args=arguments, prog_name="evolion", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError:
        return _complain(
            f"a command is missing: choose one of {', '.join(cli.commands)} (evolion --help explains them)"
        )
    except click.ClickException as error:
        return _complain(error.format_message())
    except InputError as error:
        return _complain(str(error))
    except ValueError as error:
        from evolion.primitives.program import ProgramError
        from evolion.proxies.data.source import DataError

        if not isinstance(error, ProgramError | DataError):
            raise
        return _complain(str(error))
    except JobError as error:
        print(f"evolion: error: {_one_line(error)}", file=sys.stderr)
    except click.Abort:  # a RuntimeError too
        print("evolion: interrupted", file=sys.stderr)
    except RuntimeError as error:
        from evolion.evaluators.types import EvaluatorUnavailable

        if not isinstance(error, EvaluatorUnavailable):
            raise
        return _complain(str(error))
    except Interrupted as error:
        print(f"evolion: {error}", file=sys.stderr)
    except BrokenPipeError:
        # The reader of a pipe has gone; Python would complain once more when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ConnectionError as error:
        return _complain(str(error))
    except (OSError, sqlite3.Error) as error:
        print(f"evolion: error: {error}", file=sys.stderr)
    return 1


def _complain(message: str) -> int:
    print(f"evolion: error: {_one_line(message)}", file=sys.stderr)
    return 2


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
