"""The best of a search are trained again with fresh seeds while it goes on, and all are ranked by a pessimistic bound.

Who is confirmed, and when the search is told, hangs on what it was told before and on numbers alone, so that a run
replays whatever the order in which trainings end: a confirmation is asked for when its candidate is told and told `lag`
candidates later. That of the warm start is told at once, so that the noise is known from the start.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from evolion.config import CONFIRMATION_SEEDS, RunConfig, fresh_seeds
from evolion.evaluators.noise import Contest, Noise, bound, fresh_stage, fresh_stages, standard_error
from evolion.evaluators.score_keys import ScoreKey
from evolion.evaluators.stages import Reason, Stage, Staged, Subject, Verdict, counting
from evolion.primitives.parser import parse
from evolion.records import Confirmation, Cost
from evolion.search.types import Fitness

__all__ = ["Confirmations", "Known", "Waiting", "confirmation_seeds"]

_Key = tuple[str, int]
"""Behavioural key and last stage: candidates that share both share their confirmation."""

_Trained = tuple[int, tuple[float, ...] | None]
"""A stage and its learning rates."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A candidate whose confirmation is under way.

    Attributes:
        number: The candidate.
        subject: What is trained, as its behavioural key and its text.
        stage: The last stage that it entered.
        places: The stages of the confirmation.
        rates: The learning rates of each.

    """

    number: int
    subject: tuple[str, str]
    stage: int
    places: tuple[int, ...]
    rates: tuple[tuple[float, ...] | None, ...]

    @property
    def key(self) -> _Key:
        """What it shares its confirmation by."""
        return self.subject[0], self.stage


@dataclass(frozen=True, slots=True)
class Known:
    """What confirmations know of the candidates told so far, as plain data.

    Attributes:
        noise: Of the scores.
        contest: Who is among the best.
        cost: What the search has trained.
        evidence: Behavioural key, last stage, reason and value of each confirmation.
        trained: By behavioural key the stages and learning rates that were trained for confirmations.
        waiting: Those that are under way.

    """

    noise: Noise
    contest: Contest
    cost: Cost
    evidence: tuple[tuple[str, int, Reason, float | None], ...]
    trained: tuple[tuple[str, tuple[_Trained, ...]], ...]
    waiting: tuple[Waiting, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """What fresh seeds said: of a verdict no more than is asked for again, as curves are long."""

    reason: Reason
    value: float | None


@dataclass(slots=True)
class Confirmations:
    """Decides who is confirmed and what a verdict is worth.

    Attributes:
        stages: Those of the search.
        staged: What takes subjects through stages; confirmations have negative tickets there.
        seeds: The fresh seeds.
        standard_errors: What is added to a mean for its rank.
        lag: That of the search.
        noise: What is known of the noise.
        contest: Says who is among the best; its share 0 stands for nobody.
        cost: What the search has trained, as in `Counts`.

    """

    stages: tuple[Stage, ...]
    staged: Staged[ScoreKey]
    seeds: tuple[int, ...]
    standard_errors: float
    lag: int
    noise: Noise
    contest: Contest
    cost: Cost = field(default_factory=Cost)
    _chosen: set[_Key] = field(default_factory=set)
    _evidence: dict[_Key, _Found] = field(default_factory=dict)
    _trained: dict[str, tuple[_Trained, ...]] = field(default_factory=dict)
    _waiting: deque[Waiting] = field(default_factory=deque)
    _deviations: tuple[Noise | None, tuple[float, ...]] = (None, ())

    @staticmethod
    def of(config: RunConfig, stages: Sequence[Stage], staged: Staged[ScoreKey]) -> Confirmations:
        """Return the confirmations of a search before anything was told."""
        own = config.confirmation
        return Confirmations(
            tuple(stages),
            staged,
            confirmation_seeds(config),
            own.standard_errors,
            config.search.lag,
            Noise.of(stages, own.seeds),
            Contest(own.share),
        )

    @property
    def confirmed(self) -> int:
        """Programs of different behaviour that were confirmed."""
        return len(self._trained)

    def told(self, number: int, subject: Subject, verdict: Verdict, *, reused: bool) -> tuple[Fitness | None, Reason]:
        """Return the fitness of a candidate, and why it goes no further; have it confirmed if it is among the best.

        A candidate that does what a confirmed one does takes over what was found there. `reused` says that another one
        with the same behaviour got as far before.
        """
        if verdict.value is None or verdict.stage is None:
            return None, verdict.reason
        key = (subject.behaviour, verdict.stage)
        if self.contest.share > 0:
            rank = _fitness(verdict.stage, verdict.value)
            if key in self._chosen or number == 0 or (not reused and self.contest.admits(rank)):
                self._choose(number, subject, verdict)
            self.contest = self.contest if reused else self.contest.after(rank)
        known = self._evidence.get(key)
        if known is None:
            return _fitness(verdict.stage, self._bound(verdict.stage, verdict.value)), verdict.reason
        if known.value is None:
            return None, known.reason
        return _fitness(verdict.stage, self._bound(verdict.stage, known.value, len(self.seeds))), verdict.reason

    def known(self) -> Known:
        """Return what is known, for a checkpoint."""
        evidence = tuple((*key, found.reason, found.value) for key, found in self._evidence.items())
        trained = tuple(self._trained.items())
        return Known(self.noise, self.contest, self.cost, evidence, trained, tuple(self._waiting))

    def restore(self, known: Known) -> None:
        """Go on from what was known at a checkpoint; what was under way is asked for again."""
        self.noise, self.contest, self.cost = known.noise, known.contest, known.cost
        self._evidence = {
            (behaviour, stage): _Found(reason, value) for behaviour, stage, reason, value in known.evidence
        }
        self._trained = dict(known.trained)
        self._chosen = set(self._evidence)
        for waiting in known.waiting:
            self._begin(waiting, Subject(parse(waiting.subject[1]), waiting.subject[0]))

    def _choose(self, number: int, subject: Subject, verdict: Verdict) -> None:
        assert verdict.stage is not None
        stages = fresh_stages(self.stages, verdict, self.seeds)
        rates = tuple(stage.learning_rates for stage in stages)
        named = (subject.behaviour, str(subject.program))
        places = counting(self.stages[: verdict.stage + 1])
        self._begin(Waiting(number, named, verdict.stage, places, rates), subject)

    def _begin(self, waiting: Waiting, subject: Subject) -> None:
        self._chosen.add(waiting.key)
        self._waiting.append(waiting)
        stages = [
            fresh_stage(self.stages[place], rates, self.seeds)
            for place, rates in zip(waiting.places, waiting.rates, strict=True)
        ]
        self.staged.enter(-1 - waiting.number, subject, stages, (math.inf,) * len(stages))

    def due(self, told: int, *, last: bool) -> Iterator[Confirmation]:
        """Yield what the search is to be told after so many candidates, waiting for it; everything if they were all."""
        while self._waiting and (last or self._waiting[0].number < max(1, told - self.lag)):
            waiting = self._waiting.popleft()
            found = self.staged.verdict(-1 - waiting.number)
            if waiting.key not in self._evidence:
                self._evidence[waiting.key] = _Found(found.reason, found.value)
                self.noise = self.noise.after(self.stages, waiting.stage, found)
                self._count(waiting, found)
            yield self._confirmation(waiting, found)

    def _count(self, waiting: Waiting, found: Verdict) -> None:
        # A behaviour that got further later, as the hurdles had moved, shares trainings with its first confirmation.
        trained = self._trained.get(waiting.subject[0], ())
        stages = zip(waiting.places, waiting.rates, strict=True)
        new = [(stage, score) for stage, score in zip(stages, found.scores, strict=False) if stage not in trained]
        self._trained[waiting.subject[0]] = (*trained, *[stage for stage, _ in new])
        self.cost = self.cost.plus([score for _, score in new], confirming=True)

    def _confirmation(self, waiting: Waiting, found: Verdict) -> Confirmation:
        stage = waiting.stage
        if found.value is None:
            return Confirmation(waiting.number, found.reason, None)
        error = self._error(stage, len(self.seeds))
        fitness = _fitness(stage, bound(found.value, error, self.standard_errors))
        return Confirmation(waiting.number, found.reason, fitness, found.value, error)

    def _error(self, stage: int, seeds: int | None = None) -> float:
        if self._deviations[0] is not self.noise:  # it changes with confirmations, but every candidate asks
            self._deviations = self.noise, self.noise.deviations()
        return standard_error(self.stages, stage, self._deviations[1], seeds)

    def _bound(self, stage: int, value: float, seeds: int | None = None) -> float:
        return bound(value, self._error(stage, seeds), self.standard_errors)


def confirmation_seeds(config: RunConfig) -> tuple[int, ...]:
    """Return the fresh seeds of the confirmations of a run."""
    own = config.confirmation
    return fresh_seeds(CONFIRMATION_SEEDS, own.seeds, config.seed if own.seed is None else own.seed)


def _fitness(stage: int, value: float) -> Fitness:
    # A candidate that got further is better, whatever the values: they are means over other tasks.
    return (-float(stage), value)
