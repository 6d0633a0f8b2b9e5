import math

import pytest

from evolion.evaluators.data_lack import DATA_PATIENCE, DataLack


@pytest.mark.parametrize("places_differ", [False, True])
def test_a_moment_without_data_is_waited_for(places_differ: bool) -> None:
    """Failures of a whole rack at the same moment are one failure of its file system."""
    lack = DataLack(places_differ=places_differ)
    pauses = [lack.failed("task", 0.1 * number) for number in range(100)]
    assert all(0 < pause <= 10 for pause in pauses)
    assert pauses == sorted(pauses)


@pytest.mark.parametrize("places_differ", [False, True])
def test_a_minute_without_data_is_hopeless(places_differ: bool) -> None:
    """Where nobody has had the data of a task, somebody has to bring it; another task is another matter."""
    lack = DataLack(places_differ=places_differ)
    lack.had("other")
    assert all(math.isfinite(lack.failed("task", at)) for at in (0.0, DATA_PATIENCE / 2, DATA_PATIENCE))
    assert math.isinf(lack.failed("task", DATA_PATIENCE + 1))
    assert math.isfinite(lack.failed("other", DATA_PATIENCE + 1))


def test_where_places_differ_those_that_have_the_data_go_on() -> None:
    """One bad node of a cluster ends no run, however long it stays bad; on one machine the disk is everybody's."""
    for places_differ in (False, True):
        lack = DataLack(places_differ=places_differ)
        lack.had("task")
        last = [lack.failed("task", 20.0 * number) for number in range(100)][-1]
        assert math.isfinite(last) == places_differ


def test_failures_that_are_far_apart_are_not_added_up() -> None:
    """A file system that is away for a second each night ends no run of a month."""
    lack = DataLack(places_differ=False)
    assert all(math.isfinite(lack.failed("task", 86_400.0 * day)) for day in range(30))


def test_a_node_is_left_alone_longer_each_time() -> None:
    """Starting workers where they cannot work costs more than it brings; never again would be too late."""
    lack = DataLack(places_differ=True)
    waits = [lack.aside("node") for _ in range(20)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (15.0, 900.0)
    assert lack.aside("another") == 15.0
