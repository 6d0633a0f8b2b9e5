"""The commands about programs and tasks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evolion.errors import InputError

if TYPE_CHECKING:
    from evolion.primitives.program import Program
    from evolion.proxies.score import Score

__all__ = ["COMMANDS"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_PROGRAM = click.argument("spec", metavar="PROGRAM")


@click.command()
@_JSON
def known(as_json: bool) -> None:
    """List the reference programs."""
    from evolion.api import known

    programs = {name: _described(program) for name, program in known().items()}
    if as_json:
        print(json.dumps(programs))
        return
    rows = [(name, f"{len(p['slots'])} slots", f"{p['statements']} ops", p["summary"]) for name, p in programs.items()]
    print("\n".join(_aligned(rows)))


@click.command()
@_JSON
def tasks(as_json: bool) -> None:
    """List the proxy tasks."""
    from evolion.api import tasks

    found = {
        name: {
            "summary": task.summary,
            "steps": task.steps,
            "batch_size": task.batch_size,
            "learning_rates": task.learning_rates,
            "floor": task.floor,
            "digest": task.digest,
        }
        for name, task in tasks().items()
    }
    if as_json:
        print(json.dumps(found))
        return
    rows = [(name, f"{t['steps']} steps of {t['batch_size']}", str(t["summary"])) for name, t in found.items()]
    print("\n".join(_aligned(rows)))


@click.command()
@_PROGRAM
@_JSON
def show(spec: str, as_json: bool) -> None:
    """Print the text of a program; with --json its properties and keys as well."""
    from evolion.api import key, load

    program = load(spec)
    if not as_json:
        print(program, end="")
        return
    keys = {
        "behaviour": key(program),
        "behaviour_up_to_lr": key(program, up_to_lr=True),
        "structure": key(program, kind="structure"),
    }
    print(json.dumps(_described(program) | {"text": str(program), "keys": keys}))


@click.command()
@_PROGRAM
@_JSON
def simplify(spec: str, as_json: bool) -> None:
    """Print a program without what no update depends on."""
    from evolion.api import load, simplify

    program = load(spec)
    shorter = simplify(program)
    if as_json:
        counts = {"statements": len(shorter.statements), "statements_before": len(program.statements)}
        print(json.dumps({"text": str(shorter)} | counts))
    else:
        print(shorter, end="")


@click.command()
@click.argument("specs", nargs=-1, required=True, metavar="PROGRAM...")
@click.option("--task", "names", multiple=True, required=True, metavar="NAME", help="A task; repeatable.")
@click.option("--seeds", type=click.IntRange(1), default=1, metavar="N", help="Seeds 0 to N-1; 1 without it.")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Horizon; the task's own without it.")
@click.option("--tune", "trials", type=click.IntRange(1), metavar="TRIALS", help="Tune each program first.")
@_JSON
def evaluate(
    specs: tuple[str, ...], names: tuple[str, ...], seeds: int, steps: int | None, trials: int | None, as_json: bool
) -> None:
    """Train tasks with programs and print the losses.

    Without --tune the best learning rate of the task's grid counts. With it, learning rate and, where the program has
    it, weight_decay are tuned on the validation split, the same number of trials for each program; the score is then on
    seeds that the tuning did not see.
    """
    from evolion.api import check_task, load

    programs = [load(spec) for spec in specs]
    for name in names:
        check_task(name)
    rows = []
    for name, spec, score in _scores(specs, programs, names, steps, seeds, trials):
        rows.append({"task": name, "program": spec} | _score_data(score))
    if as_json:
        print(json.dumps(rows))
    else:
        print("\n".join(_score_table(rows)))
    if any(row["status"] not in ("ok", "diverged") for row in rows):
        raise click.exceptions.Exit(1)


def _scores(
    specs: Sequence[str],
    programs: list[Program],
    names: Sequence[str],
    steps: int | None,
    seeds: int,
    trials: int | None,
) -> Iterator[tuple[str, str, Score]]:
    from evolion.api import evaluate
    from evolion.evaluators.inline import InlineEvaluator

    with InlineEvaluator() as evaluator:
        for name in names:
            scores = evaluate(programs, name, steps=steps, seeds=range(seeds), evaluator=evaluator)
            yield from ((name, spec, score) for spec, score in zip(specs, scores, strict=True))


def _score_data(score: Score) -> dict[str, Any]:
    return {
        "status": score.status.value,
        "loss": score.loss,
        "train_loss": score.train_loss,
        "learning_rate": score.learning_rate,
        "steps": score.steps,
        "seconds": score.seconds,
        "curve": score.curve,
        "message": score.message,
    }


def _score_table(rows: list[dict[str, Any]]) -> list[str]:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    head = ("task", "program", "status", "loss", "train loss", "learning rate", "steps")
    lines = [
        (
            row["task"],
            row["program"],
            row["status"],
            number(row["loss"]),
            number(row["train_loss"]),
            number(row["learning_rate"]),
            str(row["steps"]),
        )
        for row in rows
    ]
    return _aligned([head, *lines])


@click.command()
@_PROGRAM
@click.option("--to", "target", required=True, type=click.Choice(["optax", "text"]), help="What is written.")
@click.option("-o", "--output", metavar="FILE", help="A new file; standard output without it.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@_JSON
def export(spec: str, target: str, output: str | None, force: bool, as_json: bool) -> None:
    """Write a program as a module that needs jax and optax alone, or as its text."""
    from evolion.api import load
    from evolion.discovered.optax_source import to_source

    program = load(spec)
    try:
        source = to_source(program, target, name=_identifier(spec))
    except ValueError:
        source = to_source(program, target)  # a name that means something in the module or in Python
    if output is not None:
        _write(Path(output), source, force)
    if as_json:
        print(json.dumps({"program": spec, "target": target, "file": output, "source": source}))
    elif output is None:
        print(source, end="")
    else:
        print(f"wrote {output}")


def _identifier(spec: str) -> str:
    """Return what an exported optimizer is called: the known name, or that of the file or run."""
    name = re.sub(r"\W+", "_", Path(spec).stem, flags=re.ASCII).strip("_").lower()
    return name if name.isidentifier() else "optimizer"


def _write(path: Path, text: str, force: bool) -> None:
    from evolion.run_files import write_atomically

    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    try:
        if force:
            write_atomically(path, text)
        else:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except FileExistsError:
        raise InputError(f"{path} exists; choose another file or add --force") from None
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def _described(program: Program) -> dict[str, Any]:
    return {
        "summary": program.docstring.partition("\n")[0],
        "inputs": program.inputs,
        "slots": {slot.name: str(slot.kind) for slot in program.slots},
        "hyperparameters": {h.name: h.value for h in program.hyperparameters},
        "statements": len(program.statements),
        "protected": program.protected,
    }


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lay out rows of equal length in columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


COMMANDS = (known, tasks, show, simplify, evaluate, export)
"""What `evolion.cli` adds to its own commands."""
