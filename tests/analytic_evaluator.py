"""An evaluator whose losses are a formula in rate, shrinkage, horizon and seed, and subjects that need no task."""

import hashlib
import math
import random
from dataclasses import dataclass, field

from evolion.discovered.library import known
from evolion.evaluators.protocol.execution import Prepared
from evolion.evaluators.protocol.plan import Plan, make_plan
from evolion.evaluators.protocol.stages import Subject
from evolion.evaluators.tuning import Box
from evolion.evaluators.types import Job, PoolStatus, Score
from evolion.proxies.schedules import multipliers
from evolion.proxies.score import Status

CENTRE, STEPS = 0.01, 100


def plan_of(*names: str, tasks: tuple[str, ...] = ("one",), quick: bool = True, **options: int) -> Plan:
    return make_plan({name: str(known()[name]) for name in names}, tasks, quick=quick, **options)


def subjects(plan: Plan, task: str) -> list[Prepared]:
    """The entrants on a task that there is not, in a box around a rate of 0.01."""
    made = []
    for entrant in plan.entrants:
        program = known()[entrant.control or entrant.name]
        box = Box(CENTRE, "lr" in program.inputs, any(h.name == "weight_decay" for h in program.hyperparameters))
        subject = Subject(entrant, task, STEPS, box)
        made.append(Prepared(subject, program, entrant.name, "family", f"digest of {task}", 10, None, 4, 2.0, 15.0))
    return made


@dataclass
class AnalyticEvaluator:
    """Answers in the order of submission, or in one drawn from `shuffle`.

    A loss is a bowl in the logarithms of rate and shrinkage, lower for longer runs, with noise by seed.

    `rate` and `shrinkage` are the bottom of the bowl, `statuses` gives the share of runs that end otherwise.
    """

    rate: float = CENTRE
    shrinkage: float = 1.0
    statuses: dict[Status, float] = field(default_factory=dict)
    shuffle: int | None = None
    workers: int = 3
    numerics: str = "stub"
    jobs: list[Job] = field(default_factory=list)
    seen: list[Job] = field(default_factory=list)
    most: int = 0
    closed: bool = False

    @property
    def status(self) -> PoolStatus:
        return PoolStatus(self.workers, self.workers, min(self.workers, len(self.jobs)))

    def numerics_of(self, device: str) -> str:
        return self.numerics

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.seen.append(job)
        self.most = max(self.most, len(self.jobs))

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        count = min(1, len(self.jobs))
        if self.shuffle is not None and self.jobs:
            rng = random.Random(f"{self.shuffle} {len(self.seen)} {len(self.jobs)}")
            rng.shuffle(self.jobs)
            count = rng.randint(1, len(self.jobs))
        chosen, self.jobs = self.jobs[:count], self.jobs[count:]
        return [(job, self._score(job)) for job in chosen]

    def close(self) -> None:
        self.closed = True

    def _score(self, job: Job) -> Score:
        (rate,), (seed,) = job.learning_rates, job.seeds
        decays = [h.value for h in job.program.hyperparameters if h.name == "weight_decay"]
        name = repr((job.task, job.split, rate, decays, job.steps, seed))
        drawn = hashlib.sha256(name.encode()).digest()[0] / 256
        for status, share in self.statuses.items():
            if drawn < share:
                return Score(status, None, (3.0,), 1, 0.0, message="lost")
        loss = 1.0 + math.log10(rate / self.rate) ** 2 + 20.0 / job.steps + 0.01 * drawn
        for decay in decays:
            shrinkage = rate * decay * float(multipliers(job.steps).sum())
            loss += 0.3 * math.log10(shrinkage / self.shrinkage) ** 2
        return Score(Status.OK, loss, (3.0, loss), job.steps, 0.5, loss, rate)
