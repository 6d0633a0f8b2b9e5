"""What a score belongs to, and scores as JSON."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from evolion.primitives.dataflow import data_flow, remove_dead_code
from evolion.primitives.program import Program
from evolion.proxies.score import Run, Score, Status

__all__ = ["ScoreKey", "dump_score", "executed", "execution_key", "origin", "read_score"]


@dataclass(frozen=True, slots=True)
class ScoreKey:
    """What a score belongs to; equal keys have equal scores.

    `behaviour` and `task_digest` are hexadecimal digits, `numerics` is the evaluator's tag.
    """

    behaviour: str
    task_digest: str
    steps: int
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]
    split: str
    numerics: str


def executed(program: Program) -> Program:
    """Return a program as evaluators execute it: without dead code and without what is said about it."""
    return replace(remove_dead_code(program), docstring="", comments=())


def execution_key(program: Program) -> str:
    """Return a digest of what an evaluator executes, as 32 hexadecimal digits.

    Equal keys have equal scores, bit for bit, wherever the rest of what a score belongs to is equal as well. Names of
    intermediate values, dead code and comments do not count, all else does: two programs of one structural key may
    differ in the order of statements or of commutative arguments, which decides what is computed in one instruction,
    and so in the last bits.
    """
    program = remove_dead_code(program)
    flow = data_flow(program)
    operations = [
        [statement.op, *map(repr, r)] for statement, r in zip(program.statements, flow.arguments, strict=True)
    ]
    said = [
        program.protected,
        [str(parameter) for parameter in program.parameters],
        [[hyperparameter.name, repr(hyperparameter.value)] for hyperparameter in program.hyperparameters],
        operations,
        repr(flow.update),
        [[slot, repr(reference)] for slot, reference in flow.next_slots.items()],
    ]
    return blake2b(json.dumps(said, separators=(",", ":")).encode(), digest_size=16).hexdigest()


_ROOMS = ("primitives", "proxies", "evaluators")
_PACKAGES = ("numpy", "flax")


def origin(numerics: str) -> str:
    """Return what a score of another run must share to be this run's: the evaluator's tag, and the code that computes.

    A tag is enough within a run, which one version of the code makes. From run to run the code changes, and with it the
    last bits.
    """
    return "; ".join([numerics, *(f"{name} {version(name)}" for name in _PACKAGES), f"code {_code()}"])


@cache
def _code() -> str:
    """Return a digest of the sources of the rooms that compute scores, 16 hexadecimal digits."""
    digest = blake2b(digest_size=8)
    for room in _ROOMS:
        folder = Path(str(import_module(f"evolion.{room}").__file__)).parent
        for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
            content = path.read_bytes()
            digest.update(f"{room}/{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


_SINGLE = "float32"
_json = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps makes one for each value


def _dump_curve(curve: tuple[float, ...]) -> Any:
    """Write the losses of single runs, which are of single precision, in the half as many digits that they need."""
    if array("f", curve).tolist() != list(curve):
        return curve
    return {_SINGLE: [float(str(value)) for value in np.asarray(curve, np.float32)]}


def _read_curve(curve: Any) -> tuple[float, ...]:
    if isinstance(curve, dict):
        return tuple(np.asarray(curve[_SINGLE], np.float32).tolist())
    return tuple(curve)


def dump_score(score: Score) -> str:
    """Write a score as compact JSON; `read_score` gives it back exactly."""
    runs = [[run.learning_rate, run.seed, run.status.value, run.loss, run.train_loss, run.steps] for run in score.runs]
    fields: dict[str, Any] = {
        "status": score.status.value,
        "loss": score.loss,
        "curve": _dump_curve(score.curve),
        "steps": score.steps,
        "seconds": score.seconds,
        "train_loss": score.train_loss,
        "learning_rate": score.learning_rate,
        "runs": runs,
        "message": score.message,
    }
    return _json(fields)


def read_score(text: str) -> Score:
    """Read a score that `dump_score` wrote."""
    fields = json.loads(text)
    runs = tuple(
        Run(rate, seed, Status(status), loss, train_loss, steps)
        for rate, seed, status, loss, train_loss, steps in fields.pop("runs")
    )
    status, curve = Status(fields.pop("status")), _read_curve(fields.pop("curve"))
    return Score(status=status, curve=curve, runs=runs, **fields)
