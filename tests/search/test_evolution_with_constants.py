import math
import os
import subprocess
import sys

import numpy as np
import pytest
from laws.search_laws import driven

import evolion
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.search.cma import Schedule, Tuning, closed, generation_size, proposals
from evolion.search.constants import coordinates_of, structure_of, with_coordinates
from evolion.search.constants_only import constants_only
from evolion.search.evolution_with_constants import CMA, EvolutionWithConstants
from evolion.search.mutation import MutationConfig, mutation_config
from evolion.search.population import Member
from evolion.search.proposals import PROPOSAL
from evolion.search.regularized_evolution import Population, RegularizedEvolution
from evolion.search.tuned_population import ConstantsSettings, Structure, marked, promising
from evolion.search.types import Candidate, Fitness

SEED = parse("""
def train(w, g, m, v, lr, *, b1=0.9, b2=0.999, weight_decay=0.01):
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    update = m / (sqrt(v) + 0.00000001) + weight_decay * w - 2 * w
    return lr * update, m, v
""")
GOAL = (1.2, 8.0, -3.0, -20.0, 2.2)


def bowl(candidate: Candidate) -> Fitness:
    """The squared distance of the constants, on their scales, from others; another structure is far away."""
    program = candidate.program
    if structure_of(program) != structure_of(SEED):
        return (0.0, 1e6)
    return (0.0, float(sum((x - goal) ** 2 for x, goal in zip(coordinates_of(program), GOAL, strict=True))))


def search_of(
    constants: ConstantsSettings,
    mutation: MutationConfig | None = None,
    lag: int = 4,
    population: int = 30,
) -> EvolutionWithConstants:
    config = mutation or mutation_config("lion", MutationConfig().weights, 30)
    return EvolutionWithConstants(RegularizedEvolution(SEED, 1, population, 5, config), constants, lag)


def test_constants_have_coordinates_without_limits() -> None:
    """Rates of decay are seen by their distance from one, all else by its logarithm, a hyperparameter once."""
    program = parse(
        "def train(g, m, *, b=0.9, c=-3.0, z=0.0):\n    m = interp(g, m, b) * c + z\n    return m * b * 0.25, m\n"
    )
    np.testing.assert_allclose(coordinates_of(program), [math.log(9.0), math.log(3.0), math.log(0.25)])


@pytest.mark.parametrize("name", evolion.known())
def test_coordinates_give_the_constants_back(name: str) -> None:
    """What is tuned begins where the program was: its own coordinates change six digits at most, and no sign."""
    program = evolion.known()[name]
    back = with_coordinates(program, coordinates_of(program))
    assert back is not None
    assert structure_of(back) == structure_of(program)
    np.testing.assert_allclose(coordinates_of(back), coordinates_of(program), atol=2e-3)


def test_far_coordinates_are_still_constants() -> None:
    """No step of CMA-ES makes a constant infinite, zero, or a rate of decay that grows."""
    for far in (-1e9, 1e9):
        program = with_coordinates(SEED, [far] * len(coordinates_of(SEED)))
        assert program is not None
        values = [h.value for h in program.hyperparameters]
        assert all(0.0 < value < 1e30 for value in values)
        assert max(values[:2]) <= 1.0


def test_a_structure_is_the_same_whatever_its_constants_are() -> None:
    """Constants do not count for whether a program had its turn; ops and signs do."""
    text = str(SEED)
    assert structure_of(parse(text.replace("0.9", "0.7", 1))) == structure_of(SEED)
    assert structure_of(parse(text.replace("square", "cube"))) != structure_of(SEED)
    assert structure_of(parse(text.replace("0.01", "-0.01"))) != structure_of(SEED)
    assert structure_of(parse(text.replace("v, b2", "v, b1"))) != structure_of(SEED)


def test_ranks_alone_make_the_next_generation() -> None:
    """A generation is a function of the ranks told and of the seed: the optimizer that is made anew is the same."""
    first = proposals((0.0, 1.0), 0.5, (3, 7), 6, ())
    ranks = ((3, 1, 0, 2, 5, 4),)
    proposals.cache_clear()
    assert proposals((0.0, 1.0), 0.5, (3, 7), 6, ()) == first
    assert proposals((0.0, 1.0), 0.5, (3, 7), 6, ranks) != proposals((0.0, 1.0), 0.5, (3, 7), 6, (ranks[0][::-1],))
    assert proposals((0.0, 1.0), 0.5, (3, 8), 6, ()) != first


