"""Confirmations inside a search: when they are told, what they change, and that they pay against the winner's curse."""

import gc
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from evolion import standings
from evolion.config import CONFIRMATION_SEEDS, ConfirmationConfig, RunConfig, SearchConfig
from evolion.confirmations import Confirmations
from evolion.evaluators.stages import Reason, Stage, Staged, Subject
from evolion.primitives.parser import parse
from evolion.proxies.score import Run, Score, Status
from evolion.records import CandidateRecord, Confirmation, Outcome, Standing
from evolion.search.population import Member, draw_seats, tournament_winner
from evolion.search.regularized_evolution import Population, RegularizedEvolution
from evolion.search.types import SEED, Candidate
from evolion.standings import Ranking
from evolion.store import RunStore

PROGRAM = parse("def train(g, lr):\n    return g * lr\n")
STAGE = Stage("digits-mlp", 10, (0,), (0.1, 0.2, 0.3))
Key = tuple[str, tuple[int, ...]]


@dataclass
class Noisy:
    """Scores at once: the true logarithm of the loss of a behaviour, plus normal noise for each seed.

    `cost` counts trainings; subjects in `fragile` diverge with fresh seeds.
    """

    true: dict[str, float]
    deviation: float
    run: int = 0
    cost: int = 0
    fragile: set[str] = field(default_factory=set)

    def ask(self, subject: Subject, stage: Stage) -> Key:
        assert stage.learning_rates is not None
        self.cost += len(stage.seeds) * len(stage.learning_rates)
        return subject.behaviour, stage.seeds

    def score(self, key: Key) -> Score:
        behaviour, seeds = key
        if behaviour in self.fragile and seeds != STAGE.seeds:
            return Score(Status.DIVERGED, None, (), 3, 1.0)
        noise = np.random.default_rng([self.run, int(behaviour), seeds[0]]).standard_normal(len(seeds))
        losses = [math.exp(self.true[behaviour] + self.deviation * float(z)) for z in noise]
        runs = tuple(Run(0.1, seed, Status.OK, loss, loss, 10) for seed, loss in zip(seeds, losses, strict=True))
        return Score(Status.OK, sum(losses) / len(losses), (), 10, 1.0, None, 0.1, runs)

    def wait(self) -> None:
        raise AssertionError("every score is there at once")


@dataclass
class Harness:
    """Tells candidates of given true worth one after the other, as the driver does."""

    scores: Noisy
    confirmations: Confirmations
    told: int = 0

    def tell(self, behaviour: str, *, reused: bool = False) -> tuple[tuple[float, ...] | None, Reason]:
        subject, number = Subject(PROGRAM, behaviour), self.told
        self.confirmations.staged.enter(number, subject, (STAGE,), (math.inf,))
        self.told += 1
        verdict = self.confirmations.staged.verdict(number)
        return self.confirmations.told(number, subject, verdict, reused=reused)

    def due(self, *, last: bool = False) -> list[Confirmation]:
        return list(self.confirmations.due(self.told, last=last))


def confirming(scores: Noisy, *, seed: int = 0, share: float = 0.05, seeds: int = 6, lag: int = 5) -> Confirmations:
    config = RunConfig(
        seed=seed, search=SearchConfig(lag=lag), confirmation=ConfirmationConfig(share=share, seeds=seeds)
    )
    return Confirmations.of(config, (STAGE,), Staged(scores))  # type: ignore[arg-type]


@pytest.fixture
def harness() -> Harness:
    """Each candidate is better than the one before, so each is a new best."""
    scores = Noisy({str(number): -float(number) for number in range(40)}, 0.1)
    return Harness(scores, confirming(scores))


def test_confirmations_are_told_at_fixed_positions(harness: Harness) -> None:
    """That of the warm start at once, others when `lag` more candidates were told, the rest at the end."""
    positions = {}
    for number in range(20):
        harness.tell(str(number))
        for confirmation in harness.due(last=number == 19):
            positions[confirmation.number] = number
    assert positions == {0: 0} | {number: min(number + 5, 19) for number in range(1, 20)}


