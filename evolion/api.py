"""The public functions, thin: each checks its input, loads what it needs and hands on."""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evolion.errors import InputError
from evolion.primitives.program import Program, ProgramError

if TYPE_CHECKING:
    import optax

    from evolion.config import RunConfig
    from evolion.driver import Result
    from evolion.evaluators.types import Evaluator, Job
    from evolion.progress import Observer
    from evolion.proxies.curvature import Curvature
    from evolion.proxies.score import Score
    from evolion.proxies.task import Task

__all__ = ["evaluate", "key", "known", "load", "search", "simplify", "tasks", "to_optax", "to_source", "train"]


SEED_LIMIT = 2**31
"""Seeds of evaluations are below this: compiled loops take them as 32-bit integers."""


def known() -> Mapping[str, Program]:
    """Return the reference programs by name."""
    from evolion.discovered.library import known

    return known()


def load(spec: str | Path) -> Program:
    """Return the program of a known name, of a file with a program text, or of a run.

    A run is given as `RUN_DIR:ID`, with the number of a candidate, or as `RUN_DIR` for the program that the run ended
    with (while it goes on, its best candidate). A known name comes before a file of that name: write `./adamw` then.

    Raises:
        ProgramError: If a text is not a program; with line and column.
        InputError: If there is no such program, file or run, or it cannot be read.

    """
    from evolion.discovered import library

    name = library.OTHER_NAMES.get(str(spec), str(spec))
    if name in known():
        return known()[name]
    try:
        if Path(name).is_dir():
            return _load_from_run(Path(name), None)
        folder, colon, number = name.rpartition(":")
        if colon and not Path(name).exists() and Path(folder).is_dir():
            return _load_from_run(Path(folder), _candidate_number(name, number))
        return library.load(name)
    except OSError as error:
        raise InputError(f"cannot read {name!r}: {error.strerror}") from None
    except (InputError, ProgramError):
        raise
    except ValueError as error:
        raise InputError(str(error)) from None


def _candidate_number(spec: str, number: str) -> int:
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        raise InputError(f"{spec}: {number!r} is not the number of a candidate")
    return int(number)


def _load_from_run(folder: Path, number: int | None) -> Program:
    from evolion.primitives.parser import parse
    from evolion.store import RunStore

    with RunStore.open(folder, readonly=True) as store:
        if number is None:
            winner = store.winner()
            if winner is not None:
                return parse(winner.text)
            best = store.best()
            if best is None:
                raise InputError(f"the run {folder} has no program yet that trains")
            number = best.number
        candidate = store.candidate(number)
        if candidate is None:
            raise InputError(f"the run {folder} has no candidate {number} (it has {store.counts().generated}, from 0)")
        return parse(candidate.text)


def _program(program: Program | str) -> Program:
    return load(program) if isinstance(program, str) else program


def simplify(program: Program | str, *, exact: bool = True) -> Program:
    """Return a program that does the same with as few statements and slots as the rewrite rules reach.

    Args:
        program: The program, or what `load` takes; it comes back as it is if nothing can go.
        exact: Whether every update of every step stays the same, bit for bit. Else the rules that hold but for
            rounding and single points (such as x / abs(x) = sign(x)) are used as well.

    """
    from evolion.primitives.simplify import simplify

    return simplify(_program(program), exact=exact)


def key(
    program: Program | str, *, kind: Literal["behaviour", "structure"] = "behaviour", up_to_lr: bool = False
) -> str:
    """Return a digest, 32 hexadecimal digits, that is equal in every process and on every machine.

    Args:
        program: The program, or what `load` takes.
        kind: "behaviour" for what it does on fixed numbers, "structure" for its data flow.
        up_to_lr: Whether programs share a behaviour whose updates differ by one positive factor.

    Raises:
        InputError: For another kind, or `up_to_lr` with the structure.

    """
    from evolion.primitives.keys import behavioural_key, structural_key

    if kind not in ("behaviour", "structure"):
        raise InputError(f"kind must be 'behaviour' or 'structure', got {kind!r}")
    if kind == "behaviour":
        return behavioural_key(_program(program), up_to_lr=up_to_lr)
    if up_to_lr:
        raise InputError("up_to_lr goes with kind='behaviour' alone")
    return structural_key(_program(program))


