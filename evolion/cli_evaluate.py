"""The command `evolion evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from evolion.cli_text import JSON, aligned

if TYPE_CHECKING:
    from evolion.evaluators.types import Evaluator
    from evolion.primitives.program import Program
    from evolion.proxies.score import Score

__all__ = ["evaluate"]

TUNING_SEED = 0
"""The seed of every tuning trial; the scores are on the seeds after it."""


@click.command()
@click.argument("specs", nargs=-1, required=True, metavar="PROGRAM...")
@click.option("--task", "names", multiple=True, required=True, metavar="NAME", help="A task; repeatable.")
@click.option("--seeds", type=click.IntRange(1), default=1, metavar="N", help="Training runs per score; 1 without it.")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Horizon; the task's own without it.")
@click.option("--tune", "count", type=click.IntRange(1), metavar="TRIALS", help="Tune each program first.")
@JSON
def evaluate(
    specs: tuple[str, ...], names: tuple[str, ...], seeds: int, steps: int | None, count: int | None, as_json: bool
) -> None:
    """Train tasks with programs and print the losses.

    Without --tune the best learning rate of the task's grid counts, on seeds 0 to N-1. With it, learning rate and,
    where the program has it, weight_decay are tuned on seed 0, the same number of trials for each program, and the
    score is on seeds 1 to N.
    """
    from evolion.api import check_task, load

    programs = [load(spec) for spec in specs]
    for name in names:
        check_task(name)
    from evolion.evaluators.environment import prepare
    from evolion.evaluators.inline import InlineEvaluator

    rows = []
    prepare()
    with InlineEvaluator() as evaluator:
        for name in names:
            scored = _scored(programs, name, steps, seeds, count, evaluator)
            rows += [{"task": name, "program": spec} | row for spec, row in zip(specs, scored, strict=True)]
    print(json.dumps(rows) if as_json else "\n".join(_table(rows)))
    if any(row["status"] not in ("ok", "diverged") for row in rows):
        raise click.exceptions.Exit(1)


def _scored(
    programs: Sequence[Program], task: str, steps: int | None, seeds: int, count: int | None, evaluator: Evaluator
) -> list[dict[str, Any]]:
    from evolion.api import collected, evaluate, tasks
    from evolion.evaluators.types import Job
    from evolion.metric import metric_of
    from evolion.tuning import best_trial, trials

    if count is None:
        scores = evaluate(programs, task, steps=steps, seeds=range(seeds), evaluator=evaluator)
        return [_data(score) for score in scores]
    steps = tasks()[task].steps if steps is None else steps
    points = [trials(program, task, steps, count) for program in programs]
    jobs = [
        Job(number, point.program, task, steps, (TUNING_SEED,), (point.learning_rate,))
        for number, point in enumerate(point for row in points for point in row)
    ]
    values = [metric_of(score, "loss") for score in collected(jobs, evaluator)]
    tuned = [best_trial(row, values[i * count : (i + 1) * count]) for i, row in enumerate(points)]
    fresh = tuple(range(TUNING_SEED + 1, TUNING_SEED + 1 + seeds))
    jobs = [Job(number, best.program, task, steps, fresh, (best.learning_rate,)) for number, best in enumerate(tuned)]
    return [
        _data(score)
        | {
            "hyperparameters": {h.name: h.value for h in best.program.hyperparameters},
            "trials": best.trials,
            "trials_diverged": best.diverged,
            "tuned_at_edge": best.at_edge,
        }
        for score, best in zip(collected(jobs, evaluator), tuned, strict=True)
    ]


def _data(score: Score) -> dict[str, Any]:
    return {
        "status": score.status.value,
        "loss": score.loss,
        "train_loss": score.train_loss,
        "learning_rate": score.learning_rate,
        "steps": score.steps,
        "seconds": score.seconds,
        "curve": score.curve,
        "runs": [{"seed": run.seed, "learning_rate": run.learning_rate, "loss": run.loss} for run in score.runs],
        "message": score.message,
    }


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    head = ("task", "program", "status", "loss", "train loss", "learning rate", "weight decay", "note")
    lines = [
        (
            row["task"],
            row["program"],
            row["status"],
            number(row["loss"]),
            number(row["train_loss"]),
            number(row["learning_rate"]),
            number(row.get("hyperparameters", {}).get("weight_decay")),
            "best at the edge of the tuning box" if row.get("tuned_at_edge") else row["message"],
        )
        for row in rows
    ]
    table = [head, *lines]
    # A column that says nothing about any program is left out.
    kept = [column for column in zip(*table, strict=True) if set(column[1:]) - {"", "-"}]
    return aligned(list(zip(*kept, strict=True)))
