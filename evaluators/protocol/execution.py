"""A plan carried out by an evaluator: what can run is submitted as soon as it can, and each row is kept at once."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, final

from evolion.evaluators.protocol.plan import Plan
from evolion.evaluators.protocol.rows import Row, Stage
from evolion.evaluators.protocol.stages import Request, Subject, expected, requests, split_of
from evolion.evaluators.protocol.table import Table
from evolion.evaluators.tuning import DECAY, box
from evolion.evaluators.types import Evaluator, Job, Score, Status
from evolion.primitives.cost import cost
from evolion.primitives.keys import structural_key
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.proxies.registry import get_spec, get_task

__all__ = ["Prepared", "execute", "ordered", "prepare"]

QUEUED = 2
"""Jobs that an evaluator is given for each worker: none waits for the next, and few are lost at a kill."""

_ORDER = (
    Stage.TUNING,
    Stage.EDGE,
    Stage.REFINEMENT,
    Stage.REPORT,
    Stage.RETUNING,  # before horizons, some of which wait for it
    Stage.HORIZON,
    Stage.SENSITIVITY,
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A subject with what its rows say about program and task; the fields are those of `Row`."""

    subject: Subject
    program: Program
    key: str
    family: str
    task_digest: str
    parameters: int
    floor: float | None
    batch_size: int
    slots: float
    operations: float


def prepare(plan: Plan, task: str) -> list[Prepared]:
    """Return the subjects of a task in the order of the entrants; loads its data and computes with jax."""
    import jax

    found: Any = get_task(task)
    shapes = [leaf.shape for leaf in jax.tree.leaves(found.init(0))]
    known: dict[str, Prepared] = {}
    made = []
    for entrant in plan.entrants:
        if entrant.program not in known:
            program = parse(entrant.program)
            price = cost(program, shapes)
            known[entrant.program] = Prepared(
                subject=Subject(entrant, task, plan.steps or found.steps, box(program, task)),
                program=program,
                key=structural_key(program),
                family=get_spec(task).family,
                task_digest=found.digest,
                parameters=found.parameters,
                floor=found.floor,
                batch_size=found.batch_size,
                slots=price.state,
                operations=price.operations + price.matrix_operations,
            )
        same = known[entrant.program]
        made.append(replace(same, subject=replace(same.subject, entrant=entrant)))
    return made


@dataclass(slots=True, eq=False)
class _Cell:
    """One subject at work."""

    prepared: Prepared
    order: tuple[int, int]
    rows: list[Row]
    done: dict[tuple[object, ...], Row] = field(default_factory=dict)
    """What has been computed, by what it is."""
    waiting: dict[tuple[object, ...], list[Request]] = field(default_factory=dict)
    """What has been asked for and is not there yet."""


def execute(
    plan: Plan,
    tasks: Sequence[str],
    table: Table,
    evaluator: Evaluator,
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
    preparation: Callable[[Plan, str], Sequence[Prepared]] = prepare,
) -> None:
    """Run everything of a plan that the table does not have, and append it.

    Jobs of one task come together, as every process compiles its loop anew; the next task is opened when the one
    before cannot fill the evaluator. A run that crashed or took too long is a row with that status.

    Args:
        plan: The plan.
        tasks: Which of its tasks to run.
        table: Where rows are and go.
        evaluator: What does the work; idle.
        report: Is told how many rows there are, and about how many there will be.
        preparation: Gives the subjects of a task.

    Raises:
        EvaluatorUnavailable: If the evaluator has no workers.
        StaleRow: If the table has rows of other settings.
        OSError: If the table cannot be written.

    """
    work = _Work(plan, tasks, table, evaluator, preparation)
    while work.fill():
        report(*work.progress())
        work.take(evaluator.collect())
    report(*work.progress())


