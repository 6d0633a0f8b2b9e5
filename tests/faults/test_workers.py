"""Whole runs whose workers hang, crash and are killed: what comes out is what an undisturbed run would give."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from faults.faulty_jobs import (
    FAULTS,
    LIMITS,
    MARKS,
    QUARANTINED,
    disturbed_score,
    expected_score,
    fault_of,
    faulty_score,
    named_fault,
    sound_score,
)
from laws.evaluator_laws import job, run
from laws.job_functions import fixed_tag
from run_contents import contents
from stub_evaluator import stub_config

from evolion.config import AblationConfig, RetestConfig, RetestTask, RunConfig
from evolion.driver import discover
from evolion.evaluators.inline import inline_evaluator
from evolion.evaluators.pool import Limits
from evolion.evaluators.processes import process_evaluator
from evolion.evaluators.types import Job, Score
from evolion.primitives.parser import parse

BUDGET = 90
SEED = 6  # where candidates have faults of every kind


def config(budget: int) -> RunConfig:
    """A search, and little after it."""
    retest = RetestConfig(finalists=1, trials=2, seeds=2, tasks=(RetestTask("digits-mlp", steps=40),))
    return replace(stub_config(budget, seed=SEED), retest=retest, ablation=AblationConfig(enabled=False))


def undisturbed(folder: Path, function: Callable[[Job], Score], budget: int) -> Path:
    """A run whose scores are said in this process."""
    with inline_evaluator(function=function, tag=fixed_tag) as evaluator:
        discover(config(budget), folder, evaluator=evaluator)
    return folder


@contextmanager
def killer(marks: Path) -> Iterator[list[int]]:
    """Something outside that sends kill -9 to each process that waits for it; gives the list of those killed."""
    killed: list[int] = []
    seen: set[Path] = set()
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(0.02):
            for mark in set(marks.iterdir()) - seen:
                process = mark.read_text(encoding="ascii")
                if process.endswith("\n"):
                    os.kill(int(process), signal.SIGKILL)
                    killed.append(int(process))
                    seen.add(mark)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def test_every_way_to_ruin_a_worker_is_contained() -> None:
    """What a job does to its worker, as far as we could think of it, is answered; the jobs beside it get scores."""
    kinds = list(FAULTS)
    jobs = [job(2 * number, kind.__name__) for number, kind in enumerate(kinds)]
    sound = [job(2 * number + 1) for number in range(len(kinds))]
    with process_evaluator(2, limits=Limits(**LIMITS), function=named_fault, tag=fixed_tag) as evaluator:
        scores = run(evaluator, [item for pair in zip(jobs, sound, strict=True) for item in pair])
    assert {kind.__name__: replace(scores[2 * number], seconds=0.0) for number, kind in enumerate(kinds)} == {
        kind.__name__: score for kind, score in FAULTS.items()
    }
    assert all(scores[item.number] == sound_score(item) for item in sound)


@pytest.mark.slow
def test_candidates_that_ruin_their_workers_cost_themselves_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Candidates that hang, leave, crash or fill the memory, in a search: each gets its status, the run its result."""
    caplog.set_level(logging.WARNING)
    with process_evaluator(2, limits=Limits(**LIMITS), function=faulty_score, tag=fixed_tag) as evaluator:
        discover(config(BUDGET), tmp_path / "faulty", evaluator=evaluator)
        status = evaluator.status
    reference = undisturbed(tmp_path / "said", expected_score, BUDGET)
    found = contents(tmp_path / "faulty")

    assert found == contents(reference)
    done = {fault_of(parse(candidate.text)) for candidate in found["candidates"] if candidate.probe_status == "ok"}
    assert done >= set(FAULTS), "a kind of fault is missing"
    assert status.timeouts
    assert status.over_memory
    assert status.quarantined
    kept = [parse(text) for name, text in found["files"].items() if name.startswith("quarantine")]
    assert len(kept) > 0
    assert all(FAULTS[act] == QUARANTINED for act in map(fault_of, kept) if act)


def test_workers_killed_in_the_middle_of_jobs_change_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 of most workers of a run, each while it computes: no candidate is lost, none is scored otherwise."""
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv(MARKS, str(marks))
    with (
        killer(marks) as killed,
        process_evaluator(2, limits=Limits(job=60.0), function=disturbed_score, tag=fixed_tag) as evaluator,
    ):
        discover(config(30), tmp_path / "killed", evaluator=evaluator)
        status = evaluator.status

    assert contents(tmp_path / "killed") == contents(undisturbed(tmp_path / "said", sound_score, 30))
    assert len(killed) == len(set(killed)) > 5
    assert (status.deaths, status.timeouts) == (len(killed), 0)
    assert sum("died (killed by SIGKILL)" in text for text in caplog.messages) == len(killed)
