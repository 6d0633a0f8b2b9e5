"""Runs with a stub evaluator that stop in the middle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stub_evaluator import StubEvaluator, stub_score

from evolion.config import AblationConfig, RetestConfig, RetestTask, RunConfig
from evolion.driver import discover, resume
from evolion.evaluators.score_keys import execution_key
from evolion.evaluators.types import Job, Score
from evolion.store import RunStore


class Stopped(BaseException):
    """What ends a driver that is interrupted."""


def short(config: RunConfig) -> RunConfig:
    """A run with the smallest retest that there is."""
    retest = RetestConfig(
        finalists=1, trials=1, seeds=2, baselines=("sgd",), tasks=(RetestTask("digits-mlp", steps=9),)
    )
    return replace(config, retest=retest, ablation=AblationConfig(enabled=False))


def stopping(after: int | None, shuffle: int | None = None) -> StubEvaluator:
    """An evaluator that ends the driver once it has answered so many jobs; None for never."""
    evaluator = StubEvaluator(shuffle=shuffle)
    collect, answered = evaluator.collect, 0

    def collected(timeout: float | None = None) -> list[tuple[Job, Score]]:
        nonlocal answered
        if after is not None and answered >= after:
            raise Stopped
        found = collect(timeout)
        answered += len(found)
        return found

    evaluator.collect = collected  # type: ignore[method-assign]
    return evaluator


def begun(config: RunConfig, folder: Path, *, after: int | None, shuffle: int | None = None) -> Path:
    """Begin a run, and stop it after so many answers if it comes so far."""
    with suppress(Stopped):
        discover(config, folder, evaluator=stopping(after, shuffle))
    return folder


def resumed(folder: Path, *overrides: str, after: int | None = None, shuffle: int | None = None) -> bool:
    """Take up a run; return whether it came to its end."""
    try:
        resume(folder, evaluator=stopping(after, shuffle), overrides=overrides)
    except Stopped:
        return False
    return True


def exact_score(job: Job) -> Score:
    """As `stub_score`, with last digits that hang on the program as it is executed, like those of a true training."""
    score = stub_score(job)
    if score.loss is None:
        return score
    factor = 1.0 + 1e-9 * hashlib.sha256(execution_key(job.program).encode()).digest()[0]
    runs = tuple(replace(run, loss=run.loss and run.loss * factor) for run in score.runs)
    return replace(score, loss=score.loss * factor, curve=(score.loss * factor,), runs=runs)


@contextmanager
def exact_scores(interval: int | None = None) -> Iterator[None]:
    """Let stubs give exact scores inside the block, and searches write a checkpoint every `interval` candidates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stub_evaluator.stub_score", exact_score)
        if interval is not None:
            patch.setattr("evolion.funnel.interval", lambda told: interval)
        yield


def events(folder: Path) -> list[str]:
    """The kinds of the events of a run."""
    with RunStore.open(folder, readonly=True) as run:
        return [event.kind for event in run.events()]


def record(folder: Path, name: str) -> Any:
    """A record of a run."""
    with RunStore.open(folder, readonly=True) as run:
        return run.get_record(name)
