import itertools

import pytest

from evolion.primitives.kinds import Kind, kind_named


@pytest.mark.parametrize("kind", Kind, ids=str)
def test_every_kind_is_found_by_its_word(kind: Kind) -> None:
    """The annotation that is printed for a kind is the one that is read."""
    assert kind_named(str(kind)) is kind


@pytest.mark.parametrize("word", ["", "Tensor", "TENSOR", "matrix", "float", "__class__"])
def test_other_words_name_no_kind(word: str) -> None:
    """A misspelt annotation is an error of the reader, never a guess."""
    assert kind_named(word) is None


def test_the_order_is_that_of_broadcasting() -> None:
    """The widest of two kinds is their maximum: the checker and the interpreters rely on it."""
    assert sorted(Kind) == [Kind.SCALAR, Kind.LEAF, Kind.TENSOR]
    for one, other in itertools.product(Kind, Kind):
        assert max(one, other) >= min(one, other)
        assert max(one, other) in (one, other)
