import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import disguised, programs

from evolion.discovered.library import known
from evolion.discovered.nearest import FAR, SAME, Nearest, nearest
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.parser import parse
from evolion.primitives.program import Program

BEST_KNOWN = ("adagrad", "adam", "adamw", "adamw_seed", "lion", "momentum", "nesterov", "rmsprop", "sgd", "signsgd")


def found(program: Program) -> Nearest:
    result = nearest(program)
    assert result is not None
    return result


@pytest.mark.parametrize("name", BEST_KNOWN)
def test_a_known_program_is_itself(name: str) -> None:
    """Each is recognised exactly, with nothing to say about a difference."""
    assert found(known()[name]) == Nearest(name, exact=True, distance=0.0)
    assert str(found(known()[name])) == name


@pytest.mark.parametrize("name", BEST_KNOWN)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=3, deadline=None)
def test_form_does_not_matter(name: str, seed: int) -> None:
    """Renamed, reordered, with dead code and literals for hyperparameters, a known program is itself."""
    assert found(disguised(known()[name], random.Random(seed))).name == name
    assert found(disguised(known()[name], random.Random(seed))).exact


@pytest.mark.parametrize(
    ("name", "hyperparameter"), [(name, h.name) for name in BEST_KNOWN for h in known()[name].hyperparameters]
)
def test_another_constant_is_named(name: str, hyperparameter: str) -> None:
    """A change of any one hyperparameter is found, by name and with both values."""
    default = {h.name: h.value for h in known()[name].hyperparameters}[hyperparameter]
    # Larger still than what shares the square root with it.
    value = 1e-3 if hyperparameter == "eps" else 0.7 if default > 0.5 else 3.0 * default
    result = found(known()[name].with_hyperparameters(**{hyperparameter: value}))
    assert (result.name, dict(result.changes)) == (name, {hyperparameter: (default, pytest.approx(value))})
    assert result.same_rule
    assert not result.exact


TEXTS: dict[str, tuple[str, str]] = {
    "lion without decay, one beta changed": (
        "def train(g, x, lr):\n    u = sign(0.1 * g + x * 0.9)\n    x = x * 0.97 + 0.03 * g\n    return lr * u, x\n",
        "lion with b2 0.97 instead of 0.99, without weight decay",
    ),
    "lion in the form in which it was found": (
        "def train(w, g, v, lr):\n    m = interp(g, v, 0.8999999761581421)\n    v = interp(g, m, 1.109133005142212)\n"
        "    s = lr * 0.0002171761734643951\n    return s * sign(m) + s * 0.4601978361606598 * w, v\n",
        "lion with b2 0.99822 instead of 0.99, with weight decay 0.460198 instead of 0.001, "
        "learning rate times 0.000217176",
    ),
    "lion among many constants": (
        "def train(w, g, m, lr):\n    u = sign(0.1 * g + m * 0.9)\n    m = interp(g, m, 0.97)\n    s = lr * 0.3\n"
        "    return s * u + s * 0.02 * w, m\n",
        "lion with b2 0.97 instead of 0.99, with weight decay 0.02 instead of 0.001, learning rate times 0.3",
    ),
    "sgd with decay": (
        "def train(w, g, lr):\n    return lr * (g + 0.01 * w)\n",
        "sgd with weight decay 0.01 added",
    ),
    "half of sgd": ("def train(g, lr):\n    return g * lr * 0.5\n", "sgd, learning rate times 0.5"),
    "adam without epsilon": (
        "def train(g, m, v, lr, t):\n    m = interp(g, m, 0.9)\n    v = interp(g * g, v, 0.999)\n"
        "    return lr * (m / (1 - 0.9 ** t)) / sqrt(v / (1 - 0.999 ** t)), m, v\n",
        "adam without eps",
    ),
}


@pytest.mark.parametrize(("text", "words"), TEXTS.values(), ids=TEXTS)
def test_differences_in_words(text: str, words: str) -> None:
    """Literals, other forms and missing terms are told as changes of the known program."""
    result = found(parse(text))
    assert result.same_rule
    assert str(result) == words


def test_two_changed_constants() -> None:
    """Constants are fitted together, not only one at a time, where signs hide how near a single one comes."""
    for changes in ({"b1": 0.95, "b2": 0.98}, {"b1": 0.99, "b2": 0.9}, {"b1": 0.8, "b2": 0.95, "weight_decay": 0.1}):
        result = found(known()["lion"].with_hyperparameters(**changes))
        assert {name: values[1] for name, values in result.changes.items()} == pytest.approx(changes)
    changes = {"b1": 0.8, "b2": 0.95, "eps": 1e-6, "weight_decay": 0.1}
    assert {k: v[1] for k, v in found(known()["adamw"].with_hyperparameters(**changes)).changes.items()} == changes


def test_removed_decay() -> None:
    """Without its decay a program is its relative without decay, or itself without decay."""
    assert str(found(known()["adamw"].with_hyperparameters(weight_decay=0.0))) == "adam"
    assert str(found(known()["lion"].with_hyperparameters(weight_decay=0.0))) == "lion without weight decay"


def test_other_rules_have_a_distance() -> None:
    """What is no known rule says how far it is from the nearest, and the words say so."""
    text = "def train(g, m, lr):\n    m = interp(g, m, 0.9)\n    return lr * tanh(m / abs(g) + m), m\n"
    result = found(parse(text))
    assert SAME < result.distance <= FAR
    assert "its updates differ by" in str(result)


@pytest.mark.parametrize(
    "expression",
    [
        "g - g",
        "log(g - 1 - g)",
        "lr",
        "-1 * lr * g",
        "lr * w",
        "lr * noise",
        "g * 1e200",
        "hess * lr",
        "g * 1e-306",
        "lr * (g * 1e-306 + w)",
    ],
)
def test_some_programs_have_no_relative(expression: str) -> None:
    """Nothing is said about an update that is zero, not finite, against the gradient or apart from it."""
    parameters = "w, g, noise, hess, lr"
    assert nearest(parse(f"def train({parameters}):\n    return {expression}\n")) is None


@given(programs(prose=False))
@settings(max_examples=10, deadline=None)
def test_any_program_has_an_answer(program: Program) -> None:
    """No program of a search fails, its answer is the same twice and without its dead code, and it reads well."""
    result = nearest(program)
    assert result == nearest(remove_dead_code(program))
    if result is not None:
        assert 0.0 <= result.distance <= FAR
        assert result.name in known()
        assert "nan" not in str(result)


def test_it_takes_no_time() -> None:
    """A report is read at once: no comparison takes a second, even on a busy machine."""
    cases: list[Any] = [parse(text) for text, _ in TEXTS.values()]
    nearest(cases[0])
    start = time.process_time()
    for program in cases:
        nearest(program)
    assert (time.process_time() - start) / len(cases) < 1.0
