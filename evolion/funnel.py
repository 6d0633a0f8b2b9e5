"""The search itself: fixed-lag ask and tell through the stages of evaluation.

Candidate i is asked for when exactly max(0, i - lag) candidates have been told, in the order of their numbers. So it
depends on nothing but the configuration, whatever the number of workers and the order of completion, and replaying a
run from its stored scores gives the same run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from evolion.config import RunConfig, StageConfig
from evolion.errors import ConfigError, JobError
from evolion.evaluators.score_keys import ScoreKey
from evolion.evaluators.stages import Hurdles, Reason, Stage, Staged, Subject, Verdict
from evolion.ledger import Ledger, Request
from evolion.primitives.keys import ProbeStatus, probe
from evolion.primitives.program import Program
from evolion.proxies.score import Score
from evolion.records import CandidateRecord, Outcome
from evolion.search.mutation import mutation_config
from evolion.search.registry import SearchSettings, make_search
from evolion.search.types import Candidate, Fitness, NoProgramError, Search
from evolion.view import Observer, Phase, Progress

__all__ = ["Finalist", "algorithm_of", "run_search"]


@dataclass(frozen=True, slots=True)
class Finalist:
    """A candidate that the search ranks among the best."""

    number: int
    program: Program
    fitness: Fitness


@dataclass(frozen=True, slots=True)
class _StageScores:
    """Scores of single stages out of the ledger."""

    ledger: Ledger

    def ask(self, subject: Subject, stage: Stage) -> ScoreKey:
        request = Request.of(
            subject.program,
            stage.task,
            steps=stage.steps,
            seeds=stage.seeds,
            learning_rates=stage.learning_rates,
            behaviour=subject.behaviour,
        )
        return self.ledger.ask(request)

    def score(self, key: ScoreKey) -> Score | None:
        return self.ledger.score(key)

    def wait(self) -> None:
        self.ledger.wait()


@dataclass(slots=True)
class _Tally:
    """What hurdles and the view need of the candidates told so far."""

    hurdles: Hurdles
    reached: dict[str, int] = field(default_factory=dict)
    best: Finalist | None = None
    evaluated: int = 0
    reused: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Entered:
    """A candidate that was asked for; `verdict` is there at once where the probe stopped it."""

    candidate: Candidate
    subject: Subject
    verdict: Verdict | None = None


def run_search(config: RunConfig, seed_program: Program, ledger: Ledger, observer: Observer) -> None:
    """Generate, evaluate and tell `config.search.budget` candidates; everything ends up in the ledger's store.

    Raises:
        ConfigError: If the algorithm can do nothing with the warm start.
        JobError: If the search finds no further candidate.

    """
    algorithm = algorithm_of(config, seed_program)
    state = algorithm.initial()
    budget, lag = config.search.budget, config.search.lag
    stages = tuple(map(stage_of, config.stages))
    staged = Staged(_StageScores(ledger))
    tally = _Tally(Hurdles.of(stages))
    entered: dict[int, _Entered] = {}
    asked = told = 0
    while told < budget:
        while asked < budget and asked - lag <= told:
            entry = entered[asked] = _asked(algorithm, state, asked, ledger)
            if entry.verdict is None:
                staged.enter(asked, entry.subject, stages, tally.hurdles.limits())
            asked += 1
        entry = entered.pop(told)
        verdict = entry.verdict or staged.verdict(told)
        state = _tell(algorithm, state, entry, verdict, tally, ledger)
        told += 1
        observer.on_progress(_progress(told, budget, tally))


def stage_of(stage: StageConfig) -> Stage:
    """Return a stage of a configuration as the evaluators see it."""
    return Stage(stage.task, stage.steps, stage.seeds, stage.learning_rates, stage.metric, stage.hurdle)


def algorithm_of(config: RunConfig, seed_program: Program) -> Search[Any]:
    """Return the search algorithm of a configuration.

    Raises:
        ConfigError: If the algorithm can do nothing with the warm start.

    """
    try:
        return make_search(config.search.algorithm, _settings(config, seed_program))
    except ValueError as error:
        raise ConfigError(f"search.algorithm {config.search.algorithm!r}: {error}") from None


def _settings(config: RunConfig, seed_program: Program) -> SearchSettings:
    search = config.search
    return SearchSettings(
        seed_program=seed_program,
        seed=config.seed,
        population=search.population,
        tournament=search.tournament,
        mutation=mutation_config(search.vocabulary, tuple(asdict(search.mutations).items()), search.maximum_statements),
    )


def _asked(algorithm: Search[Any], state: Any, number: int, ledger: Ledger) -> _Entered:
    """Ask for a candidate, probe it and note it down."""
    try:
        candidate = algorithm.ask(state, number)
    except NoProgramError as error:
        raise JobError(f"there is no candidate {number}: {error}") from None
    probed = probe(candidate.program)
    record = CandidateRecord(
        number,
        candidate.parent,
        candidate.mutation if candidate.mate is None else f"{candidate.mutation} {candidate.mate}",
        str(candidate.program),
        candidate.key,
        probed.key,
        probed.status.value,
    )
    ledger.store.add_candidate(record)
    stopped = None if probed.status is ProbeStatus.OK else Verdict(None, Reason(probed.status.value))
    return _Entered(candidate, Subject(candidate.program, probed.key), stopped)


def _fitness(verdict: Verdict) -> Fitness | None:
    # A candidate that got further is better, whatever the values: they are means over other tasks.
    return None if verdict.value is None or verdict.stage is None else (-float(verdict.stage), verdict.value)


def _tell(algorithm: Search[Any], state: Any, entry: _Entered, verdict: Verdict, tally: _Tally, ledger: Ledger) -> Any:
    number, behaviour, stage = entry.candidate.number, entry.subject.behaviour, verdict.stage
    reused = False
    if stage is not None:
        # Said of the keys and numbers alone, so that it does not hang on which of two equal candidates ran first.
        reached = tally.reached.get(behaviour, -1)
        reused = reached >= stage
        tally.reached[behaviour] = max(stage, reached)
        tally.reused += reused
        tally.evaluated += not reused
    fitness = _fitness(verdict)
    tally.failed += fitness is None
    tally.hurdles = tally.hurdles.after(verdict)
    if fitness is not None and (tally.best is None or fitness < tally.best.fitness):
        tally.best = Finalist(number, entry.candidate.program, fitness)
    value = verdict.values[-1] if verdict.values else None
    ledger.store.add_outcome(Outcome(number, verdict.reason, fitness, stage, reused, value, verdict.hurdle))
    return algorithm.tell(state, entry.candidate, fitness)


def _progress(told: int, budget: int, tally: _Tally) -> Progress:
    best = tally.best
    return Progress(
        Phase.SEARCH,
        told,
        budget,
        tally.evaluated,
        tally.reused,
        tally.failed,
        best.number if best else None,
        best.fitness if best else None,
        str(best.program) if best else "",
    )
