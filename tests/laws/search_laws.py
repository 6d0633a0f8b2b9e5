"""What every search algorithm must keep to, whatever its strategy; one subclass with a fixture runs them all."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.keys import structural_key
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.search.types import SEED, Candidate, Fitness, Search

Score = Callable[[Candidate], Fitness | None]

REPLAY = """
import json, pickle, sys
search, candidates, fitness = pickle.load(sys.stdin.buffer)
state = search.initial()
programs = {candidate.number: candidate.program for candidate in candidates}
for candidate, value in zip(candidates, fitness):
    state = search.tell(state, candidate, value)
asked = [search.ask(state, number, programs) for number in range(1, 31)]
print(json.dumps([[c.number, c.parent, c.mutation, c.mate, c.key, str(c.program)] for c in asked]))
"""


def toy_fitness(candidate: Candidate) -> Fitness | None:
    """A made-up fitness that depends on the text alone; every fifth length fails."""
    text = str(candidate.program)
    return None if len(text) % 5 == 0 and candidate.number else (float(sum(map(ord, text)) % 97), float(len(text)))


def programs_of(candidates: Iterable[Candidate]) -> dict[int, Program]:
    """What a driver gives an algorithm: the programs of candidates by their numbers."""
    return {candidate.number: candidate.program for candidate in candidates}


def driven(search: Search[Any], count: int, lag: int = 4, score: Score = toy_fitness) -> tuple[Any, list[Candidate]]:
    """Run as the driver does, `lag` candidates in flight; return the last state and all candidates."""
    state = search.initial()
    candidates: list[Candidate] = []
    for number in range(count):
        if number >= lag:
            told = candidates[number - lag]
            state = search.tell(state, told, score(told))
        candidates.append(search.ask(state, number, programs_of(candidates)))
    for told in candidates[max(0, count - lag) :]:
        state = search.tell(state, told, score(told))
    return state, candidates


class SearchLaws:
    """Subclasses give the fixtures `make` (random seed to algorithm) and `seed_program`."""

    def test_candidate_zero_is_the_seed(self, make: Callable[[int], Search[Any]], seed_program: Program) -> None:
        """The seed is scored like any other candidate, so what a search gains is measured against it."""
        search = make(3)
        assert search.ask(search.initial(), 0, {}) == Candidate(
            0, seed_program, None, SEED, structural_key(seed_program)
        )

    def test_ask_is_pure(self, make: Callable[[int], Search[Any]]) -> None:
        """Candidates asked again, or in another order, are the same: a run can be resumed anywhere."""
        state, candidates = driven(make(3), 40)
        search, programs = make(3), programs_of(candidates)
        forwards = [search.ask(state, number, programs) for number in range(1, 20)]
        backwards = [search.ask(state, number, programs) for number in reversed(range(1, 20))]
        assert forwards == backwards[::-1]

    def test_tell_leaves_the_old_state_alone(self, make: Callable[[int], Search[Any]]) -> None:
        """States are values: telling makes a new one, and the old one still gives the old candidates."""
        search = make(3)
        state, candidates = driven(search, 10)
        programs = programs_of(candidates)
        before = [search.ask(state, number, programs) for number in range(10, 20)]
        search.tell(state, dataclasses.replace(candidates[-1], number=10), (0.0,))
        assert [search.ask(state, number, programs) for number in range(10, 20)] == before

    def test_the_same_run_twice(self, make: Callable[[int], Search[Any]]) -> None:
        """A run is a function of its random seed, and different seeds give different runs."""
        assert driven(make(3), 60) == driven(make(3), 60)
        assert driven(make(3), 60)[1] != driven(make(4), 60)[1]

    def test_candidates_are_numbered_and_have_earlier_parents(self, make: Callable[[int], Search[Any]]) -> None:
        """A parent has been told before its child was asked, and never failed."""
        lag = 4
        _, candidates = driven(make(5), 80, lag)
        for number, candidate in enumerate(candidates):
            assert candidate.number == number
            for parent in (candidate.parent, candidate.mate):
                assert not parent or parent <= number - lag
                assert not parent or toy_fitness(candidates[parent]) is not None

    def test_failed_candidates_change_nothing(self, make: Callable[[int], Search[Any]]) -> None:
        """A candidate that diverged, crashed or hung can never enter the population."""
        search = make(3)
        state, candidates = driven(search, 30)
        failed = search.tell(state, dataclasses.replace(candidates[-1], number=30), None)
        assert failed == state

    def test_a_revised_fitness_is_as_if_it_had_been_told(self, make: Callable[[int], Search[Any]]) -> None:
        """What turns out later about a living candidate replaces what was told of it, and nothing else."""
        search = make(3)
        state, candidates = driven(search, 30)
        for number in (30, 0):
            newcomer = dataclasses.replace(candidates[-1], number=number)
            revised = search.revise(search.tell(state, newcomer, (5.0, 1.0)), number, (0.5, 1.0))
            assert revised == search.tell(state, newcomer, (0.5, 1.0))

    def test_revising_leaves_the_old_state_alone(self, make: Callable[[int], Search[Any]]) -> None:
        """States are values here too: the old one still gives the old candidates."""
        search = make(3)
        state, candidates = driven(search, 30)
        programs = programs_of(candidates)
        before = [search.ask(state, number, programs) for number in range(30, 40)]
        for candidate in candidates:
            search.revise(state, candidate.number, None)
            search.revise(state, candidate.number, (0.0,))
        assert [search.ask(state, number, programs) for number in range(30, 40)] == before

    def test_revising_who_has_left_changes_nothing(self, make: Callable[[int], Search[Any]]) -> None:
        """A confirmation may come when its candidate is gone, or was never let in."""
        search = make(3)
        state, _ = driven(search, 30)
        assert search.revise(state, 1_000, (0.0,)) == state == search.revise(state, 1_000, None)

    def test_who_fails_later_is_a_parent_no_more(self, make: Callable[[int], Search[Any]]) -> None:
        """The best candidate is nobody's parent once it turns out to fail."""
        search = make(3)
        state, candidates = driven(search, 30)
        best = dataclasses.replace(candidates[-1], number=30)
        told = search.tell(state, best, (-9.0,))
        revised = search.revise(told, 30, None)
        programs = programs_of([*candidates, best])
        asked = [search.ask(revised, number, programs) for number in range(31, 60)]
        assert all(30 not in (candidate.parent, candidate.mate) for candidate in asked)

    def test_all_failed(self, make: Callable[[int], Search[Any]]) -> None:
        """A search whose candidates all fail, the seed included, goes on from the seed."""
        state, candidates = driven(make(3), 30, score=lambda _: None)
        assert state == make(3).initial()
        assert all(candidate.parent in (None, 0) for candidate in candidates)

    def test_programs_are_valid_and_without_dead_code(self, make: Callable[[int], Search[Any]]) -> None:
        """Evaluators may take every candidate as it is, and the text of a run is all of the run."""
        _, candidates = driven(make(3), 60)
        for candidate in candidates[1:]:
            assert remove_dead_code(candidate.program) is candidate.program
            assert parse(str(candidate.program)) == candidate.program
            assert candidate.key == structural_key(candidate.program)

    def test_the_state_stays_small(self, make: Callable[[int], Search[Any]]) -> None:
        """A run of any length keeps a state of bounded size."""
        sizes = [len(pickle.dumps(driven(make(3), count)[0])) for count in (60, 240)]
        assert sizes[1] < 2 * sizes[0] + 1000

    def test_another_process_asks_the_same(self, make: Callable[[int], Search[Any]]) -> None:
        """Nothing depends on the process: hash seeds, caches and the order of imports do not show."""
        search = make(3)
        state, candidates = driven(search, 30)
        fitness = [toy_fitness(candidate) for candidate in candidates]
        here = [search.ask(state, number, programs_of(candidates)) for number in range(1, 31)]
        environment = {**os.environ, "PYTHONHASHSEED": "12345"}
        done = subprocess.run(
            [sys.executable, "-c", REPLAY],
            input=pickle.dumps((search, candidates, fitness)),
            capture_output=True,
            env=environment,
            check=True,
        )
        there = json.loads(done.stdout)
        assert there == [[c.number, c.parent, c.mutation, c.mate, c.key, str(c.program)] for c in here]

    @pytest.mark.parametrize("seed", [0, 2**40])
    def test_any_seed_is_allowed(self, make: Callable[[int], Search[Any]], seed: int) -> None:
        """Random seeds are not cut to 32 bits."""
        search = make(seed)
        programs = {0: search.ask(search.initial(), 0, {}).program}
        other = make(seed + 2**32)
        assert search.ask(search.initial(), 1, programs) != other.ask(other.initial(), 1, programs)
