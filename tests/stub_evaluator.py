"""An evaluator that trains nothing: a score is a fixed function of what it belongs to. Finishes jobs in any order."""

import hashlib
import random
from dataclasses import dataclass, field

from evolion.config import (
    CONFIRMATION_SEEDS,
    AblationConfig,
    ConfirmationConfig,
    RetestConfig,
    RetestTask,
    RunConfig,
    SearchConfig,
    StageConfig,
)
from evolion.evaluators.types import Job, PoolStatus, Score
from evolion.primitives.keys import behavioural_key
from evolion.proxies.score import Run, Status


def stub_score(job: Job) -> Score:
    """Score a job: the loss hangs on behaviour and task, and on the seed as noise.

    One in eight programs diverges, and two in eight with the seeds of confirmations.
    """
    key = behavioural_key(job.program)
    kind, fresh = int(key, 16) % 8, job.seeds[0] % 100_000 >= CONFIRMATION_SEEDS
    points = [(rate, seed) for rate in job.learning_rates for seed in job.seeds]
    seconds = 0.001 * len(points)
    if kind == 3 or (kind in (1, 5) and fresh):
        runs = tuple(Run(rate, seed, Status.DIVERGED, None, None, 5) for rate, seed in points)
        return Score(Status.DIVERGED, None, (), 5, seconds, runs=runs, message="diverged")
    quality = int(key[:6], 16) / 16**6
    losses = {seed: 4.0 + quality + _noise(key, job.task, seed, job.split) for seed in job.seeds}
    runs = tuple(Run(rate, seed, Status.OK, losses[seed], losses[seed] / 2, job.steps) for rate, seed in points)
    loss = sum(losses.values()) / len(losses)
    return Score(Status.OK, loss, (loss,), job.steps, seconds, loss / 2, job.learning_rates[0], runs)


def _noise(*name: object) -> float:
    return hashlib.sha256(repr(name).encode()).digest()[0] / 2560


@dataclass
class StubEvaluator:
    """Answers jobs in the order of submission, or in an order drawn from `shuffle`, a few at a time."""

    shuffle: int | None = None
    workers: int = 3
    numerics: str = "stub"
    jobs: list[Job] = field(default_factory=list)
    seen: list[Job] = field(default_factory=list)
    closed: bool = False

    @property
    def status(self) -> PoolStatus:
        return PoolStatus(self.workers, self.workers, min(self.workers, len(self.jobs)))

    def numerics_of(self, device: str) -> str:
        return self.numerics

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.seen.append(job)

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        if not self.jobs:
            return []
        if self.shuffle is None:
            chosen = [self.jobs.pop(0)]
        else:
            rng = random.Random(f"{self.shuffle} {len(self.seen)} {len(self.jobs)}")
            rng.shuffle(self.jobs)
            chosen = [self.jobs.pop() for _ in range(rng.randint(1, len(self.jobs)))]
        return [(job, stub_score(job)) for job in chosen]

    def close(self) -> None:
        self.closed = True


def stub_config(budget: int = 150, *, seed: int = 0, lag: int = 8) -> RunConfig:
    """A run of two stages with hurdle, confirmations, retest and ablation, cheap enough for a test with a stub."""
    return RunConfig(
        seed=seed,
        search=SearchConfig(budget=budget, lag=lag, population=20, tournament=3),
        stages=(StageConfig("digits-mlp", steps=50), StageConfig("zipf-lm", steps=50, hurdle=0.3)),
        confirmation=ConfirmationConfig(share=0.4),
        retest=RetestConfig(
            finalists=2, trials=4, seeds=3, tasks=(RetestTask("digits-mlp", steps=40), RetestTask("zipf-lm", steps=40))
        ),
        ablation=AblationConfig(seeds=2),
    )
