"""What a search gains on a made-up fitness that takes NumPy alone."""

from functools import cache

import numpy as np
import pytest

from evolion.primitives.numpy_interpreter import trajectory
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.search.mutation import MutationConfig
from evolion.search.registry import CONTROLS, SearchSettings, make_search
from evolion.search.types import Fitness

SEED = parse("def train(g, m, lr):\n    m = interp(g, m, 0.5)\n    return lr * m, m\n")
TARGET = parse("def train(w, g, m, lr):\n    m = interp(g, m, 0.9)\n    return lr * sign(m + w), m\n")
STEPS = 5
EVALUATIONS = 1600


@cache
def inputs() -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    rng = np.random.default_rng(0)
    shapes = [(3, 2), (4,)]
    weights = [rng.normal(size=shape) for shape in shapes]
    return weights, [[rng.normal(size=shape) for shape in shapes] for _ in range(STEPS)]


def path(program: Program) -> np.ndarray:
    weights, gradients = inputs()
    steps = trajectory(program, weights, gradients, learning_rate=0.1)
    return np.concatenate([tensor.ravel() for step in steps for tensor in step])


def distance(program: Program) -> Fitness | None:
    """How far the weights stay from the path of the target."""
    gap = float(np.abs(path(program) - path(TARGET)).mean())
    return (gap,) if np.isfinite(gap) else None


@cache
def best_found(algorithm: str, seed: int) -> float:
    mutation = MutationConfig(maximum_statements=12)
    search = make_search(algorithm, SearchSettings(SEED, seed, population=200, tournament=20, mutation=mutation))
    state = search.initial()
    gaps, programs = [], {}
    for number in range(EVALUATIONS):
        candidate = search.ask(state, number, programs)
        programs[number] = candidate.program
        fitness = distance(candidate.program)
        gaps += [] if fitness is None else [fitness[0]]
        state = search.tell(state, candidate, fitness)
    return min(gaps)


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS)
def test_evolution_finds_more_than_its_controls(control: str) -> None:
    """With the same number of evaluations, evolution comes nearer to a target than drawing and than tuning."""
    found = [best_found("regularized-evolution", seed) for seed in range(5)]
    controls = [best_found(control, seed) for seed in range(5)]
    assert np.mean(found) < 0.8 * np.mean(controls), f"evolution {found}, {control} {controls}"


@pytest.mark.slow
def test_evolution_improves_on_its_seed() -> None:
    """Selection works: the best candidate is far nearer to the target than the seed program."""
    start = distance(SEED)
    assert start is not None
    assert max(best_found("regularized-evolution", seed) for seed in range(3)) < 0.4 * start[0]
