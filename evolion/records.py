"""What a run store holds, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evolion.evaluators.stages import Reason
from evolion.proxies.score import Score

__all__ = ["CandidateRecord", "Confirmation", "Cost", "Counts", "Event", "Outcome", "Standing", "Winner"]


@dataclass(frozen=True, slots=True)
class CandidateRecord:
    """A generated candidate.

    `structural_key` and `behaviour_key` are hexadecimal digits, `probe_status` is that of `evolion.primitives.keys`.
    """

    number: int
    parent: int | None
    mutation: str
    text: str
    structural_key: str
    behaviour_key: str
    probe_status: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the search was told about a candidate.

    Attributes:
        number: The candidate.
        reason: Why it went no further: a failure of the probe or of a training, a hurdle, or that it finished.
        fitness: Smaller is better, compared from the left; None for a candidate that failed.
        stage: The last stage that it entered, from 0; None for one that the probe stopped.
        reused: Whether the scores were those of an earlier candidate with the same behavioural key; one that the probe
            stopped has none.
        value: Its value after the last stage that it finished; None if it finished none.
        hurdle: The value that would have let it into the next stage, where the reason is a hurdle.

    """

    number: int
    reason: Reason
    fitness: tuple[float, ...] | None
    stage: int | None
    reused: bool
    value: float | None = None
    hurdle: float | None = None

    @property
    def status(self) -> str:
        """How it ended: "ok" for a candidate with fitness, else the reason."""
        return self.reason.value if self.reason.failed else "ok"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What the search was told about a candidate that was trained again with fresh seeds.

    Attributes:
        number: The candidate.
        reason: `FINISHED`, or why it failed this time.
        fitness: As in `Outcome`, from the fresh seeds alone; None for a candidate that failed.
        value: What the fitness is a bound of; smaller is better.
        error: Standard error of the logarithm of the value.

    """

    number: int
    reason: Reason
    fitness: tuple[float, ...] | None
    value: float | None = None
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """The last word on a candidate; standings compare as ranks do, the best is the least.

    Of two that got equally far, one that is confirmed is better than one that is not.
    """

    number: int
    fitness: tuple[float, ...]
    confirmed: bool

    @property
    def rank(self) -> tuple[float, ...]:
        """What standings are sorted by."""
        return (*self.fitness[:-1], float(not self.confirmed), self.fitness[-1], float(self.number))


@dataclass(frozen=True, slots=True)
class Cost:
    """What the search has trained: all of it, and what of it was for confirmations.

    Scores out of a store that runs share count as if they had been trained here: what a run holds does not tell them
    apart, so it costs the same with such a store and without.

    Attributes:
        runs: Trainings, one for each learning rate and seed.
        seconds: Their wall time, added up over workers.
        confirming_runs: Those for confirmations.
        confirming_seconds: Their wall time.

    """

    runs: int = 0
    seconds: float = 0.0
    confirming_runs: int = 0
    confirming_seconds: float = 0.0

    @property
    def share(self) -> float:
        """The share of the time that went into confirmations."""
        return self.confirming_seconds / self.seconds if self.seconds else 0.0

    def plus(self, scores: Iterable[Score], *, confirming: bool) -> Cost:
        """Return the cost with more scores."""
        scores = tuple(scores)
        runs, seconds = sum(len(score.runs) for score in scores), sum(score.seconds for score in scores)
        return Cost(
            self.runs + runs,
            self.seconds + seconds,
            self.confirming_runs + confirming * runs,
            self.confirming_seconds + confirming * seconds,
        )


@dataclass(frozen=True, slots=True)
class Winner:
    """The program that a run ends with, and the candidate that it comes from."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `time` is in seconds since 1970."""

    time: float
    kind: str
    detail: Any


@dataclass(frozen=True, slots=True)
class Counts:
    """How far a run is.

    Attributes:
        generated: Candidates.
        told: Candidates whose outcome the search knows.
        evaluated: Candidates that were trained.
        reused: Candidates whose scores were known by their key.
        failed: Candidates without fitness, by reason.
        stages: Told candidates by the last stage that they reached, reused ones included.
        drops: Told candidates whose scores are not all an earlier one's, by the last stage that they entered (None for
            the probe, whose candidates have no scores and count each time) and the reason why they went no further.
        confirmed: Programs of different behaviour that were trained again with fresh seeds.
        cost: What the search has trained.
        scores: Stored scores, those of tuning and retest included.

    """

    generated: int
    told: int
    evaluated: int
    reused: int
    failed: Mapping[str, int]
    stages: Mapping[int, int]
    drops: Mapping[tuple[int | None, Reason], int]
    confirmed: int
    cost: Cost
    scores: int
