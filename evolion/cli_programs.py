"""The commands about programs and tasks."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evolion.cli_text import JSON, aligned
from evolion.errors import InputError, JobError

if TYPE_CHECKING:
    from evolion.discovered.certificate import Certificate
    from evolion.primitives.program import Program

__all__ = ["COMMANDS"]

_PROGRAM = click.argument("spec", metavar="PROGRAM")
_LIFT = click.option("--lift", is_flag=True, help="Name recognised constants: hyperparameters instead of numbers.")


@click.command()
@click.option("--class", "only", metavar="CLASS", help="Those of one class alone, such as elementwise or matrix.")
@JSON
def known(only: str | None, as_json: bool) -> None:
    """List the reference programs.

    Each with its class, its state slots by kind, operations per parameter of a 1024 x 1024 matrix, and year.
    """
    from evolion.api import known
    from evolion.discovered.classes import CLASSES

    if only not in (None, *CLASSES):
        raise InputError(f"there is no class {only!r}; there are: {', '.join(CLASSES)}")
    programs = {name: _listed(program) for name, program in known().items()}
    found = {name: p for name, p in programs.items() if only in (None, p["class"])}
    if as_json:
        print(json.dumps(found))
        return
    rows = [("name", "class", "slots", "operations", "year", "summary")]
    for name, p in found.items():
        paid = f"{p['cost']['operations'] + p['cost']['matrix_operations']:.4g}"
        rows.append((name, p["class"], _kinds(p["slots"]), paid, str(p["year"] or ""), p["summary"]))
    print("\n".join(aligned(rows)))


@click.command()
@click.option("--vocabulary", type=click.Choice(["lion", "full"]), default="full", help="Those that a search may draw.")
@JSON
def ops(vocabulary: str, as_json: bool) -> None:
    """List the functions that programs are made of."""
    from evolion.op_table import described, usage
    from evolion.primitives.ops import OPS, VOCABULARIES

    found = [OPS[name] for name in VOCABULARIES[vocabulary]]
    if as_json:
        print(json.dumps({op.name: described(op) for op in found}))
        return
    print("\n".join(aligned([(usage(op), op.summary) for op in found])))


@click.command()
@click.option("--set", "source", metavar="NAME", help="Only the tasks of a set, such as search.")
@click.option("--digests", is_flag=True, help="With digests and parameters, for which all data is made.")
@JSON
def tasks(source: str | None, digests: bool, as_json: bool) -> None:
    """List the proxy tasks, or those of a set: steps and batch, what each may be used for, model and data.

    A task whose data is not on this machine says so. Names take modifiers: zipf-lm:10x, digits-mlp:width=2.
    """
    found = {name: _told(name, digests) for name in _task_names(source)}
    if as_json:
        print(json.dumps(found))
        return
    rows = [
        (name, f"{t['steps']:,} x {t['batch_size']}", str(t["family"]), str(t["purpose"]), _noted(t))
        for name, t in found.items()
    ]
    print("\n".join(aligned(rows)))


def _task_names(source: str | None) -> Sequence[str]:
    from evolion.proxies.registry import SPECS
    from evolion.proxies.sets import get_set

    try:
        return list(SPECS) if source is None else get_set(source).tasks
    except ValueError as error:
        raise InputError(str(error)) from None


def _told(name: str, digests: bool) -> dict[str, Any]:
    from evolion.proxies.data.source import DataMissing
    from evolion.proxies.registry import get_spec, get_task

    spec = get_spec(name)
    told = {**asdict(spec), "missing": None}
    if digests:
        try:
            task: Any = get_task(name)
            told |= {"digest": task.digest, "floor": task.floor, "parameters": task.parameters}
        except DataMissing as error:
            told["missing"] = str(error)
    return told


def _noted(told: Mapping[str, Any]) -> str:
    missing = f" (left out: {told['missing']})" if told["missing"] else ""
    return f"{told['summary']}{missing}"


@click.command()
@_PROGRAM
@_LIFT
@JSON
def show(spec: str, lift: bool, as_json: bool) -> None:
    """Print the text of a program and, as comments, a report on it; with --json its keys as well."""
    from evolion.api import key, load
    from evolion.program_report import program_report

    program = _lifted(load(spec), lift)
    report = program_report(program)
    if not as_json:
        print(program)
        print("\n".join(f"# {line}" for line in aligned(report.rows())))
        return
    keys = {
        "behaviour": key(program),
        "behaviour_up_to_lr": key(program, up_to_lr=True),
        "structure": key(program, kind="structure"),
    }
    print(json.dumps(_described(program) | {"text": str(program), "keys": keys, "report": report.as_json()}))


@click.command()
@_PROGRAM
@click.option("--approximate", is_flag=True, help="Use rules that hold but for rounding and single points as well.")
@JSON
def simplify(spec: str, approximate: bool, as_json: bool) -> None:
    """Print a program in fewer statements, and on standard error which rules made it so.

    Without --approximate every update stays the same, bit for bit.
    """
    from evolion.api import load
    from evolion.primitives.simplify import simplified

    program = load(spec)
    done = simplified(program, exact=not approximate)
    before, after = len(program.statements), len(done.program.statements)
    if as_json:
        counts = {"statements": after, "statements_before": before, "fired": dict(done.fired)}
        print(json.dumps({"text": str(done.program)} | counts))
        return
    print(done.program, end="")
    rows = [(f"{count} x", what) for what, count in done.fired]
    print("\n".join([f"{before} statements -> {after}", *(aligned(rows) if rows else [])]), file=sys.stderr)


@click.command()
@_PROGRAM
@click.option("--to", "target", required=True, help="What is written: optax, text, …")
@click.option("-o", "--output", metavar="FILE", help="A new file; standard output without it.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--verify", is_flag=True, help="Run the module beside the interpreter; its docstring says how it went.")
@_LIFT
@JSON
def export(spec: str, target: str, output: str | None, force: bool, verify: bool, lift: bool, as_json: bool) -> None:
    """Write a program as a module that needs no Evolion, or as its text.

    With --verify nothing is written unless the module computes what the program does.
    """
    from evolion.api import load
    from evolion.discovered.optax_source import TARGETS

    if target not in TARGETS:
        raise InputError(f"there is no export target {target!r}; there are: {', '.join(TARGETS)}")
    program = _lifted(load(spec), lift)
    source, name = _source(program, target, _identifier(spec))
    certificate = None
    if verify:
        if output is not None:
            _check(Path(output), force)
        source, certificate = _verified(program, target, source, name)
    if output is not None:
        _write(Path(output), source, force)
    if as_json:
        written = {"program": spec, "target": target, "file": output, "source": source}
        print(json.dumps(written | ({"certificate": certificate.as_json()} if certificate else {})))
    elif output is None:
        print(source, end="")
    else:
        print("\n".join([*(certificate.lines() if certificate else []), f"wrote {output}"]))


def _source(program: Program, target: str, name: str) -> tuple[str, str]:
    """Return the source of an export, and the name of the optimizer in it."""
    from evolion.discovered.optax_source import to_source

    try:
        return to_source(program, target, name=name), name
    except ValueError:  # a name that means something in the module or in Python
        return to_source(program, target), "optimizer"


def _verified(program: Program, target: str, source: str, name: str) -> tuple[str, Certificate]:
    """Return a source with its certificate; JobError where it has none."""
    from evolion.discovered.certificate import RUNNERS, CertificateError, certified, certify

    if target not in RUNNERS:
        raise InputError(f"--verify runs exported modules, and {target} is none; it is for {', '.join(RUNNERS)}")
    try:
        certificate = certify(program, target, source, name)
    except CertificateError as error:
        raise JobError(str(error)) from None
    except ImportError as error:
        raise InputError(str(error)) from None
    return certified(source, certificate), certificate


def _lifted(program: Program, wanted: bool) -> Program:
    from evolion.primitives.lifting import lift

    return lift(program) if wanted else program


def _identifier(spec: str) -> str:
    """Return what an exported optimizer is called: the known name, or that of the file or run."""
    name = re.sub(r"\W+", "_", Path(spec).stem, flags=re.ASCII).strip("_").lower()
    return name if name.isidentifier() else "optimizer"


def _check(path: Path, force: bool) -> None:
    """Refuse what cannot be written before any work is done for it."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    if path.exists() and not force:
        raise InputError(f"{path} exists; choose another file or add --force")


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


def _listed(program: Program) -> dict[str, Any]:
    from evolion.discovered.classes import class_of, year
    from evolion.primitives.cost import cost

    return _described(program) | {"class": class_of(program), "year": year(program), "cost": asdict(cost(program))}


def _kinds(slots: Mapping[str, str]) -> str:
    """Say how many slots there are of each kind; those of a number per parameter are the bare number."""
    counts = Counter(slots.values())
    parts = [
        str(count) if kind == "tensor" else f"{count} {kind}" for kind, count in sorted(counts.items(), key=_first)
    ]
    return " + ".join(parts) or "0"


def _first(item: tuple[str, int]) -> tuple[bool, str]:
    return item[0] != "tensor", item[0]


COMMANDS = (known, ops, tasks, show, simplify, export)
"""What `evolion.cli` adds to its own commands."""
