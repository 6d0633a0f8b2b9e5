from collections.abc import Callable

import numpy as np
import pytest

from evolion.primitives.parser import parse
from evolion.search.proposals import PROPOSAL
from evolion.search.registry import SearchSettings, make_search
from evolion.search.restarts import RestartingPopulation, RestartSettings, restarts_of
from evolion.search.types import Candidate, Fitness, Search

PROGRAM = parse("def train(g, lr):\n    return lr * g\n")
SEATS = 5


def search_of(
    start: str = "best", patience: int = 10, tournament: int = SEATS, seed: int = 0, name: str = "restarts"
) -> Search[RestartingPopulation]:
    settings = RestartSettings(patience, start)
    return make_search(name, SearchSettings(PROGRAM, seed, SEATS, tournament, restarts=settings))


def child(number: int, parent: int = 0, mate: int | None = None) -> Candidate:
    return Candidate(number, PROGRAM, parent if number else None, "modify", "", mate)


def told(
    search: Search[RestartingPopulation], fitness: dict[int, Fitness | None], last: int, parent: int = 0
) -> RestartingPopulation:
    """The state after children of one parent, with the fitness 9 unless another is given."""
    state = search.initial()
    for number in range(last + 1):
        state = search.tell(state, child(number, parent), fitness.get(number, (9.0,)))
    return state


def parents(search: Search[RestartingPopulation], state: RestartingPopulation) -> set[int | None]:
    programs = dict.fromkeys(range(200), PROGRAM)
    return {search.ask(state, number, programs).parent for number in range(100, 120)}


def lowest(name: str, seed: int) -> float:
    """What is reached where five of six improvements of the seed lead into a trap, and the sixth all the way down."""
    search = search_of("seed", 30, seed=seed, name=name)
    state, values, programs = search.initial(), [10.0], {0: PROGRAM}
    state = search.tell(state, search.ask(state, 0, programs), (10.0,))
    for number in range(1, 500):
        candidate = search.ask(state, number, programs)
        programs[number] = PROGRAM
        assert candidate.parent is not None
        value, luck = values[candidate.parent], np.random.default_rng([seed, number]).random()
        if value == 10.0:
            values.append(5.0 if luck < 0.5 else 4.5 if luck < 0.6 else 11.0)
        else:
            values.append(5.0 if value == 5.0 else max(0.0, value - 0.5) if luck < 0.3 else value)
        state = search.tell(state, candidate, (values[number],))
    return min(values)


def test_restarts_get_out_of_a_trap() -> None:
    """Where the first improvement decides on the way, one that begins anew gets there, a plain one by luck alone."""
    assert [lowest("restarts", seed) for seed in range(4)] == [0.0] * 4
    assert sum(lowest("regularized-evolution", seed) == 5.0 for seed in range(4)) >= 3


def test_the_best_is_never_forgotten() -> None:
    """The best has died of age long ago, and a population that comes from the best holds it in every seat."""
    search = search_of("best", patience=30)
    state = told(search, {3: (1.0,)}, 32)
    assert 3 not in [member.number for member in state.population.members]
    state = search.tell(state, child(33), (9.0,))
    assert [member.number for member in state.population.members] == [3] * SEATS
    assert parents(search, state) == {3}
    (restart,) = restarts_of(state)
    assert (restart.ordinal, restart.after, restart.start, restart.best) == (1, 33, 3, 3)
    assert restart.reason == "none of the candidates up to 33 was better than 3"


def test_seed_and_best_take_turns() -> None:
    """The first restart explores from the seed, the second goes on from the best of the whole run."""
    search = search_of("alternate")
    state = told(search, {4: (1.0,)}, 34)
    assert [restart.start for restart in restarts_of(state)] == [0, 4, 0]
    assert [restart.after for restart in restarts_of(state)] == [14, 24, 34]
    assert parents(search, state) == {0}
    assert {restart.start for restart in restarts_of(told(search_of("seed"), {4: (1.0,)}, 34))} == {0}


def test_equal_fitness_is_no_progress() -> None:
    """Candidates that do what the best does share its score; a population that finds nothing else has stalled."""
    state = told(search_of(), dict.fromkeys(range(1, 40), (5.0,)), 11)
    assert [restart.after for restart in restarts_of(state)] == [11]


