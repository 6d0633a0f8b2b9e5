"""Reports and tables of comparisons that never ran, for the tests of tables and pictures."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evolion.evaluators.protocol.report import Aggregate, Cell, Estimate, Profile, Report, SpeedUp, TuningPoint
from evolion.evaluators.protocol.rows import Row, Stage
from evolion.proxies.score import Status, curve_steps

FAMILIES = {"zipf-lm": "transformer", "glyph-vit": "transformer", "digits-cnn": "convolution", "teacher": "mlp"}
SPEEDS = {"adamw": 1.0, "lion": 0.92, "sgdm": 0.55, "muon": 1.32}
HORIZONS = (0.25, 0.5, 1.0, 2.0, 4.0)
STEPS = 400
START, FLOOR = 4.0, 0.8
SEEDS = 4


def final_loss(time: float) -> float:
    """A loss that falls as a power of the steps in units of the reference; infinite for none."""
    return FLOOR + 0.9 * time**-0.4 if time > 0 else math.inf


def row(task: str, optimizer: str, stage: Stage, seed: int, loss: float, **changes: object) -> Row:
    """A run with a curve that falls from the start to the loss; infinite: it diverged."""
    ok = math.isfinite(loss)
    steps = np.asarray(curve_steps(STEPS)) + 1
    noise = np.random.default_rng(seed).normal(size=steps.size) * 0.04
    curve = loss + (START - loss) * steps**-0.6 + noise if ok else np.asarray([START, 9.0, 40.0])
    plain = Row(
        id=f"{task} {optimizer} {stage} {seed} {changes}", optimizer=optimizer, program=optimizer, control="",
        task=task, family=FAMILIES.get(task, "other"), task_digest="d", parameters=1000, floor=FLOOR, stage=stage,
        trial=None, unit=None, learning_rate=1e-3, shrinkage=0.3, weight_decay=0.1, horizon=1.0, steps=STEPS,
        batch_size=32, seed=seed, status=Status.OK if ok else Status.DIVERGED, loss=loss if ok else None,
        train_loss=loss if ok else None, start=START, curve=tuple(curve.tolist()), seconds=1.5, slots=2.0,
        operations=12.0, numerics="cpu",
    )  # fmt: skip
    return replace(plain, **changes)


def cell(task: str, optimizer: str, reference: str, rows: Sequence[Row], speed: float) -> Cell:
    """What a report says of the runs of one optimizer on one task, of a given speed."""
    reported = [r for r in rows if r.stage is Stage.REPORT and (r.task, r.optimizer) == (task, optimizer)]
    losses = tuple(r.ranked for r in reported)
    mean, known = float(np.mean(losses)), all(map(math.isfinite, losses))
    is_reference = optimizer == reference
    centre = 1e-3 * speed
    rates = [centre * 10**x for x in np.linspace(-1.5, 1.5, 13)]
    valley = [(r, final_loss(speed) + 0.5 * math.log10(r / centre) ** 2 * (1 + (r > centre))) for r in rates]
    speed_up = SpeedUp(Estimate(speed, speed * 0.88, speed * 1.12), "low" if speed < 0.3 else "")
    tuning = tuple(TuningPoint(k, final_loss(speed) + 0.9 / k, 0.5 / k) for k in range(1, 17))
    return Cell(
        optimizer=optimizer, task=task, family=FAMILIES.get(task, "other"), learning_rate=centre, shrinkage=0.3,
        edges=("learning rate, high",) if optimizer == "sgdm" else (), extensions=int(optimizer == "sgdm"), trials=24,
        losses=losses, mean=mean if known else None, deviation=0.03 if known and len(losses) > 1 else None,
        diverged=0.0 if known else 0.5,
        difference=None if is_reference else Estimate(0.1, 0.05, 0.15), corrected=None if is_reference else 0.02,
        speed_up=None if is_reference or not known else speed_up,
        times={0.5: 0.5, 1.0: 1.0 if speed >= 1 else None, 2.0: None}, sensitivity=0.31, basin=0.8,
        rates=tuple((r, loss if loss < 3.5 else math.inf) for r, loss in valley), tuning=tuning,
        curve_steps=curve_steps(STEPS) if known else (),
        curve=tuple(np.mean([r.curve for r in reported], axis=0).tolist()) if known else (),
        seconds=1.5, slots=2.0, operations=12.0,
    )  # fmt: skip


def table(
    tasks: Sequence[str], speeds: dict[str, float], reference: str, seeds: int, horizons: Sequence[float]
) -> list[Row]:
    """The reported runs of optimizers of given speeds, and the reference's ladder."""
    rows = []
    for t, task in enumerate(tasks):
        for o, (name, speed) in enumerate(speeds.items()):
            for seed in range(seeds):
                loss = final_loss(speed * (1 + 0.04 * t)) + 0.02 * math.sin(seed * 3 + o)
                rows.append(row(task, name, Stage.REPORT, seed, loss))
        for horizon in (h for h in horizons if h != 1):
            for seed in range(seeds):
                loss = final_loss(horizon * speeds[reference]) + 0.02 * math.sin(seed)
                rows.append(row(task, reference, Stage.HORIZON, seed, loss, horizon=horizon))
    return rows


def aggregate(name: str, reference: str, cells: Sequence[Cell], speed: float) -> Aggregate:
    """What a report says of an optimizer over all tasks."""
    own = [c.speed_up for c in cells if c.optimizer == name and c.speed_up]
    known = Estimate(speed, speed * 0.93, speed * 1.07) if own else None
    return Aggregate(
        optimizer=name, control="", tasks=len(own), speed_up=known, wall=known,
        by_family={c.family: speed for c in cells} if own else {},
        better=None if name == reference else Estimate(0.8, 0.55, 0.95), score=0.6,
        score_without={c.optimizer: 0.7 for c in cells if c.optimizer != name}, diverged=0.0 if own else 0.5,
    )  # fmt: skip


def sample(
    tasks: Sequence[str] = tuple(FAMILIES),
    speeds: dict[str, float] | None = None,
    *,
    seeds: int = SEEDS,
    horizons: Sequence[float] = HORIZONS,
    band: tuple[float, float] | None = (0.97, 1.04),
) -> tuple[Report, list[Row]]:
    """A report and its table: the first optimizer is the reference, a speed of zero stands for divergence."""
    speeds = SPEEDS if speeds is None else speeds
    reference = next(iter(speeds))
    rows = table(tasks, speeds, reference, seeds, horizons)
    cells = [
        cell(t, n, reference, rows, max(s, 0.1) * (1 + 0.04 * i))
        for i, t in enumerate(tasks)
        for n, s in speeds.items()
    ]
    ratios = (1.0, 1.5, 2.0, 3.0, 4.0)
    profiles = [Profile(n, ratios, tuple(min(1.0, 0.2 * r * s) for r in ratios)) for n, s in speeds.items()]
    against = (0.5, 0.8, 1.0, 1.3, 2.0, 4.0)
    reference_profiles = [Profile(n, against, tuple(min(1.0, 0.5 * r * s) for r in against)) for n, s in speeds.items()]
    return (
        Report(
            reference=reference, level=0.95, cells=tuple(cells),
            aggregates=tuple(aggregate(n, reference, cells, max(s, 0.1)) for n, s in speeds.items()),
            profiles=tuple(profiles), reference_profiles=tuple(reference_profiles), band=band,
            notes=("cifar-cnn was left out: its data is not on this machine.",),
        ),
        rows,
    )  # fmt: skip
