"""What every search algorithm must keep to, whatever its strategy; one subclass with a fixture runs them all."""

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import TypeAdapter

from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.keys import structural_key
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.search.types import SEED, Candidate, Fitness, Search

Score = Callable[[Candidate], Fitness | None]
LAGS = (0, 1, 7, 64)


def toy_fitness(candidate: Candidate) -> Fitness | None:
    """A made-up fitness that depends on the text alone; every fifth length fails."""
    text = str(candidate.program)
    return None if len(text) % 5 == 0 and candidate.number else (float(sum(map(ord, text)) % 97), float(len(text)))


@dataclass(frozen=True, slots=True)
class Run:
    """What a driver did: the candidates, what was told of them, and the state after so many were told."""

    candidates: list[Candidate]
    told: list[Fitness | None]
    states: list[Any]

    @property
    def state(self) -> Any:
        return self.states[-1]

    @property
    def programs(self) -> dict[int, Program]:
        return {candidate.number: candidate.program for candidate in self.candidates}


def driven(search: Search[Any], count: int, lag: int = 4, score: Score = toy_fitness) -> Run:
    """Ask for candidate i when i - lag have been told, as the driver does; at the end all have been told."""
    run = Run([], [], [search.initial()])
    programs: dict[int, Program] = {}  # of those told and of candidate 0: an algorithm may look up no other
    for number in range(count + lag):
        if number > lag:
            candidate = run.candidates[number - lag - 1]
            run.told.append(score(candidate))
            run.states.append(search.tell(run.state, candidate, run.told[-1]))
            programs[candidate.number] = candidate.program
        if number < count:
            run.candidates.append(search.ask(run.state, number, programs))
            programs[0] = run.candidates[0].program
    last = run.candidates[-1]
    run.told.append(score(last))
    run.states.append(search.tell(run.state, last, run.told[-1]))
    return run


def adapter_of(search: Search[Any]) -> TypeAdapter[Any]:
    """What writes and reads a state in a checkpoint."""
    return TypeAdapter(type(search.initial()))


