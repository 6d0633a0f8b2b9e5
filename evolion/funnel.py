"""The search itself: fixed-lag ask and tell through the stages of evaluation.

Candidate i is asked for when exactly max(0, i - lag) candidates have been told, in the order of their numbers. So it
depends on nothing but the configuration, whatever the number of workers and the order of completion, and replaying a
run from its stored scores gives the same run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from evolion.config import RunConfig, StageConfig
from evolion.confirmations import Confirmations, Ranking
from evolion.errors import ConfigError, JobError
from evolion.evaluators.score_keys import ScoreKey
from evolion.evaluators.stages import Hurdles, Reason, Stage, Staged, Subject, Verdict
from evolion.evaluators.types import PoolStatus
from evolion.ledger import Ledger, Request
from evolion.primitives.keys import ProbeStatus
from evolion.primitives.program import Program
from evolion.primitives.screening import Screen
from evolion.proxies.score import Score
from evolion.records import CandidateRecord, Confirmation, Outcome, Standing
from evolion.search.mutation import mutation_config
from evolion.search.registry import SearchSettings, make_search
from evolion.search.types import Candidate, Fitness, NoProgramError, Programs, Search
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
    ranking: Ranking
    reached: dict[str, int] = field(default_factory=dict)
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

    After candidate i was told, so are the confirmations of candidates up to i - lag, and at the end all that are left.

    Raises:
        ConfigError: If the algorithm can do nothing with the warm start.
        JobError: If the search finds no further candidate.

    """
    algorithm = algorithm_of(config, seed_program)
    state = algorithm.initial()
    budget, lag = config.search.budget, config.search.lag
    stages = tuple(map(stage_of, config.stages))
    screen, staged = Screen(config.search.alike), Staged(_StageScores(ledger))
    confirmations = Confirmations.of(config, stages, staged)
    tally = _Tally(Hurdles.of(stages), Ranking(ledger.store))
    entered: dict[int, _Entered] = {}
    programs: dict[int, Program] = {}
    asked = told = 0
    while told < budget:
        while asked < budget and asked - lag <= told:
            entry = entered[asked] = _asked(algorithm, state, asked, programs, screen, ledger)
            programs[asked] = entry.candidate.program
            if entry.verdict is None:
                staged.enter(asked, entry.subject, stages, tally.hurdles.limits())
            asked += 1
        entry = entered.pop(told)
        verdict = entry.verdict or staged.verdict(told)
        fitness = _tell(entry, verdict, tally, confirmations, ledger)
        state = algorithm.tell(state, entry.candidate, fitness)
        told += 1
        for confirmation in confirmations.due(told, last=told == budget):
            _note(confirmation, told, tally, ledger)
            state = algorithm.revise(state, confirmation.number, confirmation.fitness)
        observer.on_progress(_progress(told, budget, tally, confirmations, ledger.evaluator.status))


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


def _asked(
    algorithm: Search[Any], state: Any, number: int, programs: Programs, screen: Screen, ledger: Ledger
) -> _Entered:
    """Ask for a candidate, see whether it needs training and note it down."""
    try:
        candidate = algorithm.ask(state, number, programs)
    except NoProgramError as error:
        raise JobError(f"there is no candidate {number}: {error}") from None
    screened = screen.check(candidate.program, candidate.key)
    record = CandidateRecord(
        number,
        candidate.parent,
        candidate.mutation if candidate.mate is None else f"{candidate.mutation} {candidate.mate}",
        str(candidate.program),
        candidate.key,
        screened.key,
        screened.status.value,
    )
    ledger.store.add_candidate(record)
    stopped = None if screened.status is ProbeStatus.OK else Verdict(None, Reason(screened.status.value))
    return _Entered(candidate, Subject(screened.program, screened.key), stopped)


def _tell(
    entry: _Entered, verdict: Verdict, tally: _Tally, confirmations: Confirmations, ledger: Ledger
) -> Fitness | None:
    """Note down what became of a candidate and return its fitness."""
    number, behaviour = entry.candidate.number, entry.subject.behaviour
    reached = tally.reached.get(behaviour, -1)
    stage = -1 if verdict.stage is None else verdict.stage
    # Said of the keys and numbers alone, so that it does not hang on which of two equal candidates ran first.
    reused = 0 <= stage <= reached
    tally.reached[behaviour] = max(stage, reached)
    tally.reused += reused
    tally.evaluated += stage > reached
    confirmations.cost = confirmations.cost.plus(verdict.scores[reached + 1 :], confirming=False)
    tally.hurdles = tally.hurdles.after(verdict)
    fitness, reason = confirmations.told(number, entry.subject, verdict, reused=reused)
    tally.failed += fitness is None
    value = verdict.values[-1] if verdict.values else None
    ledger.store.add_outcome(Outcome(number, reason, fitness, verdict.stage, reused, value, verdict.hurdle))
    if fitness is not None:
        tally.ranking.add(Standing(number, fitness, confirmed=False))
    return fitness


def _note(confirmation: Confirmation, told: int, tally: _Tally, ledger: Ledger) -> None:
    ledger.store.add_confirmation(confirmation)
    number, fitness = confirmation.number, confirmation.fitness
    if fitness is None:
        tally.ranking.drop(number, told)
    else:
        tally.ranking.add(Standing(number, fitness, confirmed=True))


def _progress(told: int, budget: int, tally: _Tally, confirmations: Confirmations, workers: PoolStatus) -> Progress:
    best = tally.ranking.best
    return Progress(
        Phase.SEARCH,
        told,
        budget,
        tally.evaluated,
        tally.reused,
        tally.failed,
        best.number if best else None,
        best.fitness if best else None,
        tally.ranking.text,
        confirmations.confirmed,
        confirmations.cost.share,
        workers,
    )
