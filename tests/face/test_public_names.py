import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import evolion
from evolion.errors import InputError

FUNCTIONS = [name for name in evolion.__all__ if name.islower() and not name.startswith("_")]
TEXT = "def train(w, g, m, lr, *, b1=0.9):\n    m = interp(g, m, b1)\n    dead = m + 1\n    return sign(m) * lr, m\n"


def succeeds(code: str, folder: Path) -> None:
    """Run code in a new Python process outside the tree."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_exist(name: str) -> None:
    """The names of the public contract are there, and say what they do."""
    function = getattr(evolion, name)
    assert callable(function)
    assert inspect.getdoc(function)


def test_exported_names_are_all_there() -> None:
    """`__all__` and `dir` promise nothing that fails on access."""
    assert all(getattr(evolion, name) is not None for name in evolion.__all__)
    assert set(evolion.__all__) <= set(dir(evolion))


def test_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails as it does on any module."""
    with pytest.raises(AttributeError, match="serch"):
        _ = evolion.serch


ORDERS = {
    "face alone": "import evolion; s = evolion.search",
    "face, then module": "import evolion; f = evolion.search; import evolion.search.mutation; s = evolion.search",
    "module first": "import evolion.search.mutation; import evolion; s = evolion.search",
    "from package": "from evolion import search as s; import evolion.search.mutation",
    "from module first": "from evolion.search.types import Search; from evolion import search as s",
    "as": "import evolion.search as s; import evolion.search.mutation; s.mutation",
    "module of another room": "import evolion.primitives.parser; import evolion; s = evolion.search",
    "by name": "import importlib; importlib.import_module('evolion.search.mutation'); from evolion import search as s",
    "reloaded": "import importlib, evolion.search; s = importlib.reload(evolion.search)",
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_search_is_function_and_package_in_every_import_order(order: str, tmp_path: Path) -> None:
    """`evolion.search(config)` works and so do the modules below it, whatever was imported first."""
    check = """
import evolion, evolion.search.mutation, evolion.search.types
from evolion.errors import InputError
assert s is evolion.search and evolion.search.mutation.__name__ == "evolion.search.mutation"
try:
    s("no config")
except InputError as error:
    assert "RunConfig" in str(error)
else:
    raise AssertionError
"""
    succeeds(f"{order}\n{check}", tmp_path)


def test_simplify_removes_what_no_update_depends_on() -> None:
    """Dead code goes, all of it, and behaviour stays."""
    program = evolion.parse(TEXT)
    shorter = evolion.simplify(program)
    assert len(shorter.statements) == len(program.statements) - 1
    assert evolion.key(shorter) == evolion.key(program)
    assert evolion.simplify(shorter) is shorter


def test_keys_distinguish_what_they_should() -> None:
    """Kinds of keys differ, and a factor on the update shows in all but the one up to the learning rate."""
    program, doubled = evolion.parse(TEXT), evolion.parse(TEXT.replace("* lr", "* lr * 2"))
    for options, equal in (
        ({}, False),
        ({"kind": "structure"}, False),
        ({"up_to_lr": True}, True),
    ):
        assert (evolion.key(program, **options) == evolion.key(doubled, **options)) is equal
    with pytest.raises(InputError, match="kind"):
        evolion.key(program, kind="shape")
    with pytest.raises(InputError, match="up_to_lr"):
        evolion.key(program, kind="structure", up_to_lr=True)


def test_load_takes_names_and_files(tmp_path: Path) -> None:
    """Every known name loads; a file loads by its path; a name wins over a file of that name."""
    for name, program in evolion.known().items():
        assert evolion.load(name) == program
    (tmp_path / "mine.txt").write_text(TEXT)
    assert evolion.load(tmp_path / "mine.txt") == evolion.parse(TEXT)


def test_load_says_what_is_wrong(tmp_path: Path) -> None:
    """A missing program and an invalid one give errors that name them; the position in the text is kept."""
    with pytest.raises(InputError, match="adamx"):
        evolion.load("adamx")
    with pytest.raises(InputError, match="run"):
        evolion.load(tmp_path)
    with pytest.raises(InputError, match="number"):
        evolion.load(f"{tmp_path}:x")
    bad = tmp_path / "bad.txt"
    bad.write_text("def train(w, g, lr):\n    u = frobnicate(g)\n    return u\n")
    with pytest.raises(evolion.ProgramError, match=r"bad\.txt") as caught:
        evolion.load(bad)
    assert caught.value.line == 2


def test_to_source_as_text_takes_hyperparameters() -> None:
    """The text target prints what parses back, with other values where they are given; unknown targets are refused."""
    program = evolion.parse(TEXT)
    assert evolion.parse(evolion.to_source(program, "text")) == program
    changed = evolion.parse(evolion.to_source(program, "text", b1=0.5))
    assert changed == program.with_hyperparameters(b1=0.5)
    with pytest.raises(InputError, match="target"):
        evolion.to_source(program, "fortran")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"task": "no-such-task"}, "no-such-task"),
        ({"task": None}, "name"),
        ({"steps": 0}, "steps"),
        ({"steps": 1.5}, "steps"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"seeds": (-1,)}, "seeds"),
        ({"seeds": (0.5,)}, "seeds"),
        ({"seeds": 3}, "seeds"),
        ({"seeds": (2**31,)}, "seeds"),
        ({"learning_rates": ()}, "learning_rates"),
        ({"learning_rates": (0.0,)}, "learning_rates"),
        ({"learning_rates": (float("nan"),)}, "learning_rates"),
        ({"programs": "adamw"}, "list"),
        ({"programs": ["adamx"]}, "adamx"),
    ],
)
def test_evaluate_refuses_what_it_cannot_use(options: dict[str, object], word: str) -> None:
    """Bad arguments are named before anything is trained."""
    arguments = {"programs": ["sgd"], "task": "digits-mlp"} | options
    with pytest.raises(InputError, match=word):
        evolion.evaluate(**arguments)


def test_programs_are_taken_by_name(tmp_path: Path) -> None:
    """What `load` takes stands for a program wherever the face takes one."""
    (tmp_path / "mine.txt").write_text(TEXT)
    mine = str(tmp_path / "mine.txt")
    assert evolion.key(mine) == evolion.key(evolion.parse(TEXT))
    assert evolion.simplify(mine) == evolion.simplify(evolion.parse(TEXT))
    assert evolion.to_source("lion", "text") == str(evolion.known()["lion"])
    assert evolion.to_optax("lion", 1e-3).init({}).count == 0
    with pytest.raises(ValueError, match="learning_rate must be a number"):
        evolion.to_optax("lion", "fast")  # type: ignore[arg-type]
