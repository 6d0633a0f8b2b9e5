"""How the best value of a run fell, what mutations have led to, and who is ahead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evolion.checkpoints import RECORD
from evolion.evaluators.protocol.report import Estimate
from evolion.pictures.run_material import Leader, MutationUse, Progress, Track
from evolion.progress import interval_of
from evolion.records import Confirmation, Outcome, Standing
from evolion.run_history import History, confirmation_told, first_value
from evolion.run_lineage import readable
from evolion.store import RunStore

__all__ = ["Learned", "kind_of", "leaders_of", "learned", "mutations_of", "progress_of", "with_interval"]

MOST_POINTS = 700
MOST_CHANGES = 200
LEADERS = 10
_LOOKED_AT = 200


def kind_of(mutation: str) -> str:
    """Return what a mutation is called, without the number of the second parent."""
    name, _, mate = mutation.rpartition(" ")
    return name if name and mate.isdigit() else mutation


def with_interval(confirmation: Confirmation) -> Estimate | None:
    """Return a confirmed value with its 95 % interval; None for a candidate that failed."""
    if confirmation.value is None:
        return None
    return Estimate(confirmation.value, *interval_of(confirmation.value, confirmation.error or 0.0))


def _thinned(places: Sequence[int], most: int) -> list[int]:
    """Return at most so many of them, evenly, the first and the last included."""
    if len(places) <= most:
        return list(places)
    return [places[round(i * (len(places) - 1) / (most - 1))] for i in range(most)]


@dataclass(frozen=True, slots=True)
class Learned:
    """What the state of a search says, at its last checkpoint.

    Attributes:
        restarts: The last candidate told before each of the latest restarts.
        weights: The share of each mutation in draws, where mutations adapt.

    """

    restarts: tuple[int, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)


def learned(store: RunStore) -> Learned:
    """Return what the state of a search says. Other versions may keep it in another form: what is not found is left."""
    record = store.get_record(RECORD)
    state = _table(record).get("state")
    weights = _table(_table(state).get("credits")).get("weights")
    inner = _table(_table(state).get("inner", state))
    restarts = [_table(restart).get("after") for restart in _rows(inner.get("restarts"))]
    pairs = [row for row in _rows(weights) if isinstance(row, list) and [type(part) for part in row] == [str, float]]
    total = math.fsum(weight for _, weight in pairs)
    return Learned(
        tuple(after for after in restarts if isinstance(after, int)),
        {name: weight / total for name, weight in pairs} if total > 0 else {},
    )


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def progress_of(history: History, totals: Mapping[int, float], restarts: Sequence[int] = ()) -> Progress:
    """Return how the best value fell in the furthest stage that any candidate finished.

    Args:
        history: The run.
        totals: Training steps until each candidate was told.
        restarts: The last candidate told before each restart.

    """
    fit = [outcome for outcome in history.outcomes.values() if outcome.fitness is not None]
    stage = max((outcome.stage or 0 for outcome in fit), default=-1)
    there = {outcome.number: first_value(outcome) for outcome in fit if outcome.stage == stage}
    values = {number: value for number, value in there.items() if value is not None and value > 0}
    first, best = [], math.inf
    for number, value in values.items():
        if value < best:
            best = value
            first.append(number)
    first = _thinned(first, MOST_CHANGES)
    points = _thinned([number for number in values if not history.outcomes[number].reused], MOST_POINTS)
    last = max(history.outcomes, default=-1)
    return Progress(
        stage=stage + 1,
        stages=len(history.config.stages),
        points=_track(points, values, totals),
        shown=len(values),
        first=_track(first, values, totals),
        confirmed=_confirmed(history, stage, totals),
        restarts=tuple((number + 1, totals[number]) for number in restarts if number in totals),
        end=(len(history.outcomes), totals.get(last, 0.0)),
    )


def _track(numbers: Sequence[int], values: Mapping[int, float], totals: Mapping[int, float]) -> Track:
    return Track(
        tuple(number + 1 for number in numbers),
        tuple(totals[number] for number in numbers),
        tuple(values[number] for number in numbers),
    )


def _confirmed(history: History, stage: int, totals: Mapping[int, float]) -> Track:
    last = max(history.outcomes, default=-1)
    lag = history.config.search.lag
    best: tuple[float, ...] = (math.inf,)
    rows = []
    for number, confirmation in sorted(history.confirmations.items()):
        estimate = with_interval(confirmation)
        if estimate is None or confirmation.fitness is None or history.outcomes[number].stage != stage:
            continue
        if confirmation.fitness < best:
            best = confirmation.fitness
            told = min(confirmation_told(number, lag), last + 1)
            rows.append((told, totals.get(told - 1, 0.0), estimate))
    rows = [rows[i] for i in _thinned(range(len(rows)), MOST_CHANGES)]
    return Track(
        tuple(told for told, _, _ in rows),
        tuple(cost for _, cost, _ in rows),
        tuple(estimate.value for *_, estimate in rows),
        tuple(estimate.low for *_, estimate in rows),
        tuple(estimate.high for *_, estimate in rows),
    )


def mutations_of(history: History, errors: dict[int, float], weights: Mapping[str, float]) -> tuple[MutationUse, ...]:
    """Return what each kind of mutation has led to, the most frequent first, with its share in draws if known."""
    counts: dict[str, list[int]] = {}
    best: tuple[float, ...] = (math.inf,)
    kinds: dict[str, str] = {}
    for number, outcome in history.outcomes.items():
        mutation = history.made[number].mutation
        row = counts.setdefault(kinds.setdefault(mutation, kind_of(mutation)), [0] * 7)
        change = history.change(number, errors)
        rank = _first_rank(outcome)
        leads = rank is not None and rank < best
        best = rank if leads and rank is not None else best
        failed = outcome.fitness is None
        ended = (
            True,
            failed and outcome.stage is None,
            failed and outcome.stage is not None,
            outcome.reused,
            change is not None and change.better and not outcome.reused,
            change is not None and change.better and change.resolved and not outcome.reused,
            leads and number > 0,
        )
        for place, is_so in enumerate(ended):
            row[place] += is_so
    ranked = sorted(counts.items(), key=lambda item: -item[1][0])
    return tuple(_use(name, row, weights.get(name)) for name, row in ranked)


def _use(name: str, row: Sequence[int], share: float | None) -> MutationUse:
    tried, stopped, failed, known, better, resolved, best = row
    return MutationUse(name, tried, stopped, failed, known, better, resolved, best, share)


def _first_rank(outcome: Outcome) -> tuple[float, float] | None:
    value = first_value(outcome)
    return None if value is None or outcome.stage is None else (-float(outcome.stage), value)


def leaders_of(store: RunStore, history: History, winner: int | None) -> tuple[Leader, ...]:
    """Return the best candidates that differ by more than a rescaling of the learning rate, and the warm start."""
    from evolion.primitives.keys import behavioural_key

    alike: dict[str, int] = {}
    for made in history.made.values():
        alike[made.behaviour] = alike.get(made.behaviour, 0) + 1
    found: list[Leader] = []
    behaviours: set[str] = set()
    kinds: set[str] = set()
    looked_at = 0
    for place, standing in enumerate(history.standings(), start=1):
        made = history.made[standing.number]
        wanted = standing.number in (0, winner)
        enough = len(kinds) >= LEADERS or looked_at >= _LOOKED_AT
        if not wanted and (enough or made.behaviour in behaviours):
            continue
        record = store.candidate(standing.number)
        assert record is not None
        program = readable(record.text)
        looked_at += 1
        kind = made.behaviour if program is None else behavioural_key(program, up_to_lr=True)
        behaviours.add(made.behaviour)
        if (enough or kind in kinds) and not wanted:
            continue
        kinds.add(kind)
        length = None if program is None else len(program.statements)
        found.append(_leader(history, standing, place, winner, length, alike[made.behaviour]))
    return tuple(found)


def _leader(
    history: History, standing: Standing, place: int, winner: int | None, statements: int | None, alike: int
) -> Leader:
    number, outcome = standing.number, history.outcomes.get(standing.number)
    confirmation = history.confirmations.get(number)
    names = [*(["warm start"] if number == 0 else []), *(["became the winner"] if number == winner else [])]
    return Leader(
        place=place,
        number=number,
        what=", ".join(names),
        stage=1 + round(-standing.fitness[0]) if len(standing.fitness) > 1 else 1,
        first=None if outcome is None else first_value(outcome),
        confirmed=None if confirmation is None else with_interval(confirmation),
        statements=statements,
        mutation=history.made[number].mutation,
        alike=alike,
    )
