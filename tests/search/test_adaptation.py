from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from evolion.primitives.parser import parse
from evolion.search.adaptation import AdaptationSettings, Adaptive, credits_of
from evolion.search.credits import REMEMBERED, Credits, Trial, credited, matched
from evolion.search.mutation import MUTATIONS, mutation_config
from evolion.search.population import Member
from evolion.search.registry import ALGORITHMS, SearchSettings, make_search
from evolion.search.restarts import restarts_of
from evolion.search.types import Candidate, Fitness

PROGRAM = parse("""
def train(g, m, lr, *, b1=0.9):
    m = interp(g, m, b1)
    update = lr * m
    return update, m
""")
NAMES = ("insert", "delete", "modify", "scale")
EQUAL = tuple((name, 1.0) for name in NAMES)


def search_of(name: str = "regularized-evolution", window: int = 400, floor: float = 0.2) -> Adaptive:
    mutation = mutation_config("lion", EQUAL, 12)
    adaptation = AdaptationSettings(window, floor)
    search = make_search(name, SearchSettings(PROGRAM, 1, 40, 8, mutation, adaptation=adaptation))
    assert isinstance(search, Adaptive)
    return search


def driven(search: Adaptive, paying: Callable[[int], str], count: int) -> tuple[Any, list[Candidate]]:
    """A run in which a child is better than its parent in three of ten cases, if the mutation is the one that pays."""
    state, programs, candidates, values = search.initial(), {0: PROGRAM}, [], []
    for number in range(count):
        candidate = search.ask(state, number, programs)
        luck = np.random.default_rng([7, number]).random()
        step = -luck if candidate.mutation == paying(number) and luck < 0.3 else luck
        values.append(0.0 if candidate.parent is None else values[candidate.parent] + step)
        programs[number] = candidate.program
        candidates.append(candidate)
        state = search.tell(state, candidate, None if luck > 0.9 and number else (values[-1],))
    return state, candidates


@pytest.mark.parametrize("paying", NAMES)
def test_the_one_mutation_that_pays_is_found(paying: str) -> None:
    """With one of four that ever leads to an improvement, it is drawn most of the time, and the others still are."""
    state, candidates = driven(search_of(), lambda _: paying, 600)
    weights = {credit.mutation: credit.weight for credit in credits_of(state)}
    assert weights[paying] > 0.6
    assert min(weights.values()) >= 0.2 / 4
    late = [candidate.mutation for candidate in candidates[400:]]
    assert late.count(paying) > 50
    assert set(late) == set(NAMES)


def test_what_paid_long_ago_is_forgotten() -> None:
    """The window moves: when another mutation begins to pay, it takes over."""
    state, _ = driven(search_of(window=200), lambda number: "scale" if number < 400 else "insert", 1200)
    weights = {credit.mutation: credit.weight for credit in credits_of(state)}
    assert weights["insert"] > 2 * weights["scale"]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_search_that_draws_mutations_adapts(name: str) -> None:
    """Adaptation is around a search, whichever it is: what draws mutations by weights draws by those that adapt."""
    state, candidates = driven(search_of(name), lambda _: "delete", 80)
    drawn = {candidate.mutation for candidate in candidates}
    assert [credit.mutation for credit in credits_of(state)] == list(NAMES)
    tried = {credit.mutation: credit.tried for credit in credits_of(state)}
    assert all(tried[mutation] > 0 for mutation in drawn & set(NAMES))
    assert sum(tried.values()) <= 80
    assert restarts_of(state) == ()


def test_without_success_the_weights_are_the_configured_ones() -> None:
    """Nothing is learned from nothing."""
    configured = (("insert", 3.0), ("delete", 1.0))
    trials = tuple(Trial(number, "insert", (1.0,), paid=False) for number in range(50))
    assert matched(configured, trials, 0.2) == configured == matched(configured, (), 0.2)