def to_optax(
    program: Program | str, learning_rate: optax.ScalarOrSchedule | None = None, **hyperparameters: float
) -> optax.GradientTransformation:
    """Return a program as an Optax transform.

    Args:
        program: The program, or what `load` takes.
        learning_rate: A number or an Optax schedule; needed if the program reads `lr`.
        **hyperparameters: Other values for the program's hyperparameters.

    Raises:
        ValueError: For a hyperparameter that the program lacks, or a missing learning rate.

    """
    from evolion.discovered.optax_transform import to_optax

    return to_optax(_program(program), learning_rate, **hyperparameters)


def to_source(program: Program | str, target: str = "optax", **hyperparameters: float) -> str:
    """Return a program, or what `load` takes, as source.

    The targets are "optax" for a module that needs jax and optax alone, "torch" for one that needs torch, "latex" for
    an algorithm, and "text" for the program text.

    Raises:
        InputError: For another target, or a hyperparameter that the program lacks.

    """
    from evolion.discovered.optax_source import to_source

    try:
        return to_source(_program(program), target, **hyperparameters)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(str(error)) from None


def tasks() -> Mapping[str, Task]:
    """Return the tasks by name; each is built when it is first looked up."""
    from evolion.proxies.registry import TASKS

    return TASKS


def train(
    task: str | Task,
    tx: optax.GradientTransformation,
    *,
    steps: int | None = None,
    seed: int = 0,
    curvature: Curvature | None = None,
) -> Score:
    """Train a task, by name or object, with any Optax transform and score it on the validation split.

    A transform that takes `hess` is given the estimate of the Hessian diagonal that `curvature` names.

    Raises:
        InputError: For an unknown task.
        ValueError: For steps below 1 or a seed that is not one.

    """
    from evolion.proxies.registry import get_task
    from evolion.proxies.training import train

    if isinstance(task, str):
        check_task(task)
        task = get_task(task)
    if curvature is None:
        return train(task, tx, steps=steps, seed=seed)
    return train(task, tx, steps=steps, seed=seed, curvature=curvature)


def evaluate(
    programs: Iterable[Program | str | Path],
    task: str,
    *,
    steps: int | None = None,
    seeds: Sequence[int] = (0,),
    learning_rates: Sequence[float] | None = None,
    evaluator: Evaluator | None = None,
    curvature: Curvature | None = None,
) -> list[Score]:
    """Train a task with each program and return the scores in the order of the programs.

    The schedule is linear warm-up over 5 % of the steps and cosine decay to zero.

    Args:
        programs: Programs, or what `load` takes.
        task: Name of the task.
        steps: Horizon; the task's own without it.
        seeds: Training runs per learning rate, numbers below 2**31; a score is the mean over them.
        learning_rates: Peak rates of which the best counts; the task's grid without them.
        evaluator: What does the work and stays open; without it, this process.
        curvature: The estimate of the Hessian diagonal that programs which read `hess` are given; without it
            Hutchinson's, made every 10 steps.

    Raises:
        InputError: For an argument that cannot be used.
        ProgramError: For a text that is not a program.
        EvaluatorUnavailable: If no worker starts, or the data of the task cannot be had.

    """
    if isinstance(programs, (str, Path, Program)):
        raise InputError("programs must be a list of programs, such as [program]")
    if not isinstance(task, str):
        raise InputError(f"task must be the name of a task, got {task!r}")
    check_task(task)
    jobs = _jobs(list(programs), task, steps, seeds, learning_rates)
    if curvature is not None:
        jobs = [replace(job, curvature=curvature) for job in jobs]
    if evaluator is not None:
        return collected(jobs, evaluator)
    from evolion.evaluators.inline import inline_evaluator

    with inline_evaluator() as own:
        return collected(jobs, own)


