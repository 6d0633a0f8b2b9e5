"""One optimizer over all tasks: family-balanced speed-ups, the share of wins, profiles and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evolion.evaluators.protocol import profiles
from evolion.evaluators.protocol.cells import Scored
from evolion.evaluators.protocol.report import Aggregate, Estimate, Profile
from evolion.evaluators.protocol.resampling import Floats, Resampler, estimate, hierarchical, ratio_estimate

__all__ = ["Comparison", "aggregate", "profiles_of"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything scored.

    Attributes:
        reference: The optimizer in whose steps speed-ups are.
        controls: By optimizer, the one of which it is a renamed copy; "" for others.
        timed: Those with horizons of their own, without which no time is known but that of the task's.
        scored: By task, then by optimizer.
        resampler: The source of the draws.
        level: Of the intervals.

    """

    reference: str
    controls: Mapping[str, str]
    timed: Sequence[str]
    scored: Mapping[str, Mapping[str, Scored]]
    resampler: Resampler
    level: float

    def times(self) -> dict[str, profiles.Times]:
        """Return the times of those that have any; of a cell without runs they are None, which counts as never."""
        return {
            name: {
                (task, share): time
                for task, cells in self.scored.items()
                for share, time in cells[name].cell.times.items()
            }
            for name in self.timed
        }

    def pool(self, optimizer: str, without: str = "") -> list[str]:
        """Return those among whom the best is sought: no renamed copies, which would raise the bar, but itself."""
        return [name for name in self.timed if (not self.controls[name] and name != without) or name == optimizer]


def aggregate(comparison: Comparison, name: str, kind: str) -> Aggregate:
    """Return what an optimizer is worth over all tasks."""
    cells = {task: by_name[name] for task, by_name in comparison.scored.items()}
    logs = {task: scored.logs for task, scored in cells.items() if scored.logs is not None}
    seconds = {task: _relative_time(by_name, comparison.reference, name) for task, by_name in comparison.scored.items()}
    walls = {task: draws + shift for task, draws in logs.items() if (shift := seconds[task]) is not None}
    found = comparison.times()

    def total(draws: Mapping[str, Floats], over_families: bool, shifts: Mapping[str, float | None]) -> Estimate | None:
        moved = {task: shifts.get(task) or 0.0 for task in draws}
        return _balanced(comparison, cells, draws, moved, over_families)

    def score(without: str = "") -> float | None:
        if name not in found:
            return None
        return profiles.score(profiles.ratios_to_best(found, name, comparison.pool(name, without)))

    left_out = {
        other: value for other in comparison.pool(name) if other != name and (value := score(other)) is not None
    }
    runs = sum(scored.runs for scored in cells.values())
    by_family = _by_family(cells, {task: _log(cells[task]) for task in logs})
    return Aggregate(
        optimizer=name,
        control=comparison.controls[name],
        tasks=len(logs),
        speed_up=total(logs, False, {}),
        wall=total(walls, False, seconds),
        by_family={family: math.exp(value) for family, value in by_family.items()},
        better=None if name == comparison.reference else _better(comparison, cells),
        score=score(),
        score_without=left_out,
        diverged=sum(scored.failed for scored in cells.values()) / runs if runs else 0.0,
        over_families=total(logs, True, {}),
        kind=kind,
    )


def profiles_of(comparison: Comparison, *, to_reference: bool = False) -> tuple[Profile, ...]:
    """Return the profile of each optimizer that has times, in their order: against the best, or the reference."""
    found = comparison.times()

    def made(name: str) -> Profile:
        if to_reference:
            ratios = profiles.ratios_to_reference(found, name, comparison.reference)
            return profiles.profile(name, ratios, profiles.REFERENCE_RATIOS)
        ratios = profiles.ratios_to_best(found, name, comparison.pool(name))
        return profiles.profile(name, ratios, profiles.BEST_RATIOS)

    return tuple(map(made, comparison.timed))


def _log(scored: Scored) -> float:
    assert scored.cell.speed_up is not None
    return math.log(scored.cell.speed_up.estimate.value)


def _relative_time(cells: Mapping[str, Scored], reference: str, name: str) -> float | None:
    """Return the logarithm of the reference's time of a run over that of an optimizer."""
    ours, theirs = cells[name].cell.seconds, cells[reference].cell.seconds
    return math.log(theirs / ours) if ours and theirs else None


def _families(cells: Mapping[str, Scored], tasks: Sequence[str]) -> dict[str, list[str]]:
    families: dict[str, list[str]] = {}
    for task in sorted(tasks):
        families.setdefault(cells[task].cell.family, []).append(task)
    return families


def _by_family(cells: Mapping[str, Scored], points: Mapping[str, float]) -> dict[str, float]:
    families = _families(cells, list(points))
    return {name: math.fsum(points[t] for t in tasks) / len(tasks) for name, tasks in sorted(families.items())}


def _balanced(
    comparison: Comparison,
    cells: Mapping[str, Scored],
    draws: Mapping[str, Floats],
    shifts: Mapping[str, float],
    over_families: bool,
) -> Estimate | None:
    """Return the geometric mean within families and then over them.

    Args:
        comparison: Everything scored.
        cells: Of one optimizer, by task.
        draws: Of the logarithm that is averaged, by the tasks that have one, each of shape (draws,).
        shifts: By the same tasks, what is added to the logarithm of the speed-up; in `draws` it is already.
        over_families: Whether families are resampled too.

    """
    if not draws:
        return None
    means = _by_family(cells, {task: _log(cells[task]) + shift for task, shift in shifts.items()})
    value = math.fsum(means.values()) / len(means)
    families = _families(cells, list(draws))
    drawn = hierarchical(comparison.resampler, families, draws, over_families=over_families)
    freedom = sum(len(cells[task].cell.losses) - 1 for task in draws)
    # Tasks are resampled: at the utmost each is the one that reaches farthest.
    low = min(cells[task].reach[0] + shift for task, shift in shifts.items())
    high = max(cells[task].reach[1] + shift for task, shift in shifts.items())
    return ratio_estimate(value, drawn, comparison.level, freedom, (low, high))


def _better(comparison: Comparison, cells: Mapping[str, Scored]) -> Estimate | None:
    """Return the probability of improvement over all (task, seed) pairs, tasks and seeds resampled."""
    wins = {task: scored.wins for task, scored in cells.items() if scored.wins}
    if not wins:
        return None
    resampler = comparison.resampler
    shares = {task: resampler.means(f"seeds of {task}", by_seed) for task, by_seed in wins.items()}
    rows = np.arange(resampler.draws)
    sums, counts = np.zeros(resampler.draws), np.zeros(resampler.draws)
    for family, tasks in _families(cells, list(wins)).items():
        drawn = resampler.indices(f"tasks of {family}", tasks)
        sizes = np.array([len(wins[task]) for task in tasks], np.float64)
        # By draw and place: how many pairs the drawn task has, and how many of them are won.
        weights = sizes[drawn]
        sums += (weights * np.stack([shares[task] for task in tasks])[drawn, rows[:, None]]).sum(axis=1)
        counts += weights.sum(axis=1)
    value = math.fsum(map(math.fsum, (w.values() for w in wins.values()))) / sum(map(len, wins.values()))
    return estimate(value, sums / counts, comparison.level)
