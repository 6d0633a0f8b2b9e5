import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS = PYPROJECT["tool"]["setuptools"]["package-dir"]
SIZE = PYPROJECT["tool"]["evolion"]["size"]

FORBIDDEN_NAMES = {
    "super": "inheritance for reuse",
    "hasattr": "a question that a Protocol answers",
    "eval": "program text is data",
    "exec": "program text is data",
    "compile": "program text is data",
    "__import__": "program text is data",
}
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "shelve", "marshal"}
# CIFAR is published as pickles; that module reads them with an unpickler that can make arrays and nothing else.
EXCUSED = {"proxies/data/cifar.py": {"pickle", "super"}}

SOURCES = sorted(path for room in ROOMS.values() for path in (ROOT / room).glob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def imported_modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def oversized(path: Path) -> dict[str, int]:
    """What of this file exceeds a budget: its lines by name."""
    text = path.read_text(encoding="utf-8")
    found = {relative(path): len(text.splitlines())} if len(text.splitlines()) > SIZE["file-lines"] else {}
    for function in functions(ast.parse(text)):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > SIZE["function-lines"]:
            found[f"{relative(path)}::{function.name}"] = lines
    return found


def test_every_room_has_sources() -> None:
    """The checks below would pass on an empty list: a wrong folder must not hide the sources."""
    assert {path.parent.relative_to(ROOT).as_posix() for path in SOURCES} == set(ROOMS.values())


@pytest.mark.parametrize("path", SOURCES + TESTS + BENCHMARKS, ids=relative)
def test_sizes_stay_within_budget(path: Path) -> None:
    """No file and no function outgrows what a reader takes in at once, unless listed with its reason."""
    unlisted = {name: lines for name, lines in oversized(path).items() if name not in SIZE["exceptions"]}
    assert not unlisted, f"over {SIZE['file-lines']} lines a file or {SIZE['function-lines']} a function: {unlisted}"


def test_size_exceptions_are_needed() -> None:
    """An exception whose file or function has shrunk or gone leaves the list."""
    needed = {name for path in SOURCES + TESTS + BENCHMARKS for name in oversized(path)}
    assert set(SIZE["exceptions"]) <= needed


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_sources_avoid_forbidden_calls_and_modules(path: Path) -> None:
    """Text is never executed, run files hold no pickles, data is not probed for attributes."""
    tree = parsed(path)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    found = [
        f"line {call.lineno}: {call.func.id} ({FORBIDDEN_NAMES[call.func.id]})"
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id in FORBIDDEN_NAMES
    ]
    found += [name for name in imported_modules(tree) if name.split(".")[0] in FORBIDDEN_MODULES]
    excused = EXCUSED.get(relative(path), set())
    assert not [name for name in found if not any(word in name for word in excused)]


@pytest.mark.parametrize("room", [room for room in ROOMS.values() if room != "evolion"])
def test_the_front_of_a_room_is_empty(room: str) -> None:
    """Importing one module of a room loads no other: `__init__` holds a docstring at most."""
    body = parsed(ROOT / room / "__init__.py").body
    assert len(body) <= 1
    assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_every_test_says_what_it_protects(path: Path) -> None:
    """A failing test tells its reader what is at stake: the first docstring line of each is not empty."""
    silent = [f.name for f in functions(parsed(path)) if f.name.startswith("test_") and not ast.get_docstring(f)]
    assert not silent


def test_every_package_is_mapped_and_layered() -> None:
    """A new room is installed and falls under the import contracts."""
    packages = set(PYPROJECT["tool"]["setuptools"]["packages"])
    contract = next(c for c in PYPROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    layered = {name for layer in contract["layers"] for name in layer.split(" | ")}
    rooms = {package for package in packages if package.count(".") < 2}
    assert packages == set(ROOMS)
    assert rooms == layered | {"evolion"}