@final
class _Work:
    """Who waits for what: cells that are open, jobs that are ready and jobs that the evaluator has."""

    def __init__(
        self,
        plan: Plan,
        tasks: Sequence[str],
        table: Table,
        evaluator: Evaluator,
        preparation: Callable[[Plan, str], Sequence[Prepared]],
    ) -> None:
        self._plan, self._table, self._evaluator, self._preparation = plan, table, evaluator, preparation
        self._tasks = tasks
        self._unopened = list(enumerate(tasks))
        self._cells: list[_Cell] = []
        self._ready: list[tuple[tuple[int, ...], int, _Cell, tuple[object, ...]]] = []
        self._running: dict[int, tuple[_Cell, tuple[object, ...]]] = {}
        self._numbers = count()
        self._limit = QUEUED * evaluator.workers

    def fill(self) -> bool:
        """Give the evaluator as much as it takes, and return whether it has anything to do."""
        while self._unopened and len(self._ready) + len(self._running) < self._limit:
            self._open(*self._unopened.pop(0))
        while self._ready and len(self._running) < self._limit:
            _, number, cell, run = heapq.heappop(self._ready)
            self._running[number] = cell, run
            self._evaluator.submit(_job(number, cell, cell.waiting[run][0]))
        return bool(self._running)

    def take(self, finished: Sequence[tuple[Job, Score]]) -> None:
        """Keep what has finished, and find out what can run next."""
        if not finished:
            raise RuntimeError(f"the evaluator returned nothing with {len(self._running)} jobs to do")
        rows, cells = [], []
        for job, score in finished:
            cell, run = self._running.pop(job.number)
            made = [_row(cell.prepared, request, score, self._evaluator.numerics) for request in cell.waiting.pop(run)]
            cell.done[run] = made[0]
            cell.rows += made
            rows += made
            cells.append(cell)
        self._table.append(rows)
        for cell in dict.fromkeys(cells):
            self._advance(cell)

    def progress(self) -> tuple[int, int]:
        """Return how many rows there are, and about how many there will be."""
        done = len(self._table.rows)
        of_task = sum(expected(self._plan, entrant) for entrant in self._plan.entrants)
        total = len(self._unopened) * of_task
        for cell in self._cells:
            known = len(cell.rows) + sum(map(len, cell.waiting.values()))
            total += max(known, expected(self._plan, cell.prepared.subject.entrant)) if cell.waiting else known
        return done, max(done, total)

    def _open(self, number: int, task: str) -> None:
        for order, prepared in enumerate(self._preparation(self._plan, task)):
            name = prepared.subject.entrant.name
            rows = [row for row in self._table.rows if (row.task, row.optimizer) == (task, name)]
            cell = _Cell(prepared, (number, order), rows, {_run(row): row for row in rows})
            self._cells.append(cell)
            self._advance(cell)

    def _advance(self, cell: _Cell) -> None:
        """Queue what a cell wants now; what was computed before for another purpose is copied."""
        asked = {request.id for group in cell.waiting.values() for request in group}
        while True:
            wanted = [r for r in requests(self._plan, cell.prepared.subject, cell.rows) if r.id not in asked]
            copies = [_copy(request, cell.done[request.run]) for request in wanted if request.run in cell.done]
            for request in wanted:
                if request.run not in cell.done:
                    self._queue(cell, request)
                    asked.add(request.id)
            if not copies:
                return
            self._table.append(copies)
            cell.rows += copies

    def _queue(self, cell: _Cell, request: Request) -> None:
        if request.run in cell.waiting:
            cell.waiting[request.run].append(request)
            return
        cell.waiting[request.run] = [request]
        task, order = cell.order
        # Long runs first, so that a task does not end with one of them alone; equal horizons together.
        place = (task, _ORDER.index(request.stage), -request.steps, order)
        heapq.heappush(self._ready, (place, next(self._numbers), cell, request.run))


def _job(number: int, cell: _Cell, request: Request) -> Job:
    prepared = cell.prepared
    program = prepared.program
    if request.weight_decay is not None:
        program = program.with_hyperparameters(**{DECAY: request.weight_decay})
    rates = (request.learning_rate,)
    return Job(number, program, prepared.subject.task, request.steps, (request.seed,), rates, request.split)


def _run(row: Row) -> tuple[object, ...]:
    """Return what a row has computed, as `Request.run` says it."""
    return row.learning_rate, row.weight_decay, row.steps, row.seed, split_of(row.stage)


def _copy(request: Request, row: Row) -> Row:
    """Return the row of a run that another request has had done."""
    return replace(
        row,
        id=request.id,
        stage=request.stage,
        trial=request.trial,
        unit=request.unit,
        shrinkage=request.shrinkage,
        horizon=request.horizon,
    )


def _row(prepared: Prepared, request: Request, score: Score, numerics: str) -> Row:
    ok = score.status is Status.OK
    return Row(
        id=request.id,
        optimizer=prepared.subject.entrant.name,
        program=prepared.key,
        control=prepared.subject.entrant.control,
        task=prepared.subject.task,
        family=prepared.family,
        task_digest=prepared.task_digest,
        parameters=prepared.parameters,
        floor=prepared.floor,
        stage=request.stage,
        trial=request.trial,
        unit=request.unit,
        learning_rate=request.learning_rate,
        shrinkage=request.shrinkage,
        weight_decay=request.weight_decay,
        horizon=request.horizon,
        steps=request.steps,
        batch_size=prepared.batch_size,
        seed=request.seed,
        status=score.status,
        loss=score.loss if ok else None,
        train_loss=score.train_loss if ok else None,
        start=score.curve[0] if score.curve else None,
        curve=score.curve,
        seconds=score.seconds,
        slots=prepared.slots,
        operations=prepared.operations,
        numerics=numerics,
    )


def ordered(plan: Plan, rows: Iterable[Row]) -> list[Row]:
    """Return rows in an order that does not hang on when they were made: tasks, optimizers, stages, trials, seeds."""
    tasks, names = list(plan.tasks), [entrant.name for entrant in plan.entrants]

    def place(row: Row) -> tuple[float, ...]:
        stage, trial = list(Stage).index(row.stage), -1 if row.trial is None else row.trial
        return (
            tasks.index(row.task),
            names.index(row.optimizer),
            stage,
            row.horizon,
            trial,
            row.seed,
            row.learning_rate,
        )

    return sorted((row for row in rows if row.task in tasks and row.optimizer in names), key=place)