def test_fresh_seeds_are_of_their_own(harness: Harness) -> None:
    """Nothing that a stage, the retest or another run selected on decides a confirmation."""
    assert harness.confirmations.seeds == tuple(range(CONFIRMATION_SEEDS, CONFIRMATION_SEEDS + 6))
    other = confirming(harness.scores, seed=3).seeds
    assert not set(other) & set(harness.confirmations.seeds)


def test_a_confirmed_candidate_gives_way_by_less(harness: Harness) -> None:
    """A fitness is the mean and a standard error: that of one seed, or of as many as confirmed it."""
    harness.tell("0")
    (first,) = harness.due()
    (deviation,) = harness.confirmations.noise.deviations()
    assert first.value is not None
    assert first.fitness == (0.0, pytest.approx(first.value * math.exp(deviation / math.sqrt(6))))
    assert first.error == pytest.approx(deviation / math.sqrt(6))
    fitness, reason = harness.tell("1")
    single = harness.scores.score(("1", STAGE.seeds)).loss
    assert single is not None
    assert fitness == (0.0, pytest.approx(single * math.exp(deviation)))
    assert reason is Reason.FINISHED


def test_equal_behaviour_is_confirmed_once(harness: Harness) -> None:
    """A later candidate that does the same takes over the fresh scores, before or after they were told, for nothing."""
    harness.tell("0")
    harness.due()
    harness.tell("1")
    harness.tell("1", reused=True)
    assert harness.due() == []
    for _ in range(5):
        harness.tell("0", reused=True)
    early, second = harness.due()
    assert (early.number, second.number) == (1, 2)
    assert early.value == second.value
    fitness, _ = harness.tell("1", reused=True)
    assert fitness == second.fitness
    assert harness.confirmations.confirmed == 2
    assert harness.confirmations.cost.confirming_runs == 12


def test_fragile_candidates_lose_their_fitness(harness: Harness) -> None:
    """Who diverges with a fresh seed fails, and so does whoever does the same from then on."""
    harness.scores.fragile.add("1")
    harness.tell("0")
    harness.tell("1")
    warm, fragile = harness.due(last=True)
    assert warm.fitness is not None
    assert (fragile.reason, fragile.fitness) == (Reason.DIVERGED, None)
    assert harness.tell("1", reused=True) == (None, Reason.DIVERGED)


def test_behaviour_confirmed_in_two_stages_counts_its_shared_training_once() -> None:
    """What is said while the search runs is what its store says: one program, and the scores that it holds."""
    stages = (STAGE, Stage("zipf-lm", 10, (0,), (0.1,), share=0.5))
    scores = Noisy({"0": 0.0}, 0.1)
    confirmations = Confirmations.of(RunConfig(), stages, Staged(scores))  # type: ignore[arg-type]
    for number, limit in enumerate((0.0, math.inf)):  # the hurdle has moved in between
        confirmations.staged.enter(number, Subject(PROGRAM, "0"), stages, (math.inf, limit))
        verdict = confirmations.staged.verdict(number)
        assert verdict.stage == number
        confirmations.told(number, Subject(PROGRAM, "0"), verdict, reused=False)
    assert len(list(confirmations.due(2, last=True))) == 2
    assert confirmations.confirmed == 1
    assert confirmations.cost.confirming_runs == 2 * len(confirmations.seeds)


def test_confirmed_scores_are_not_kept(harness: Harness) -> None:
    """Of a confirmation its value stays: the curves of thousands would fill the memory of a long search."""
    for number in range(8):
        harness.tell(str(number))
        harness.due()
    harness.due(last=True)
    seen: dict[int, object] = {}
    todo: list[object] = [harness.confirmations]
    while todo:
        found = todo.pop()
        if id(found) not in seen and not isinstance(found, type):
            seen[id(found)] = found
            todo.extend(gc.get_referents(found))
    assert not any(isinstance(found, Score) for found in seen.values())