def test_progress_is_that_of_the_population() -> None:
    """After a restart from the seed the way back to the best of the run is not held against the population."""
    search = search_of("seed")
    state = told(search, {3: (1.0,)} | {number: (20.0 - number,) for number in range(14, 19)}, 20)
    assert [restart.after for restart in restarts_of(state)] == [13]
    assert state.leaders[0].number == 18
    assert state.champions[0].number == 3


def test_failures_count_against_the_patience() -> None:
    """A population whose children all fail has stalled as well, and so has one whose seed failed."""
    assert len(restarts_of(told(search_of(), dict.fromkeys(range(1, 11)), 10))) == 1
    state = told(search_of(), dict.fromkeys(range(40)), 39)
    assert len(restarts_of(state)) == 3
    assert {restart.start for restart in restarts_of(state)} == {0}


@pytest.mark.parametrize("fitness", [(7.0,), None], ids=["worse", "failed"])
def test_a_best_that_turns_out_worse_is_not_what_comes_next(fitness: Fitness | None) -> None:
    """A lucky score is taken back: the population comes from the best that is left."""
    search = search_of("best", patience=30)
    state = told(search, {2: (5.0,), 3: (1.0,)}, 20)
    state = search.revise(state, 3, fitness)
    for number in range(21, 33):
        state = search.tell(state, child(number), (9.0,))
    assert [restart.start for restart in restarts_of(state)] == [2]


def test_a_candidate_that_turns_out_better_is_what_comes_next() -> None:
    """The worst of a population may be the best of it after a confirmation, whoever was remembered."""
    search = search_of("best", patience=30)
    state = told(search, {number: (float(number),) for number in range(1, 20)}, 20)
    state = search.revise(state, 20, (0.5,))
    for number in range(21, 51):
        state = search.tell(state, child(number), (9.0,))
    assert [(restart.start, restart.after) for restart in restarts_of(state)] == [(20, 50)]


def test_a_start_that_fails_leaves_its_seats_to_the_seed() -> None:
    """When the confirmation of the best comes after the restart and says that it diverges, nobody descends from it."""
    search = search_of()
    state = search.revise(told(search, {3: (1.0,)}, 13), 3, None)
    assert parents(search, state) == {0}
    state = search.tell(state, child(14, parent=3), (2.0,))
    assert not state.population.members
    state = search.tell(state, child(15, parent=0), (3.0,))
    assert parents(search, state) == {15}


def test_descendants_of_the_old_population_do_not_join() -> None:
    """What was in flight at a restart would take the new population over, but it may be the best of the run."""
    search = search_of("seed")
    before = told(search, {4: (1.0,)}, 14)
    state = search.tell(before, child(15, parent=4), (0.5,))
    assert state.population == before.population
    assert state.champions[0].number == 15
    joined = search.tell(state, child(16, parent=0), (8.0,))
    assert [member.number for member in joined.population.members] == [16]
    assert search.tell(joined, child(17, parent=16, mate=4), (0.1,)).population == joined.population
    assert len(search.tell(joined, child(17, parent=16, mate=0), (0.1,)).population.members) == 2


def test_proposals_join_whatever_they_come_from() -> None:
    """A proposer is shown the best of the run: what it makes of them would otherwise be lost after every restart."""
    search = search_of("seed")
    before = told(search, {4: (1.0,)}, 14)
    assert before.after == 14
    state = search.tell(before, Candidate(15, PROGRAM, 4, PROPOSAL, ""), (0.5,))
    assert [member.number for member in state.population.members] == [15]
    assert state.leaders[0].number == state.champions[0].number == 15
    assert [member.number for member in search.tell(state, child(16, 15), (2.0,)).population.members] == [15, 16]


def test_the_latest_restarts_are_kept_and_all_are_counted() -> None:
    """The state of a long run stays small, and still says how often it began anew."""
    state = told(search_of(patience=1), {}, 300)
    kept = restarts_of(state)
    assert len(kept) == 50
    assert kept[-1].ordinal == 300
    assert restarts_of(None) == ()


@pytest.mark.parametrize("make", [lambda: RestartSettings(0), lambda: RestartSettings(5, "worst")])
def test_bad_settings_are_refused(make: Callable[[], RestartSettings]) -> None:
    """What cannot be meant is refused before anything is spent on it."""
    with pytest.raises(ValueError, match="patience of at least 1"):
        make()
