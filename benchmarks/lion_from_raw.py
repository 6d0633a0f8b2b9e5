"""From the Lion paper's raw program to Lion's form: exact rules, approximate rules, then ablation on a task.

Each round of the ablation takes out every statement in turn and trains what is left, each program at its best learning
rate, losses paired by seed. The removal that costs least is made if it costs no more than a margin that is given.

Run: python benchmarks/lion_from_raw.py [--task NAME] [--seeds N] [--margin LOSS] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import evolion
from evolion.primitives.program import Program
from evolion.proxies.score import Score, Status
from evolion.search.ablation import removals

RAW = evolion.load(Path(__file__).parent / "lion_raw.txt")
RATES = (2.5, 4.0, 6.0, 10.0)
"""The program multiplies its learning rate by 2.17e-4: these are 5e-4 to 2e-3 of Lion's."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What the loss gains, as mean and standard error over seeds, when a statement goes; inf if a run diverges."""

    statement: str
    shorter: Program
    change: float
    error: float


def change(ours: Score, theirs: Score) -> tuple[float, float]:
    """Return the mean change of the loss and its standard error, each program at its best rate, paired by seed."""
    losses = []
    for score in (ours, theirs):
        best = [run for run in score.runs if run.learning_rate == score.learning_rate]
        if score.status is not Status.OK or any(run.loss is None for run in best):
            return math.inf, 0.0
        losses.append([float(run.loss) for run in best if run.loss is not None])
    gaps = [a - b for a, b in zip(*losses, strict=True)]
    mean = sum(gaps) / len(gaps)
    return mean, math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1) / len(gaps))


def ablation_round(program: Program, task: str, seeds: Sequence[int]) -> list[Removal]:
    """Return the best removal of every statement that has one."""
    rows = [(index, evolion.simplify(v, exact=False)) for index, variants in removals(program) for v in variants]
    scores = evolion.evaluate([program, *[v for _, v in rows]], task, seeds=seeds, learning_rates=RATES)
    found: dict[int, Removal] = {}
    for (index, variant), score in zip(rows, scores[1:], strict=True):
        removal = Removal(str(program.statements[index]), variant, *change(score, scores[0]))
        if index not in found or removal.change < found[index].change:
            found[index] = removal
    return list(found.values())


def ablated(program: Program, task: str, seeds: Sequence[int], margin: float, rounds: int = 8) -> list[list[Removal]]:
    """Return the rounds of a greedy ablation; the first removal of each but the last is the one that was made."""
    history = []
    for _ in range(rounds):
        tried = sorted(ablation_round(program, task, seeds), key=lambda removal: removal.change)
        history.append(tried)
        if not tried or tried[0].change > margin:
            break
        program = tried[0].shorter
    return history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="zipf-lm", help="name of the task")
    parser.add_argument("--seeds", type=int, default=6, help="number of training runs a program and rate")
    parser.add_argument("--margin", type=float, default=0.002, help="what a statement must be worth to stay")
    parser.add_argument("--json", action="store_true", help="print one JSON object a round")
    options = parser.parse_args()
    exact, approximate = evolion.simplify(RAW), evolion.simplify(RAW, exact=False)
    sizes = [len(program.statements) for program in (RAW, exact, approximate)]
    if not options.json:
        print("statements: {} as found, {} exact, {} approximate\n".format(*sizes))
    for tried in ablated(approximate, options.task, range(options.seeds), options.margin):
        rows = [(removal.change, removal.error, removal.statement) for removal in tried]
        gone = str(tried[0].shorter) if tried and tried[0].change <= options.margin else None
        if options.json:
            print(json.dumps({"removals": rows, "left": gone}))
            continue
        print("\n".join(f"{mean:+.4f} ± {error:.4f}  without  {statement}" for mean, error, statement in rows))
        print(f"\n{gone}" if gone else "\nnothing more can go")


if __name__ == "__main__":
    main()