def test_replayed_ranking_knows_only_what_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a resumed run replays, its view shows the best of then: the store holds what comes later as well."""
    monkeypatch.setattr(standings, "_KEPT", 1)
    with RunStore.create(tmp_path / "run", RunConfig(), {}) as store:
        ranking = Ranking(store)
        for number, fitness in enumerate([3.0, 1.0, 2.0, 0.5]):
            store.add_candidate(CandidateRecord(number, None, "seed", f"{number}", "0a", "0b", "ok"))
            store.add_outcome(Outcome(number, Reason.FINISHED, (0.0, fitness), 0, reused=False))
        for number, fitness in enumerate([3.0, 1.0, 2.0]):
            ranking.add(Standing(number, (0.0, fitness), confirmed=False))
        store.add_confirmation(Confirmation(1, Reason.DIVERGED, None))
        store.add_confirmation(Confirmation(2, Reason.DIVERGED, None))
        ranking.drop(1, told=3)
        assert (ranking.best, ranking.text) == (Standing(2, (0.0, 2.0), confirmed=False), "2")
        ranking.drop(2, told=3)
        assert (ranking.best, ranking.text) == (Standing(0, (0.0, 3.0), confirmed=False), "0")


def test_share_zero_confirms_nobody() -> None:
    """Switched off, values are ranks as they are."""
    scores = Noisy({"0": 0.0}, 0.1)
    harness = Harness(scores, confirming(scores, share=0.0))
    assert harness.tell("0") == ((0.0, scores.score(("0", STAGE.seeds)).loss), Reason.FINISHED)
    assert harness.due(last=True) == []


def evolved(run: int, share: float, trainings: int = 900) -> float:
    """Search points in the plane by regularized evolution; return the true loss of the one that comes out best.

    The logarithm of the loss is the distance from the origin, seen through noise.
    """
    algorithm = RegularizedEvolution(PROGRAM, run, population=50, tournament=10)
    state, scores = algorithm.initial(), Noisy({}, 0.3, run)
    harness = Harness(scores, confirming(scores, seed=run, share=share))
    genes, ranked = {0: np.full(2, 2.0)}, {}
    while scores.cost < trainings:
        number = harness.told
        candidate = _child(algorithm, state, number, genes)
        scores.true[str(number)] = 0.15 * float(np.linalg.norm(genes[number]))
        fitness, _ = harness.tell(str(number))
        assert fitness is not None
        state = algorithm.tell(state, candidate, fitness)
        ranked[number] = Standing(number, fitness, confirmed=False)
        for told in harness.due(last=scores.cost >= trainings):
            assert told.fitness is not None
            state = algorithm.revise(state, told.number, told.fitness)
            ranked[told.number] = Standing(told.number, told.fitness, confirmed=True)
    return scores.true[str(min(ranked.values(), key=lambda standing: standing.rank).number)]


def _child(algorithm: RegularizedEvolution, state: Population, number: int, genes: dict[int, np.ndarray]) -> Candidate:
    if number == 0:
        return Candidate(0, PROGRAM, None, SEED, "")
    rng = np.random.default_rng([algorithm.seed, number])
    copies = (Member(0, state.seed_fitness),) * (algorithm.population - len(state.members))
    parent = tournament_winner(draw_seats(copies + state.members, algorithm.tournament, rng)).number
    step = np.zeros(2)
    step[rng.integers(2)] = rng.normal(0.0, 0.7) + (rng.random() < 0.3) * rng.normal(0.0, 5.0)
    genes[number] = genes[parent] + step
    return Candidate(number, PROGRAM, parent, "step", "")


def test_confirmations_pay_against_the_winners_curse() -> None:
    """With the same number of trainings, what a search takes for its best is truly better if the best are confirmed."""
    without = np.array([evolved(run, 0.0) for run in range(40)])
    with_them = np.array([evolved(run, 0.05) for run in range(40)])
    gain = without - with_them
    error = gain.std(ddof=1) / math.sqrt(len(gain))
    print(
        f"true log loss {without.mean():.3f} without, {with_them.mean():.3f} with, gain {gain.mean():.3f} ± {error:.3f}"
    )
    assert gain.mean() > 2 * error
