"""Programs side by side: equal trials, fresh seeds, paired differences, and what the numbers hide said in words."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from stub_evaluator import StubEvaluator

from evolion.api import load
from evolion.cli import run
from evolion.evaluators.types import Job, Score
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.progress import Progress
from evolion.proxies.curvature import Curvature
from evolion.proxies.score import Run, Status
from evolion.ranking import Plan, compare, render, to_json

TASKS = ("digits-mlp", "zipf-lm")
QUALITY = {"sgd": 3.0, "adamw": 2.0, "lion": 1.0}


@dataclass
class Evaluator(StubEvaluator):
    """Losses by program, seed and distance of the rate from its best; shared noise by seed."""

    lost: frozenset[int] = frozenset()
    best_rate: float = 0.01
    progress: list[Progress] = field(default_factory=list)

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        return [(job, self._score(job)) for job, _ in super().collect(timeout)]

    def on_progress(self, progress: Progress) -> None:
        self.progress.append(progress)

    def _score(self, job: Job) -> Score:
        quality = next((q for name, q in QUALITY.items() if like(job.program, load(name))), 4.0)
        runs = tuple(
            Run(rate, seed, Status.DIVERGED, None, None, 1)
            if seed in self.lost
            else Run(rate, seed, Status.OK, loss := quality + 0.1 * seed + rate, loss / 2, job.steps)
            for rate in job.learning_rates
            for seed in job.seeds
        )
        chosen = [one for one in runs if one.learning_rate == min(job.learning_rates)]
        losses = [one.loss for one in chosen if one.loss is not None]
        if len(losses) < len(chosen):
            return Score(Status.DIVERGED, None, (), 1, 0.0, runs=runs, message="training diverged")
        mean = sum(losses) / len(losses)
        return Score(Status.OK, mean, (mean,), job.steps, 0.0, mean / 2, min(job.learning_rates), runs)


def like(one: Program, other: Program) -> bool:
    """Whether two programs differ in their weight decay alone."""
    names = {h.name for h in one.hyperparameters}
    return one == (
        other.with_hyperparameters(weight_decay=next(h.value for h in one.hyperparameters if h.name == "weight_decay"))
        if "weight_decay" in names and "weight_decay" in {h.name for h in other.hyperparameters}
        else other
    )


def plan(*specs: str, **options: Any) -> Plan:
    programs = tuple(load(spec) for spec in specs)
    return Plan(specs, programs, **({"tasks": ("digits-mlp",), "seeds": 3, "steps": 20, "trials": 4} | options))


def test_every_program_has_as_many_trials_and_the_same_seeds() -> None:
    """Tuning is on seed 0 and the validation split, the score on later seeds and the test split."""
    evaluator = Evaluator()
    entries = compare(plan("sgd", "adamw", "lion"), evaluator, evaluator)
    tuning = [job for job in evaluator.seen if job.seeds == (0,)]
    scored = [job for job in evaluator.seen if job.seeds != (0,)]
    assert [job.split for job in tuning] == ["validation"] * 12
    assert [(job.seeds, job.split) for job in scored] == [((1, 2, 3), "test")] * 3
    assert all(len(job.learning_rates) == 1 for job in evaluator.seen)
    assert [entry.tuned and entry.tuned.trials for entry in entries] == [4] * 3
    assert [len(entry.rows) for entry in entries] == [4] * 3
    for entry, job in zip(entries, scored, strict=True):
        best = min(entry.rows, key=lambda row: row["loss"] or 9e9)
        assert job.learning_rates == (best["learning_rate"],)
    assert [(p.phase.value, p.done, p.total) for p in evaluator.progress][:: len(tuning)] == [
        ("tuning", 1, 12),
        ("retest", 1, 3),
    ]


def test_ranks_and_differences() -> None:
    """The best is first; differences are from adamw, paired by seed, so that what seeds share drops out."""
    evaluator = Evaluator()
    sgd, adamw, lion = compare(plan("sgd", "adamw", "lion"), evaluator, evaluator)
    assert [entry.rank for entry in (sgd, adamw, lion)] == [3, 2, 1]
    assert adamw.difference is None
    assert lion.difference is not None
    assert lion.difference.high - lion.difference.low < 1e-9
    assert lion.difference.mean == pytest.approx(lion.losses[0] - adamw.losses[0])
    assert lion.train_difference is not None
    text = render(plan("sgd", "adamw", "lion"), [sgd, adamw, lion])
    assert text.index("1  lion") < text.index("2  adamw") < text.index("3  sgd")
    assert "lion against adamw, test loss: better (-1." in text
    assert "mean over 3 seeds ± 95 % interval, each program tuned with 4 trials" in text


def test_the_first_is_the_reference_where_there_is_no_adamw() -> None:
    """The reference does not hang on the outcome."""
    evaluator = Evaluator()
    sgd, lion = compare(plan("sgd", "lion"), evaluator, evaluator)
    assert sgd.difference is None
    assert lion.difference is not None


def test_a_lost_seed_has_no_rank_and_no_difference() -> None:
    """Divergence is a status, not a number; the others keep their order."""
    evaluator = Evaluator(lost=frozenset((2,)))
    entries = compare(plan("sgd", "adamw"), evaluator, evaluator)
    assert [(e.rank, e.losses, e.difference) for e in entries] == [(None, (), None)] * 2
    assert "diverged: training diverged" in render(plan("sgd", "adamw"), entries)
    everything = Evaluator(lost=frozenset((0,)))
    (entry,) = compare(plan("sgd"), everything, everything)
    assert entry.notes[-1] == "4 of 4 trials diverged"
    assert [row["loss"] for row in entry.rows] == [None] * 4


def notes(spec: str, program: Program | None = None, **options: Any) -> tuple[str, ...]:
    evaluator = Evaluator()
    made = Plan((spec,), (program or load(spec),), **({"tasks": ("digits-mlp",), "steps": 20, "trials": 8} | options))
    (entry,) = compare(made, evaluator, evaluator)
    return entry.notes


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("sgd", "no weight decay to tune"),
        ("mechanic_sgd", "finds its learning rate itself"),
        ("prodigy", "finds its learning rate itself"),
        ("dog", "finds its learning rate itself"),
        ("dadapt_adam", "left at its default"),
        ("adamw", "edge of the box (learning rate, low"),
        ("sophia_h", "hess: hutchinson every 10 steps, which costs 30% more gradients"),
    ],
)
def test_what_the_numbers_hide_is_said(spec: str, words: str) -> None:
    """What was not tuned, what lies at the edge of the box and what costs more than a gradient a step."""
    assert any(words in note for note in notes(spec))


def test_a_program_without_anything_to_tune_is_trained_once() -> None:
    """Equal trials are one training run; the note says that there was nothing to choose."""
    evaluator = Evaluator()
    made = Plan(("mine",), (parse("def train(g):\n    return 0.01 * g\n"),), ("digits-mlp",), trials=8, steps=20)
    (entry,) = compare(made, evaluator, evaluator)
    assert len(evaluator.seen) == 2
    assert len(entry.rows) == 8
    assert entry.notes == ("no learning rate to tune", "no weight decay to tune")


def test_without_tuning_the_grid_decides() -> None:
    """The best rate of the task's grid, on seeds from 0 and the validation split, with the same intervals."""
    evaluator = Evaluator()
    made = plan("sgd", "lion", trials=None, curvature=Curvature(period=2))
    entries = compare(made, evaluator, evaluator)
    assert [(job.seeds, job.split, len(job.learning_rates)) for job in evaluator.seen] == [
        ((0, 1, 2), "validation", 3)
    ] * 2
    assert [len(entry.losses) for entry in entries] == [3, 3]
    assert all(job.curvature == Curvature(period=2) for job in evaluator.seen)
    data = [to_json(made, entry) for entry in entries]
    assert data[0]["trials"] is None
    assert data[1]["verdict"] == "better"