class SearchLaws:
    """Subclasses give the class-scoped fixtures `make` (random seed to algorithm), `seed_program` and `longest`.

    The search must take part with few seats (about ten), so that members leave within sixty candidates.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def search(cls, make: Callable[[int], Search[Any]]) -> Search[Any]:
        return make(3)

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, search: Search[Any]) -> Run:
        return driven(search, 60)

    def test_candidate_zero_is_the_seed(self, search: Search[Any], seed_program: Program) -> None:
        """The seed is scored like any other candidate, so what a search gains is measured against it."""
        seed = Candidate(0, seed_program, None, SEED, structural_key(seed_program))
        assert search.ask(search.initial(), 0, {}) == seed

    def test_ask_is_pure(self, search: Search[Any], run: Run) -> None:
        """Candidates asked again, or in another order, are the same: a run can be resumed anywhere."""
        numbers = range(61, 75)
        forwards = [search.ask(run.state, number, run.programs) for number in numbers]
        backwards = [search.ask(run.state, number, run.programs) for number in reversed(numbers)]
        assert forwards == backwards[::-1]

    def test_a_candidate_hangs_on_the_state_and_its_number_alone(
        self, make: Callable[[int], Search[Any]], run: Run
    ) -> None:
        """Whenever a candidate is asked for, and whoever was told in between, it is that of the run."""
        search = make(3)
        for candidate in reversed(run.candidates):
            state = run.states[max(0, candidate.number - 4)]
            assert search.ask(state, candidate.number, run.programs) == candidate

    def test_inputs_stay_as_they_were(self, search: Search[Any], run: Run) -> None:
        """States are values: asking, telling and revising make new ones and leave the old ones alone."""
        adapter, programs = adapter_of(search), run.programs
        before = [adapter.dump_json(state) for state in run.states]
        for state, candidate in zip(run.states[1:], run.candidates, strict=False):
            search.ask(state, candidate.number + 1, programs)
            search.revise(state, candidate.number, None)
            search.revise(state, candidate.number, (0.0, 1.0))
            search.tell(state, dataclasses.replace(candidate, number=candidate.number + 1), (0.0, 1.0))
        assert [adapter.dump_json(state) for state in run.states] == before
        assert programs == run.programs

    def test_the_same_run_twice(self, make: Callable[[int], Search[Any]], run: Run) -> None:
        """A run is a function of its random seed, and different seeds give different runs."""
        assert driven(make(3), 60) == run
        assert driven(make(4), 20).candidates != run.candidates[:20]

    def test_the_state_survives_json(self, search: Search[Any], run: Run) -> None:
        """A checkpoint gives the state back, to the last bit of every fitness, and the run goes on as it would have."""
        adapter = adapter_of(search)
        for state in run.states[::15]:
            back = adapter.validate_json(adapter.dump_json(state))
            assert back == state
            assert type(back) is type(state)
            for number in (61, 62):
                assert search.ask(back, number, run.programs) == search.ask(state, number, run.programs)
            newcomer = dataclasses.replace(run.candidates[-1], number=61)
            assert search.tell(back, newcomer, (0.1 + 0.2, 1e-300)) == search.tell(state, newcomer, (0.1 + 0.2, 1e-300))

    @pytest.mark.parametrize("lag", LAGS)
    def test_any_lag_works(self, make: Callable[[int], Search[Any]], lag: int) -> None:
        """Candidates are numbered; parents were told before their child was asked for, and never failed."""
        run = driven(make(5), 40 + lag, lag)
        assert [candidate.number for candidate in run.candidates] == list(range(40 + lag))
        for number, candidate in enumerate(run.candidates):
            for parent in (candidate.parent, candidate.mate):
                assert not parent or 0 < parent < number - lag
                assert not parent or run.told[parent] is not None
        assert run.candidates[0].parent is None

    def test_who_failed_is_no_parent(self, search: Search[Any], run: Run) -> None:
        """A candidate that diverged, crashed or hung can never enter the population."""
        failed = dataclasses.replace(run.candidates[-1], number=60)
        told = search.tell(run.state, failed, None)
        assert_is_no_parent(search, told, run, failed)

    def test_who_fails_later_is_a_parent_no_more(self, search: Search[Any], run: Run) -> None:
        """The best candidate is nobody's parent once it turns out to fail."""
        best = dataclasses.replace(run.candidates[-1], number=60)
        revised = search.revise(search.tell(run.state, best, (-9.0, 1.0)), 60, None)
        assert_is_no_parent(search, revised, run, best)

    def test_revising_who_has_left_changes_nothing(self, search: Search[Any], run: Run) -> None:
        """A confirmation may come when its candidate is gone, or was never let in."""
        assert search.revise(run.state, 1_000, (0.0, 1.0)) == run.state == search.revise(run.state, 1_000, None)

    def test_revising_to_what_was_told_changes_nothing(self, search: Search[Any], run: Run) -> None:
        """A confirmation that confirms is no event, whether its candidate is alive or gone."""
        for number, fitness in enumerate(run.told):
            if fitness is not None:
                assert search.revise(run.state, number, fitness) == run.state

    def test_the_last_revision_counts(self, search: Search[Any], run: Run) -> None:
        """What turned out about a living candidate is forgotten when something else turns out."""
        newcomer = dataclasses.replace(run.candidates[-1], number=60)
        told = search.tell(run.state, newcomer, (-9.0, 1.0))
        twice = search.revise(search.revise(told, 60, (-7.0, 1.0)), 60, (-8.0, 1.0))
        assert twice == search.revise(told, 60, (-8.0, 1.0))

    def test_all_failed(self, make: Callable[[int], Search[Any]]) -> None:
        """A search whose candidates all fail, the seed included, goes on from the seed."""
        run = driven(make(3), 30, score=lambda _: None)
        assert all(candidate.parent in (None, 0) for candidate in run.candidates)

    def test_programs_are_valid_and_without_dead_code(self, run: Run, longest: int) -> None:
        """Evaluators may take every candidate as it is, and the text of a run is all of the run."""
        for candidate in run.candidates[1:]:
            assert remove_dead_code(candidate.program) is candidate.program
            assert parse(str(candidate.program)) == candidate.program
            assert candidate.key == structural_key(candidate.program)
            assert len(candidate.program.statements) <= longest

    def test_no_child_is_its_parent(self, run: Run) -> None:
        """No training is spent on a program that does by its text what its parent does."""
        for candidate in run.candidates:
            assert candidate.parent is None or candidate.key != run.candidates[candidate.parent].key

    @pytest.mark.parametrize("seed", [0, 2**40])
    def test_any_seed_is_allowed(self, make: Callable[[int], Search[Any]], seed: int, seed_program: Program) -> None:
        """Random seeds are not cut to 32 bits."""
        one, other = make(seed), make(seed + 2**32)
        programs = {0: seed_program}
        assert one.ask(one.initial(), 1, programs) != other.ask(other.initial(), 1, programs)


def assert_is_no_parent(search: Search[Any], state: Any, run: Run, candidate: Candidate) -> None:
    """Many children of a state, none of them of one candidate."""
    programs = run.programs | {candidate.number: candidate.program}
    children = [search.ask(state, number, programs) for number in range(61, 91)]
    assert all(candidate.number not in (child.parent, child.mate) for child in children)


def assert_state_stays_small(search: Search[Any]) -> None:
    """Tell three thousand candidates, revise some: the state as JSON has a size that no longer grows at the end."""
    rng, adapter, run = random.Random(0), adapter_of(search), driven(search, 60)
    state, sizes = run.state, []
    for number in range(60, 3060):
        told = run.candidates[number % 60 or 1]
        parent = None if told.parent is None else number - 1 - rng.randrange(9)
        candidate = dataclasses.replace(told, number=number, parent=parent, mate=None)
        state = search.tell(state, candidate, (rng.random() - number / 1000, 1.0) if rng.random() < 0.7 else None)
        if number % 10 == 0:
            state = search.revise(state, number - 5, (rng.random(), 1.0))
        if number in (2059, 3059):
            sizes.append(len(adapter.dump_json(state)))
    assert sizes[1] < 1.1 * sizes[0] + 500
