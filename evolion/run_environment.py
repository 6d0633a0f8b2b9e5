"""What computes the scores of a run: its evaluator, and whether that is what the run was begun with."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evolion.config import RunConfig
from evolion.errors import InputError, JobError, RunError
from evolion.evaluators.score_keys import origin
from evolion.evaluators.types import Evaluator, EvaluatorUnavailable
from evolion.store import RunStore

_DECIDING = ("checkpoints", "confirmations", "funnel", "memos", "search_settings", "standings")
"""Modules of the face that have a say in which candidates a search tries and what it is told."""

_LIBRARIES = ("cmaes", "moocore")

__all__ = ["check_devices", "check_environment", "environment_of", "open_evaluator"]


@contextmanager
def open_evaluator(
    given: Evaluator | None,
    workers: int | None,
    ray: str | None,
    batch: int | None,
    config: RunConfig,
    begun: Mapping[str, str] | None = None,
) -> Iterator[Evaluator]:
    """Return what evaluates for a run, and close it at the end unless it was given; see `evolion.driver.discover`.

    `begun`: what `environment_of` gave when the run was begun. Of a cluster of several kinds of machines, those are
    used that compute like that.

    Raises:
        InputError: If it cannot be had as it is asked for.
        JobError: If it fails later on.

    """
    if given is not None:
        yield given
        return
    from evolion.evaluators.factory import make_evaluator
    from evolion.evaluators.pool import Limits

    classes = [one.worker_class() for one in config.workers]
    if batch is not None and (workers, ray) != (None, None):
        raise InputError("a batch is trained in one process on one device: it goes with neither workers nor ray")
    if batch is not None and len(classes) > 1:
        raise InputError("a batch is trained on one device, and the configuration names several classes of workers")
    tasks = [stage.task for stage in config.stages] + [tested.task for tested in config.retest.tasks]
    try:
        limits = Limits(job=config.timeout, memory=config.memory * 2**20 or None)
        if batch is not None:
            made = make_evaluator(batch=batch)
        else:
            names = {device: _numerics_name(device) for device in ("", *_devices(config))}
            numerics = {device: begun[name] for device, name in names.items() if begun and name in begun}
            made = make_evaluator(workers, ray, classes=classes, limits=limits, tasks=tasks, numerics=numerics)
    except (EvaluatorUnavailable, ValueError) as error:
        raise InputError(str(error)) from None
    try:
        yield made
    except EvaluatorUnavailable as error:
        raise JobError(str(error)) from None
    finally:
        made.close()


def environment_of(evaluator: Evaluator, config: RunConfig) -> dict[str, str]:
    """Return what a run notes of where it was made: versions, and what decides the last bits of its scores.

    `origin` names the code too: a run that goes on after an update of the sources would mix scores of two codes.
    """
    packages = ("evolion", "jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")
    versions = {name: version(name) for name in packages}
    return versions | {
        "python": platform.python_version(),
        "numerics": evaluator.numerics,
        "origin": origin(evaluator.numerics),
        "decisions": decisions(),
        **{_numerics_name(device): evaluator.numerics_of(device) for device in _devices(config)},
    }


@cache
def decisions() -> str:
    """Return what decides which candidates a search tries: a digest of the code, and versions of what it rests on.

    Stored candidates are not asked for again, so that nothing else would notice that another code goes on with a run.
    """
    digest = blake2b(digest_size=8)
    search = Path(str(import_module("evolion.search").__file__)).parent
    own = [Path(__file__).with_name(f"{name}.py") for name in _DECIDING]
    for path in (*sorted(search.rglob("*.py"), key=lambda path: path.relative_to(search).as_posix()), *own):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return "; ".join([f"search {digest.hexdigest()}", *(f"{name} {version(name)}" for name in _LIBRARIES)])


def _devices(config: RunConfig) -> list[str]:
    """Return the classes of workers that stages name, but for the default one."""
    return sorted({stage.device for stage in config.stages} - {""})


def _numerics_name(device: str) -> str:
    return f"numerics of {device}" if device else "numerics"


def check_devices(evaluator: Evaluator, config: RunConfig) -> list[dict[str, Any]]:
    """Have the classes of workers that a run mixes pass the gate of scores; return what it said, for JSON.

    Raises:
        InputError: If one does not compute as the default class does.

    """
    if not _devices(config):
        return []
    from evolion.evaluators.device_gate import gate_devices, refusal

    rows = gate_devices(evaluator, [(stage.device, stage.task) for stage in config.stages])
    if refused := refusal(rows):
        raise InputError(refused)
    return [row.to_json() for row in rows]


def check_environment(run: RunStore, working: Evaluator) -> None:
    """Raise RunError if scores that are worked out here would not be those of the machine and code that began a run.

    Runs that do not say which code began them, as older versions made them, are compared by their numerics alone.
    """
    for device in ["", *_devices(run.config)]:
        began = run.environment.get(_numerics_name(device))
        if began != working.numerics_of(device):
            of = f" of its workers of class {device!r}" if device else ""
            raise RunError(
                f"the run {run.folder} was begun with other numerics{of} and cannot be continued here: "
                f"it has {began!r}, this is {working.numerics_of(device)!r}"
            )
    for name, here in (("origin", origin(working.numerics)), ("decisions", decisions())):
        there = run.environment.get(name, here)
        if there == here:
            continue
        parts = there.split("; "), here.split("; ")
        had, has = ("; ".join(part for part in one if part not in other) for one, other in (parts, parts[::-1]))
        raise RunError(
            f"the run {run.folder} was begun by other code and cannot be continued by this: it has {had!r}, "
            f"this is {has!r}; go back to the version that began it, or start another run (what this one holds can "
            "still be read)"
        )
