"""The command `evolion evaluate`."""

from __future__ import annotations

import json
import sys
from contextlib import closing

import click

from evolion.cli_text import JSON

__all__ = ["evaluate"]


@click.command()
@click.argument("specs", nargs=-1, required=True, metavar="PROGRAM...")
@click.option("--task", "names", multiple=True, required=True, metavar="NAME", help="A task; repeatable.")
@click.option("--seeds", type=click.IntRange(1), default=1, metavar="N", help="Training runs per score; 1 without it.")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Horizon; the task's own without it.")
@click.option("--tune", "count", type=click.IntRange(1), metavar="TRIALS", help="Tune each program first.")
@click.option(
    "--hess",
    "estimator",
    type=click.Choice(["hutchinson", "gauss-newton-bartlett"]),
    default="hutchinson",
    help="The estimate of the Hessian diagonal for programs that read it; hutchinson without it.",
)
@click.option("--hess-every", "period", type=click.IntRange(1), default=10, metavar="K", help="Steps that it is held.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes; with --tune as many as CPUs, else 1.")
@click.option("--progress", is_flag=True, help="Write a plain line now and then, for a log.")
@JSON
def evaluate(
    specs: tuple[str, ...],
    names: tuple[str, ...],
    seeds: int,
    steps: int | None,
    count: int | None,
    estimator: str,
    period: int,
    workers: int | None,
    progress: bool,
    as_json: bool,
) -> None:
    """Train tasks with programs and rank them by their loss.

    Without --tune the best learning rate of the task's grid counts, on seeds 0 to N-1 and the validation split. With
    it, learning rate and weight decay, where the program has them, are tuned on seed 0 and the validation split, the
    same number of trials for each program, and the score is on seeds 1 to N and the test split. Differences are from
    adamw if it is among the programs, else from the first, paired by seed.
    """
    from evolion.api import check_task, load

    programs = tuple(load(spec) for spec in specs)
    for name in names:
        check_task(name)
    from evolion.evaluators.environment import prepare

    prepare()
    from evolion.evaluators.factory import make_evaluator
    from evolion.proxies.curvature import Curvature, Estimator
    from evolion.ranking import Plan, compare, render, to_json
    from evolion.view import view_on

    curvature = Curvature(Estimator(estimator), period)
    plan = Plan(specs, programs, tuple(dict.fromkeys(names)), seeds, steps, count, curvature)
    inline = workers == 1 or (workers is None and count is None)
    with (
        closing(make_evaluator(workers, inline=inline)) as evaluator,
        view_on(sys.stderr, quiet=as_json, lines=progress) as observer,
    ):
        entries = compare(plan, evaluator, observer)
    print(json.dumps([to_json(plan, entry) for entry in entries]) if as_json else render(plan, entries))
    if any(entry.score.status.value not in ("ok", "diverged") for entry in entries):
        raise click.exceptions.Exit(1)