def test_tasks_stand_one_after_the_other() -> None:
    """Each task has ranks, differences and a table of its own."""
    evaluator = Evaluator()
    made = plan("adamw", "lion", trials=None, tasks=TASKS)
    entries = compare(made, evaluator, evaluator)
    assert [(entry.task, entry.program, entry.rank) for entry in entries] == [
        (task, *rest) for task in TASKS for rest in (("adamw", 2), ("lion", 1))
    ]
    text = render(made, entries)
    assert text.index("digits-mlp, 20 steps") < text.index("lion against adamw") < text.index("zipf-lm, 20 steps")


def test_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """Trials with their rates, losses of each seed, intervals and verdicts."""
    arguments = ["evaluate", "sgd", "adamw", "--task", "digits-mlp", "--steps", "3", "--tune", "3", "--seeds", "2"]
    assert run([*arguments, "--json", "--workers", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    sgd, adamw = json.loads(captured.out)
    assert [set(trial) for trial in adamw["tuning"]] == [{"learning_rate", "weight_decay", "loss"}] * 3
    assert [one["seed"] for one in sgd["runs"]] == [1, 2]
    assert sgd["loss_interval"]["low"] < sgd["loss"] < sgd["loss_interval"]["high"]
    assert sgd["difference"]["mean"] == pytest.approx(sgd["loss"] - adamw["loss"])
    assert {sgd["rank"], adamw["rank"]} == {1, 2}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], (None, True)),
        (["--tune", "2"], (None, False)),
        (["--workers", "1", "--tune", "2"], (1, True)),
        (["--workers", "3"], (3, False)),
    ],
)
def test_work_is_spread_over_processes(
    options: list[str], expected: tuple[int | None, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tuning takes all processors unless told otherwise; one worker is this process."""
    asked = []

    def maker(workers: int | None, *, inline: bool) -> StubEvaluator:
        asked.append((workers, inline))
        return Evaluator()

    monkeypatch.setattr("evolion.evaluators.factory.make_evaluator", maker)
    assert run(["evaluate", "sgd", "--task", "digits-mlp", "--steps", "3", *options]) == 0
    assert asked == [expected]


@pytest.mark.parametrize(
    ("options", "word"),
    [(["--workers", "0"], "--workers"), (["--hess", "exact"], "--hess"), (["--hess-every", "0"], "--hess-every")],
)
def test_bad_options_are_one_line(options: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad usage is said before anything is trained."""
    assert run(["evaluate", "adamw", "--task", "digits-mlp", *options]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert word in captured.err


def test_progress_is_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A log sees how far it is; standard output has the table alone."""
    assert run(["evaluate", "sgd", "--task", "digits-mlp", "--steps", "3", "--progress"]) == 0
    captured = capsys.readouterr()
    assert "1/1" in captured.err
    assert "evolion:" not in captured.out
