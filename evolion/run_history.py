"""What happened in a run, candidate by candidate: in memory what tables and pictures need, without program texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from evolion.config import RunConfig, StageConfig
from evolion.evaluators.stages import Stage, counting
from evolion.proxies.registry import get_spec
from evolion.records import Confirmation, Outcome, Standing
from evolion.store import RunStore

__all__ = [
    "Change",
    "History",
    "Made",
    "Spending",
    "confirmation_told",
    "first_value",
    "read_history",
    "spending",
]

NOISE = 2.0
"""A change below this many standard errors counts as noise."""


@dataclass(frozen=True, slots=True)
class Made:
    """How a candidate came about; its program is in the store alone."""

    parent: int | None
    mutation: str
    behaviour: str


@dataclass(frozen=True, slots=True)
class Change:
    """How a candidate compares with its parent.

    Attributes:
        stage: The stage, from 0, whose values were compared; None if there is none.
        logarithm: Of the ratio of the values; smaller than 0 is better. None if they cannot be compared.
        error: Its standard error, None where it is not known.
        further: By how many stages it got further.
        same: Whether both do the same.
        confirmed: Whether both values come from fresh seeds.

    """

    stage: int | None
    logarithm: float | None
    error: float | None
    further: int
    same: bool
    confirmed: bool

    @property
    def better(self) -> bool:
        """Whether it looks better, noise or not."""
        return not self.same and (self.further > 0 or (self.logarithm is not None and self.logarithm < 0))

    @property
    def resolved(self) -> bool:
        """Whether there is a change beyond noise: another stage, or a value more than two standard errors off."""
        if self.same:
            return False
        if self.logarithm is None:
            return self.further != 0
        return self.error is not None and abs(self.logarithm) > NOISE * self.error


@dataclass(frozen=True, slots=True)
class History:
    """A run in memory, about half a kilobyte for each candidate.

    Attributes:
        config: Its configuration.
        made: All candidates.
        outcomes: Those whose end is known, in the order of their numbers.
        confirmations: What fresh seeds said.

    """

    config: RunConfig
    made: dict[int, Made]
    outcomes: dict[int, Outcome]
    confirmations: dict[int, Confirmation]

    def value(self, number: int) -> tuple[float | None, float | None]:
        """Return the value of a candidate and the standard error of its logarithm, from fresh seeds if there are."""
        confirmed = self.confirmations.get(number)
        if confirmed is not None and confirmed.value is not None:
            return confirmed.value, confirmed.error
        outcome = self.outcomes.get(number)
        return (None, None) if outcome is None else (first_value(outcome), None)

    def errors(self) -> dict[int, float]:
        """Return by stage the standard error of a value at first sight, as far as confirmations say."""
        config = self.config
        found: dict[int, list[float]] = {}
        for confirmed in self.confirmations.values():
            outcome = self.outcomes[confirmed.number]
            if confirmed.error is not None and outcome.stage is not None:
                found.setdefault(outcome.stage, []).append(confirmed.error)
        # The least number of seeds of the stages that count, so that an error is rather too large than too small.
        seeds = {stage: min(len(config.stages[p].seeds) for p in _counting(config, stage)) for stage in found}
        return {
            stage: median(errors) * math.sqrt(config.confirmation.seeds / seeds[stage])
            for stage, errors in found.items()
        }

    def standings(self) -> list[Standing]:
        """Return the last word on every candidate that has a fitness, best first."""
        found = []
        for number, outcome in self.outcomes.items():
            confirmed = self.confirmations.get(number)
            fitness = outcome.fitness if confirmed is None else confirmed.fitness
            if fitness is not None:
                found.append(Standing(number, fitness, confirmed is not None))
        return sorted(found, key=lambda standing: standing.rank)

    def change(self, number: int, errors: dict[int, float]) -> Change | None:
        """Return how a candidate compares with its parent; None without parent, or where one of the two failed."""
        made = self.made[number]
        if made.parent is None or made.parent not in self.made:
            return None
        ours, theirs = self.outcomes.get(number), self.outcomes.get(made.parent)
        if ours is None or theirs is None or ours.fitness is None or theirs.fitness is None:
            return None
        assert ours.stage is not None
        assert theirs.stage is not None
        same = made.behaviour == self.made[made.parent].behaviour
        further = ours.stage - theirs.stage
        (value, error), (before, its_error) = self.value(number), self.value(made.parent)
        if further or value is None or before is None or not (value > 0 and before > 0):
            return Change(None, None, None, further, same, confirmed=False)
        confirmed = error is not None and its_error is not None
        typical = errors.get(ours.stage)
        both = [typical if one is None else one for one in (error, its_error)]
        known = [one for one in both if one is not None]
        joint = math.hypot(*known) if len(known) == 2 else None
        return Change(ours.stage, math.log(value / before), joint, 0, same, confirmed)


def first_value(outcome: Outcome) -> float | None:
    """Return the value of a candidate at first sight; runs of format 1 have it in the fitness alone."""
    if outcome.fitness is None:
        return None
    return outcome.fitness[-1] if outcome.value is None else outcome.value


def read_history(store: RunStore) -> History:
    """Read what happened in a run; one that goes on may have candidates without outcome, never the reverse."""
    confirmations = {confirmation.number: confirmation for confirmation in store.confirmations()}
    outcomes = {outcome.number: outcome for outcome in store.outcomes()}
    names: dict[str, str] = {}
    made = {
        candidate.number: Made(
            candidate.parent, names.setdefault(candidate.mutation, candidate.mutation), candidate.behaviour_key
        )
        for candidate in store.candidates()
    }
    # A candidate may have been told between the two readings: only what all parts know is part of the history.
    return History(
        store.config,
        made,
        {number: outcome for number, outcome in outcomes.items() if number in made},
        {
            number: confirmation
            for number, confirmation in confirmations.items()
            if number in outcomes and number in made
        },
    )


@dataclass(slots=True)
class Spending:
    """Training steps, as planned: one that diverges ends earlier.

    Attributes:
        trained: Those of candidates.
        confirming: Those of confirmations.
        trainings: How many trainings these were.
        known: Steps that keys saved: another candidate had done the same.
        stopped: Those that the probe saved.
        hurdles: Those that hurdles saved, and trainings that failed.

    """

    trained: float = 0.0
    confirming: float = 0.0
    trainings: int = 0
    known: float = 0.0
    stopped: float = 0.0
    hurdles: float = 0.0

    @property
    def total(self) -> float:
        """All that was spent."""
        return self.trained + self.confirming


def training_steps(stage: StageConfig) -> tuple[int, int]:
    """Return the steps of one training of a stage and how many trainings a candidate has in it."""
    spec = get_spec(stage.task)
    rates = spec.learning_rates if stage.learning_rates is None else stage.learning_rates
    return stage.steps or spec.steps, len(stage.seeds) * len(rates)


def confirmation_told(number: int, lag: int) -> int:
    """Return after how many candidates the confirmation of a candidate is told, unless the search ends before."""
    return max(1, number + lag + 1)


def spending(history: History) -> tuple[dict[int, float], Spending]:
    """Return what had been spent when each candidate was told, and all of it in the end."""
    stages = history.config.stages
    plans = [training_steps(stage) for stage in stages]
    each = [float(steps * trainings) for steps, trainings in plans]
    totals, reached, spent = {}, dict[str, int](), Spending()
    last = max(history.outcomes, default=-1)
    due: dict[int, list[int]] = {}
    for number in history.confirmations:
        due.setdefault(min(confirmation_told(number, history.config.search.lag), last + 1), []).append(number)
    confirmed: set[tuple[str, int]] = set()
    for number, outcome in history.outcomes.items():
        behaviour = history.made[number].behaviour
        before, stage = reached.get(behaviour, -1), -1 if outcome.stage is None else outcome.stage
        paid, known = sum(each[before + 1 : stage + 1]), sum(each[: min(before, stage) + 1])
        reached[behaviour] = max(before, stage)
        spent.trained += paid
        spent.trainings += sum(trainings for _, trainings in plans[before + 1 : stage + 1])
        spent.known += known
        if outcome.stage is None:
            spent.stopped += sum(each)
        else:
            spent.hurdles += sum(each) - paid - known
        for owner in due.get(number + 1, ()):
            key = history.made[owner].behaviour, history.outcomes[owner].stage or 0
            if key not in confirmed:
                confirmed.add(key)
                _confirm(history, key[1], plans, spent)
        totals[number] = spent.total
    return totals, spent


def _confirm(history: History, stage: int, plans: Sequence[tuple[int, int]], spent: Spending) -> None:
    seeds = history.config.confirmation.seeds
    places = _counting(history.config, stage)
    spent.confirming += seeds * sum(plans[place][0] for place in places)
    spent.trainings += seeds * len(places)


def _counting(config: RunConfig, stage: int) -> tuple[int, ...]:
    """Return the stages up to one whose values count."""
    return counting([Stage(each.task) for each in config.stages[: stage + 1]])
