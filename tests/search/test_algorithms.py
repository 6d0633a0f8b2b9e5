import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from laws.search_laws import SearchLaws, assert_state_stays_small, driven, toy_fitness

from evolion.primitives.kinds import Kind
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.search.adaptation import AdaptationSettings
from evolion.search.islands import IslandSettings
from evolion.search.mutation import MUTATIONS, MutationConfig, mutation_config
from evolion.search.registry import ALGORITHMS, SearchSettings, make_search
from evolion.search.restarts import RestartSettings
from evolion.search.types import Search

LONGEST = 30

REPLAY = """
import json, pickle, sys
asked = []
for search, candidates, fitness in pickle.load(sys.stdin.buffer):
    state, programs, own = search.initial(), {}, []
    for number in range(len(candidates)):
        if number > 4:
            told = candidates[number - 5]
            state = search.tell(state, told, fitness[told.number])
            programs[told.number] = told.program
        own.append(search.ask(state, number, programs))
        programs[0] = candidates[0].program
    asked.append([[c.number, c.parent, c.mutation, c.mate, c.key, str(c.program)] for c in own])
print(json.dumps(asked))
"""

SEED = parse("""
def train(w, g, m, v, lr, *, b1=0.9, b2=0.999, weight_decay=0.01):
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    update = m / (sqrt(v) + 0.00000001) + weight_decay * w
    return lr * update, m, v
""")


def settings_of(seed_program: Program, seed: int, *, full: bool) -> SearchSettings:
    """Few seats and much going on; the full vocabulary with all mutations, whose weights adapt."""
    weights = tuple((row, 1.0) for row in MUTATIONS) if full else MutationConfig().weights
    return SearchSettings(
        seed_program,
        seed,
        12,
        3,
        mutation_config("full" if full else "lion", weights, LONGEST),
        restarts=RestartSettings(patience=15),
        islands=IslandSettings(count=3, interval=8),
        adaptation=AdaptationSettings(window=200) if full else None,
    )


@pytest.mark.parametrize("full", [False, True], ids=["lion", "full-adaptive"], scope="class")
@pytest.mark.parametrize("name", ALGORITHMS, scope="class")
class TestSearchLaws(SearchLaws):
    @pytest.fixture(scope="class")
    @classmethod
    def seed_program(cls) -> Program:
        return SEED

    @pytest.fixture(scope="class")
    @classmethod
    def longest(cls) -> int:
        return LONGEST

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, name: str, full: bool) -> Callable[[int], Search[Any]]:
        return lambda seed: make_search(name, settings_of(SEED, seed, full=full))


def test_another_process_asks_the_same() -> None:
    """Nothing depends on the process: hash seeds, caches and the order of imports do not show."""
    runs = []
    for name in ALGORITHMS:
        search = make_search(name, settings_of(SEED, 3, full=True))
        runs.append((search, driven(search, 40).candidates))
    done = subprocess.run(
        [sys.executable, "-c", REPLAY],
        input=pickle.dumps([(search, candidates, list(map(toy_fitness, candidates))) for search, candidates in runs]),
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        check=True,
    )
    there = json.loads(done.stdout)
    assert there == [[[c.number, c.parent, c.mutation, c.mate, c.key, str(c.program)] for c in run] for _, run in runs]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_state_stays_small(name: str) -> None:
    """A run of any length keeps a state of bounded size, whatever is told and revised: checkpoints hold it."""
    assert_state_stays_small(make_search(name, settings_of(SEED, 3, full=True)))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_program_class_of_the_seed_is_kept(name: str) -> None:
    """A search does not silently move between protected and plain arithmetic."""
    seed = parse("@protected\ndef train(g, lr):\n    return lr * g / 3\n")
    search = make_search(name, settings_of(seed, 1, full=False))
    assert all(search.ask(search.initial(), number, {0: seed}).program.protected for number in range(20))