def _jobs(
    programs: list[Program | str | Path],
    task: str,
    steps: int | None,
    seeds: Sequence[int],
    learning_rates: Sequence[float] | None,
) -> list[Job]:
    from evolion.evaluators.types import Job
    from evolion.proxies.registry import get_task

    found = get_task(task)
    steps = found.steps if steps is None else steps
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps must be a whole number from 1, got {steps!r}")
    try:
        numbers = tuple(map(operator.index, seeds))
    except TypeError:
        numbers = ()
    if not numbers or len(set(numbers)) < len(numbers) or not all(0 <= number < SEED_LIMIT for number in numbers):
        raise InputError(f"seeds must be different whole numbers from 0 to 2**31 - 1, at least one, got {seeds!r}")
    rates = found.learning_rates if learning_rates is None else tuple(learning_rates)
    if not rates or not all(0.0 < rate < float("inf") for rate in rates):
        raise InputError(f"learning_rates must be positive numbers, at least one, got {rates!r}")
    loaded = [program if isinstance(program, Program) else load(program) for program in programs]
    return [Job(number, program, task, steps, numbers, rates) for number, program in enumerate(loaded)]


def collected(
    jobs: Sequence[Job], evaluator: Evaluator, report: Callable[[int, int], None] | None = None
) -> list[Score]:
    """Submit jobs of different numbers to an idle evaluator and return the scores in the order of the jobs.

    `report` is told how many are done and how many there are.
    """
    for job in jobs:
        evaluator.submit(job)
    scores: dict[int, Score] = {}
    while len(scores) < len(jobs):
        finished = evaluator.collect()
        if not finished:
            raise RuntimeError(f"the evaluator returned nothing with {len(jobs) - len(scores)} jobs to do")
        scores |= {job.number: score for job, score in finished}
        if report is not None:
            report(len(scores), len(jobs))
    return [scores[job.number] for job in jobs]


def check_task(name: str) -> None:
    """Raise InputError for a name that is no task, or has modifiers that the task cannot take; builds no task."""
    from evolion.proxies.registry import get_spec

    try:
        get_spec(name)
    except ValueError as error:
        raise InputError(str(error)) from None


def search(
    config: RunConfig | None = None,
    out: Path | str | None = None,
    *,
    workers: int | None = None,
    ray: str | None = None,
    batch: int | None = None,
    evaluator: Evaluator | None = None,
    observer: Observer | None = None,
    store: Path | str | None = None,
) -> Result:
    """Run a whole discovery: search, retest beside the baselines, ablation, export.

    Args:
        config: What determines the result; the defaults without it.
        out: The run folder, new or empty; without it a new one among the system's temporary files.
        workers: Worker processes; the number of CPUs without it.
        ray: Address of a Ray cluster, or "local".
        batch: Train so many candidates at a time on jax's first device, in this process, instead of workers.
        evaluator: What does the work, instead of `workers` and `ray`.
        observer: Is told about progress.
        store: A file of scores that runs share; it is made where there is none. It changes nothing but the time taken,
            unless it holds scores of candidates that would need more memory than this run allows.

    Raises:
        InputError: For a folder that is taken, or a program, store or address that cannot be used.

    """
    from evolion.config import RunConfig

    config = RunConfig() if config is None else config
    if not isinstance(config, RunConfig):
        raise InputError(f"config must be a RunConfig, got {type(config).__name__}; evolion.config_text reads files")
    from evolion.driver import discover

    folder = Path(tempfile.mkdtemp(prefix="evolion-")) if out is None else Path(out)
    options: dict[str, Any] = {"evaluator": evaluator, "workers": workers, "ray": ray, "batch": batch}
    return discover(config, folder, observer=observer, store=store, **options)
