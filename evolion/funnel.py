"""The search itself: fixed-lag ask and tell through the stages of evaluation.

Candidate i is asked for when exactly max(0, i - lag) candidates have been told, in the order of their numbers. So it
depends on nothing but the configuration, whatever the number of workers and the order of completion, and replaying a
run from its stored scores gives the same run.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

import numpy as np

from evolion.config import RunConfig, StageConfig
from evolion.errors import ConfigError, JobError
from evolion.evaluators.score_keys import ScoreKey
from evolion.ledger import Ledger, Request
from evolion.metric import excess
from evolion.primitives.keys import ProbeStatus, probe
from evolion.primitives.program import Program
from evolion.proxies.score import Score, Status
from evolion.records import CandidateRecord, Outcome
from evolion.search.mutation import mutation_config
from evolion.search.registry import SearchSettings, make_search
from evolion.search.types import Candidate, Fitness, NoProgramError, Search
from evolion.view import Observer, Phase, Progress

__all__ = ["Finalist", "algorithm_of", "run_search"]

HURDLE_WINDOW = 200
"""The hurdle of a stage is a quantile over this many of the last candidates that finished the stage before."""

HURDLE_MINIMUM = 20
"""While fewer have finished the stage before, there is no hurdle."""


@dataclass(frozen=True, slots=True)
class Finalist:
    """A candidate that the search ranks among the best."""

    number: int
    program: Program
    fitness: Fitness


@dataclass(slots=True)
class _Trial:
    """A candidate on its way through the stages.

    `logs` are the logarithms of its excess losses by stage, `values` the geometric means of them up to each stage.
    """

    candidate: Candidate
    behaviour: str
    hurdles: tuple[float, ...]
    stage: int = 0
    key: ScoreKey | None = None
    logs: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    outcome: Outcome | None = None


@dataclass(slots=True)
class _Tally:
    """What the hurdles and the view need of the candidates told so far."""

    recent: list[deque[float]]
    reached: dict[str, int] = field(default_factory=dict)
    best: Finalist | None = None
    evaluated: int = 0
    reused: int = 0
    failed: int = 0


def run_search(config: RunConfig, seed_program: Program, ledger: Ledger, observer: Observer) -> None:
    """Generate, evaluate and tell `config.search.budget` candidates; everything ends up in the ledger's store.

    Raises:
        ConfigError: If the algorithm can do nothing with the warm start.
        JobError: If the search finds no further candidate.

    """
    algorithm = algorithm_of(config, seed_program)
    state = algorithm.initial()
    budget, lag = config.search.budget, config.search.lag
    tally = _Tally([deque(maxlen=HURDLE_WINDOW) for _ in config.stages])
    trials: dict[int, _Trial] = {}
    asked = told = 0
    while told < budget:
        while asked < budget and asked - lag <= told:
            trials[asked] = _begin(algorithm, state, asked, config, tally, ledger)
            asked += 1
        if trials[told].outcome is None:
            ledger.wait()
            for trial in trials.values():
                _advance(trial, config, ledger)
            continue
        trial = trials.pop(told)
        state = _tell(algorithm, state, trial, tally, ledger)
        told += 1
        observer.on_progress(_progress(told, budget, tally))


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


def _begin(algorithm: Search[Any], state: Any, number: int, config: RunConfig, tally: _Tally, ledger: Ledger) -> _Trial:
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
    trial = _Trial(candidate, probed.key, _hurdles(config.stages, tally))
    if probed.status is not ProbeStatus.OK:
        trial.outcome = Outcome(number, probed.status.value, None, None, reused=False)
    _advance(trial, config, ledger)
    return trial


def _hurdles(stages: Sequence[StageConfig], tally: _Tally) -> tuple[float, ...]:
    """Return for each stage the value that the stage before must reach for a candidate to come in."""
    hurdles = [inf]
    for stage, recent in zip(stages[1:], tally.recent, strict=False):
        assert stage.hurdle is not None
        enough = len(recent) >= HURDLE_MINIMUM
        hurdles.append(float(np.quantile(list(recent), stage.hurdle, method="lower")) if enough else inf)
    return tuple(hurdles)


def _advance(trial: _Trial, config: RunConfig, ledger: Ledger) -> None:
    """Take a trial as far as the known scores go, asking for the next one that it needs."""
    while trial.outcome is None:
        stage = config.stages[trial.stage]
        if trial.key is None:
            request = Request.of(
                trial.candidate.program,
                stage.task,
                steps=stage.steps,
                seeds=stage.seeds,
                learning_rates=stage.learning_rates,
                behaviour=trial.behaviour,
            )
            trial.key = ledger.ask(request)
        score = ledger.score(trial.key)
        if score is None:
            return
        trial.key = None
        trial.outcome = _judge(trial, stage, score, len(config.stages))


def _judge(trial: _Trial, stage: StageConfig, score: Score, stages: int) -> Outcome | None:
    number = trial.candidate.number
    if score.status is not Status.OK:
        return Outcome(number, score.status.value, None, trial.stage, reused=False)
    trial.logs.append(math.log(excess(score, stage)))
    value = math.exp(math.fsum(trial.logs) / len(trial.logs))
    trial.values.append(value)
    if trial.stage + 1 < stages and value <= trial.hurdles[trial.stage + 1]:
        trial.stage += 1
        return None
    # A candidate that got further is better, whatever the values: they are means over other tasks.
    return Outcome(number, score.status.value, (-float(trial.stage), value), trial.stage, reused=False)


def _tell(algorithm: Search[Any], state: Any, trial: _Trial, tally: _Tally, ledger: Ledger) -> Any:
    outcome = trial.outcome
    assert outcome is not None
    if outcome.stage is not None:
        # Said of the keys and numbers alone, so that it does not hang on which of two equal candidates ran first.
        reused = tally.reached.get(trial.behaviour, -1) >= outcome.stage
        tally.reached[trial.behaviour] = max(outcome.stage, tally.reached.get(trial.behaviour, -1))
        outcome = Outcome(outcome.number, outcome.status, outcome.fitness, outcome.stage, reused)
        tally.reused += reused
        tally.evaluated += not reused
    tally.failed += outcome.fitness is None
    for recent, value in zip(tally.recent, trial.values, strict=False):
        recent.append(value)
    if outcome.fitness is not None and (tally.best is None or outcome.fitness < tally.best.fitness):
        tally.best = Finalist(outcome.number, trial.candidate.program, outcome.fitness)
    ledger.store.add_outcome(outcome)
    return algorithm.tell(state, trial.candidate, outcome.fitness)


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
