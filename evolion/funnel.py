"""The search itself: fixed-lag ask and tell through the stages of evaluation.

Candidate i is asked for when exactly max(0, i - lag) candidates have been told, in the order of their numbers. So it
depends on nothing but the configuration, whatever the number of workers and the order of completion. A run is taken up
at its last checkpoint: candidates that it holds are read, not asked for again, and scores that it holds are not worked
out again.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from evolion.checkpoints import Checkpoint, Told, interval, read_checkpoint, write_checkpoint
from evolion.config import RunConfig, StageConfig
from evolion.confirmations import Confirmations
from evolion.errors import JobError
from evolion.evaluators.score_keys import ScoreKey
from evolion.evaluators.stages import Hurdles, Reason, Stage, Staged, Subject, Verdict
from evolion.garbage import rare_collections
from evolion.ledger import Ledger, Request
from evolion.memos import Reached, screen_of
from evolion.primitives.keys import ProbeStatus
from evolion.primitives.program import Program
from evolion.primitives.screening import Screen
from evolion.progress import Observer, Phase, Progress, StageProgress
from evolion.proposals import Proposals, proposals_of
from evolion.proxies.score import Score
from evolion.records import CandidateRecord, Outcome, Standing
from evolion.search.adaptation import credits_of
from evolion.search.proposals import Proposer
from evolion.search.restarts import restarts_of
from evolion.search.types import Candidate, Fitness, NoProgramError, Search
from evolion.search_settings import algorithm_of
from evolion.standings import Ranking
from evolion.stored_programs import StoredPrograms, candidate_of

__all__ = ["Finalist", "run_search", "stage_of"]

_VIEW_SECONDS = 0.05
"""People see no more than twenty pictures a second."""


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
            device=stage.device,
        )
        return self.ledger.ask(request)

    def score(self, key: ScoreKey) -> Score | None:
        return self.ledger.score(key)

    def wait(self) -> list[ScoreKey]:
        return self.ledger.wait()


@dataclass(frozen=True, slots=True)
class _Entered:
    """A candidate that was asked for; `verdict` is there at once where the probe stopped it."""

    candidate: Candidate
    subject: Subject
    limits: tuple[float, ...]
    verdict: Verdict | None = None


@dataclass(slots=True)
class _Search:
    """A search that goes on: what it is made of, and how far it is.

    Attributes:
        config: That of the run.
        algorithm: Which programs are tried.
        ledger: Gives scores.
        screen: What needs no training.
        stages: Those of the evaluation.
        staged: Takes candidates through them.
        confirmations: Who is trained again.
        ranking: The best so far.
        reached: How far behaviours got.
        programs: Those of candidates.
        proposals: Candidates that the algorithm is not asked for.
        state: The algorithm's.
        hurdles: Those for the next candidate.
        counts: For the view.
        entered: Candidates asked for and not yet told, by number.
        asked: How many were asked for.
        told: How many were told.
        stored: The last candidate that the store held when this process began.

    """

    config: RunConfig
    algorithm: Search[Any]
    ledger: Ledger
    screen: Screen
    stages: tuple[Stage, ...]
    staged: Staged[ScoreKey]
    confirmations: Confirmations
    ranking: Ranking
    reached: Reached
    programs: StoredPrograms
    proposals: Proposals
    state: Any
    hurdles: Hurdles
    counts: Told
    entered: dict[int, _Entered] = field(default_factory=dict)
    asked: int = 0
    told: int = 0
    stored: int = -1


def run_search(
    config: RunConfig,
    seed_program: Program,
    ledger: Ledger,
    observer: Observer,
    *,
    screen: Screen | None = None,
    proposer: Proposer | None = None,
) -> None:
    """Generate, evaluate and tell `config.search.budget` candidates; everything ends up in the ledger's store.

    After candidate i was told, so are the confirmations of candidates up to i - lag, and at the end all that are left.

    Args:
        config: That of the run.
        seed_program: Candidate 0.
        ledger: Gives scores and holds the store; what it holds already is not done again.
        observer: Is told some twenty times a second, and at the end.
        screen: What answers candidates without training; one with its memory in the store if not given.
        proposer: Proposes programs beside the algorithm; the one of the configuration, if any, if not given.

    Raises:
        ConfigError: If the algorithm can do nothing with the warm start.
        InputError: If the proposer of the configuration needs a library that is not installed.
        JobError: If the search finds no further candidate.

    """
    given = proposals_of(config, seed_program, ledger.store, proposer)
    with rare_collections(), ledger.store.database.grouped(), given as proposals:
        search = _begun(config, seed_program, ledger, screen, proposals)
        _go_on(search, observer)


def _begun(
    config: RunConfig, seed_program: Program, ledger: Ledger, screen: Screen | None, proposals: Proposals
) -> _Search:
    """Return the search as its last checkpoint has it, or before its first candidate."""
    algorithm, store = algorithm_of(config, seed_program), ledger.store
    stages = tuple(map(stage_of, config.stages))
    staged = Staged(_StageScores(ledger))
    search = _Search(
        config,
        algorithm,
        ledger,
        screen or screen_of(store.database, alike=config.search.alike),
        stages,
        staged,
        Confirmations.of(config, stages, staged),
        Ranking(store),
        Reached.of(store.database),
        StoredPrograms(store),
        proposals,
        algorithm.initial(),
        Hurdles.of(stages),
        Told(entered=(0,) * len(stages), passed=(0,) * len(stages)),
        stored=store.last_number(),
    )
    checkpoint = read_checkpoint(store, algorithm)
    if checkpoint is not None:
        _restore(search, checkpoint)
    return search


def _restore(search: _Search, checkpoint: Checkpoint) -> None:
    search.state, search.hurdles, search.counts = checkpoint.state, checkpoint.hurdles, checkpoint.counts
    search.ranking.restore(checkpoint.top)
    search.confirmations.restore(checkpoint.known)
    search.told = search.asked = checkpoint.told
    for limits in checkpoint.limits:
        _enter(search, limits)


def _go_on(search: _Search, observer: Observer) -> None:
    budget, lag = search.config.search.budget, search.config.search.lag
    last = budget - lag  # a run with a larger budget asks for its next candidate then, so it goes on from there
    due, shown = search.told + interval(search.told), -math.inf
    # While nothing comes, as when no worker runs, somebody wants to see why.
    search.ledger.idle = lambda: observer.on_progress(_progress(search))
    while search.told < budget:
        while search.asked < budget and search.asked - lag <= search.told:
            _enter(search)
        _tell_next(search)
        _confirm(search, last=False)
        if search.told == last or due <= search.told < last:
            due = search.told + interval(search.told)
            _write(search)
        if search.told < budget and time.monotonic() >= shown + _VIEW_SECONDS:
            shown = time.monotonic()
            observer.on_progress(_progress(search))
    _confirm(search, last=True)
    search.ledger.idle = lambda: None
    observer.on_progress(_progress(search))


def _write(search: _Search) -> None:
    limits = tuple(search.entered[number].limits for number in range(search.told, search.asked))
    checkpoint = Checkpoint(
        search.told,
        limits,
        search.state,
        search.hurdles,
        search.confirmations.known(),
        search.counts,
        search.ranking.top,
    )
    write_checkpoint(search.ledger.store, checkpoint)


def stage_of(stage: StageConfig) -> Stage:
    """Return a stage of a configuration as the evaluators see it."""
    return Stage(
        stage.task, stage.steps, stage.seeds, stage.learning_rates, stage.metric, stage.hurdle, device=stage.device
    )


def _enter(search: _Search, limits: tuple[float, ...] | None = None) -> None:
    """Take the next candidate out of the store or ask for it, see whether it needs training, and send it on.

    Without `limits`, those of this moment let it into the stages.
    """
    number = search.asked
    record = search.ledger.store.candidate(number) if number <= search.stored else None
    candidate = _asked(search, number) if record is None else candidate_of(record)
    search.programs.add(number, candidate.program)
    screened = search.screen.check(candidate.program, candidate.key)
    if record is None:
        record = CandidateRecord(
            number,
            candidate.parent,
            candidate.mutation if candidate.mate is None else f"{candidate.mutation} {candidate.mate}",
            str(candidate.program),
            candidate.key,
            screened.key,
            screened.status.value,
        )
        search.ledger.store.add_candidate(record)
    subject = Subject(screened.program, screened.key)
    stopped = None if screened.status is ProbeStatus.OK else Verdict(None, Reason(screened.status.value))
    if stopped is None:
        limits = search.hurdles.limits() if limits is None else limits
        search.staged.enter(number, subject, search.stages, limits)
    search.entered[number] = _Entered(candidate, subject, limits or (), stopped)
    search.asked += 1


def _asked(search: _Search, number: int) -> Candidate:
    proposed = search.proposals.candidate(number, search.ranking.top, search.programs)
    if proposed is not None:
        return proposed
    try:
        return search.algorithm.ask(search.state, number, search.programs)
    except NoProgramError as error:
        raise JobError(f"there is no candidate {number}: {error}") from None


def _tell_next(search: _Search) -> None:
    """Wait for the verdict on the next candidate, note it down and tell the algorithm."""
    number = search.told
    entry = search.entered.pop(number)
    verdict = entry.verdict or search.staged.verdict(number)
    behaviour = entry.subject.behaviour
    stage = -1 if verdict.stage is None else verdict.stage
    # Said of the keys and numbers alone, so that it does not hang on which of two equal candidates ran first.
    reached = search.reached.before(behaviour, number)
    reused = 0 <= stage <= reached
    if stage > reached:
        search.reached.note(behaviour, number, stage)
    search.confirmations.cost = search.confirmations.cost.plus(verdict.scores[reached + 1 :], confirming=False)
    search.hurdles = search.hurdles.after(verdict)
    fitness, reason = search.confirmations.told(number, entry.subject, verdict, reused=reused)
    value = verdict.values[-1] if verdict.values else None
    search.ledger.store.add_outcome(Outcome(number, reason, fitness, verdict.stage, reused, value, verdict.hurdle))
    search.counts = _counted(search.counts, stage, reason, reused=reused, failed=fitness is None)
    if fitness is not None:
        search.ranking.add(Standing(number, fitness, confirmed=False))
    search.state = search.algorithm.tell(search.state, entry.candidate, fitness)
    search.told += 1


def _counted(counts: Told, stage: int, reason: Reason, *, reused: bool, failed: bool) -> Told:
    entered, passed = counts.entered, counts.passed
    if not reused and stage >= 0:
        last = stage + (reason is Reason.FINISHED)
        entered = tuple(number + (place <= stage) for place, number in enumerate(entered))
        passed = tuple(number + (place < last) for place, number in enumerate(passed))
    return Told(
        counts.evaluated + (stage >= 0 and not reused),
        counts.reused + reused,
        counts.failed + failed,
        counts.probed + (stage < 0),
        entered,
        passed,
    )


def _confirm(search: _Search, *, last: bool) -> None:
    """Tell the algorithm of the confirmations that are due."""
    for confirmation in search.confirmations.due(search.told, last=last):
        search.ledger.store.add_confirmation(confirmation)
        number, fitness = confirmation.number, confirmation.fitness
        if fitness is None:
            search.ranking.drop(number, search.told)
        else:
            search.ranking.add(Standing(number, fitness, confirmed=True))
        search.state = search.algorithm.revise(search.state, number, fitness)


def _progress(search: _Search) -> Progress:
    best, counts, confirmations = search.ranking.best, search.counts, search.confirmations
    restarts = restarts_of(search.state)
    stages = [
        StageProgress(f"stage {place + 1}", stage.task, stage.steps, entered, passed, search.staged.waiting(place))
        for place, (stage, entered, passed) in enumerate(zip(search.stages, counts.entered, counts.passed, strict=True))
    ]
    return Progress(
        Phase.SEARCH,
        search.told,
        search.config.search.budget,
        counts.evaluated,
        counts.reused,
        counts.failed,
        best.number if best else None,
        best.fitness if best else None,
        search.ranking.text,
        confirmations.confirmed,
        confirmations.cost.share,
        search.ledger.evaluator.status,
        generated=search.asked,
        invalid=search.proposals.invalid,
        probed=counts.probed,
        stages=tuple(stages),
        best_interval=search.ranking.interval,
        restarts=restarts[-1].ordinal if restarts else 0,
        mutations=tuple((credit.mutation, credit.weight) for credit in credits_of(search.state)),
    )
