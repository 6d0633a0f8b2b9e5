import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from laws.search_laws import SearchLaws

from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.search.mutation import MutationConfig
from evolion.search.registry import ALGORITHMS, SearchSettings, make_search
from evolion.search.types import Search

SEED = parse("""
def train(w, g, m, v, lr, *, b1=0.9, b2=0.999, weight_decay=0.01):
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    update = m / (sqrt(v) + 0.00000001) + weight_decay * w
    return lr * update, m, v
""")


@pytest.mark.parametrize("name", ALGORITHMS)
class TestSearchLaws(SearchLaws):
    @pytest.fixture
    def seed_program(self) -> Program:
        return SEED

    @pytest.fixture
    def make(self, name: str, seed_program: Program) -> Callable[[int], Search[Any]]:
        return lambda seed: make_search(name, SearchSettings(seed_program, seed, population=10, tournament=3))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_program_class_of_the_seed_is_kept(name: str) -> None:
    """A search does not silently move between protected and plain arithmetic."""
    seed = parse("@protected\ndef train(g, lr):\n    return lr * g / 3\n")
    search = make_search(name, SearchSettings(seed, population=5))
    assert all(search.ask(search.initial(), number).program.protected for number in range(20))


def test_the_constants_control_changes_constants_alone() -> None:
    """The control measures what tuning gives: the ops and the data flow stay those of the seed."""
    search = make_search("constants-only", SearchSettings(SEED, population=5))
    for number in range(1, 50):
        child = search.ask(search.initial(), number).program
        assert [s.op for s in child.statements] == [s.op for s in SEED.statements]
        constants = {h.value for h in child.hyperparameters} | {
            arg for s in child.statements for arg in s.args if isinstance(arg, float)
        }
        assert len(constants - {0.9, 0.999, 0.01, 1e-8}) == 1


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
