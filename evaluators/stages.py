"""Stages of evaluation: what a candidate goes through, cheapest first, and where and why it stops.

A stage is a task with a horizon of its own, over which the learning rate is warmed up and decayed in full: a short
stage is a short complete schedule, never the beginning of a long one. A candidate comes into the next stage if its
value so far is among the best of a share of those that were told lately. That is successive halving (Jamieson and
Talwalkar, arXiv:1502.07943) without its rounds (Li et al., arXiv:1810.05934), and without its dependence on the order
in which trainings end: the hurdles are those of the moment at which the candidate entered.

The value of a candidate is the geometric mean over tasks of its excess loss; of several stages on one task the last one
counts, as it is the one closest to what is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Generic, Protocol, TypeVar

from evolion.evaluators.metric import excess
from evolion.evaluators.window import Window
from evolion.primitives.program import Program
from evolion.proxies.score import Score, Status

__all__ = ["Hurdles", "Reason", "Scores", "Stage", "Staged", "Subject", "Verdict", "counting", "verdict_of"]

HURDLE_WINDOW = 200
"""A hurdle is a quantile over this many of the last candidates that finished the first stage."""

HURDLE_MINIMUM = 20
"""While fewer have finished it, there is no hurdle."""


class Reason(StrEnum):
    """Why a candidate goes no further. All but the last two leave it without a value: it failed.

    The first are answers of the probe, those after them statuses of scores, under the same names.
    """

    DEAD = "dead"
    UNBOUNDED = "unbounded"
    NO_DESCENT = "no descent"
    DIVERGED = "diverged"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    INVALID = "invalid"
    HURDLE = "hurdle"
    FINISHED = "finished"

    @property
    def failed(self) -> bool:
        """Whether the candidate has no value."""
        return self not in (Reason.HURDLE, Reason.FINISHED)


@dataclass(frozen=True, slots=True)
class Stage:
    """One training of a candidate.

    Attributes:
        task: Name of the task.
        steps: Horizon of the complete schedule; None for the task's own.
        seeds: Training runs per learning rate.
        learning_rates: Peak rates of which the best counts; None for the task's own grid.
        metric: "loss" or "train_loss".
        share: Share of the candidates that come into this stage, by their value in the stage before; None for all.
        device: The class of workers that trains it.

    """

    task: str
    steps: int | None = None
    seeds: tuple[int, ...] = (0,)
    learning_rates: tuple[float, ...] | None = None
    metric: str = "loss"
    share: float | None = None
    device: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What goes through stages: a program with its behavioural key."""

    program: Program
    behaviour: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a candidate stopped and why.

    Attributes:
        stage: The last stage that it entered, from 0; None if the probe stopped it.
        reason: Why it went no further.
        scores: One for each stage entered.
        values: Its value after each stage that it finished; smaller is better.
        hurdle: What its last value missed, where the reason is a hurdle.

    """

    stage: int | None
    reason: Reason
    scores: tuple[Score, ...] = ()
    values: tuple[float, ...] = ()
    hurdle: float | None = None

    @property
    def value(self) -> float | None:
        """The value after the last stage, None for a candidate that failed."""
        return None if self.reason.failed else self.values[-1]


def counting(stages: Sequence[Stage]) -> tuple[int, ...]:
    """Return the positions of the stages that count: the last one on each task, in the order of the stages."""
    return tuple(sorted({stage.task: position for position, stage in enumerate(stages)}.values()))


def verdict_of(stages: Sequence[Stage], limits: Sequence[float], scores: Sequence[Score]) -> Verdict | None:
    """Return what the scores of the first stages say; None while the candidate is to go on.

    `limits` are the values that let a candidate into each stage, infinity where there is no hurdle.
    """
    last = len(scores) - 1
    finished = [score for score in scores if score.status is Status.OK]
    logs = [math.log(excess(score, stage)) for score, stage in zip(finished, stages, strict=False)]
    values = tuple(_mean(stages[: end + 1], logs) for end in range(len(logs)))
    if scores[last].status is not Status.OK:
        return Verdict(last, Reason(scores[last].status.value), tuple(scores), values)
    if last + 1 == len(stages):
        return Verdict(last, Reason.FINISHED, tuple(scores), values)
    if values[last] > limits[last + 1]:
        return Verdict(last, Reason.HURDLE, tuple(scores), values, limits[last + 1])
    return None


def _mean(stages: Sequence[Stage], logs: Sequence[float]) -> float:
    counted = [logs[position] for position in counting(stages)]
    return math.exp(math.fsum(counted) / len(counted))


@dataclass(frozen=True, slots=True)
class Hurdles:
    """What lets candidates into the stages, from the verdicts told so far; a value, `after` makes a new one.

    The hurdle of a stage is a quantile over the last candidates that finished the first stage, in which those that did
    not come as far as the stage before count as worse. So the first candidates, which met no hurdle, make none low.

    Attributes:
        shares: Those of the stages.
        windows: For each stage but the last, the values that the last candidates which finished the first stage had
            there, infinity for those that did not come so far.

    """

    shares: tuple[float | None, ...]
    windows: tuple[Window, ...]

    @staticmethod
    def of(stages: Sequence[Stage]) -> Hurdles:
        """Return the hurdles before anything was told."""
        return Hurdles(tuple(stage.share for stage in stages), (Window(HURDLE_WINDOW),) * (len(stages) - 1))

    def limits(self) -> tuple[float, ...]:
        """Return for each stage the value that a candidate must reach in the stage before; infinity for any."""
        limits, overall = [inf], 1.0
        for window, share in zip(self.windows, self.shares[1:], strict=True):
            overall *= 1.0 if share is None else share
            open_to_all = share is None or len(window) < HURDLE_MINIMUM
            limits.append(inf if open_to_all else window.ordered[math.floor(overall * (len(window) - 1))][0])
        return tuple(limits)

    def after(self, verdict: Verdict) -> Hurdles:
        """Return the hurdles after one more verdict."""
        if not verdict.values:
            return self
        reached = (*verdict.values, *(inf,) * len(self.windows))
        windows = tuple(window.after((value,)) for window, value in zip(self.windows, reached, strict=False))
        return Hurdles(self.shares, windows)


K = TypeVar("K")


class Scores(Protocol[K]):
    """Where scores come from. Each request is answered once, a failure with a score too; keys tell answers apart."""

    def ask(self, subject: Subject, stage: Stage) -> K:
        """Ask for the score of a subject in a stage and return at once."""
        ...

    def score(self, key: K) -> Score | None:
        """Return the score of a key that was asked for, None while it is being worked out."""
        ...

    def wait(self) -> Iterable[K]:
        """Wait until at least one more score is there; return the keys of those that came."""
        ...


@dataclass(slots=True)
class _Trial(Generic[K]):
    """A subject on its way; `key` is that of the score that it waits for."""

    subject: Subject
    stages: tuple[Stage, ...]
    limits: tuple[float, ...]
    key: K
    scores: list[Score] = field(default_factory=list)


@dataclass(slots=True)
class Staged(Generic[K]):
    """Takes subjects through stages, any number at a time; wraps what scores a single stage.

    A subject is asked for in its next stage as soon as its score in the stage before is there, whichever verdict is
    waited for. Verdicts hang on the scores and on what `enter` was given alone. Used by one thread.

    Attributes:
        scores: What scores a subject in one stage.

    """

    scores: Scores[K]
    _trials: dict[int, _Trial[K]] = field(default_factory=dict)
    _verdicts: dict[int, Verdict] = field(default_factory=dict)
    _waiting: dict[K, list[int]] = field(default_factory=dict)
    _at: dict[int, int] = field(default_factory=dict)

    def enter(self, ticket: int, subject: Subject, stages: Sequence[Stage], limits: Sequence[float]) -> None:
        """Send a subject into the first of its stages; `ticket` is the caller's and names the verdict."""
        if ticket in self._trials or ticket in self._verdicts:
            raise ValueError(f"the ticket {ticket} is taken: its verdict was not collected yet")
        key = self.scores.ask(subject, stages[0])
        self._trials[ticket] = _Trial(subject, tuple(stages), tuple(limits), key)
        self._at[0] = self.waiting(0) + 1
        self._advance(ticket)

    def verdict(self, ticket: int) -> Verdict:
        """Wait for the verdict of a ticket and hand it over; a ticket has one verdict.

        Raises KeyError for a ticket without a subject.
        """
        while ticket not in self._verdicts:
            if ticket not in self._trials:
                raise KeyError(ticket)
            for key in self.scores.wait():
                for waiting in self._waiting.pop(key, ()):
                    self._advance(waiting)
        return self._verdicts.pop(ticket)

    def waiting(self, place: int) -> int:
        """Return how many subjects are in the stage of this position now."""
        return self._at.get(place, 0)

    def _advance(self, ticket: int) -> None:
        """Take a trial as far as the known scores go, asking for the next one that it needs."""
        trial = self._trials[ticket]
        while (score := self.scores.score(trial.key)) is not None:
            place = len(trial.scores)
            self._at[place] -= 1
            trial.scores.append(score)
            verdict = verdict_of(trial.stages, trial.limits, trial.scores)
            if verdict is not None:
                del self._trials[ticket]
                self._verdicts[ticket] = verdict
                return
            self._at[place + 1] = self.waiting(place + 1) + 1
            trial.key = self.scores.ask(trial.subject, trial.stages[len(trial.scores)])
        self._waiting.setdefault(trial.key, []).append(ticket)
