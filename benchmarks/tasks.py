"""What each proxy task is worth for ranking optimizers: seed noise, agreed facts, order of eleven anchors, cost.

    python benchmarks/tasks.py --out comparisons/tasks           # compares the anchors on every task, or goes on
    python benchmarks/tasks.py --out comparisons/tasks --write   # the same, then writes docs/tasks.md
    python benchmarks/tasks.py --lock                            # freezes the sets in proxies/suite.lock.json

The tasks that may become ranking tasks see all anchors, the others the four that the agreed facts are about.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evolion.evaluators.environment import prepare

ROOT = Path(__file__).resolve().parents[1]
ANCHORS_OF_FACTS = ("adamw", "lion", "sgdm", "muon")
RANKABLE = (
    "teacher-student",
    "mnist1d-cnn",
    "glyph-cnn",
    "zipf-lm",
    "text-lm",
)
"""Tasks that see all anchors; the others see the four that the agreed facts are about."""

TRIALS, SEEDS = 6, 3


def everything() -> tuple[str, ...]:
    from evolion.proxies.registry import SPECS

    return tuple(name for name in SPECS if not name.startswith("ladder-"))


def measured(out: Path, names: Sequence[str], task: str) -> Any:
    """The comparison of some optimizers on a task, run or gone on with, in a folder of its own."""
    from evolion.api import load
    from evolion.compare import compare, manifest_of
    from evolion.evaluators.factory import make_evaluator
    from evolion.evaluators.protocol.plan import make_plan
    from evolion.view import view_on

    programs = {name: str(load(name)) for name in names}
    plan = make_plan(programs, (task,), trials=TRIALS, seeds=SEEDS, controls=0)
    plan = replace(
        plan,
        horizons=(),
        reference_horizons=(0.5, 2.0),
        refinements=8,
        extensions=1,
        edge_points=2,
        sensitivity_points=0,
    )
    with view_on(sys.stderr, lines=True) as observer:
        return compare(manifest_of(plan), out / task, lambda: make_evaluator(2), observer=observer)


def reported(folder: Path) -> Any:
    """A comparison that was run before."""
    from evolion.compare import read_manifest, write_outputs

    return write_outputs(read_manifest(folder), folder)


def costs(name: str) -> tuple[int, float, float, float]:
    """Parameters, seconds to compile, milliseconds a step, and flops of a gradient, for AdamW in the plain loop."""
    import jax
    import optax

    from evolion.proxies.registry import get_task
    from evolion.proxies.schedules import warmup_cosine
    from evolion.proxies.training import train

    task: Any = get_task(name)
    rate = warmup_cosine(task.learning_rates[1], task.steps)
    tx = optax.adamw(rate, weight_decay=1e-3)
    steps = max(20, min(task.steps, 200))
    started = time.perf_counter()
    train(task, tx, steps=steps)
    first = time.perf_counter() - started
    times = []
    for seed in (1, 2, 3):
        started = time.perf_counter()
        train(task, tx, steps=steps, seed=seed)
        times.append(time.perf_counter() - started)
    warm = statistics.median(times)
    batch = jax.tree.map(lambda leaf: leaf[: task.batch_size], dict(task.data("train")))
    analysis = jax.jit(jax.grad(task.loss)).lower(task.init(0), batch).compile().cost_analysis()
    flops = float((analysis if isinstance(analysis, dict) else analysis[0])["flops"])
    return task.parameters, first - warm, 1e3 * warm / steps, flops


def start_of(name: str) -> float:
    import jax

    from evolion.proxies.registry import get_task

    task = get_task(name)
    return float(jax.jit(task.loss)(task.init(0), dict(task.data("validation"))))


def write(found: Iterable[Any]) -> None:
    """docs/tasks.md from the comparisons."""
    from evolion.evaluators.protocol.quality import ANCHORS, quality

    wider = [cell for each in found for cell in each.report.cells if len(each.manifest.plan.entrants) >= len(ANCHORS)]
    # Later ones count: comparisons with more trials than those of this module.
    worth = {one.task: one for each in found for one in quality(each.rows, each.report, wider)}
    worth = {name: worth.get(name) for name in everything()}
    lines = (ROOT / "benchmarks" / "tasks_head.md").read_text(encoding="utf-8").splitlines()
    lines += ["", "## Cost", "", *_costs(worth), "", "## Worth for ranking", "", *_worth(worth), "", *_sets()]
    (ROOT / "docs" / "tasks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _costs(names: Iterable[str]) -> list[str]:
    from evolion.proxies.registry import get_spec, get_task

    rows = [
        "| task | family | model and data | parameters | steps x batch | compile s | ms a step | Mflop a step | "
        "loss at the start (expected) | floor |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in names:
        spec, floor = get_spec(name), get_task(name).floor
        parameters, compile_time, step, flops = costs(name)
        rows.append(
            f"| `{name}` | {spec.family} | {spec.summary} | {parameters:,} | {spec.steps:,} x {spec.batch_size} | "
            f"{compile_time:.1f} | {step:.2f} | {flops / 1e6:.1f} | {start_of(name):.2f} ({spec.start:.2f}) | "
            f"{'–' if floor is None else f'{floor:.4g}'} |"
        )
        print(rows[-1], flush=True)
    return rows


def _worth(worth: dict[str, Any]) -> list[str]:
    names = list(dict.fromkeys(name for one in worth.values() if one for name in one.speed_ups if name != "adamw"))
    rows = [
        "| task | for | noise of a run | " + " | ".join(names) + " | tau | s a run | why not for ranking |",
        "|---|---|---:|" + "---:|" * len(names) + "---:|---:|---|",
    ]
    for name, one in worth.items():
        if one is None:
            rows.append(f"| `{name}` | diagnostic | –" + " | " * len(names) + " | | | not measured |")
            continue
        speeds = " | ".join(f"{one.speed_ups[other]:.2f}" if other in one.speed_ups else "" for other in names)
        resolution = "–" if one.resolution is None else f"{one.resolution:.0%}"
        tau = "" if one.tau is None else f"{one.tau:.2f}"
        seconds = "" if one.seconds is None else f"{one.seconds:.1f}"
        purpose = "ranking" if one.ranking else "diagnostic"
        rows.append(
            f"| `{name}` | {purpose} | {resolution} | {speeds} | {tau} | {seconds} | {'; '.join(one.reasons)} |"
        )
    return rows


def _sets() -> list[str]:
    from evolion.proxies.sets import SETS, set_digest

    lines = ["## Sets", "", "| set | what for | tasks | digest |", "|---|---|---|---|"]
    for name, each in SETS.items():
        tasks = ", ".join(f"`{task}`" for task in each.tasks)
        lines.append(
            f"| `{name}`{' (locked)' if each.locked else ''} | {each.summary} | {tasks} | {set_digest(name)[:12]} |"
        )
    return lines


def lock() -> None:
    """Freeze the sets: the recipe of every task, and the digest of its data where that is a matter of seconds."""
    from evolion.proxies.registry import get_spec, get_task
    from evolion.proxies.sets import LOCK, SETS, recipe_digest

    sets: dict[str, Any] = {}
    for name, each in SETS.items():
        sets[name] = {}
        for task in each.tasks:
            entry = {"recipe": recipe_digest(task)}
            if name != "ladder":
                entry["data"] = get_task(task).digest
                entry["note"] = get_task(task).info.note  # type: ignore[attr-defined]
            entry["source"] = get_spec(task).data
            sets[name][task] = entry
            print(name, task, flush=True)
    LOCK.write_text(json.dumps({"format": 1, "sets": sets}, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("comparisons/tasks"))
    parser.add_argument("--task", action="append", help="only this task; repeatable")
    parser.add_argument("--also", type=Path, action="append", default=[], help="a comparison whose tasks count as well")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--as-is", action="store_true", help="write what has been measured so far, and run nothing")
    parser.add_argument("--lock", action="store_true")
    arguments = parser.parse_args()
    prepare()
    if arguments.lock:
        lock()
        return
    from evolion.evaluators.protocol.quality import ANCHORS

    names = arguments.task or everything()
    also = [reported(folder) for folder in arguments.also]
    if arguments.as_is:
        folders = [arguments.out / name for name in names]
        write([*(reported(folder) for folder in folders if (folder / "report.txt").exists()), *also])
        return

    found = []
    for name in names:
        started = time.perf_counter()
        print(f"{name} …", flush=True)
        found.append(measured(arguments.out, tuple(ANCHORS) if name in RANKABLE else ANCHORS_OF_FACTS, name))
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    if arguments.write:
        write([*found, *also])


if __name__ == "__main__":
    main()
