"""The table of the known programs in docs/known.md: what each is, beside which implementation, and how far from it.

A gap is the largest difference of the weights over 14 or 20 steps in float64, divided by the largest displacement;
where a program is compared with several implementations or settings, it is the largest of them, for each regime.

Run: python benchmarks/known.py [--write]
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from evolion.discovered.classes import class_of, title, year
from evolion.discovered.library import known

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "known.md"
MARKS = "<!-- table -->", "<!-- end of table -->"
REGIMES = ("gauss", "tiny", "sparse", "const", "affine")
STATED = {
    "adamw_seed": ("the program of the paper, arXiv:2302.06675, in NumPy; compared in float32", "≤ 1e-5"),
    "gradient_noise": ("equation of arXiv:1511.06807, given the noise", "≤ 1e-12"),
    "random_scaled_sgdm": ("projection on two orthonormal directions, given the noise", "≤ 1e-12"),
}
"""Programs whose references stand inside of a test: what they are, and the gap that the test allows (gauss)."""

EXACT = 1e-9
"""Beyond this gap, the note of the comparison is part of the table."""


@dataclass
class Row:
    """What is known of one program."""

    sources: list[str] = field(default_factory=list)
    gaps: dict[str, str] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, source: str, gaps: dict[str, float], note: str = "") -> None:
        """Note one comparison."""
        if not any(other.startswith(source) for other in self.sources):
            self.sources.append(source)
        for regime, gap in gaps.items():
            self.largest[regime] = max(gap, self.largest.get(regime, 0.0))
            self.gaps[regime] = figure(self.largest[regime])
        if note and note not in self.notes and max(gaps.values()) > EXACT:
            self.notes.append(note)


def figure(gap: float) -> str:
    return "0" if gap == 0 else f"{gap:.0e}"


def tests(name: str) -> ModuleType:
    """Import a module of the tests, whose tables of references this is about."""
    for folder in (ROOT / "tests", ROOT / "tests" / "discovered"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    return importlib.import_module(name)


def implementation(record: dict[str, Any]) -> str:
    """Name the class and version of a stored trajectory."""
    repository = re.fullmatch(r"git:([^@]+)@(\w+):([^:]+):(\w+)", record["cls"])
    if repository:
        owner, commit, path, name = repository.groups()
        return f"`{name}` of {owner}@{commit}, {path}"
    return f"`{record['cls']}` {record['version'].partition('+')[0]}"


def reference_of(node: ast.AST, module: ModuleType) -> str:
    """Say what an expression of a table of references is made of: functions of Optax, else its function's docstring."""
    called = [ast.unparse(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)]
    called += [ast.unparse(node)] if isinstance(node, (ast.Attribute, ast.Name)) else []
    optax = [f"`{name}`" for name in dict.fromkeys(called) if name.startswith("optax.")]
    used = [".".join(n.split(".")[1:]) for n in called if n.startswith("rules.")]
    names = used + [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    others = tests("oracles.per_tensor_rules")
    functions = [getattr(module, name, None) or getattr(others, name, None) for name in names]
    texts = [inspect.getdoc(f) or "" for f in functions if inspect.isfunction(f)]
    said = [" ".join(text.split("\n\n")[0].split()).rstrip(".") for text in texts]
    if optax:
        return ", ".join(optax + [text for text in said if "author" in text])
    return next(text for text in said if text)


def assigned(module: ModuleType, name: str) -> ast.AST:
    """Return what a module assigns to a name, as written."""
    for node in ast.parse(inspect.getsource(module)).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.value  # type: ignore[attr-defined, no-any-return]
    raise LookupError(f"{module.__name__} has no {name}")


def written(module: ModuleType, name: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield the keys and values of a dictionary as written."""
    table = assigned(module, name)
    assert isinstance(table, ast.Dict)
    for key, value in zip(table.keys, table.values, strict=True):
        assert isinstance(key, ast.Constant)
        yield key.value, value


def from_trajectories(rows: dict[str, Row]) -> None:
    running = tests("oracles.running")
    for case in tests("oracles.cases").CASES:
        regimes = running.regimes_of(case)
        gaps = {regime: running.gap(case, regime, running.by_numpy(case, regime)) for regime in regimes}
        rows[case.program].add(implementation(running.meta()[f"{case.source}/{regimes[0]}"]), gaps, case.note)


def from_formulas(rows: dict[str, Row]) -> None:
    test, table = tests("test_known_formulas"), tests("oracles.elementwise_formulas")
    for name, node in written(table, "FORMULAS"):
        case = test.case(name)
        gaps = {r: test.gap(test.by_numpy(case, r), test.followed(name, r)) for r in test.REGIMES}
        assert isinstance(node, ast.Tuple)
        rows[name].add(reference_of(node.elts[1], table), gaps)


def from_per_tensor(rows: dict[str, Row]) -> None:
    test = tests("test_known_per_tensor")
    found = defaultdict(list)
    for node in ast.walk(assigned(test, "REFERENCES")):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "made":
            assert isinstance(node.args[0], ast.Constant)
            found[node.args[0].value].append(reference_of(node.args[2], test))
    for index, (case, _) in enumerate(test.REFERENCES):
        gaps = {r: test.distance(test.by_numpy(case, r), test.reference(index, r)) for r in case.regimes}
        for source in dict.fromkeys(found[case.program]):
            rows[case.program].add(source, gaps, case.note)


def from_matrices(rows: dict[str, Row]) -> None:
    test = tests("test_known_matrix")
    for name, node in written(test, "RULES"):
        gaps = []
        for shape in test.SHAPES:
            rng = np.random.default_rng(3)
            w = start = rng.standard_normal(shape)
            given = [(rng.standard_normal(shape) + start[::-1], rng.standard_normal(shape)) for _ in range(test.STEPS)]
            rule, theirs = test.RULES[name][0](shape), []
            for t, (g, noise) in enumerate(given, start=1):
                w = rule(t, w, g, noise)
                theirs.append(w)
            ours = np.stack(list(test.path(name, shape, given, start)))
            other = np.stack(theirs)
            gaps.append(float(np.abs(ours - other).max() / np.abs(other - start).max()))
        assert isinstance(node, ast.Tuple)
        rows[name].add(reference_of(node.elts[0], test), {"gauss": max(gaps)})


def from_optax(rows: dict[str, Row]) -> None:
    test, running, rules = tests("test_known"), tests("oracles.running"), tests("oracles.per_tensor_rules")
    for name, node in written(test, "NAMESAKES"):
        case, gaps = running.Case(name, "", 0.02), {}
        for regime in REGIMES[:3]:
            theirs = rules.reference_path(case, regime, rules.from_optax(lambda n=name: test.NAMESAKES[n](0.02)))
            ours = running.by_numpy(case, regime)
            gaps[regime] = float(np.abs(ours - theirs).max() / np.abs(theirs - theirs[0]).max())
        rows[name].add(reference_of(node, test), gaps)


def table() -> str:
    """Return the table in Markdown."""
    rows = {name: Row() for name in known()}
    for measure in (from_trajectories, from_formulas, from_per_tensor, from_matrices, from_optax):
        measure(rows)
    for name, (source, gap) in STATED.items():
        rows[name].sources.append(source)
        rows[name].gaps["gauss"] = gap
    head = ["name", "title", "year", "class", "independent implementation", *REGIMES, "slots"]
    lines = [head, ["---"] * len(head)]
    for name, program in known().items():
        row = rows[name]
        source = "; ".join(row.sources) + (f" ({'; '.join(row.notes)})" if row.notes else "")
        slots = ", ".join(f"`{slot}`" for slot in program.slots) or "none"
        gaps = [row.gaps.get(regime, "") for regime in REGIMES]
        lines.append([f"`{name}`", title(program), str(year(program)), class_of(program), source, *gaps, slots])
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/known.md")
    made = table()
    if not parser.parse_args().write:
        print(made)
        return
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    PAGE.write_text(f"{before}{MARKS[0]}\n\n{made}\n\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