def test_the_weights_are_those_of_probability_matching() -> None:
    """The rule that is documented, worked out by hand; the configured shares are what it starts from."""
    trials = tuple(Trial(n, "insert" if n < 20 else "delete", (1.0,), paid=n < 4) for n in range(40))
    # A tenth of all trials paid, so each of both is granted 2 of 20 more.
    insert, delete = (4 + 2) / (20 + 20), 2 / (20 + 20)
    shares = dict(matched((("insert", 1.0), ("delete", 1.0)), trials, 0.2))
    assert shares["insert"] == pytest.approx(0.1 + 0.8 * insert / (insert + delete))
    uneven = dict(matched((("insert", 1.0), ("delete", 3.0)), trials, 0.0))
    assert uneven["insert"] == pytest.approx(insert / (insert + 3 * delete))
    assert sum(shares.values()) == pytest.approx(1.0)


def credits_after(*told: tuple[int, Fitness | None], parent: int = 0) -> Credits:
    """What is known after a seed of the fitness 5 and children of one parent."""
    credits = credited(Credits(EQUAL), Candidate(0, PROGRAM, None, "seed", ""), (5.0,), 100)
    for number, fitness in told:
        credits = credited(credits, Candidate(number, PROGRAM, parent, "insert", ""), fitness, 100)
    return credits


def test_only_children_better_than_their_parent_have_paid() -> None:
    """Failures, duplicates of the parent or of anybody else, and worse children count as tried, not as paid."""
    credits = credits_after((1, (4.0,)), (2, None), (3, (5.0,)), (4, (4.0,)), (5, (6.0,)), (6, (3.0,)))
    assert [trial.paid for trial in credits.trials] == [True, False, False, False, False, True]


def test_children_of_the_unknown_count_neither_way() -> None:
    """Where the fitness of the parent is not known, nothing is made up."""
    assert credits_after((1, (4.0,)), (2, None), parent=77).trials == ()


def test_what_turns_out_later_counts() -> None:
    """A mutation loses the credit for a lucky score and gets that for an unlucky one; so do later children."""
    search = search_of()
    state = search.initial()
    for number, fitness in enumerate([(5.0,), (4.0,), (6.0,)]):
        candidate = Candidate(number, PROGRAM, 0 if number else None, "insert", "")
        state = search.tell(state, candidate, fitness)
    assert [trial.paid for trial in state.credits.trials] == [True, False]
    state = search.revise(search.revise(state, 1, (7.0,)), 2, (3.0,))
    assert [trial.paid for trial in state.credits.trials] == [False, True]
    state = search.tell(state, Candidate(3, PROGRAM, 2, "insert", ""), (4.0,))
    assert [trial.paid for trial in state.credits.trials] == [False, True, False]
    state = search.revise(state, 2, None)
    assert [trial.paid for trial in state.credits.trials] == [False, False, False]


def test_who_is_used_as_a_parent_is_remembered() -> None:
    """The state is bounded, and what it forgets first is whoever has had no children for longest."""
    credits = Credits(EQUAL, (), tuple(Member(number, (1.0,)) for number in range(REMEMBERED)))
    credits = credited(credits, Candidate(5000, PROGRAM, 0, "insert", ""), (2.0,), 10)
    assert len(credits.known) == REMEMBERED
    assert [member.number for member in credits.known][-2:] == [0, 5000]
    assert 1 not in [member.number for member in credits.known]


def test_mutations_without_weight_stay_without() -> None:
    """What the configuration leaves out is never drawn, and is not reported."""
    weights = tuple((name, float(name in NAMES)) for name in MUTATIONS)
    search = make_search(
        "islands",
        SearchSettings(PROGRAM, 1, 40, 8, mutation_config("lion", weights, 12), adaptation=AdaptationSettings(50)),
    )
    assert isinstance(search, Adaptive)
    state, candidates = driven(search, lambda _: "scale", 100)
    assert {candidate.mutation for candidate in candidates} <= {"seed", *NAMES}
    assert {credit.mutation for credit in credits_of(state)} == set(NAMES)


@pytest.mark.parametrize(("window", "floor", "message"), [(0, 0.2, "window"), (5, 1.5, "floor"), (5, -0.1, "floor")])
def test_bad_settings_are_refused(window: int, floor: float, message: str) -> None:
    """What cannot be meant is refused before anything is spent on it."""
    with pytest.raises(ValueError, match=message):
        AdaptationSettings(window, floor)