def test_the_constants_control_changes_constants_alone() -> None:
    """The control measures what tuning gives: the ops and the data flow stay those of the seed."""
    search = make_search("constants-only", SearchSettings(SEED, population=5))
    for number in range(1, 50):
        child = search.ask(search.initial(), number, {0: SEED}).program
        assert [s.op for s in child.statements] == [s.op for s in SEED.statements]
        constants = {h.value for h in child.hyperparameters} | {
            arg for s in child.statements for arg in s.args if isinstance(arg, float)
        }
        assert len(constants - {0.9, 0.999, 0.01, 1e-8}) == 1


def test_crossover_names_its_second_parent() -> None:
    """The mate is a candidate that was told before, and only crossover has one."""
    mutation = mutation_config("lion", (("crossover", 1.0), ("modify", 1.0)), 30)
    search = make_search("regularized-evolution", SearchSettings(SEED, 1, 10, 3, mutation))
    state, candidates = search.initial(), []
    for number in range(80):
        candidates.append(search.ask(state, number, {told.number: told.program for told in candidates}))
        state = search.tell(state, candidates[-1], (float(number % 7),))
    for candidate in candidates:
        assert (candidate.mate is not None) == (candidate.mutation == "crossover")
        assert candidate.mate is None or candidate.mate < candidate.number
    mates = {candidate.mate for candidate in candidates} - {None}
    assert len(mates) > 10


def test_spare_slots_have_names_of_their_own() -> None:
    """A seed that uses the usual names of spare slots keeps them, and the slots on offer get others."""
    seed = parse("def train(g, L, lr, *, u=0.5):\n    L = interp(g, L, u)\n    R = L * lr\n    return R, L\n")
    config = mutation_config("full", (("insert", 1.0),), 30).for_seed(seed)
    assert config.slots is not None
    names = [slot.name for slot in config.slots]
    assert len(set(names)) == len(names) == 1 + len(Kind)
    assert not {"u", "R"} & set(names)
    assert config.for_seed(seed) == config


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("annealing", {}, "unknown search algorithm 'annealing'"),
        ("regularized-evolution", {"population": 3, "tournament": 4}, "tournament of 4 in a population of 3"),
        ("regularized-evolution", {"seed": -1}, "must not be negative"),
        ("random", {"seed": -1}, "must not be negative"),
        ("constants-only", {"seed_program": parse("def train(g):\n    return g\n")}, "no constant to change"),
    ],
)
def test_bad_settings_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    """What cannot run is refused before anything is spent on it."""
    with pytest.raises(ValueError, match=message):
        make_search(name, SearchSettings(**{"seed_program": SEED, **settings}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (("insrt", 1.0),)}, "unknown mutation 'insrt'"),
        ({"weights": (("insert", 0.0),)}, "not all zero"),
        ({"weights": (("insert", -1.0), ("delete", 2.0))}, "not negative"),
        ({"weights": (("insert", 1.0), ("insert", 1.0))}, "may be named once"),
        ({"vocabulary": ("sinus",)}, "unknown op 'sinus'"),
        ({"vocabulary": ()}, "vocabulary is empty"),
        ({"inputs": ("w", "time")}, "unknown reserved input 'time'"),
        ({"maximum_statements": 0}, "at least 1"),
        ({"attempts": 0}, "at least 1"),
        ({"new_constant_share": 1.5}, r"lie in \[0, 1\]"),
        ({"slots": (parse("def train(g):\n    return g\n").parameters[0],)}, "must be state slots"),
    ],
)
def test_bad_mutation_configs_are_refused(settings: dict[str, Any], message: str) -> None:
    """A typo in a config is one clear error at its construction, not a search that never draws an op."""
    with pytest.raises(ValueError, match=message):
        MutationConfig(**settings)


@pytest.mark.installed
def test_search_loads_no_numerical_library() -> None:
    """The search room stays light: drivers and tests of it need NumPy alone."""
    code = "import sys, evolion.search.registry, evolion.search.ablation; print({'jax', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