def test_generations_find_a_minimum() -> None:
    """The ranks are told to CMA-ES the right way round."""
    ranks: tuple[tuple[int, ...], ...] = ()
    size = generation_size(2)
    for _ in range(30):
        points = np.array(proposals((0.0, 0.0), 1.0, (0,), size, ranks))
        order = np.argsort(((points - [3.0, -2.0]) ** 2).sum(axis=1))
        ranks = (*ranks, tuple(map(int, np.argsort(order))))
    np.testing.assert_allclose(np.mean(proposals((0.0, 0.0), 1.0, (0,), size, ranks), axis=0), [3.0, -2.0], atol=0.1)


@pytest.mark.slow
def test_proposals_are_those_of_any_processor() -> None:
    """A linear algebra library computes otherwise on another processor; to six digits proposals stay the same."""
    code = """
from evolion.search.cma import generation_size, proposals
for dimensions in (12, 16, 20):
    ranks = ()
    for _ in range(10):
        points = proposals(dimensions * (0.7,), 0.5, (0, 7), generation_size(dimensions), ranks)
        values = [sum((i + 1) * (x - 1) ** 2 for i, x in enumerate(point)) for point in points]
        ranks = (*ranks, tuple(sorted(values).index(value) for value in values))
        print([[f"{x:.6g}" for x in point] for point in points])
"""
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | ({"OPENBLAS_CORETYPE": kind} if kind else {}),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for kind in ("", "Nehalem", "Haswell")
    ]
    assert len(printed[0].splitlines()) == 30
    assert printed[0] == printed[1] == printed[2]


def test_one_constant_can_be_tuned() -> None:
    """One constant is as good as many, though the library wants two coordinates."""
    ranks: tuple[tuple[int, ...], ...] = ()
    for _ in range(20):
        points = proposals((0.0,), 1.0, (0,), 4, ranks)
        assert {len(point) for point in points} == {1}
        ranks = (*ranks, tuple(map(int, np.argsort(np.argsort([(x - 3.0) ** 2 for (x,) in points])))))
    assert abs(np.mean(proposals((0.0,), 1.0, (0,), 4, ranks)) - 3.0) < 0.3


def test_who_fails_is_behind_and_who_was_not_told_does_not_count() -> None:
    """One that diverged is worse than those with a fitness, equal values share a rank; what never ran says nothing."""
    told = (Member(10, (0.0, 2.0)), Member(12, None), Member(14, (0.0, 1.0)), Member(16, (0.0, 2.0)))
    indices = {10: 0, 12: 1, 14: 2, 16: 3}
    assert closed(Tuning(0, 4, 9, (), told), indices, 30) == Tuning(0, 4, 30, ((1, 3, 0, 1),), ())
    after = closed(Tuning(0, 6, 9, (), told), indices, 30)
    assert after is not None
    assert after.ranks == ((1, 3, 0, 1, 6, 6),)


def test_points_that_were_not_told_have_no_effect() -> None:
    """Whatever the order of what comes last, the next generation is the same: only the better half counts."""
    start, size = (0.0, 1.0, 2.0), 7
    first = proposals(start, 0.5, (1,), size, ((1, 3, 0, 2, 7, 7, 7),))
    assert first == proposals(start, 0.5, (1,), size, ((1, 7, 0, 2, 7, 7, 7),))
    assert first == proposals(start, 0.5, (1,), size, ((1, 3, 0, 2, 6, 4, 5),))


def test_a_generation_that_says_too_little_ends_the_tuning() -> None:
    """With fewer than half of its points told, or none with a fitness, no direction can be told."""
    assert closed(Tuning(0, 4, 9), {}, 30) is None
    assert closed(Tuning(0, 4, 9, (), (Member(10, (0.0, 2.0)),)), {10: 0}, 30) is None
    failed = tuple(Member(number, None) for number in (10, 12, 14, 16))
    assert closed(Tuning(0, 4, 9, (), failed), {10: 0, 12: 1, 14: 2, 16: 3}, 30) is None


def test_displaced_proposals_have_no_rank() -> None:
    """What a language model proposes in the place of CMA-ES is no failure of the point that made way."""
    search = search_of(ConstantsSettings(0.9, 1), lag=0)
    state, programs, displaced = search.initial(), {0: SEED}, 0
    for number in range(60):
        candidate = search.ask(state, number, programs)
        if number % 9 == 3:
            displaced += candidate.mutation == CMA
            candidate = Candidate(number, evolion.known()["lion"], 0, PROPOSAL, f"{number}")
        programs[number] = candidate.program
        state = search.tell(state, candidate, bowl(candidate) if number % 7 else None)
    (tuning,) = state.tunings
    assert displaced >= 4
    assert tuning is not None
    assert len(tuning.ranks) >= 4
    assert any(tuning.size in ranks and max(rank for rank in ranks if rank < tuning.size) > 4 for ranks in tuning.ranks)


