"""Random programs in which `where` chooses between costly statements, and values for them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from evolion.primitives.branches import Block, schedule
from evolion.primitives.layout import Layout
from evolion.primitives.parser import parse
from evolion.primitives.program import Program

LAYOUT = Layout(((3, 2), (), (4,)))
CONDITIONS = {
    "scalar": ("equal(mod({scalar}, 2), 0)", "greater(global_sum({tensor}), 0)", "is_finite(global_norm({tensor}))"),
    "leaf": ("greater(row_count({tensor}), 1)", "{leaf} * {scalar}", "less(trace({left}), trace({right}))"),
}
VALUES = {
    "left": ("inverse({left})", "inverse_root({left}, 2)", "matmul({left}, {left})", "left_gram({tensor})"),
    "right": ("eigenvectors({right})", "power_iteration({right}, {right})", "right_gram({tensor})", "2 * {right}"),
    "tensor": (
        "matmul({left}, {tensor})",
        "matmul({tensor}, {right})",
        "clip({tensor}, {scalar})",
        "{tensor} * global_sum({tensor})",
    ),
}


def blocks(program: Program) -> list[Block]:
    return [part for part in schedule(program) if isinstance(part, Block)]


def drawn(rng: random.Random) -> Program:
    """A program in which every second statement is a `where`, mostly of what was computed last."""
    names = {"left": ["l"], "right": ["r"], "tensor": ["w", "g"], "scalar": ["t", "a"], "leaf": ["b", "n"]}
    conditions = ["a", "b"]
    lines = ["def train(w, g, t, l: left, r: right, a: scalar, b: leaf, n: leaf):"]

    def pick(known: list[str]) -> str:
        return known[-1 - min(rng.randrange(4), rng.randrange(4), len(known) - 1)]

    for number in range(rng.randrange(4, 24)):
        kind, name = rng.choice(list(VALUES)), f"x{number}"
        if rng.random() < 0.15:
            kind = rng.choice(list(CONDITIONS))
            form = rng.choice(CONDITIONS[kind])
            conditions.append(name)
        elif rng.random() < 0.5:
            form = f"where({rng.choice(conditions)}, {pick(names[kind])}, {pick(names[kind])})"
        else:
            form = rng.choice(VALUES[kind])
        lines.append(f"    {name} = {form.format(**{kind: pick(known) for kind, known in names.items()})}")
        names[kind].append(name)
    last = {kind: known[-1] for kind, known in names.items()}
    lines.append(
        "    update = {tensor}\n    l = {left}\n    r = {right}\n    a = {scalar}\n    b = {leaf}".format(**last)
    )
    lines.append("    return update, l, r, a, b, n")
    return parse("\n".join(lines) + "\n")


def numbers(program: Program, seed: int) -> dict[str, Any]:
    """A value for everything that a program reads; of the numbers that conditions are made of, many are zero."""
    rng = np.random.default_rng(seed)
    values = {p.name: rng.normal(size=LAYOUT.shape(p.kind)) for p in program.parameters}
    values = {name: value * rng.integers(0, 2, size=np.shape(value)) for name, value in values.items()}
    return values | {h.name: h.value for h in program.hyperparameters}
