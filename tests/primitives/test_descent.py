"""What the probe of descent refuses and what it lets through."""

import numpy as np
import pytest

from evolion.discovered.library import known
from evolion.primitives import descent as module
from evolion.primitives.descent import LEAST_DESCENT, RATES, descent
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.search.mutation import MutationConfig, mutation_config
from evolion.search.random_search import random_program


def of(expression: str, parameters: str = "w, g, lr, m") -> Program:
    return parse(f"def train({parameters}):\n    m = interp(g, m, 0.9)\n    return {expression}, m\n")


@pytest.mark.parametrize("name", known())
def test_every_known_optimizer_descends(name: str) -> None:
    """No rule of the library would be refused, and none comes near the least descent that is asked for."""
    assert min(descent(known()[name]).left) < 1.0 - 10.0 * LEAST_DESCENT


@pytest.mark.parametrize(
    "expression",
    [
        "lr * w",
        "w",
        "0.3 * lr",
        "-1.02 * lr",
        "lr * square(g)",
        "lr * -square(g)",
        "lr * abs(m)",
        "lr * (cos(m) + w)",
        "lr * sign(w)",
        "lr * -g",
        "-lr * sign(m)",
        "lr * m / -abs(m)",
        "1e6 * g",
        "sqrt(w) / g",
    ],
)
def test_what_cannot_train_is_refused(expression: str) -> None:
    """Decay, drift, powers of the gradient without its sign, ascent and explosions lower no loss."""
    assert not descent(of(expression)).succeeds


@pytest.mark.parametrize(
    "expression",
    [
        "lr * g",
        "lr * sign(m)",
        "1e-3 * lr * g",
        "30 * lr * sign(m)",
        "lr * (sign(m) + w)",
        "0.01 * g",
        "lr * tanh(100 * m)",
    ],
)
def test_what_can_train_is_let_through(expression: str) -> None:
    """Scale does not decide, whether or not the learning rate has a part in it."""
    assert descent(of(expression)).succeeds


def test_nothing_blind_to_the_gradient_descends() -> None:
    """Whatever a program makes of weights, rates and noise moves both losses alike: their sum only grows."""
    settings = MutationConfig(inputs=("w", "lr", "noise"), slots=())
    start = parse("def train(w, lr, noise):\n    return lr * (w + noise)\n")
    for number in range(150):
        program = random_program(np.random.default_rng([3, number]), settings.for_seed(start), (3, 9))
        assert "g" not in program.inputs
        assert min(descent(program).left) > 1.0 - 1e-3 * LEAST_DESCENT, str(program)


def test_both_losses_mirror_each_other() -> None:
    """The two members of a pair differ in the sign of what lies ahead, and in nothing else."""
    problem = module._problem()
    ahead = problem.sign * problem.minimum
    np.testing.assert_array_equal(ahead[::2], -ahead[1::2])
    np.testing.assert_array_equal(problem.rates[:, ::2], problem.rates[:, 1::2])
    np.testing.assert_array_equal(problem.loss(ahead), problem.loss(-ahead))


def test_numbers_of_the_problem_stay() -> None:
    """Another version that computes other losses would make another run of the same configuration."""
    expected = [0.95424277, 0.58736184, 0.11792237, 0.57010889, 0.92596466, 1.5543072, 5.5572621, 21.248481]
    assert len(expected) == len(RATES)
    assert descent(known()["adamw_seed"]).left == pytest.approx(expected, rel=1e-6)


def test_ways_are_told_apart_by_some_percent() -> None:
    """A constant that moves the weights by a thousandth is the same way, one that moves them by a tenth is not."""
    base = descent(of("lr * 0.3 * sign(m)")).way
    assert descent(of("lr * 0.3 * sign(m) + 1e-7 * lr * w")).way == base
    assert descent(of("lr * 0.33 * sign(m)")).way != base
    assert descent(of("lr * 0.3 * sign(m) + 0.1 * lr * w")).way != base


@pytest.mark.filterwarnings("error")
def test_any_program_of_the_full_vocabulary_can_be_looked_at() -> None:
    """Values that all members of the batch share, such as products of initial weights, meet those of each."""
    descent(parse("def train(w0, g, lr):\n    x = matmul(matmul_transposed(w0, w0), g)\n    return lr * x\n"))
    start = known()["adamw_seed"]
    settings = mutation_config("full", (("insert", 1.0),), 30)
    for number in range(200):
        generator = np.random.default_rng([5, number])
        descent(random_program(generator, settings.for_seed(start), (3, 12), protected=bool(number % 2)))
