import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import evolion
from evolion.cli import cli, run
from evolion.discovered.classes import CLASSES, class_of, title, year
from evolion.primitives.cost import cost
from evolion.primitives.parser import parse

PAGE = (Path(__file__).parents[2] / "docs" / "known.md").read_text(encoding="utf-8")

EXAMPLES = {
    "elementwise": "def train(g, m, lr):\n    m = interp(g, m, 0.9)\n    return lr * m / column_count(g), m\n",
    "per row or column": "def train(g, r: row):\n    r = row_mean(square(g))\n    return g / sqrt(r), r\n",
    "per tensor": "def train(g, r: row):\n    r = row_mean(g)\n    return g * r / norm(g), r\n",
    "whole tree": "def train(g, s: scalar):\n    s = s + global_norm(g)\n    return g / norm(g) / s, s\n",
    "matrix": "def train(g):\n    return orthogonalize(g / global_norm(g), 5, 3.4445, -4.775, 2.0315)\n",
    "curvature": "def train(g, hess):\n    return orthogonalize(g / hess, 5, 3.4445, -4.775, 2.0315)\n",
}


def listed(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["known", *arguments])
    assert done.exit_code == 0
    return done.output


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_says_what_a_step_brings_together(name: str) -> None:
    """Of the classes that fit a program is in the last, and the shape of a tensor alone brings nothing together."""
    assert class_of(parse(EXAMPLES[name])) == name


def test_what_reaches_no_update_decides_no_class() -> None:
    """Dead code is no part of a program's class, nor is a slot that nobody reads."""
    text = "def train(g, hess, s: scalar):\n    x = norm(g)\n    s = global_sum(hess)\n    return g, s\n"
    assert class_of(parse(text)) == "elementwise"


@pytest.mark.parametrize("name", evolion.known())
def test_every_known_program_says_title_and_year(name: str) -> None:
    """The list of known programs has no gaps."""
    program = evolion.known()[name]
    assert title(program).endswith(".")
    assert 1950 < (year(program) or 0) < 2030


def test_a_program_without_a_source_has_no_year() -> None:
    """A found program is of no known year, and a number in parentheses is not one."""
    assert year(parse('def train(g):\n    """Found (2 slots, 3000 steps)."""\n    return g\n')) is None


def test_the_list_has_a_row_for_each_program() -> None:
    """`evolion known` shows class, slots, operations, year and title of each."""
    head, *rows = listed().splitlines()
    assert head.split() == ["name", "class", "slots", "operations", "year", "summary"]
    for row, (name, program) in zip(rows, evolion.known().items(), strict=True):
        cells = re.split(r" {2,}", row, maxsplit=5)
        assert cells[0] == name
        assert cells[1] == class_of(program)
        assert cells[4:] == [str(year(program)), title(program)]
    assert "3 + 3 scalar" in next(row for row in rows if row.startswith("prodigy "))
    operations = [re.split(r" {2,}", row)[3] for row in rows if row.startswith("lion ")]
    assert operations == [f"{cost(evolion.known()['lion']).operations:g}"]


def test_the_list_as_data_says_everything() -> None:
    """Programs read inputs, slots with kinds, hyperparameters, class, year and the whole cost."""
    for name, entry in json.loads(listed("--json")).items():
        program = evolion.known()[name]
        assert entry["class"] == class_of(program)
        assert entry["year"] == year(program)
        assert entry["slots"] == {slot.name: str(slot.kind) for slot in program.slots}
        assert entry["cost"]["operations"] == cost(program).operations
        assert set(entry) >= {"summary", "inputs", "hyperparameters", "statements", "protected"}


def test_classes_divide_the_list() -> None:
    """`--class` gives each program once."""
    names = [name for one in CLASSES for name in json.loads(listed("--class", one, "--json"))]
    assert sorted(names) == sorted(evolion.known())


def test_an_unknown_class_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Bad input is one line that says what would be right."""
    assert run(["known", "--class", "matrices"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(name in error for name in CLASSES)


def test_the_page_of_the_known_programs_is_up_to_date() -> None:
    """Every known program has its row in docs/known.md; `python benchmarks/known.py --write` renews it."""
    table = PAGE.partition("<!-- table -->")[2].partition("<!-- end of table -->")[0]
    rows = {cells[0].strip("`"): cells[1:] for cells in map(cells_of, table.strip().splitlines()[2:])}
    assert list(rows) == list(evolion.known())
    for name, program in evolion.known().items():
        slots = ", ".join(f"`{slot}`" for slot in program.slots) or "none"
        assert rows[name][:3] == [title(program), str(year(program)), class_of(program)]
        assert rows[name][-1] == slots
        assert rows[name][3]


def test_the_page_names_programs_that_exist() -> None:
    """Whoever looks for a name of the field finds a program under the name that the page gives."""
    section = PAGE.partition("## Where a name is found")[2].partition("## ")[0]
    rows = [cells_of(row)[1] for row in section.strip().splitlines()[2:]]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named) > 30
    assert named <= set(evolion.known())


def cells_of(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split(" | ")]
