"""Whether evolution finds more than its controls with as many evaluations, and what it finds from plain SGD.

    python benchmarks/scale/quality.py RUNS [--seeds 0 1 2 3 4] [--tasks digits-mlp zipf-lm] [--arms …]
    python benchmarks/scale/quality.py RUNS --report docs/quality.svg

The first command makes the runs, each a folder in RUNS, and skips those that are finished: one for each seed, task and
arm. Four arms begin with the same program, AdamW as the Lion paper began with it: regularized evolution, the same with
a quarter of the candidates given to CMA-ES for constants, random search, and evolution of the constants alone. The
fifth is evolution from plain SGD with two state slots that nothing uses yet. All have the same candidates to spend,
the same stages, and nothing else to choose: one learning rate, so that the scale of the update is for the search to
find.

The second command does with every run what `evolion search` does at its end: the best four are trained with eight
fresh seeds and the best of them by the validation split is taken. Its program, and the seed program, are then trained
with sixteen seeds that nothing has used, on the test split (or for the training loss, where the search was by that).
It says what the arms reach: the loss above the floor of the task, mean over the search seeds with a 95 % interval, and
the differences paired by search seed. The picture is of what the runs took for their best while they went on, by its
confirmation; bands hold all seeds.

From SGD it says after how many candidates the best was for the first time a program with momentum (a state slot that
remembers the gradient) and one with a scale for each coordinate, or a sign (entry by entry, and the update does not
grow with the loss).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evolion.evaluators.environment import prepare

prepare()

from evolion.comparison import interval, paired_difference, verdict  # noqa: E402
from evolion.config import (  # noqa: E402
    ConfirmationConfig,
    MutationWeights,
    RunConfig,
    SearchConfig,
    StageConfig,
    program_of,
)
from evolion.evaluators.factory import make_evaluator  # noqa: E402
from evolion.evaluators.metric import excess_of  # noqa: E402
from evolion.evaluators.pool import Limits  # noqa: E402
from evolion.evaluators.stages import Stage  # noqa: E402
from evolion.evaluators.types import Job  # noqa: E402
from evolion.funnel import run_search  # noqa: E402
from evolion.ledger import Ledger  # noqa: E402
from evolion.primitives.cost import cost  # noqa: E402
from evolion.primitives.dataflow import data_flow, remove_dead_code  # noqa: E402
from evolion.primitives.parser import parse  # noqa: E402
from evolion.primitives.program import Program  # noqa: E402
from evolion.progress import silent  # noqa: E402
from evolion.records import Standing  # noqa: E402
from evolion.retest import finalists_of  # noqa: E402
from evolion.search.traits import gradient_degree  # noqa: E402
from evolion.store import RunStore  # noqa: E402

ADAMW = "adamw_seed"
SGD = "@protected\ndef train(w, g, m, v, lr):\n    update = lr * g\n    return update, m, v\n"
ARMS: Mapping[str, tuple[str, str]] = {
    "evolution": ("regularized-evolution", ADAMW),
    "evolution with CMA-ES": ("constants-cma", ADAMW),
    "constants only": ("constants-only", ADAMW),
    "random": ("random", ADAMW),
    "evolution from SGD": ("regularized-evolution", SGD),
}
STAGES: Mapping[str, tuple[StageConfig, ...]] = {
    "digits-mlp by training loss": (
        StageConfig("digits-mlp", steps=100, learning_rates=(0.01,), metric="train_loss"),
        StageConfig("digits-mlp", learning_rates=(0.01,), metric="train_loss", hurdle=0.1),
    ),
    "digits-mlp": (
        StageConfig("digits-mlp", steps=100, learning_rates=(0.01,)),
        StageConfig("digits-mlp", learning_rates=(0.01,), hurdle=0.1),
    ),
    # With 2 % instead of 20 % hardly a tournament has a member that was trained to the end, and what is selected is
    # how fast a rule learns in 40 steps.
    "zipf-lm": (
        StageConfig("zipf-lm", steps=40, learning_rates=(0.03,)),
        StageConfig("zipf-lm", learning_rates=(0.03,), hurdle=0.2),
    ),
}
FINALISTS = 4
SELECTION_SEEDS = tuple(range(800_000, 800_008))
RETEST_SEEDS = tuple(range(900_000, 900_016))
DONE = "done"
TIMEOUT = 7200.0
"""Seconds: so many that a machine which is busy with something else ends no candidate."""


def config_of(arm: str, task: str, seed: int, candidates: int) -> RunConfig:
    """Return the configuration of a run."""
    algorithm, start = ARMS[arm]
    search = SearchConfig(
        algorithm=algorithm,  # type: ignore[arg-type]
        warm_start=start,
        budget=candidates,
        lag=16,
        population=1000,
        tournament=25,
        mutations=MutationWeights(scale=3.0),
    )
    confirmation = ConfirmationConfig(share=0.01)
    return RunConfig(seed=seed, timeout=TIMEOUT, search=search, stages=STAGES[task], confirmation=confirmation)


def make_runs(arguments: argparse.Namespace) -> None:
    """Make the runs that are not there yet, task by task."""
    limits = Limits(job=TIMEOUT)
    with make_evaluator(arguments.workers, limits=limits) as evaluator:  # type: ignore[attr-defined]
        for task in arguments.tasks:
            for seed in arguments.seeds:
                for arm in arguments.arms:
                    folder = arguments.runs / f"{task}, {arm}, {seed}"
                    if (folder / DONE).exists():
                        continue
                    config = config_of(arm, task, seed, arguments.candidates).pinned()
                    begun, started = (folder / "run.sqlite").exists(), time.monotonic()
                    with RunStore.open(folder) if begun else RunStore.create(folder, config, {}) as store:
                        if store.config != config:
                            raise SystemExit(f"{folder} was begun with other settings: choose another folder for runs")
                        program = program_of(config.search.warm_start)
                        run_search(config, program, Ledger(store, evaluator), silent())
                        best, counts = store.best(), store.counts()
                    (folder / DONE).touch()
                    value = best.fitness[-1] if best else math.nan
                    seconds = time.monotonic() - started
                    print(f"{folder.name}: {value:.4f}, {counts.evaluated:,} trained, {seconds:.0f} s", flush=True)


def improvements(store: RunStore) -> Iterator[tuple[int, float, str]]:
    """Yield after how many candidates there was a new best by its confirmation, its value and its program."""
    best: Standing | None = None
    for confirmation in store.confirmations():
        if confirmation.fitness is None or confirmation.value is None:
            continue
        standing = Standing(confirmation.number, confirmation.fitness, confirmed=True)
        if best is None or standing.rank < best.rank:
            best = standing
            record = store.candidate(confirmation.number)
            assert record is not None
            yield confirmation.number, confirmation.value, record.text


def has_momentum(program: Program) -> bool:
    """Say whether a slot that the update depends on remembers the gradient."""
    program = remove_dead_code(program)
    flow = data_flow(program)
    for slot, reference in flow.next_slots.items():
        pending, seen = [reference], set()
        while pending:
            found = pending.pop()
            if found == "g" and slot != "g":
                return True
            if isinstance(found, int) and found not in seen:
                seen.add(found)
                pending += flow.arguments[found]
    return False


def has_scale_of_coordinates(program: Program) -> bool:
    """Say whether the update stays as it is when the loss is multiplied, by what happens in each entry alone."""
    spent = cost(program)
    whole = spent.tree_reductions or spent.tensor_reductions or spent.matrix_operations or spent.decompositions
    return not whole and gradient_degree(program) == 0


def trained(
    programs: Sequence[tuple[str, Program]], seeds: tuple[int, ...], split: str, workers: int | None
) -> list[float]:
    """Return the mean loss above the floor of programs with the stages that they belong to, in their order."""
    values: dict[int, float] = {}
    with make_evaluator(workers) as evaluator:  # type: ignore[attr-defined]
        for number, (task, program) in enumerate(programs):
            stage = STAGES[task][-1]
            assert stage.learning_rates is not None
            steps = stage.steps or _steps(stage.task)
            evaluator.submit(Job(number, program, stage.task, steps, seeds, stage.learning_rates, split))
        while len(values) < len(programs):
            for job, score in evaluator.collect():
                stage = STAGES[programs[job.number][0]][-1]
                found = score.train_loss if stage.metric == "train_loss" else score.loss
                made = Stage(stage.task, metric=stage.metric)
                values[job.number] = math.inf if found is None else excess_of(found, made)
    return [values[number] for number in range(len(programs))]


def selected(finalists: Mapping[str, list[Program]], workers: int | None) -> dict[str, tuple[str, Program]]:
    """Return by run its task and the best of its finalists, by fresh seeds on the validation split."""
    named = [(run, program) for run, programs in finalists.items() for program in programs]
    tasks = [(run.split(", ")[0], program) for run, program in named]
    values = trained(tasks, SELECTION_SEEDS, "validation", workers)
    best: dict[str, tuple[float, Program]] = {}
    for (run, program), value in zip(named, values, strict=True):
        if run not in best or value < best[run][0]:
            best[run] = value, program
    return {run: (run.split(", ")[0], program) for run, (_, program) in best.items()}


def _steps(task: str) -> int:
    from evolion.proxies.registry import get_task

    return get_task(task).steps


def report(arguments: argparse.Namespace) -> None:
    """Retest, compare and draw."""
    folders = sorted(path.parent for path in arguments.runs.glob(f"*/{DONE}"))
    finalists: dict[str, list[Program]] = {}
    curves: dict[tuple[str, str], dict[int, list[tuple[int, float]]]] = {}
    firsts: dict[tuple[str, int], dict[str, int | None]] = {}
    for folder in folders:
        task, arm, seed = folder.name.split(", ")
        with RunStore.open(folder, readonly=True) as store:
            found = list(improvements(store))
            finalists[folder.name] = [finalist.program for finalist in finalists_of(store, FINALISTS)]
        curves.setdefault((task, arm), {})[int(seed)] = [(number + 1, value) for number, value, _ in found]
        if ARMS[arm][1] == SGD:
            firsts[task, int(seed)] = {
                name: next((number for number, _, text in found if test(parse(text))), None)
                for name, test in (("momentum", has_momentum), ("coordinates", has_scale_of_coordinates))
            }
        finalists[f"{task}, seed program, 0"] = [program_of(ADAMW)]
        finalists[f"{task}, SGD, 0"] = [parse(SGD)]
    winners = selected(finalists, arguments.workers)
    tested = trained(list(winners.values()), RETEST_SEEDS, "test", arguments.workers)
    values = dict(zip(winners, tested, strict=True))
    print(json.dumps({"values": values, "firsts": {f"{task}, {seed}": row for (task, seed), row in firsts.items()}}))
    for task in sorted({task for task, _ in curves}):
        _say(task, values, curves)
    for (task, seed), row in firsts.items():
        said = ", ".join(f"{name} at candidate {'never' if at is None else f'{at:,}'}" for name, at in row.items())
        print(f"{task}, from SGD, seed {seed}: {said}")
    draw(curves, arguments.report)


def _say(task: str, values: Mapping[str, float], curves: Mapping[tuple[str, str], Mapping[int, Any]]) -> None:
    print(f"{task}: seed program {values[f'{task}, seed program, 0']:.4f}, SGD {values[f'{task}, SGD, 0']:.4f}")
    by_arm = {arm: [values[f"{task}, {arm}, {seed}"] for seed in sorted(curves.get((task, arm), ()))] for arm in ARMS}
    for arm, found in by_arm.items():
        if len(found) > 1:
            mean = interval(found) if all(map(math.isfinite, found)) else "some diverged"
            print(f"  {arm:20s} {mean}  each {' '.join(f'{value:.3g}' for value in found)}")
    for first, control in itertools.product(("evolution", "evolution with CMA-ES"), ("constants only", "random")):
        seeds = sorted(set(curves.get((task, first), ())) & set(curves.get((task, control), ())))
        if len(seeds) > 1:
            pairs = [[values[f"{task}, {arm}, {seed}"] for seed in seeds] for arm in (first, control)]
            finite = all(math.isfinite(value) for values in pairs for value in values)
            difference = paired_difference(*pairs) if finite else None
            lower = sum(ours < theirs for ours, theirs in zip(*pairs, strict=True))
            told = f"{verdict(difference)} ({difference}), lower with {lower} of {len(seeds)} seeds"
            print(f"  {first} against {control}: {told}")


def draw(curves: Mapping[tuple[str, str], Mapping[int, Sequence[tuple[int, float]]]], path: Path) -> None:
    """Draw the value of the best by its confirmation against the candidates told: mean and range over seeds."""
    from matplotlib import pyplot

    tasks = sorted({task for task, _ in curves})
    figure, panels = pyplot.subplots(
        1, len(tasks), figsize=(4.2 * len(tasks), 3.5), layout="constrained", squeeze=False
    )
    styles = (("#0072b2", "-"), ("#cc79a7", "-"), ("#d55e00", "--"), ("#7a7a7a", ":"), ("#009e73", "-."))
    looks = dict(zip(ARMS, styles, strict=True))
    drawn: dict[str, Any] = {}
    grid = sorted({round(10 ** (place / 10)) for place in range(41)})
    for axes, task in zip(panels[0], tasks, strict=True):
        for arm, (colour, dashes) in looks.items():
            rows = [[_at(curve, told) for told in grid] for curve in curves.get((task, arm), {}).values()]
            if not rows:
                continue
            means = [statistics.fmean(column) for column in zip(*rows, strict=True)]
            (drawn[arm],) = axes.plot(grid, means, color=colour, linestyle=dashes)
            lows, highs = ([edge(column) for column in zip(*rows, strict=True)] for edge in (min, max))
            axes.fill_between(grid, lows, highs, color=colour, alpha=0.12, linewidth=0)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(task, loc="left", fontsize=10)
        axes.set_xlabel("candidates")
        axes.set_ylabel("loss above the floor, of the best")
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=len(drawn), frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def _at(curve: Sequence[tuple[int, float]], told: int) -> float:
    return min(value for number, value in curve if number <= max(told, curve[0][0]))


def main() -> None:
    """Make runs, or report on them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2, 3, 4))
    parser.add_argument("--tasks", nargs="+", choices=tuple(STAGES), default=tuple(STAGES))
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=tuple(ARMS))
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    print(f"python {' '.join(sys.argv)}", flush=True)
    if arguments.report is not None:
        report(arguments)
    else:
        make_runs(arguments)


if __name__ == "__main__":
    main()
