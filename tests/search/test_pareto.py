import numpy as np
import pytest
from laws.search_laws import driven

import evolion
from evolion.primitives.parser import parse
from evolion.search.fronts import Point, Points, crowding_distances, front_of, places_of
from evolion.search.mutation import mutation_config
from evolion.search.pareto import ParetoSearch
from evolion.search.regularized_evolution import RegularizedEvolution
from evolion.search.types import Candidate, Fitness

SEED = evolion.known()["adamw"]


def longer_is_better(candidate: Candidate) -> Fitness:
    """A made-up fitness that a longer program always improves a little."""
    return (0.0, 1.0 / (1.0 + len(candidate.program.statements)))


def point(number: int, fitness: Fitness, *expenses: float) -> Point:
    return Point(number, fitness, expenses)


def test_the_front_keeps_a_short_program_that_evolution_loses() -> None:
    """Where length pays, evolution ends with long programs alone; the front still has short ones, and long ones too."""
    config = mutation_config("lion", (("insert", 1.0), ("delete", 1.0)), 30)
    pareto = ParetoSearch(SEED, 1, 40, config, ("statements",))
    run = driven(pareto, 500, score=longer_is_better)
    lengths = [len(run.programs[found.number].statements) for found in front_of(run.state)]
    evolution = RegularizedEvolution(SEED, 1, 40, 10, config)
    run = driven(evolution, 500, score=longer_is_better)
    survivors = [len(run.programs[member.number].statements) for member in run.state.members]
    assert min(lengths) <= 3 < min(survivors)
    assert max(lengths) > len(SEED.statements)


def test_nobody_on_the_front_is_dominated() -> None:
    """By the definition: no living candidate of the last stage is as good in all ways and better in one."""
    rng = np.random.default_rng(0)
    living = tuple(
        point(number, (float(-rng.integers(2)), float(rng.integers(9))), *map(float, rng.integers(5, size=3)))
        for number in range(60)
    )
    front = {found.number for found in front_of(Points(living))}
    last = [other for other in living if other.fitness[0] == -1.0]
    for found in living:
        aims = (found.fitness[1], *found.expenses)
        beaten = any(
            (other.fitness[1], *other.expenses) != aims
            and all(a <= b for a, b in zip((other.fitness[1], *other.expenses), aims, strict=True))
            for other in last
        )
        assert (found.number in front) == (found.fitness[0] == -1.0 and not beaten)


def test_a_later_stage_comes_first() -> None:
    """What a program takes never makes up for a stage that it did not reach."""
    living = (point(1, (0.0, 0.1), 1.0), point(2, (-1.0, 9.0), 9.0))
    assert [found.number for found in front_of(Points(living))] == [2]
    assert places_of(living)[1] < places_of(living)[0]


def test_crowding_is_that_of_the_paper() -> None:
    """Ends are infinitely far from others, the rest as far as their neighbours are apart in each aim."""
    aims = np.array([[0.0, 4.0], [1.0, 2.0], [4.0, 0.0]])
    np.testing.assert_allclose(crowding_distances(aims), [np.inf, 2.0, np.inf])


def test_of_copies_one_counts() -> None:
    """Neutral mutations do not fill the population with one point of the front."""
    aims = np.array([[0.0, 4.0], [1.0, 2.0], [1.0, 2.0], [4.0, 0.0], [0.0, 4.0]])
    np.testing.assert_allclose(crowding_distances(aims), [0.0, 0.0, 2.0, np.inf, np.inf])


def test_the_last_by_front_and_crowding_leaves() -> None:
    """A full population gives up a dominated candidate, not the oldest, and a newcomer stays until it was compared."""
    search = ParetoSearch(SEED, population=3, objectives=("statements",))
    state = Points((point(1, (0.0, 1.0), 9.0), point(2, (0.0, 5.0), 9.0), point(3, (0.0, 9.0), 1.0)))
    newcomer = Candidate(4, parse("def train(g):\n    return g + g + g\n"), 0, "insert", "4")
    state = search.tell(state, newcomer, (0.0, 99.0))
    assert [found.number for found in state.living] == [1, 3, 4]
    state = search.tell(state, Candidate(5, newcomer.program, 0, "insert", "5"), (0.0, 0.5))
    assert [found.number for found in state.living] == [1, 3, 5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": ("statements", "statements")}, "different names among statements, memory, time"),
        ({"objectives": ("speed",)}, "different names among statements, memory, time"),
        ({"population": 1}, "population of at least 2"),
        ({"seed": -1}, "must not be negative"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    """What cannot run is one error at the start."""
    with pytest.raises(ValueError, match=message):
        ParetoSearch(SEED, **settings)
