"""Scores by what they belong to, each worked out only once.

Known ones come from the run store, those of other runs from a shared store if there is one, the rest from the
evaluator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from evolion.evaluators.score_keys import ScoreKey
from evolion.evaluators.score_store import Entry
from evolion.evaluators.types import Evaluator, Job
from evolion.primitives.keys import behavioural_key
from evolion.primitives.program import Program
from evolion.proxies.registry import get_task
from evolion.proxies.score import Score
from evolion.store import RunStore

__all__ = ["Ledger", "OtherScores", "Request"]

QUARANTINED = "quarantined:"
"""How the message of a score begins whose job killed its workers."""

_IDLE_SECONDS = 1.0

_REMEMBERED = 4096
"""So many scores are kept in memory; the store has them all."""


@lru_cache(maxsize=4096)
def _behaviour(program: Program) -> str:
    return behavioural_key(program)


@dataclass(frozen=True, slots=True)
class Request:
    """A program to be scored, and the budget; `behaviour` is its behavioural key, `device` the class of workers."""

    program: Program
    behaviour: str
    task: str
    steps: int
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]
    split: str
    device: str = ""

    @staticmethod
    def of(
        program: Program,
        task: str,
        *,
        steps: int | None,
        seeds: tuple[int, ...],
        learning_rates: tuple[float, ...] | None = None,
        split: str = "validation",
        behaviour: str = "",
        device: str = "",
    ) -> Request:
        """Fill in the task's own horizon and learning rates, and the behavioural key, where none are given."""
        found = get_task(task)
        return Request(
            program,
            behaviour or _behaviour(program),
            task,
            found.steps if steps is None else steps,
            seeds,
            found.learning_rates if learning_rates is None else learning_rates,
            split,
            device,
        )


class OtherScores(Protocol):
    """Scores that were computed before, as `SharedScores` has those of other runs."""

    def find(self, program: Program, key: ScoreKey) -> Score | None:
        """Return the score of a program, None if there is none."""
        ...

    def keep(self, entries: Sequence[Entry]) -> None:
        """Take scores that were computed just now."""
        ...


@dataclass(slots=True)
class Ledger:
    """Where the driver gets scores from.

    A score is written to the store as soon as it arrives, so a killed run loses none. Requests that share a key are
    evaluated once. Used by one thread.

    Attributes:
        store: The open run.
        evaluator: What evaluates.
        shared: Scores of other runs. What is taken from there goes into the run's own store as if it had been computed,
            so that resuming needs no other.
        idle: Is called every second while scores are waited for, and must return at once.

    """

    store: RunStore
    evaluator: Evaluator
    shared: OtherScores | None = None
    idle: Callable[[], None] = lambda: None
    _pending: dict[ScoreKey, None] = field(default_factory=dict)
    _keys: dict[int, ScoreKey] = field(default_factory=dict)
    _known: dict[ScoreKey, Score] = field(default_factory=dict)
    _submitted: int = 0

    def key(self, request: Request) -> ScoreKey:
        """Return what the score of a request belongs to."""
        return ScoreKey(
            behaviour=request.behaviour,
            task_digest=get_task(request.task).digest,
            steps=request.steps,
            seeds=request.seeds,
            learning_rates=request.learning_rates,
            split=request.split,
            numerics=self.evaluator.numerics_of(request.device),
        )

    def ask(self, request: Request) -> ScoreKey:
        """Ask for a score; it is there after some `wait`, or at once if it is known."""
        key = self.key(request)
        if key in self._pending or self.score(key) is not None:
            return key
        found = self.shared.find(request.program, key) if self.shared is not None else None
        if found is not None:
            self._remember(key, found)
            return key
        number = self._submitted
        self._submitted += 1
        self._pending[key] = None
        self._keys[number] = key
        self.evaluator.submit(
            Job(
                number,
                request.program,
                request.task,
                request.steps,
                request.seeds,
                request.learning_rates,
                request.split,
                device=request.device,
            )
        )
        return key

    def score(self, key: ScoreKey) -> Score | None:
        """Return the score of a key that was asked for, None while it is being worked out."""
        if key not in self._known and key not in self._pending:
            stored = self.store.get_score(key)
            if stored is not None:
                self._known[key] = stored
        return self._known.get(key)

    def wait(self) -> list[ScoreKey]:
        """Wait until at least one more score is there; return the keys of those that came."""
        if not self._pending:
            raise RuntimeError("nothing is being evaluated")
        finished = self._waited()
        if not finished:
            raise RuntimeError(f"the evaluator gave up {len(self._pending)} jobs")
        entries: list[Entry] = []
        for job, score in finished:
            key = self._keys.pop(job.number)
            del self._pending[key]
            self._remember(key, score)
            entries.append(Entry(job.program, job.task, key, score))
            if score.message.startswith(QUARANTINED):
                self._quarantine(job, key, score)
        if self.shared is not None:
            self.shared.keep(entries)
        return [entry.key for entry in entries]

    def _waited(self) -> list[tuple[Job, Score]]:
        """Wait for the evaluator; whoever looks at the run is told that it waits."""
        database = self.store.database
        if database.waits_shortly:
            finished = self.evaluator.collect(0.0)
            if finished:
                return finished
        while True:
            database.flush()  # so that nothing known waits in memory while this waits, or computes
            begun = time.monotonic()
            finished = self.evaluator.collect(_IDLE_SECONDS)
            if finished or time.monotonic() - begun < _IDLE_SECONDS:
                return finished
            self.idle()

    def _quarantine(self, job: Job, key: ScoreKey, score: Score) -> None:
        """Keep the text of a program that killed its workers, so that somebody can find out why."""
        path = self.store.put_file(f"quarantine/{key.behaviour[:16]}.txt", str(job.program))
        self.store.event("quarantined", {"file": str(path.relative_to(self.store.folder)), "message": score.message})

    def _remember(self, key: ScoreKey, score: Score) -> None:
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        self._known[key] = score
        self.store.put_score(key, score)

    def scores(self, requests: Sequence[Request], progress: Callable[[int, int], None]) -> list[Score]:
        """Return the score of every request, in their order; `progress` is told how many of them are done."""
        keys = [self.ask(request) for request in requests]
        while True:
            found = [self.score(key) for key in keys]
            done = sum(score is not None for score in found)
            progress(done, len(keys))
            if done == len(keys):
                return [score for score in found if score is not None]
            self.wait()
