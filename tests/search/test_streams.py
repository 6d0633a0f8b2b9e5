import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evolion.search.population import Member, draw_seats
from evolion.search.streams import stream

COUNTS = st.integers(min_value=0, max_value=2**70)


def test_the_first_numbers_are_pinned() -> None:
    """A run replays in every process and version: its randomness hangs on the seed and the number of a candidate."""
    assert stream(0, 1).random(2).tolist() == [0.9619181878369507, 0.0837200298744658]


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_different_candidates_have_different_streams(seed: int, number: int, other: int, another: int) -> None:
    """No two candidates of a run, and no two runs, draw the same numbers."""
    same = (seed, number) == (other, another)
    assert (stream(seed, number).random() == stream(other, another).random()) == same


def test_streams_are_uniform_across_candidates() -> None:
    """Seeding by a digest leaves no pattern between neighbours."""
    first = np.array([stream(7, number).random() for number in range(4000)])
    assert abs(first.mean() - 0.5) < 4 / np.sqrt(12 * 4000)
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 4 / np.sqrt(4000)


def test_every_seat_is_drawn_equally_often() -> None:
    """A tournament is fair: seats are distinct, in order, and each comes as often as any other, first and last too."""
    members, drawn = [Member(number, None) for number in range(9)], np.zeros(9)
    rng = np.random.default_rng(0)
    for _ in range(9000):
        numbers = [member.number for member in draw_seats(members, 3, rng)]
        assert numbers == sorted(set(numbers))
        assert len(numbers) == 3
        drawn[numbers] += 1
    assert np.all(np.abs(drawn - 3000) < 5 * np.sqrt(3000 * 2 / 3))
