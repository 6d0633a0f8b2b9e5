import itertools

import numpy as np
import pytest

from evolion.primitives.kinds import SIDES, Kind, join, kind_named, kind_of_sides, widens

LENGTHS = {"1": 1, "m": 2, "n": 3}
PAIRS = list(itertools.product(Kind, Kind))


def shape(kind: Kind) -> tuple[int, int]:
    """The matrix that a value is for a parameter tensor of two rows and three columns."""
    rows, columns = SIDES[kind]
    return LENGTHS[rows], LENGTHS[columns]


@pytest.mark.parametrize("kind", Kind, ids=str)
def test_every_kind_is_found_by_its_word(kind: Kind) -> None:
    """The annotation that is printed for a kind is the one that is read."""
    assert kind_named(str(kind)) is kind


@pytest.mark.parametrize("word", ["", "Tensor", "TENSOR", "matrix", "float", "__class__"])
def test_other_words_name_no_kind(word: str) -> None:
    """A misspelt annotation is an error of the reader, never a guess."""
    assert kind_named(word) is None


def test_every_kind_is_found_by_its_sides() -> None:
    """The kind of a matrix product is that of its sides; one number per tensor is a leaf, never a scalar."""
    for kind, (rows, columns) in SIDES.items():
        assert kind_of_sides(rows, columns) is (Kind.LEAF if kind is Kind.SCALAR else kind)
    assert set(SIDES) == set(Kind)
    assert kind_of_sides("n", "m") is kind_of_sides("m", "1n") is None


def test_widening_is_a_partial_order() -> None:
    """Every kind widens to itself, no two to each other, and what widens in two steps widens in one."""
    for one in Kind:
        assert widens(one, one)
        assert widens(Kind.SCALAR, one)
    for one, other in PAIRS:
        assert not (widens(one, other) and widens(other, one)) or one is other
        for third in Kind:
            assert widens(one, third) or not (widens(one, other) and widens(other, third))


@pytest.mark.parametrize(("kind", "to"), PAIRS, ids=str)
def test_widening_is_broadcasting(kind: Kind, to: Kind) -> None:
    """A value widens where NumPy broadcasts its matrix; numbers of a tensor alone stand for numbers of the tree."""
    try:
        broadcast = np.broadcast_shapes(shape(kind), shape(to)) == shape(to)
    except ValueError:
        broadcast = False
    # A row of numbers is no square matrix of them, though NumPy would repeat it.
    square = to in (Kind.LEFT, Kind.RIGHT) and kind in (Kind.ROW, Kind.COLUMN)
    narrowed = (kind, to) == (Kind.LEAF, Kind.SCALAR)
    assert widens(kind, to) is (broadcast and not square and not narrowed)


def test_join_is_the_least_upper_bound() -> None:
    """Both kinds widen to their join, and the join to every kind to which both widen; without one there is none."""
    for one, other in PAIRS:
        above = [kind for kind in Kind if widens(one, kind) and widens(other, kind)]
        least = [kind for kind in above if all(widens(kind, wider) for wider in above)]
        assert ([] if join((one, other)) is None else [join((one, other))]) == least
        assert bool(above) == bool(least)


def test_join_is_that_of_a_set() -> None:
    """Neither the order of arguments nor their grouping matters, and a kind joins with itself to itself."""
    assert join(()) is Kind.SCALAR
    for kind in Kind:
        assert join((kind,)) is join((kind, kind)) is join((Kind.SCALAR, kind)) is kind
    for kinds in itertools.product(Kind, repeat=3):
        assert len({join(order) for order in itertools.permutations(kinds)}) == 1
        pair = join(kinds[:2])
        assert join(kinds) is (None if pair is None else join((pair, kinds[2])))


def test_square_matrices_keep_to_themselves() -> None:
    """A row and a column make a tensor; a square matrix goes with numbers and its like alone."""
    assert join((Kind.ROW, Kind.COLUMN)) is Kind.TENSOR
    for square in (Kind.LEFT, Kind.RIGHT):
        assert {kind for kind in Kind if join((square, kind))} == {Kind.SCALAR, Kind.LEAF, square}
