import itertools

import numpy as np
import pytest
from hypothesis import given
from strategies import trees

from evolion.primitives.kinds import SIDES, Kind, widens
from evolion.primitives.layout import Layout, matrix_sides


def of(tree: list[np.ndarray]) -> tuple[Layout, list[np.ndarray]]:
    """The layout of a tree, and for each tensor the positions of its entries in the flat vector, as a matrix."""
    layout = Layout(tuple(tensor.shape for tensor in tree))
    positions = np.split(np.arange(layout.entries), layout.starts[1:])
    return layout, [part.reshape(matrix_sides(shape)) for part, shape in zip(positions, layout.shapes, strict=True)]


@pytest.mark.parametrize(
    ("shape", "sides"), [((), (1, 1)), ((5,), (1, 5)), ((2, 3), (2, 3)), ((2, 3, 4), (6, 4)), ((3, 3, 2, 7), (18, 7))]
)
def test_matrix_views(shape: tuple[int, ...], sides: tuple[int, int]) -> None:
    """The last axis is the columns, all others the rows; a vector is one row, a number one entry."""
    assert matrix_sides(shape) == sides


@given(trees())
def test_there_and_back(tree: list[np.ndarray]) -> None:
    """Flattening loses neither order nor shape."""
    layout = Layout(tuple(tensor.shape for tensor in tree))
    vector = layout.flatten(tree)
    assert vector.shape == layout.shape(Kind.TENSOR) == (layout.entries,)
    for one, other in zip(layout.unflatten(vector), tree, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    assert [vector[start] for start in layout.starts] == [tensor.ravel()[0] for tensor in tree]


@given(trees())
def test_values_of_each_kind_have_their_place(tree: list[np.ndarray]) -> None:
    """The numbers of one tensor follow those of the one before, as many as the matrix of the kind has."""
    layout, _ = of(tree)
    for kind in Kind:
        sizes = []
        for shape, matrix in zip(layout.shapes, layout.matrices_by_kind[kind], strict=True):
            lengths = dict(zip("mn", matrix_sides(shape), strict=True)) | {"1": 1}
            assert matrix == tuple(lengths[side] for side in SIDES[kind])
            sizes.append(matrix[0] * matrix[1])
        np.testing.assert_array_equal(layout.sizes_by_kind[kind], sizes)
        np.testing.assert_array_equal(layout.starts_by_kind[kind], [0, *itertools.accumulate(sizes[:-1])])
        assert layout.shape(kind) == (() if kind is Kind.SCALAR else (sum(sizes),))


@given(trees())
def test_rows_and_columns_are_those_of_the_matrix_views(tree: list[np.ndarray]) -> None:
    """Each row starts where the reshaped tensor says, and each column among the positions by column."""
    layout, positions = of(tree)
    np.testing.assert_array_equal(layout.row_starts, np.concatenate([matrix[:, 0] for matrix in positions]))
    np.testing.assert_array_equal(layout.by_column, np.concatenate([np.ravel(matrix.T) for matrix in positions]))
    first = layout.by_column[layout.column_starts]
    np.testing.assert_array_equal(first, np.concatenate([matrix[0] for matrix in positions]))


@given(trees())
def test_widening_is_broadcasting(tree: list[np.ndarray]) -> None:
    """A value in a wider kind has the entries that NumPy gives when it broadcasts the matrix of each tensor."""
    layout, _ = of(tree)
    rng = np.random.default_rng(0)
    for kind, to in itertools.product(Kind, Kind):
        if kind in (Kind.SCALAR, to) or not widens(kind, to):
            continue
        value = rng.normal(size=layout.shape(kind))
        parts = np.split(value, layout.starts_by_kind[kind][1:])
        sides = zip(parts, layout.matrices_by_kind[kind], layout.matrices_by_kind[to], strict=True)
        expected = [np.ravel(np.broadcast_to(part.reshape(own), wide)) for part, own, wide in sides]
        np.testing.assert_array_equal(value[layout.widening(kind, to)], np.concatenate(expected))
        assert layout.widening(kind, to) is layout.widening(kind, to)
