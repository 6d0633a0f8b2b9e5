import pytest

from evolion.primitives.parser import parse
from evolion.search.islands import Archipelago, Islands, IslandSettings
from evolion.search.registry import SearchSettings, make_search
from evolion.search.types import Candidate

PROGRAM = parse("def train(g, lr):\n    return lr * g\n")


def search_of(interval: int, count: int = 3, population: int = 12, tournament: int = 2) -> Islands:
    settings = SearchSettings(PROGRAM, 1, population, tournament, islands=IslandSettings(count, interval))
    search = make_search("islands", settings)
    assert isinstance(search, Islands)
    return search


def told(search: Islands, values: dict[int, float], last: int) -> Archipelago:
    """The state after children of the seed with the value 9 unless another is given."""
    state = search.initial()
    for number in range(last + 1):
        candidate = Candidate(number, PROGRAM, 0 if number else None, "modify", "")
        state = search.tell(state, candidate, (values.get(number, 9.0),))
    return state


def members(state: Archipelago) -> list[list[int]]:
    return [[member.number for member in island.members] for island in state.islands]


def test_every_island_has_its_own_candidates() -> None:
    """Without migration the islands share the seed and nothing else."""
    search = search_of(interval=1_000)
    state = told(search, {}, 10)
    assert members(state) == [[0, 3, 6, 9], [0, 1, 4, 7, 10][-4:], [0, 2, 5, 8]]
    programs = dict.fromkeys(range(11), PROGRAM)
    for number in range(11, 60):
        parent = search.ask(state, number, programs).parent
        assert parent == 0 or (parent is not None and parent % 3 == number % 3)


def test_the_best_of_each_island_comes_to_the_next() -> None:
    """All migrate at once, in a ring, and are the youngest where they come to."""
    state = told(search_of(interval=9), {3: 1.0, 4: 2.0, 2: 3.0}, 8)
    assert members(state) == [[0, 3, 6, 2], [1, 4, 7, 3], [2, 5, 8, 4]]
    assert [island.members[-1].fitness for island in state.islands] == [(3.0,), (1.0,), (2.0,)]


def test_islands_mix() -> None:
    """What one island found reaches all of them, one step a migration, and nobody is copied to where it lives."""
    search = search_of(interval=3, count=4, population=40)
    values = {5: 0.5}
    living = [sum(5 in island for island in members(told(search, values, last))) for last in (5, 8, 11, 23)]
    assert living == [2, 3, 4, 4]
    assert all(island.count(5) <= 1 for island in members(told(search, values, 23)))
    alone = told(search_of(interval=1_000, count=4, population=40), values, 23)
    assert sum(5 in island for island in members(alone)) == 1


def test_a_revision_reaches_every_copy() -> None:
    """A migrant that turns out to fail is a parent nowhere; one that turns out worse is so everywhere."""
    search = search_of(interval=9)
    state = told(search, {3: 1.0}, 8)
    assert [3 in island for island in members(state)] == [True, True, False]
    worse = search.revise(state, 3, (20.0,))
    assert {m.fitness for island in worse.islands for m in island.members if m.number == 3} == {(20.0,)}
    assert not any(3 in island for island in members(search.revise(state, 3, None)))


@pytest.mark.parametrize(
    ("count", "interval", "message"),
    [(1, 5, "at least 2 islands"), (3, 0, "interval between migrations"), (7, 5, "12 on 7 islands is 1 on each")],
)
def test_bad_settings_are_refused(count: int, interval: int, message: str) -> None:
    """Islands too small for a tournament, or none at all, are refused before anything is spent on them."""
    with pytest.raises(ValueError, match=message):
        search_of(interval, count)