@pytest.mark.parametrize("share", [0.01, 0.25, 0.3, 0.99])
@pytest.mark.parametrize("tunings", [1, 2, 5])
def test_turns_are_dealt_evenly(share: float, tunings: int) -> None:
    """Every number is at most one tuning's, together they have the share, and counting is counting."""
    schedule = Schedule(share, tunings)
    owners = [schedule.tuning_of(number) for number in range(1, 401)]
    assert abs(sum(owner is not None for owner in owners) - 400 * share) <= 1
    for tuning in range(tunings):
        assert schedule.turns(tuning, 17, 230) == owners[16:229].count(tuning)


def test_constants_of_a_bowl_are_found_with_fewer_candidates() -> None:
    """On a quadratic bowl in the coordinates CMA-ES gets closer than twice as many scale mutations."""
    scale = mutation_config("lion", (("scale", 1.0),), 30)
    tuned = driven(search_of(ConstantsSettings(0.9, 1, 100), mutation=scale, lag=0), 400, 0, bowl)
    control = driven(constants_only(SEED, 1, 30, 5, scale), 800, 0, bowl)
    assert min(filter(None, tuned.told)) < min(filter(None, control.told))


def test_proposals_differ_in_constants_alone() -> None:
    """A proposal has the structure of its parent, and never more than the share of the candidates are proposals."""
    run = driven(search_of(ConstantsSettings(0.4)), 200, 4, bowl)
    proposed = [candidate for candidate in run.candidates if candidate.mutation == CMA]
    assert 40 <= len(proposed) <= 80
    for candidate in proposed:
        assert candidate.parent is not None
        assert structure_of(candidate.program) == structure_of(run.programs[candidate.parent])


@pytest.mark.parametrize("lag", [0, 4, 40])
def test_whole_generations_are_asked_with_any_lag(lag: int) -> None:
    """A generation is never cut short, whatever the lag: each that was closed has a rank of its own for the best."""
    settings = ConstantsSettings(0.5, 1, 50)
    run = driven(search_of(settings, lag=lag), 300, lag, bowl)
    (tuning,) = run.state.tunings
    assert tuning is not None
    assert len(tuning.ranks) >= 3
    assert all(max(ranks) < tuning.size and 0 in ranks for ranks in tuning.ranks)


def test_other_programs_have_their_turn() -> None:
    """After its generations a structure is not tuned again while it lives: others are."""
    run = driven(search_of(ConstantsSettings(0.5, 2, 2), population=500), 400, 4)
    bases = {candidate.parent for candidate in run.candidates if candidate.mutation == CMA}
    assert len({structure_of(run.programs[base]) for base in bases if base is not None}) == len(bases) >= 4


def test_the_fittest_that_had_no_turn_is_next() -> None:
    """Neither one that had its turn, nor one without or with too many constants, nor one that nobody lives of."""
    members = tuple(Member(number, (0.0, float(number))) for number in range(1, 6))
    structures = (
        Structure(0, "z", 3, tuned=False),
        Structure(1, "a", 3, tuned=True),
        Structure(2, "b", 0, tuned=False),
        Structure(3, "c", 30, tuned=False),
        Structure(4, "d", 3, tuned=False),
        Structure(5, "e", 3, tuned=False),
    )
    population = Population(members, None)
    assert promising(population, structures, 20) == structures[4]
    assert promising(population, marked(structures, "d"), 20) == structures[5]
    assert promising(population, (), 20) is None


def test_who_fails_later_is_tuned_no_longer() -> None:
    """What a confirmation takes away leaves its place to another program."""
    search = search_of(ConstantsSettings(0.5, 1))
    state = search.initial()
    for number, program in enumerate((SEED, evolion.known()["lion"])):
        state = search.tell(state, Candidate(number, program, None, "seed", str(number)), (0.0, 1.0))
    assert state.tunings[0] is not None
    assert state.tunings[0].base == 0
    assert search.revise(state, 0, None).tunings == (None,)


def test_programs_without_constants_are_left_to_evolution() -> None:
    """A seed that has nothing to tune is no error."""
    seed: Program = parse("def train(g, lr):\n    return lr * g\n")
    search = EvolutionWithConstants(RegularizedEvolution(seed, 1, 10, 3))
    assert all(candidate.mutation != CMA for candidate in driven(search, 10).candidates)


@pytest.mark.parametrize(
    "settings", [{"share": 0.0}, {"share": 1.0}, {"programs": 0}, {"generations": 0}, {"dimensions": 0}, {"step": 0.0}]
)
def test_bad_settings_are_refused(settings: dict[str, float]) -> None:
    """A number out of its range is an error at construction."""
    with pytest.raises(ValueError, match=r"need 0 < share|at least 1"):
        ConstantsSettings(**settings)
