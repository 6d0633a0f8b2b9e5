import numpy as np
import pytest

from evolion.search.population import Member, draw_seats, joined, revised, tournament_winner
from evolion.search.types import Fitness


def members(*fitness: Fitness | None) -> tuple[Member, ...]:
    return tuple(Member(number, value) for number, value in enumerate(fitness))


def numbers(chosen: list[Member] | tuple[Member, ...]) -> list[int]:
    return [member.number for member in chosen]


def test_the_oldest_leaves() -> None:
    """Ageing: the oldest member leaves whatever its fitness."""
    full = members((0.0,), (1.0,), (2.0,))
    newcomer = Member(9, (5.0,))
    assert numbers(joined(full, newcomer, 3)) == [1, 2, 9]
    assert numbers(joined(full, newcomer, 4)) == [0, 1, 2, 9]


def test_revising_keeps_the_order_of_age() -> None:
    """Another fitness does not make a member younger; one without fitness leaves, and the others stay."""
    population = members((0.0,), (1.0,), (2.0,))
    assert revised(population, 1, (7.0,)) == members((0.0,), (7.0,), (2.0,))
    assert numbers(revised(population, 1, None)) == [0, 2]
    assert revised(population, 9, None) == population


def test_the_fittest_contestant_wins() -> None:
    """Smaller is better, compared from the first number to the last."""
    assert tournament_winner(members((2.0, 0.0), (1.0, 9.0), (1.0, 8.0), (3.0, 0.0))).number == 2


def test_the_youngest_of_equals_wins() -> None:
    """Neutral changes spread, and the winner does not hang on the order in memory."""
    assert tournament_winner(members((1.0,), (1.0,), (2.0,))).number == 1


def test_failed_contestants_lose() -> None:
    """No fitness loses against every fitness, however large."""
    assert tournament_winner(members(None, (1e300,), None)).number == 1
    assert tournament_winner(members(None, None)).number == 1


@pytest.mark.parametrize("contestants", [1, 2, 5])
def test_seats_are_drawn_without_replacement_and_evenly(contestants: int) -> None:
    """Every member has the same chance of a tournament and meets only others in it."""
    rng = np.random.default_rng(0)
    population = members(*[(float(i),) for i in range(5)])
    counts = np.zeros(5)
    for _ in range(2000):
        drawn = numbers(draw_seats(population, contestants, rng))
        assert drawn == sorted(set(drawn))
        assert len(drawn) == contestants
        counts[drawn] += 1
    assert np.all(np.abs(counts / 2000 - contestants / 5) < 0.05)
