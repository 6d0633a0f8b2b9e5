"""After the search, with scores that are a known function of program, task and seed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from evolion.comparison import Row, render, table_from_json
from evolion.config import AblationConfig, RetestConfig, RetestTask, RunConfig
from evolion.discovered.library import known
from evolion.driver import ablation_lines
from evolion.evaluators.stages import Reason
from evolion.evaluators.types import Job, Score
from evolion.funnel import Finalist
from evolion.ledger import Ledger
from evolion.primitives.keys import behavioural_key, structural_key
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.progress import silent
from evolion.proxies.score import Run, Status
from evolion.records import CandidateRecord, Outcome
from evolion.retest import Retested, finalists_of, removals_to_json, retest
from evolion.store import RunStore

Loss = Callable[[Program, str], float | None]
"""The loss of a program on a task before noise of the seed; None where it diverges."""

TASKS = (RetestTask("digits-mlp", steps=40), RetestTask("zipf-lm", steps=40))
BASE = RunConfig(
    retest=RetestConfig(finalists=3, trials=4, seeds=3, baselines=("adamw", "lion"), tasks=TASKS),
    ablation=AblationConfig(seeds=2),
)

GOOD = """def train(w, g, m, lr, *, weight_decay=0.01):
    m = interp(g, m, 0.9)
    x = sign(m)
    y = sin(w)
    y = y * 0.01
    x = x + y
    z = weight_decay * w
    x = x + z
    x = x * 1.0
    return lr * x, m
