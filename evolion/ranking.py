"""Known and found programs side by side on tasks: the same trials for each, fresh seeds, differences paired by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from evolion.api import collected
from evolion.comparison import Interval, interval, paired_difference, short, verdict
from evolion.evaluators.metric import metric_of
from evolion.evaluators.tuning import DECAY, Tuned, best_trial, decays_weights, finds_its_rate, trials
from evolion.evaluators.types import Job
from evolion.progress import Observer, Phase, Progress
from evolion.proxies.curvature import Curvature
from evolion.proxies.registry import get_task
from evolion.proxies.score import Status

if TYPE_CHECKING:
    from evolion.evaluators.types import Evaluator, Score
    from evolion.primitives.program import Program

__all__ = ["Entry", "Plan", "compare", "render", "to_json"]

REFERENCE = "adamw"
"""What others are compared with if it is among them; else the first program is."""

TUNING_SEED = 0
"""The seed of every tuning trial; the scores of tuned programs are on the seeds after it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a comparison trains.

    Attributes:
        specs: Names of the programs in tables.
        programs: The programs.
        tasks: Names of tasks.
        seeds: How many training runs count for each program and task.
        steps: Horizon; each task's own without it.
        trials: Tuning trials of each program on each task; without it the best learning rate of the task's grid counts.
        curvature: The estimate that programs which read `hess` are given.

    """

    specs: tuple[str, ...]
    programs: tuple[Program, ...]
    tasks: tuple[str, ...]
    seeds: int = 1
    steps: int | None = None
    trials: int | None = None
    curvature: Curvature = field(default_factory=Curvature)

    @property
    def reference(self) -> int:
        """Which program the others are compared with."""
        return self.specs.index(REFERENCE) if REFERENCE in self.specs else 0

    @property
    def split(self) -> str:
        """Where the losses are taken: tuned programs have seen the validation split."""
        return "validation" if self.trials is None else "test"

    def horizon(self, task: str) -> int:
        """Return the steps of a training run."""
        return get_task(task).steps if self.steps is None else self.steps

    def job(self, number: int, program: Program, task: str, seeds: Sequence[int], rates: tuple[float, ...]) -> Job:
        """Return the training runs that report a loss."""
        return Job(number, program, task, self.horizon(task), tuple(seeds), rates, self.split, self.curvature)


@dataclass(frozen=True, slots=True)
class Entry:
    """One program on one task.

    Attributes:
        task: The task.
        program: Its name in tables.
        score: Its score over the seeds.
        losses: Loss at the end of each seed's run, in their order; empty unless all ended finite.
        train_losses: Mean training loss over the last 5 % of the steps of each.
        rank: Its place by mean loss on the task, from 1; None unless the score is ok.
        tuned: Its best trial, None without tuning.
        rows: Learning rate, weight decay and loss of every trial; None for a trial that diverged.
        difference: Its loss minus that of the reference, seed by seed; None for the reference, for fewer than two
            seeds, and if a run diverged.
        train_difference: The same for the training loss.
        gradients: Gradients of batches in each run, estimates of the Hessian counted as gradients.
        notes: What to know when reading the numbers.

    """

    task: str
    program: str
    score: Score
    losses: tuple[float, ...]
    train_losses: tuple[float, ...]
    tuned: Tuned | None
    rows: tuple[dict[str, float | None], ...]
    gradients: float
    notes: tuple[str, ...]
    rank: int | None = None
    difference: Interval | None = None
    train_difference: Interval | None = None


def compare(plan: Plan, evaluator: Evaluator, observer: Observer) -> list[Entry]:
    """Train and return an entry for each program on each task, in the order of the tasks and of the programs."""

    def report(phase: Phase) -> Callable[[int, int], None]:
        return lambda done, total: observer.on_progress(Progress(phase, done, total))

    pairs = [(task, program) for task in plan.tasks for program in plan.programs]
    tuned: list[tuple[Tuned | None, tuple[dict[str, float | None], ...]]] = [(None, ())] * len(pairs)
    if plan.trials is not None:
        tuned = _tune(plan, pairs, evaluator, report(Phase.TUNING))
    jobs = []
    for number, ((task, program), (best, _)) in enumerate(zip(pairs, tuned, strict=True)):
        if best is None:
            jobs.append(plan.job(number, program, task, range(plan.seeds), get_task(task).learning_rates))
        else:
            fresh = range(TUNING_SEED + 1, TUNING_SEED + 1 + plan.seeds)
            jobs.append(plan.job(number, best.program, task, fresh, (best.learning_rate,)))
    scores = collected(jobs, evaluator, report(Phase.RETEST))
    count = len(plan.programs)
    entries = [
        _entry(plan, i % count, job, score, best, rows)
        for i, (job, score, (best, rows)) in enumerate(zip(jobs, scores, tuned, strict=True))
    ]
    return [entry for i in range(0, len(entries), count) for entry in _ranked(entries[i : i + count], plan.reference)]


def _tune(
    plan: Plan, pairs: Sequence[tuple[str, Program]], evaluator: Evaluator, report: Callable[[int, int], None]
) -> list[tuple[Tuned | None, tuple[dict[str, float | None], ...]]]:
    """Return the best trial of each pair, and all of its trials."""
    assert plan.trials is not None
    points = [trials(program, task, plan.horizon(task), plan.trials) for task, program in pairs]
    # A program with nothing to tune has equal trials: they are trained once.
    wanted = {(task, trial): None for (task, _), row in zip(pairs, points, strict=True) for trial in row}
    jobs = [
        replace(plan.job(i, trial.program, task, (TUNING_SEED,), (trial.learning_rate,)), split="validation")
        for i, (task, trial) in enumerate(wanted)
    ]
    found = dict(zip(wanted, collected(jobs, evaluator, report), strict=True))
    tuned: list[tuple[Tuned | None, tuple[dict[str, float | None], ...]]] = []
    for (task, program), row in zip(pairs, points, strict=True):
        values = [metric_of(found[task, trial], "loss") for trial in row]
        decays = decays_weights(program, task)
        rows = tuple(
            {
                "learning_rate": trial.learning_rate,
                "weight_decay": _decay(trial.program) if decays else None,
                "loss": value if math.isfinite(value) else None,
            }
            for trial, value in zip(row, values, strict=True)
        )
        tuned.append((best_trial(row, values), rows))
    return tuned


def _decay(program: Program) -> float | None:
    return next((h.value for h in program.hyperparameters if h.name == DECAY), None)


def _entry(
    plan: Plan, which: int, job: Job, score: Score, tuned: Tuned | None, rows: tuple[dict[str, float | None], ...]
) -> Entry:
    chosen = [run for run in score.runs if run.learning_rate == score.learning_rate]
    ok = score.status is Status.OK
    reads_hess = "hess" in job.program.inputs
    return Entry(
        task=job.task,
        program=plan.specs[which],
        score=score,
        losses=tuple(run.loss for run in chosen if run.loss is not None) if ok else (),
        train_losses=tuple(run.train_loss for run in chosen if run.train_loss is not None) if ok else (),
        tuned=tuned,
        rows=rows,
        gradients=job.steps + (job.curvature.gradients(job.steps) if reads_hess else 0),
        notes=tuple(_notes(plan, job, tuned)),
    )


def _notes(plan: Plan, job: Job, tuned: Tuned | None) -> list[str]:
    notes = []
    if "hess" in job.program.inputs:
        share = plan.curvature.gradients(job.steps) / job.steps
        notes.append(f"hess: {plan.curvature}, which costs {share:.0%} more gradients")
    if tuned is None:
        return notes
    if "lr" not in job.program.inputs:
        notes.append("no learning rate to tune")
    elif finds_its_rate(job.program):
        notes.append("finds its learning rate itself: a factor around 1 is tuned")
    if "weight decay" not in tuned.tuned and tuned.trials > 1:
        has = _decay(job.program) is not None
        notes.append("weight decay is not decoupled: left at its default" if has else "no weight decay to tune")
    if tuned.edges:
        notes.append(f"best trial at the edge of the box ({'; '.join(tuned.edges)}): more tuning may improve it")
    if tuned.diverged:
        notes.append(f"{tuned.diverged} of {tuned.trials} trials diverged")
    return notes


def _ranked(entries: Sequence[Entry], reference: int) -> list[Entry]:
    """Return the entries of one task with their ranks and their differences from the reference."""
    order = sorted((e.score.loss, i) for i, e in enumerate(entries) if e.score.loss is not None)
    ranks = {i: rank for rank, (_, i) in enumerate(order, start=1)}
    other = entries[reference]

    def against(ours: Sequence[float], theirs: Sequence[float]) -> Interval | None:
        return paired_difference(ours, theirs) if len(ours) == len(theirs) > 1 else None

    return [
        replace(
            entry,
            rank=ranks.get(i),
            difference=None if i == reference else against(entry.losses, other.losses),
            train_difference=None if i == reference else against(entry.train_losses, other.train_losses),
        )
        for i, entry in enumerate(entries)
    ]


def to_json(plan: Plan, entry: Entry) -> dict[str, Any]:
    """Return everything about an entry as plain data for JSON."""
    score, tuned = entry.score, entry.tuned
    program = plan.programs[plan.specs.index(entry.program)] if tuned is None else tuned.program
    return {
        "task": entry.task,
        "program": entry.program,
        "rank": entry.rank,
        "status": score.status.value,
        "split": plan.split,
        "loss": score.loss,
        "loss_interval": _data(_interval(entry.losses)),
        "train_loss": score.train_loss,
        "train_loss_interval": _data(_interval(entry.train_losses)),
        "reference": plan.specs[plan.reference],
        "difference": _data(entry.difference),
        "verdict": verdict(entry.difference) if entry.difference else None,
        "train_difference": _data(entry.train_difference),
        "train_verdict": verdict(entry.train_difference) if entry.train_difference else None,
        "learning_rate": score.learning_rate if tuned is None else tuned.learning_rate,
        "hyperparameters": {h.name: h.value for h in program.hyperparameters},
        "hess": str(plan.curvature) if "hess" in program.inputs else None,
        "steps": score.steps,
        "gradients": entry.gradients,
        "seconds": score.seconds,
        "curve": score.curve,
        "runs": [{k: v for k, v in asdict(run).items() if k != "steps"} for run in score.runs],
        "trials": None if tuned is None else tuned.trials,
        "trials_diverged": None if tuned is None else tuned.diverged,
        "tuned": None if tuned is None else tuned.tuned,
        "tuned_at_edge": None if tuned is None else tuned.at_edge,
        "edges": None if tuned is None else tuned.edges,
        "tuning": entry.rows,
        "notes": entry.notes,
        "message": score.message,
    }


def _interval(values: Sequence[float]) -> Interval | None:
    return interval(values) if len(values) > 1 else None


def _data(found: Interval | None) -> dict[str, float] | None:
    return None if found is None else asdict(found)


def render(plan: Plan, entries: Sequence[Entry]) -> str:
    """Return the comparison as plain text: a table for each task, best first, and what the differences show."""
    return "\n\n".join(
        "\n".join(_table(plan, [entry for entry in entries if entry.task == task])) for task in plan.tasks
    )


def _table(plan: Plan, entries: Sequence[Entry]) -> list[str]:
    from evolion.cli_text import aligned

    entries = sorted(entries, key=lambda entry: math.inf if entry.rank is None else entry.rank)
    head = ("", "program", f"{plan.split} loss", "training loss", "peak lr", "weight decay")
    lines = [head, *(_cells(entry) for entry in entries)]
    # A column that says nothing about any program is left out.
    kept = [column for column in zip(*lines, strict=True) if set(column[1:]) - {""}]
    task = entries[0].task
    said = f"{task}, {plan.horizon(task)} steps: "
    said += "one seed" if plan.seeds == 1 else f"mean over {plan.seeds} seeds ± 95 % interval"
    if plan.trials is None:
        said += ", the best learning rate of the task's grid"
    else:
        said += f", each program tuned with {plan.trials} trials on another seed"
    notes = [f"  {short(entry.program)}: {note}" for entry in entries for note in entry.notes]
    return [said, *(f"  {line}" for line in aligned(list(zip(*kept, strict=True)))), *_verdicts(plan, entries), *notes]


def _cells(entry: Entry) -> tuple[str, ...]:
    score, tuned = entry.score, entry.tuned

    def value(mean: float | None, values: Sequence[float]) -> str:
        return str(_interval(values) or ("" if mean is None else f"{mean:.4g}"))

    rate = score.learning_rate if tuned is None else tuned.learning_rate
    decay = _decay(tuned.program) if tuned is not None else None
    return (
        "" if entry.rank is None else str(entry.rank),
        short(entry.program),
        value(score.loss, entry.losses) or f"{score.status.value}: {score.message}",
        value(score.train_loss, entry.train_losses),
        "" if rate is None else f"{rate:.3g}" + ("*" if tuned and tuned.at_edge else ""),
        "" if decay is None else f"{decay:.3g}",
    )


def _verdicts(plan: Plan, entries: Sequence[Entry]) -> list[str]:
    lines = []
    for entry in entries:
        if entry.difference is None or entry.train_difference is None:
            continue
        head = f"  {short(entry.program)} against {short(plan.specs[plan.reference])}, "
        lines.append(f"{head}{plan.split} loss: {verdict(entry.difference)} ({entry.difference})")
        lines.append(f"{head}training loss: {verdict(entry.train_difference)} ({entry.train_difference})")
    return lines
