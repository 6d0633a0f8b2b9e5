"""After the search: tune the best few and the baselines alike, choose the winner, ablate it, compare on fresh seeds.

Each step has seeds of its own, so that nothing that was selected on a seed is reported on it (the winner's curse), and
the final comparison is on the test split, which neither search nor tuning has seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evolion.comparison import Interval, Row, Table, interval, paired_difference, verdict
from evolion.config import SEEDS_OF_STAGES, RetestTask, RunConfig, fresh_seeds, program_of
from evolion.evaluators.metric import excess, metric_of
from evolion.evaluators.tuning import DECAY, Tuned, best_trial, trials
from evolion.funnel import Finalist
from evolion.ledger import Ledger, Request
from evolion.primitives.keys import behavioural_key
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.primitives.simplify import simplify
from evolion.progress import Observer, Phase, Progress
from evolion.proxies.registry import get_task
from evolion.proxies.score import Score, Status
from evolion.search.ablation import removals
from evolion.store import RunStore

__all__ = ["Removal", "Retested", "finalists_of", "retest"]

WINNER = "discovered"
"""What the winner is called in tables and exports."""

_TUNING_SEED = SEEDS_OF_STAGES
_SELECTION_SEEDS = 2 * SEEDS_OF_STAGES
_ABLATION_SEEDS = 3 * SEEDS_OF_STAGES
_FINAL_SEEDS = 4 * SEEDS_OF_STAGES
"""Seeds of a step count from here, and from the seed of the run; the search uses those of its stages."""

MAXIMUM_ROUNDS = 8
_METRICS = ("loss", "train_loss")


@dataclass(frozen=True, slots=True)
class Removal:
    """One statement of the winner taken out, and what that changed.

    Attributes:
        statement: The statement.
        effects: For each task the mean change of the metric over seeds (positive: worse without it) and its standard
            error, None where a run diverged; empty if the program does the same without the statement.
        removed: Whether it was left out for good.

    """

    statement: str
    effects: dict[str, tuple[float, float] | None]
    removed: bool


@dataclass(frozen=True, slots=True)
class Retested:
    """What the retest ends with.

    Attributes:
        number: The candidate that the winner comes from.
        program: The winner, after ablation.
        found: The winner before ablation.
        removals: What ablation tried in its last round, and what it removed before.
        table: The comparison with the baselines.

    """

    number: int
    program: Program
    found: Program
    removals: tuple[Removal, ...]
    table: Table


@dataclass(frozen=True, slots=True)
class _Setting:
    """A task of the retest with its horizon filled in, and the tuned learning rate and decay of one program."""

    task: RetestTask
    steps: int
    learning_rate: float
    decay: float | None


@dataclass(frozen=True, slots=True)
class _Contender:
    """A program in the final comparison, with its settings and tuning for each task."""

    name: str
    program: Program
    settings: Sequence[_Setting]
    tuned: Sequence[Tuned]


@dataclass(frozen=True, slots=True)
class _Bench:
    """What every step of the retest works with."""

    config: RunConfig
    ledger: Ledger
    observer: Observer

    def report(self, phase: Phase) -> Callable[[int, int], None]:
        """Return a function that tells the observer how many jobs of a phase are done and how many there are."""
        return lambda done, total: self.observer.on_progress(Progress(phase, done, total))

    def seeds(self, first: int, count: int) -> tuple[int, ...]:
        """Return the seeds of a step; another seed of the run gives others."""
        return fresh_seeds(first, count, self.config.seed)

    def run(
        self, pairs: Sequence[tuple[Program, _Setting]], seeds: tuple[int, ...], split: str, phase: Phase
    ) -> list[list[Score]]:
        """Train each program in its setting once for each seed; the scores are in the order of pairs and seeds."""
        requests = [
            Request.of(
                _with_decay(program, setting.decay),
                setting.task.task,
                steps=setting.steps,
                seeds=(seed,),
                learning_rates=(setting.learning_rate,),
                split=split,
                device=self.config.device_of(setting.task.task),
            )
            for program, setting in pairs
            for seed in seeds
        ]
        scores = self.ledger.scores(requests, self.report(phase))
        return [scores[i : i + len(seeds)] for i in range(0, len(scores), len(seeds))]


def _with_decay(program: Program, decay: float | None) -> Program:
    tunable = any(h.name == DECAY for h in program.hyperparameters)
    return program if decay is None or not tunable else program.with_hyperparameters(weight_decay=decay)


def finalists_of(store: RunStore, count: int) -> list[Finalist]:
    """Return the best candidates of a run that differ by more than a rescaling of the learning rate.

    Of candidates that share their scores, as equal ones and near twins do, the best stands for all. Of those that got
    equally far, the confirmed come before the others, and then the fittest before the rest.

    Their programs are simplified by the exact rules, so that tuning and ablation see the short form.
    """
    chosen: list[Finalist] = []
    kinds: set[str] = set()
    scored: set[str] = set()
    for standing in store.standings():
        record = store.candidate(standing.number)
        assert record is not None
        if record.behaviour_key in scored:
            continue
        program = parse(record.text)
        kind = behavioural_key(program, up_to_lr=True)
        if kind not in kinds:
            kinds.add(kind)
            scored.add(record.behaviour_key)
            chosen.append(Finalist(standing.number, simplify(program), standing.fitness))
        if len(chosen) == count:
            break
    return chosen


def retest(config: RunConfig, finalists: Sequence[Finalist], ledger: Ledger, observer: Observer) -> Retested:
    """Tune, select, ablate and compare; see the module.

    Raises:
        ValueError: If there is no finalist.

    """
    if not finalists:
        raise ValueError("there is no candidate to retest: every one of them failed")
    bench = _Bench(config, ledger, observer)
    baselines = {
        spec if "\n" not in spec else f"baseline {i}": program_of(spec)
        for i, spec in enumerate(config.retest.baselines)
    }
    programs = [finalist.program for finalist in finalists] + list(baselines.values())
    tuned = _tune(bench, programs)
    settings = [
        [_setting(task, by_task[i]) for task, by_task in zip(config.retest.tasks, tuned, strict=True)]
        for i in range(len(programs))
    ]
    best = _select(bench, programs[: len(finalists)], settings[: len(finalists)])
    found = finalists[best].program
    winner = _Contender(WINNER, found, settings[best], [by_task[best] for by_task in tuned])
    winner, removed = _ablated(bench, winner) if config.ablation.enabled else (winner, ())
    others = [
        _Contender(name, programs[i], settings[i], [by_task[i] for by_task in tuned])
        for i, name in enumerate(baselines, start=len(finalists))
    ]
    steps = {setting.task.task: setting.steps for setting in settings[best]}
    table = Table(WINNER, steps, tuple(_compare(bench, [winner, *others])))
    return Retested(finalists[best].number, winner.program, found, removed, table)


def _ablated(bench: _Bench, winner: _Contender) -> tuple[_Contender, tuple[Removal, ...]]:
    """Ablate the winner; where that changed it, tune what is left with as many trials as every other program."""
    program, removed = _ablate(bench, winner.program, winner.settings)
    if program == winner.program:
        return winner, removed
    tuned = [row[0] for row in _tune(bench, [program])]
    settings = [_setting(task, row) for task, row in zip(bench.config.retest.tasks, tuned, strict=True)]
    return _Contender(winner.name, program, settings, tuned), removed


def _compare(bench: _Bench, contenders: Sequence[_Contender]) -> Iterator[Row]:
    """Yield the rows of the table: every contender on every task, on fresh seeds and the test split."""
    seeds = bench.seeds(_FINAL_SEEDS, bench.config.retest.seeds)
    tasks = range(len(bench.config.retest.tasks))
    pairs = [(contender.program, contender.settings[task]) for task in tasks for contender in contenders]
    scores = iter(bench.run(pairs, seeds, "test", Phase.RETEST))
    for task in tasks:
        yield from _rows(contenders, task, [next(scores) for _ in contenders])


def _tune(bench: _Bench, programs: Sequence[Program]) -> list[list[Tuned]]:
    """Return for each task each program at its best trial: validation split, one seed, the same number of trials."""
    tasks, count = bench.config.retest.tasks, bench.config.retest.trials
    points = [[trials(program, task.task, _steps(task), count) for program in programs] for task in tasks]
    requests = [
        Request.of(
            trial.program,
            task.task,
            steps=_steps(task),
            seeds=bench.seeds(_TUNING_SEED, 1),
            learning_rates=(trial.learning_rate,),
            device=bench.config.device_of(task.task),
        )
        for task, rows in zip(tasks, points, strict=True)
        for row in rows
        for trial in row
    ]
    scores = iter(bench.ledger.scores(requests, bench.report(Phase.TUNING)))
    return [
        [best_trial(row, [metric_of(next(scores), task.metric) for _ in row]) for row in rows]
        for task, rows in zip(tasks, points, strict=True)
    ]


def _steps(task: RetestTask) -> int:
    return get_task(task.task).steps if task.steps is None else task.steps


def _setting(task: RetestTask, tuned: Tuned) -> _Setting:
    decay = next((h.value for h in tuned.program.hyperparameters if h.name == DECAY), None)
    return _Setting(task, _steps(task), tuned.learning_rate, decay)


def _select(bench: _Bench, finalists: Sequence[Program], settings: Sequence[Sequence[_Setting]]) -> int:
    """Return which finalist has the lowest geometric mean over tasks of its excess loss, on validation splits."""
    seeds = bench.seeds(_SELECTION_SEEDS, bench.config.ablation.seeds)
    pairs = [(program, setting) for program, own in zip(finalists, settings, strict=True) for setting in own]
    scores = iter(bench.run(pairs, seeds, "validation", Phase.RETEST))
    tasks = bench.config.retest.tasks
    logs = [math.fsum(math.log(_mean_excess(task, next(scores))) for task in tasks) for _ in finalists]
    return logs.index(min(logs))


def _mean_excess(task: RetestTask, scores: Sequence[Score]) -> float:
    """Return the mean of the metric above the known floor of the task; infinity if a seed diverged."""
    return sum(excess(score, task) for score in scores) / len(scores)


def _ablate(bench: _Bench, found: Program, settings: Sequence[_Setting]) -> tuple[Program, tuple[Removal, ...]]:
    """Remove statements, one a round, while one can go without a loss beyond noise on any task.

    What is left has to be as good as the program of the round and as the program that was found, so that losses within
    the noise cannot add up.
    """
    program = found
    log: list[Removal] = []
    for _ in range(MAXIMUM_ROUNDS):
        tried = list(_removals(bench, program, found, settings))
        harmless = [row for row in tried if row[0].removed]
        if not harmless:
            return program, (*log, *(removal for removal, _ in tried))
        # The shortest program first, then the one that gains most.
        removal, shorter = min(harmless, key=lambda row: (len(row[1].statements), _total(row[0])))
        log.append(removal)
        program = simplify(shorter)
    return program, tuple(log)


def _total(removal: Removal) -> float:
    return sum(mean / max(error, 1e-12) for mean, error in (e or (math.inf, 0.0) for e in removal.effects.values()))


def _removals(
    bench: _Bench, program: Program, found: Program, settings: Sequence[_Setting]
) -> Iterator[tuple[Removal, Program]]:
    """Yield for each statement its best variant, and whether it is as good as the program and as what was found."""
    own = behavioural_key(program)
    rows = [(index, variant) for index, variants in removals(program) for variant in variants]
    trained = [variant for _, variant in rows if behavioural_key(variant) != own]
    seeds = bench.seeds(_ABLATION_SEEDS, bench.config.ablation.seeds)
    programs = (found, program, *trained)
    pairs = [(p, setting) for p in programs for setting in settings]
    scores = iter(bench.run(pairs, seeds, "validation", Phase.ABLATION))
    values = {p: [next(scores) for _ in settings] for p in programs}

    def judged(index: int, variant: Program) -> Removal:
        statement = str(program.statements[index])
        if variant not in values:
            return Removal(statement, {}, removed=True)
        effects = _effects(values[variant], values[program], settings)
        tolerance = bench.config.ablation.tolerance
        both = (effects, _effects(values[variant], values[found], settings))
        return Removal(statement, effects, removed=all(_harmless(changes, tolerance) for changes in both))

    for index in dict.fromkeys(index for index, _ in rows):
        variants = [(judged(at, variant), variant) for at, variant in rows if at == index]
        yield min(variants, key=lambda row: (not row[0].removed, len(row[1].statements), _total(row[0])))


Effects = dict[str, tuple[float, float] | None]


def _effects(
    without: Sequence[Sequence[Score]], with_it: Sequence[Sequence[Score]], settings: Sequence[_Setting]
) -> Effects:
    """Return for each task the mean change over seeds and its standard error, None where a run diverged."""
    effects: Effects = {}
    for setting, ours, theirs in zip(settings, without, with_it, strict=True):
        metric = setting.task.metric
        gaps = [metric_of(a, metric) - metric_of(b, metric) for a, b in zip(ours, theirs, strict=True)]
        if not all(map(math.isfinite, gaps)):
            effects[setting.task.task] = None
            continue
        mean = sum(gaps) / len(gaps)
        variance = sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1)
        effects[setting.task.task] = (mean, math.sqrt(variance / len(gaps)))
    return effects


def _harmless(effects: Effects, tolerance: float) -> bool:
    return all(effect is not None and effect[0] <= tolerance * effect[1] for effect in effects.values())


def _rows(contenders: Sequence[_Contender], task: int, scores: Sequence[Sequence[Score]]) -> Iterator[Row]:
    winner = scores[0]
    for contender, own in zip(contenders, scores, strict=True):
        setting, tuned = contender.settings[task], contender.tuned[task]
        ok = _all_ok(own)
        differences: list[Interval | None] = [None, None]
        if own is not winner and ok and _all_ok(winner):
            differences = [paired_difference(_values(winner, m), _values(own, m)) for m in _METRICS]
        yield Row(
            task=setting.task.task,
            program=contender.name,
            seeds=len(own),
            diverged=sum(score.status is not Status.OK for score in own),
            loss=interval(_values(own, "loss")) if ok else None,
            train_loss=interval(_values(own, "train_loss")) if ok else None,
            learning_rate=setting.learning_rate,
            weight_decay=setting.decay,
            trials=tuned.trials,
            at_edge=tuned.at_edge,
            difference=differences[0],
            train_difference=differences[1],
            verdict="" if own is winner else verdict(differences[0]),
            train_verdict="" if own is winner else verdict(differences[1]),
        )


def _all_ok(scores: Sequence[Score]) -> bool:
    return all(score.status is Status.OK for score in scores)


def _values(scores: Sequence[Score], metric: str) -> list[float]:
    return [metric_of(score, metric) for score in scores]


def removals_to_json(removed: Sequence[Removal]) -> list[dict[str, Any]]:
    """Return plain data for JSON."""
    return [asdict(removal) for removal in removed]
