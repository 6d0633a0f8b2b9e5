"""Hand-made tables of comparisons: losses are given, everything else about a run is filled in."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evolion.evaluators.protocol.rows import Row, Stage
from evolion.proxies.score import Status

TUNING_SEED = 0
START = 5.0
FAMILIES = {"lm": "language", "lm-wide": "language", "mlp": "images", "gnn": "graphs"}


def row(optimizer: str, task: str, stage: Stage, seed: int, loss: float | None, **changes: Any) -> Row:
    """One run; without a loss it diverged."""
    fields: dict[str, Any] = {
        "optimizer": optimizer,
        "program": f"program of {optimizer}",
        "control": "",
        "task": task,
        "family": FAMILIES.get(task, "language"),
        "task_digest": f"digest of {task}",
        "parameters": 1000,
        "floor": None,
        "stage": stage,
        "trial": None,
        "unit": None,
        "learning_rate": 0.01,
        "shrinkage": 1.0,
        "weight_decay": 0.1,
        "horizon": 1.0,
        "batch_size": 32,
        "seed": seed,
        "status": Status.DIVERGED if loss is None else Status.OK,
        "loss": loss,
        "train_loss": loss,
        "start": START,
        "curve": () if loss is None else (START, 2.0, loss),
        "seconds": 2.0,
        "slots": 2.0,
        "operations": 10.0,
        "numerics": "cpu",
    }
    fields |= changes
    fields.setdefault("steps", round(100 * fields["horizon"]))
    place = (optimizer, task, stage.value, fields["trial"], fields["learning_rate"], fields["horizon"], seed)
    fields.setdefault("id", "/".join(map(str, place)))
    return Row(**fields)


def reported(
    optimizer: str, task: str, losses: Sequence[float | None], first_seed: int = 1, **changes: Any
) -> list[Row]:
    """The tuned settings on fresh seeds."""
    return [row(optimizer, task, Stage.REPORT, first_seed + i, loss, **changes) for i, loss in enumerate(losses)]


def horizons(
    optimizer: str, task: str, losses: Mapping[float, Sequence[float | None]], first_seed: int = 1, **changes: Any
) -> list[Row]:
    """Complete schedules of other lengths."""
    return [
        row(optimizer, task, Stage.HORIZON, first_seed + i, loss, horizon=horizon, **changes)
        for horizon, given in losses.items()
        for i, loss in enumerate(given)
    ]


def tuned(
    optimizer: str, task: str, losses: Sequence[float | None], unit: tuple[float, float] = (0.5, 0.5), **changes: Any
) -> list[Row]:
    """Quasi-random trials."""
    return [
        row(
            optimizer,
            task,
            Stage.TUNING,
            TUNING_SEED,
            loss,
            **{"trial": i, "unit": unit, "learning_rate": 0.01 * (i + 1), **changes},
        )
        for i, loss in enumerate(losses)
    ]


def power_law(horizon: float, floor: float = 1.0) -> float:
    """A loss that a horizon ends with."""
    return floor + horizon**-0.5


LADDER = (0.25, 0.5, 2.0, 4.0)
NOISE = (-0.02, 0.01, 0.03, -0.02)


def runs(
    optimizer: str,
    task: str,
    speed: float = 1.0,
    ladder: Sequence[float] = LADDER,
    noise: Sequence[float] = NOISE,
    trials: int = 4,
    **changes: Any,
) -> list[Row]:
    """An optimizer one step of which is worth `speed` of the reference's, with the same noise of seeds for all."""

    def at(horizon: float) -> list[float]:
        return [power_law(speed * horizon) + e for e in noise]

    return [
        *tuned(optimizer, task, [power_law(speed) + 0.1 * i for i in range(trials)], **changes),
        *reported(optimizer, task, at(1.0), **changes),
        *horizons(optimizer, task, {h: at(h) for h in ladder}, **changes),
    ]


def comparison(
    speeds: Mapping[str, float], tasks: Sequence[str] = ("lm", "lm-wide", "mlp", "gnn"), **changes: Any
) -> list[Row]:
    """Optimizers on tasks."""
    return list(
        itertools.chain.from_iterable(
            runs(name, task, speed, **changes) for name, speed in speeds.items() for task in tasks
        )
    )


def numbers(value: object) -> Iterator[float]:
    """All numbers in plain data."""
    if isinstance(value, Mapping):
        for each in value.values():
            yield from numbers(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, float) and not math.isinf(value):
        yield value
