"""Runs of any size for tests of what reads them: made row by row, without a search."""

import random
from pathlib import Path
from typing import Any

from stub_evaluator import stub_config

from evolion.config import RunConfig
from evolion.evaluators.stages import Reason
from evolion.records import CandidateRecord, Confirmation, Outcome
from evolion.run_files import CONFIG as CONFIG_FILE
from evolion.store import RunStore

ENVIRONMENT = {"evolion": "0.1.0", "numerics": "stub"}
TEXT = "def train(w, g, m, lr, *, b1={}):\n    m = interp(g, m, b1)\n    update = lr * m\n    return update, m\n"
MUTATIONS = ("insert", "delete", "modify", "crossover 0")
WINNER = 100


def program_text(number: int) -> str:
    return TEXT.format(round(0.5 + 0.4999 * (number % 97) / 97, 6))


def interval(mean: float, half: float = 0.01) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def table_of(
    differences: dict[str, float | None], tasks: tuple[str, ...] = ("digits-mlp", "zipf-lm")
) -> dict[str, Any]:
    """The record of a retest against baselines, by the difference of the losses; None for one that diverged."""
    common = {"seeds": 3, "learning_rate": 0.01, "weight_decay": None, "trials": 4, "at_edge": True}
    rows = []
    for task in tasks:
        own = {"loss": interval(1.0), "train_loss": interval(0.5), "difference": None, "train_difference": None}
        rows.append(
            common | own | {"task": task, "program": "discovered", "diverged": 0, "verdict": "", "train_verdict": ""}
        )
        for name, difference in differences.items():
            said = (
                "better"
                if (difference or 0) < -0.01
                else "worse"
                if (difference or 0) > 0.01
                else "no difference shown"
            )
            lost = difference is None
            said = "not comparable: a run diverged" if lost else said
            row = {
                "loss": None if lost else interval(1.0 - (difference or 0.0)),
                "train_loss": None if lost else interval(0.5),
                "difference": None if lost else interval(difference or 0.0),
                "train_difference": None if lost else interval(0.0),
            }
            rows.append(
                common
                | row
                | {"task": task, "program": name, "diverged": int(lost), "verdict": said, "train_verdict": said}
            )
    return {"winner": "discovered", "steps": dict.fromkeys(tasks, 40), "rows": rows}


def write_run(
    folder: Path,
    count: int,
    *,
    told: int | None = None,
    failing: bool = False,
    config: RunConfig | None = None,
    text: str | None = None,
    mutation: str | None = None,
    winner: int | None = WINNER,
    table: dict[str, Any] | None = None,
) -> Path:
    """Write a run of two stages with failures, duplicates, hurdles and confirmations; `told` of `count` are told."""
    rng = random.Random(count)
    settings = config or stub_config(count)
    with RunStore.create(folder, settings, ENVIRONMENT) as store, store.transaction():
        store.event("start", {"workers": 2, "ray": None})
        for number in range(count):
            parent = None if number == 0 else rng.randrange(max(0, number - 200), number) if number > 9 else 0
            name = "seed" if number == 0 else mutation or rng.choice(MUTATIONS)
            key = f"{number // 2 if number % 10 == 1 else number:032x}"
            body = program_text(number) if text is None else text
            store.add_candidate(CandidateRecord(number, parent, name, body, key, key, "ok"))
            if told is None or number < told:
                store.add_outcome(outcome_of(number, rng, failing))
        last = count if told is None else told
        for number in range(0, last, 40):
            found = store.outcome(number)
            if found is not None and found.fitness is not None and found.value is not None:
                value = found.value * rng.uniform(0.99, 1.02)
                fitness = (found.fitness[0], 1.01 * value)
                store.add_confirmation(Confirmation(number, Reason.FINISHED, fitness, value, 0.01))
        if winner is not None and told is None and not failing:
            store.put_record("table", table or table_of({"adamw": 0.002, "lion": -0.3}))
            effects = {"digits-mlp": [0.01, 0.002], "zipf-lm": None}
            store.put_record("ablation", [{"statement": "m = interp(g, m, b1)", "effects": effects, "removed": False}])
            store.event("searched", {"workers": 2, "deaths": 3, "timeouts": 1})
            store.event("quarantined", {"file": "quarantine/ab.txt", "message": "quarantined: segmentation fault"})
            store.set_winner(winner, program_text(winner) if text is None else text)
    assert (folder / CONFIG_FILE).exists()
    return folder


def outcome_of(number: int, rng: random.Random, failing: bool) -> Outcome:
    kind = rng.random()
    if failing or (number % WINNER and kind < 0.3):
        stopped = kind < 0.2
        return Outcome(number, Reason.DEAD if stopped else Reason.DIVERGED, None, None if stopped else 0, False)
    value = 1.0 / (1 + 0.1 * (number + 1) ** 0.3) * rng.uniform(1.0, 1.5)
    if number % WINNER and kind < 0.7:
        return Outcome(number, Reason.HURDLE, (-0.0, value), 0, number % 10 == 1, value, 0.9 * value)
    return Outcome(number, Reason.FINISHED, (-1.0, value), 1, number % 10 == 1, value)
