import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_samples import CONFIG, ENVIRONMENT, KEY, candidate, score

from evolion.config import CONFIRMATION_SEEDS, SEEDS_OF_STAGES, fresh_seeds
from evolion.errors import RunError
from evolion.evaluators.stages import Reason
from evolion.proxies.score import Run, Status
from evolion.records import Confirmation, Cost, Outcome
from evolion.store import RunStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore.create(tmp_path / "run", CONFIG, ENVIRONMENT) as created:
        yield created


def test_confirmed_candidates_stand_before_others(store: RunStore) -> None:
    """Of those that got equally far; one that failed with fresh seeds has no standing, and history is not rewritten."""
    for number, fitness in enumerate([(-1.0, 3.0), (-1.0, 1.0), (-2.0, 9.0), (-1.0, 2.0), (-1.0, 0.5)]):
        store.add_candidate(candidate(number))
        store.add_outcome(Outcome(number, Reason.FINISHED, fitness, 0, False))
    passed = Confirmation(3, Reason.FINISHED, (-1.0, 2.5), 2.0, 0.1)
    for _ in range(2):
        store.add_confirmation(passed)
        store.add_confirmation(Confirmation(4, Reason.DIVERGED, None))
    assert [(s.number, s.confirmed) for s in store.standings()] == [(2, False), (3, True), (1, False), (0, False)]
    assert list(store.confirmations()) == [passed, Confirmation(4, Reason.DIVERGED, None)]
    with pytest.raises(RunError, match="candidate 3"):
        store.add_confirmation(dataclasses.replace(passed, value=9.0))


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
def test_cost_tells_confirmations_from_the_rest(store: RunStore, seed: int) -> None:
    """Trainings of the search are counted, and of them those with the seeds of confirmations; the retest is not."""
    kinds = {(0,): 3, (5, 6): 4, fresh_seeds(CONFIRMATION_SEEDS, 2, seed): 2, fresh_seeds(SEEDS_OF_STAGES, 1, seed): 8}
    for seeds, runs in kinds.items():
        made = (Run(0.1, 0, Status.OK, 1.0, 1.0, 5),) * runs
        store.put_score(
            dataclasses.replace(KEY, seeds=seeds), dataclasses.replace(score(), runs=made, seconds=runs / 2)
        )
    assert store.counts().cost == Cost(9, 4.5, 2, 1.0)
    assert store.counts().cost.share == pytest.approx(2 / 9)


def test_counts_add_up(store: RunStore) -> None:
    """The status of a run tells trained, reused and failed candidates apart."""
    rows = [
        ("finished", (1.0,), 1, False),
        ("finished", (1.0,), 1, True),
        ("diverged", None, 0, False),
        ("dead", None, None, False),
        ("dead", None, None, True),
    ]
    for number, (reason, fitness, stage, reused) in enumerate(rows):
        store.add_candidate(candidate(number))
        store.add_outcome(Outcome(number, Reason(reason), fitness, stage, reused))
    store.add_candidate(candidate(5))
    counts = store.counts()
    assert (counts.generated, counts.told, counts.evaluated, counts.reused) == (6, 5, 2, 2)
    assert counts.failed == {"diverged": 1, "dead": 2}
    assert counts.stages == {0: 1, 1: 2}