"""
PLAIN = "def train(g, lr):\n    x = sign(g)\n    return lr * x\n"
CUBIC = "def train(g, lr):\n    x = cbrt(g)\n    return lr * x\n"


def features(program: Program, task: str) -> float | None:
    """A loss that sign, momentum, decay and the learning rate improve, and nothing else changes."""
    del task
    ops = {statement.op for statement in program.statements}
    decays = decay_of(program) is not None
    return 5.0 - 0.4 * ("sign" in ops) - 0.2 * ("interp" in ops) - 0.1 * decays - 0.5 * ("lr" in program.inputs)


@dataclass
class Judge:
    """An evaluator that trains nothing: the loss of a program, plus noise that all programs share on a seed."""

    loss: Loss
    numerics: str = "judge"
    workers: int = 1
    pending: list[Job] = field(default_factory=list)
    seen: list[Job] = field(default_factory=list)

    def numerics_of(self, device: str) -> str:
        return self.numerics

    def submit(self, job: Job) -> None:
        self.pending.append(job)
        self.seen.append(job)

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        jobs, self.pending = self.pending, []
        return [(job, self._score(job)) for job in jobs]

    def close(self) -> None: ...

    def _score(self, job: Job) -> Score:
        (seed,), (rate,) = job.seeds, job.learning_rates
        loss = self.loss(job.program, job.task)
        if loss is None:
            run = Run(rate, seed, Status.DIVERGED, None, None, 3)
            return Score(Status.DIVERGED, None, (), 3, 0.0, runs=(run,), message="diverged")
        loss += hashlib.sha256(repr((seed, job.task)).encode()).digest()[0] / 2560
        run = Run(rate, seed, Status.OK, loss, loss / 2, job.steps)
        return Score(Status.OK, loss, (loss,), job.steps, 0.0, loss / 2, rate, (run,))

    def jobs(self, first: int) -> list[Job]:
        """The jobs of a step, by where its seeds count from."""
        return [job for job in self.seen if first <= job.seeds[0] % 100_000 < first + 10_000]


TUNING, SELECTION, ABLATION, FINAL = 10_000, 20_000, 30_000, 40_000


def retested(
    folder: Path, texts: Sequence[str], loss: Loss = features, config: RunConfig = BASE
) -> tuple[Retested, Judge]:
    finalists = [Finalist(10 + i, parse(text), (0.0, float(i))) for i, text in enumerate(texts)]
    judge = Judge(loss)
    with RunStore.create(folder / f"run{config.seed}", config, {}) as store:
        return retest(config, finalists, Ledger(store, judge), silent()), judge


def with_retest(**options: Any) -> RunConfig:
    return replace(BASE, retest=replace(BASE.retest, **options))


def decay_of(program: Program) -> float | None:
    return next((h.value for h in program.hyperparameters if h.name == "weight_decay"), None)


def untuned(program: Program) -> Program:
    return program if decay_of(program) is None else program.with_hyperparameters(weight_decay=1.0)


def test_the_best_on_fresh_seeds_wins(tmp_path: Path) -> None:
    """Fitness of the search is selected and too good; the order of the finalists does not decide."""
    result, _ = retested(tmp_path, [CUBIC, PLAIN, GOOD])
    assert result.number == 12
    assert result.found == parse(GOOD)


def test_tasks_weigh_by_ratio(tmp_path: Path) -> None:
    """A finalist that wins a little on one task and loses much on the other is not chosen, whatever their scales."""

    def loss(program: Program, task: str) -> float:
        cubic = any(statement.op == "cbrt" for statement in program.statements)
        return {"digits-mlp": 0.02 if cubic else 0.4, "zipf-lm": 5.0 if cubic else 4.9}[task]

    assert retested(tmp_path, [PLAIN, CUBIC], loss)[0].number == 11


def test_ablation_keeps_what_counts_and_removes_the_rest(tmp_path: Path) -> None:
    """The winner loses what changes no loss, in full, and nothing else; each statement kept is said to be worth it."""
    result, judge = retested(tmp_path, [GOOD])
    assert {statement.op for statement in result.program.statements} == {"interp", "sign", "add", "multiply"}
    assert [h.name for h in result.program.hyperparameters] == ["weight_decay"]
    assert features(result.program, "digits-mlp") == features(parse(GOOD), "digits-mlp")
    assert len(result.program.statements) == len(parse(GOOD).statements) - 5
    kept = {removal.statement: removal.effects for removal in result.removals if not removal.removed}
    assert len(kept) == len(result.program.statements)
    for task in TASKS:
        effect = kept["x = sign(m)"][task.task]
        assert effect is not None
        assert effect == pytest.approx((0.4, 0.0), abs=1e-12)
    assert any(removal.removed for removal in result.removals)
    assert judge.jobs(ABLATION)


def test_what_does_the_same_is_removed_without_training(tmp_path: Path) -> None:
    """A factor of one costs no evaluation; the record says that the program does the same without it."""
    text = "def train(g, lr):\n    x = sign(g)\n    x = x * 1.0\n    return lr * x\n"
    result, judge = retested(tmp_path, [text])
    removal = next(removal for removal in result.removals if removal.removed)
    assert (removal.statement, removal.effects) == ("x = x * 1", {})
    assert result.program == parse(PLAIN)
    own = behavioural_key(parse(PLAIN))
    assert (
        max(Counter((behavioural_key(job.program), job.task, job.seeds) for job in judge.jobs(ABLATION)).values()) == 1
    )
    assert any(behavioural_key(job.program) == own for job in judge.jobs(ABLATION))


@dataclass
class NoisyJudge(Judge):
    """Programs without a cosine lose 0.03 on one seed of the ablation and win 0.01 on the other: 0.01 ± 0.02."""

    def _score(self, job: Job) -> Score:
        def loss(program: Program, task: str) -> float | None:
            known_loss = self.loss(program, task)
            cosine = any(statement.op == "cos" for statement in program.statements)
            return known_loss if known_loss is None or cosine else known_loss + (0.03, -0.01)[job.seeds[0] % 2]

        return Judge(loss)._score(job)


@pytest.mark.parametrize(("tolerance", "removed"), [(0.25, False), (1.0, True)])
def test_a_loss_within_noise_is_removed_and_one_beyond_is_kept(tmp_path: Path, tolerance: float, removed: bool) -> None:
    """The tolerance is in standard errors of the paired difference."""
    config = replace(BASE, ablation=AblationConfig(seeds=2, tolerance=tolerance))
    judge = NoisyJudge(lambda program, _: 4.5 if {"g", "lr"} <= set(program.inputs) else None)
    with RunStore.create(tmp_path / "run", config, {}) as store:
        text = "def train(g, lr):\n    x = cos(g)\n    return lr * x\n"
        result = retest(config, [Finalist(0, parse(text), (0.0,))], Ledger(store, judge), silent())
    removal = next(removal for removal in result.removals if removal.statement == "x = cos(g)")
    assert removal.effects["zipf-lm"] == pytest.approx((0.01, 0.02))
    assert removal.removed is removed
    assert any(statement.op == "cos" for statement in result.program.statements) is not removed


def test_seeds_of_the_steps_are_apart_and_the_test_split_is_used_once(tmp_path: Path) -> None:
    """Nothing selected on a seed is reported on it, no step sees a seed of the search, only the table sees the test."""
    runs = [retested(tmp_path, [GOOD, PLAIN], config=replace(BASE, seed=seed))[1] for seed in (0, 1)]
    seen: list[set[int]] = []
    for judge in runs:
        steps = [judge.jobs(first) for first in (TUNING, SELECTION, ABLATION, FINAL)]
        assert sum(map(len, steps)) == len(judge.seen)
        seen += [{job.seeds[0] for job in jobs} for jobs in steps]
        assert [len(seeds) for seeds in seen[-4:]] == [1, 2, 2, 3]
        for jobs, split in zip(steps, ("validation", "validation", "validation", "test"), strict=True):
            assert {job.split for job in jobs} == {split}
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert not set().union(*seen) & {seed for stage in BASE.stages for seed in stage.seeds}


def test_every_program_gets_the_same_number_of_trials(tmp_path: Path) -> None:
    """Finalists, baselines and the ablated winner are tuned alike, on each task, one rate and one seed a trial."""
    result, judge = retested(tmp_path, [GOOD, PLAIN])
    counts = Counter((structural_key(untuned(job.program)), job.task) for job in judge.jobs(TUNING))
    programs = [parse(GOOD), parse(PLAIN), known()["adamw"], known()["lion"], result.program]
    expected = {(structural_key(untuned(program)), task.task) for program in programs for task in TASKS}
    assert set(counts) == expected
    assert set(counts.values()) == {BASE.retest.trials}
    assert {row.trials for row in result.table.rows} == {BASE.retest.trials}


@dataclass
class LastIsBest(Judge):
    """Each trial of the tuning is better than the one before."""

    def _score(self, job: Job) -> Score:
        if job not in self.jobs(TUNING):
            return Judge(features)._score(job)
        before = [j for j in self.jobs(TUNING) if j.number < job.number]
        return Judge(lambda *_: 9.0 - 0.001 * len(before))._score(job)


def test_programs_are_compared_as_tuned(tmp_path: Path) -> None:
    """Rate and decay of the best trial, not of the first or of the text, are those of the final runs."""
    programs = {"discovered": parse(PLAIN), "adamw": known()["adamw"], "lion": known()["lion"]}
    config, judge = replace(BASE, ablation=AblationConfig(enabled=False)), LastIsBest(features)
    with RunStore.create(tmp_path / "run", config, {}) as store:
        result = retest(config, [Finalist(0, programs["discovered"], (0.0,))], Ledger(store, judge), silent())

    def jobs_of(row: Row, first: int) -> list[tuple[tuple[float, ...], float | None]]:
        own = structural_key(untuned(programs[row.program]))
        jobs = [j for j in judge.jobs(first) if j.task == row.task and structural_key(untuned(j.program)) == own]
        return [(job.learning_rates, decay_of(job.program)) for job in jobs]

    for row in result.table.rows:
        last = jobs_of(row, TUNING)[-1]
        assert last == ((row.learning_rate,), row.weight_decay)
        assert jobs_of(row, FINAL) == [last] * BASE.retest.seeds


def test_table_is_paired_and_honest(tmp_path: Path) -> None:
    """Shared noise drops out of differences; a baseline that is as good is said to be, a worse one too."""

    def loss(program: Program, task: str) -> float:
        gaps = {structural_key(untuned(known()["adamw"])): 0.0, structural_key(untuned(known()["lion"])): -0.3}
        return 4.5 + gaps.get(structural_key(untuned(program)), 0.0) + 0.1 * (task == "zipf-lm")

    result, _ = retested(tmp_path, [PLAIN], loss, replace(BASE, ablation=AblationConfig(enabled=False)))
    rows = result.table.rows
    assert [(row.task, row.program) for row in rows] == [
        (task.task, name) for task in TASKS for name in ("discovered", "adamw", "lion")
    ]
    assert [row.verdict for row in rows] == ["", "no difference shown", "worse"] * 2
    difference = rows[2].difference
    assert difference is not None
    assert (difference.low, difference.high) == pytest.approx((0.3, 0.3))
    assert rows[2].train_difference is not None
    assert rows[2].train_difference.mean == pytest.approx(0.15)
    assert rows[0].loss is not None
    assert rows[0].loss.low < rows[0].loss.mean < rows[0].loss.high
    assert "no difference shown" in render(result.table)
    assert (result.program, result.removals) == (parse(PLAIN), ())


def test_a_baseline_that_diverges_is_shown_as_such(tmp_path: Path) -> None:
    """It is neither left out nor beaten by a number."""

    def loss(program: Program, task: str) -> float | None:
        lion = structural_key(untuned(program)) == structural_key(untuned(known()["lion"]))
        return None if lion and task == "zipf-lm" else features(program, task)

    result, _ = retested(tmp_path, [PLAIN], loss)
    row = result.table.rows[-1]
    assert (row.program, row.diverged, row.loss, row.difference) == ("lion", 3, None, None)
    assert "diverged" in row.verdict
    assert "diverged (3 of 3)" in render(result.table)
    assert result.table.rows[1].verdict == "better"


def test_all_finalists_diverging_ends_in_a_table(tmp_path: Path) -> None:
    """A search that found nothing that trains at full length says so; it does not fail at the end of its run."""

    def loss(program: Program, task: str) -> float | None:
        names = {h.name for h in program.hyperparameters}
        return features(program, task) if "b2" in names else None

    result, _ = retested(tmp_path, [PLAIN, CUBIC], loss)
    assert result.number == 10
    assert result.program == parse(PLAIN)
    assert not any(removal.removed for removal in result.removals)
    assert result.table.rows[0].diverged == 3
    assert {row.verdict for row in result.table.rows if row.program != "discovered"} == {
        "not comparable: a run diverged"
    }
    assert "diverged (3 of 3)" in render(result.table)


def test_a_finalist_that_diverges_once_is_not_chosen(tmp_path: Path) -> None:
    """However good it is on the other task."""

    def loss(program: Program, task: str) -> float | None:
        if any(statement.op == "cbrt" for statement in program.statements):
            return 1e-3 if task == "digits-mlp" else None
        return 4.5

    assert retested(tmp_path, [CUBIC, PLAIN], loss)[0].number == 11


def test_a_removal_that_diverges_is_kept_and_recorded_in_strict_json(tmp_path: Path) -> None:
    """The record of a run is read by other programs: neither infinity nor NaN is in it."""

    def loss(program: Program, task: str) -> float | None:
        return features(program, task) if any(s.op == "sign" for s in program.statements) else None

    result, _ = retested(tmp_path, [GOOD], loss)
    record = removals_to_json(result.removals)
    assert json.loads(json.dumps(record, allow_nan=False)) == json.loads(json.dumps(record))
    assert table_from_json(json.loads(json.dumps(result.table.to_json(), allow_nan=False))) == result.table
    removal = next(removal for removal in result.removals if removal.statement == "x = sign(m)" and not removal.removed)
    assert removal.effects == {"digits-mlp": None, "zipf-lm": None}
    line = next(line for line in ablation_lines(tuple(record)) if "x = sign(m)" in line)
    assert line.split()[0] == "kept"
    assert line.count("a run diverged") == 2


def test_a_winner_without_weight_decay(tmp_path: Path) -> None:
    """Only its learning rate is tuned; the table has no decay to show, and the file is that of the program."""
    result, judge = retested(tmp_path, [PLAIN])
    winner = [row for row in result.table.rows if row.program == "discovered"]
    assert [row.weight_decay for row in winner] == [None, None]
    assert all(row.weight_decay for row in result.table.rows if row.program != "discovered")
    own = [job for job in judge.jobs(TUNING) if job.program == parse(PLAIN)]
    assert len({job.learning_rates for job in own if job.task == "zipf-lm"}) == BASE.retest.trials


def test_baselines_may_be_texts_or_none(tmp_path: Path) -> None:
    """A pinned text is given a name; without baselines the winner stands alone."""
    result, _ = retested(tmp_path, [PLAIN], config=with_retest(baselines=("lion", CUBIC)))
    assert [row.program for row in result.table.rows[:3]] == ["discovered", "lion", "baseline 1"]
    alone, _ = retested(tmp_path, [PLAIN], config=replace(with_retest(baselines=()), seed=2))
    assert [row.program for row in alone.table.rows] == ["discovered", "discovered"]
    assert render(alone.table)


def test_no_finalist_is_refused(tmp_path: Path) -> None:
    """There is nothing to compare; the caller is told so before anything is trained."""
    with pytest.raises(ValueError, match="every one of them failed"):
        retested(tmp_path, [])


def test_finalists_are_the_fittest_that_differ(tmp_path: Path) -> None:
    """Of programs that differ by a factor of the learning rate the fittest stands for all; failed ones are left out."""
    texts = [
        PLAIN,
        CUBIC,
        "def train(g, lr):\n    x = sign(g) * 2\n    return lr * x\n",
        "def train(g, lr):\n    return lr * sin(g)\n",
        "def train(g, lr):\n    return lr * tanh(g)\n",
    ]
    fitness = [(0.0, 2.0), (-1.0, 3.0), (0.0, 1.0), None, (0.0, 2.0)]
    with RunStore.create(tmp_path / "run", BASE, {}) as store:
        for number, (text, value) in enumerate(zip(texts, fitness, strict=True)):
            program = parse(text)
            keys = structural_key(program), behavioural_key(program)
            store.add_candidate(CandidateRecord(number, None, "seed", text, *keys, "ok"))
            store.add_outcome(Outcome(number, Reason.FINISHED if value else Reason.DIVERGED, value, 0, reused=False))
        assert [finalist.number for finalist in finalists_of(store, 5)] == [1, 2, 4]
        assert [finalist.number for finalist in finalists_of(store, 2)] == [1, 2]
        assert finalists_of(store, 1) == [Finalist(1, parse(CUBIC), (-1.0, 3.0))]


def test_near_twins_take_one_place_among_the_finalists(tmp_path: Path) -> None:
    """Candidates that took the scores of one program are no evidence for each other: the retest looks at others too."""
    texts = [PLAIN, "def train(g, lr):\n    x = sign(g)\n    y = g * 1e-9\n    x = x + y\n    return lr * x\n", CUBIC]
    first = behavioural_key(parse(PLAIN))
    with RunStore.create(tmp_path / "run", BASE, {}) as store:
        for number, (text, key) in enumerate(zip(texts, (first, first, behavioural_key(parse(CUBIC))), strict=True)):
            store.add_candidate(CandidateRecord(number, None, "seed", text, structural_key(parse(text)), key, "ok"))
            store.add_outcome(Outcome(number, Reason.FINISHED, (0.0, float(number == 2)), 0, reused=number == 1))
        assert [finalist.number for finalist in finalists_of(store, 2)] == [0, 2]
