import subprocess
import sys

import pytest
from laws.search_laws import driven

import evolion
from evolion.primitives.parser import parse
from evolion.search.cells import Cells, cell_index, cells_of, diversity_of, empty_grid, grid_archive
from evolion.search.mutation import MutationConfig, mutation_config
from evolion.search.quality_diversity import QualityDiversity
from evolion.search.regularized_evolution import RegularizedEvolution
from evolion.search.traits import DESCRIPTORS, descriptors_of
from evolion.search.types import Candidate, Fitness

NAMES = tuple(DESCRIPTORS)
SEED = evolion.known()["adamw"]


def shortness(candidate: Candidate) -> Fitness:
    """A made-up fitness that grows with what a program holds, so that plain evolution ends with short programs."""
    return (0.0, float(len(candidate.program.statements)))


def told(numbers_and_updates: list[tuple[int, str, float]]) -> tuple[QualityDiversity, Cells]:
    search = QualityDiversity(SEED)
    state = search.initial()
    for number, update, value in numbers_and_updates:
        program = parse(f"def train(g):\n    return {update}\n")
        state = search.tell(state, Candidate(number, program, 0, "insert", str(number)), (0.0, value))
    return search, state


def test_more_cells_than_evolution_at_the_same_budget() -> None:
    """Where the fitness pulls all one way, the search still tries programs of more kinds than plain evolution does."""
    config = mutation_config("lion", MutationConfig().weights, 30)
    searches = (QualityDiversity(SEED, 1, config), RegularizedEvolution(SEED, 1, 50, 10, config))
    tried = []
    for search in searches:
        candidates = driven(search, 250, score=shortness).candidates
        tried.append({descriptors_of(candidate.program, NAMES) for candidate in candidates})
    assert len(tried[0]) > 1.5 * len(tried[1])


def test_a_cell_keeps_its_best() -> None:
    """Programs compete within their cell: a worse one does not displace the best, a better one does."""
    search, state = told([(1, "g + g", 2.0), (2, "g * 3", 5.0)])
    assert [(member.number, member.fitness) for _, member in cells_of(NAMES, state)] == [(1, (0.0, 2.0))]
    state = search.tell(state, Candidate(3, parse("def train(g):\n    return -g\n"), 0, "insert", "3"), (0.0, 1.0))
    assert [member.number for _, member in cells_of(NAMES, state)] == [3]


def test_another_cell_is_no_rival() -> None:
    """A program of another kind lives beside a much better one, and both are parents."""
    search, state = told([(1, "g + g", 1.0), (2, "sign(g)", 100.0)])
    assert [member.number for _, member in cells_of(NAMES, state)] == [2, 1]
    programs = {1: parse("def train(g):\n    return g + g\n"), 2: parse("def train(g):\n    return sign(g)\n")}
    parents = [search.ask(state, number, programs).parent for number in range(3, 103)]
    assert 30 < parents.count(1) < 70


def test_a_best_that_fails_gives_way_to_the_one_before() -> None:
    """What a confirmation takes away was not the only one of its kind."""
    search, state = told([(1, "g + g", 2.0), (2, "g * 3", 1.0)])
    assert [member.number for _, member in cells_of(NAMES, search.revise(state, 2, None))] == [1]
    assert search.revise(search.revise(state, 2, None), 1, None) == search.initial()


def test_what_cells_hold_is_said_in_words() -> None:
    """A report can name each cell without knowing the grid."""
    _, state = told([(1, "sign(g)", 2.0)])
    assert cells_of(NAMES, state)[0][0] == {
        "memory": "less than one number per parameter",
        "scale": "update stays",
        "reach": "entry by entry",
        "length": "up to 4 statements",
    }
    assert cells_of(NAMES, Cells()) == ()


def test_the_archive_counts_cells_and_stages() -> None:
    """The statistics of pyribs are those of the state: cells filled, and a candidate of a later stage counts more."""
    search, state = told([(1, "g + g", 1.0), (2, "sign(g)", 1.0)])
    archive = grid_archive(NAMES, state)
    assert archive.stats.num_elites == 2
    assert archive.stats.coverage == 2 / empty_grid(NAMES).cells
    further = search.revise(state, 2, (-1.0, 50.0))
    best = grid_archive(NAMES, further).best_elite
    assert list(best["solution"]) == [2]
    assert best["objective"] == pytest.approx(1.0)
    assert empty_grid(NAMES).stats.num_elites == 0
    assert grid_archive(NAMES, Cells()).stats.num_elites == 0


def test_statistics_are_those_of_the_archive() -> None:
    """What a report says without pyribs is what pyribs says."""
    run = driven(QualityDiversity(SEED, 1), 60, score=lambda one: (-float(one.number % 3), one.number / 7))
    for names in (NAMES, NAMES[:2]):
        state = driven(QualityDiversity(SEED, 1, descriptors=names), 40).state if names != NAMES else run.state
        found, stats = diversity_of(names, state), grid_archive(names, state).stats
        assert (found.filled, found.filled / found.cells) == (stats.num_elites, stats.coverage)
        assert found.score == pytest.approx(stats.qd_score)
    assert diversity_of(NAMES, Cells()).score == 0.0


def test_every_bin_is_a_cell() -> None:
    """No two kinds of program share a cell."""
    bins = [(a, b) for a in range(4) for b in range(3)]
    assert len({cell_index(("memory", "scale"), pair) for pair in bins}) == 12


def test_without_the_library_it_says_what_to_install() -> None:
    """Whoever has not installed the extra is told how, before anything is spent."""
    code = """
import sys
sys.modules["ribs"] = sys.modules["ribs.archives"] = None
from evolion.primitives.parser import parse
from evolion.search.quality_diversity import QualityDiversity
try:
    QualityDiversity(parse("def train(g):\\n    return g\\n"))
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'evolion[quality-diversity]'" in done.stdout


@pytest.mark.parametrize("names", [(), ("memory", "memory"), ("colour",)])
def test_descriptors_that_make_no_grid_are_refused(names: tuple[str, ...]) -> None:
    """A typo is an error at the start that names what there is."""
    with pytest.raises(ValueError, match="memory, scale, reach, length"):
        QualityDiversity(SEED, descriptors=names)
