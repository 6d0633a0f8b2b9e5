import random
from dataclasses import replace

import numpy as np
import pytest
from branching_programs import LAYOUT, blocks, drawn, numbers
from hypothesis import given
from hypothesis import strategies as st

from evolion.discovered.library import known
from evolion.primitives import numpy_interpreter
from evolion.primitives.branches import Block, Guard, schedule
from evolion.primitives.dataflow import Reference, data_flow
from evolion.primitives.op import Matrixwise
from evolion.primitives.ops import OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import Program, Statement


def poisoned(program: Program) -> Program:
    """The program in the order of its schedule, with NaN for each result of a block whose guards do not hold."""
    flow = data_flow(program)
    body = [Statement("nan", "arcsin", (2.0,))]

    def name(reference: Reference, suffix: str = "") -> str | float:
        if isinstance(reference, float):
            return reference
        return f"y{reference}{suffix}" if isinstance(reference, int) else reference

    for part in schedule(program):
        inside = (part,) if isinstance(part, int) else part.statements
        for index in inside:
            args = [name(r, "" if r in inside else "out") for r in flow.arguments[index]]
            body.append(Statement(f"y{index}", program.statements[index].op, tuple(args)))
        for index in inside:
            body.append(Statement(f"y{index}out", "identity", (f"y{index}",)))
            for guard in () if isinstance(part, int) else part.guards:
                chosen = [f"y{index}out", "nan"][:: 1 if guard.holds else -1]
                body.append(Statement(f"y{index}out", "where", (name(guard.condition, "out"), *chosen)))
    body += [Statement(f"next{i}", "identity", (name(r, "out"),)) for i, r in enumerate(flow.next_slots.values())]
    update = name(flow.update, "out")
    if isinstance(update, str):
        body.append(Statement("result", "identity", (update,)))
        update = "result"
    body += [Statement(slot, "identity", (f"next{i}",)) for i, slot in enumerate(flow.next_slots)]
    return replace(program, statements=tuple(body), update=update, comments=())


def assert_poison_is_unread(program: Program, seed: int) -> None:
    with np.errstate(all="ignore"):
        values = numbers(program, seed)
        expected = numpy_interpreter.stepper(program, LAYOUT)(values)
        found = numpy_interpreter.stepper(poisoned(program), LAYOUT)(values)
    np.testing.assert_equal(found, expected)


@given(st.randoms(use_true_random=False), st.integers(0, 9))
def test_what_is_left_out_is_never_read(rng: random.Random, seed: int) -> None:
    """The results of a block may be anything where its guards do not hold, and its order is one that can be run."""
    assert_poison_is_unread(drawn(rng), seed)


def test_random_programs_have_branches() -> None:
    """The generator gives blocks of each sort: by one number, by tensor, under several guards, one after the other."""
    rng, found, sequences = random.Random(0), [], 0
    for seed in range(1000):
        program = drawn(rng)
        parts = blocks(program)
        if parts:
            assert_poison_is_unread(program, seed)
        found += parts
        results = {index for part in parts for index in part.results}
        sequences += any(results.intersection(part.reads) for part in parts)
    assert sum(part.by_tensor for part in found) > 10
    assert sum(not part.by_tensor for part in found) > 10
    assert sum(len(part.guards) > 1 for part in found) > 5
    assert sequences > 5


def texts(program: Program, block: Block) -> list[str]:
    return [program.statements[index].op for index in block.statements]


def test_statements_of_equal_conditions_share_a_block() -> None:
    """Both sides of a preconditioner are one branch, what leads to a decomposition and follows from it included."""
    program = parse(
        "def train(g, l: left, r: right, t):\n"
        "    due = equal(mod(t, 10), 0)\n"
        "    l = where(due, 2 * inverse(left_gram(g)), l)\n"
        "    r = where(due, 2 * inverse(right_gram(g)), r)\n"
        "    return matmul(matmul(l, g), r), l, r\n"
    )
    (block,) = blocks(program)
    assert texts(program, block) == ["left_gram", "inverse", "multiply", "right_gram", "inverse", "multiply"]
    assert len(block.results) == 2
    assert not block.by_tensor


def test_conditions_inside_of_branches_add_up() -> None:
    """A choice within a branch of another choice is made only where that branch is taken."""
    program = parse(
        "def train(g, a: leaf, s: scalar):\n    return where(s, where(a, matmul(left_gram(g), g), g), g), a, s\n"
    )
    (block,) = blocks(program)
    assert block.guards == (Guard("a", holds=True), Guard("s", holds=True))
    assert block.by_tensor


@pytest.mark.parametrize(
    "body",
    [
        "p = left_gram(g)\n    return where(s, matmul(p, g), matmul(p, w)) + matmul(p, g + w), s, n",
        "return where(n, g * global_norm(left_gram(g)), g), s, n",
        "return where(g, matmul(left_gram(g), g), g), s, n",
        "return where(s, exp(g), log(sqrt(g))), s, n",
    ],
    ids=["read elsewhere", "read by other tensors", "a choice for each entry", "cheap"],
)
def test_what_others_read_or_costs_little_is_run(body: str) -> None:
    """Nothing that has another reader is left out, nor anything whose condition would cost as much as itself."""
    program = parse(f"def train(w, g, s: scalar, n: leaf):\n    {body}\n")
    grams = [index for index, statement in enumerate(program.statements) if statement.op == "left_gram"]
    assert not {index for block in blocks(program) for index in block.statements}.intersection(grams[:1])


@pytest.mark.parametrize("name", known())
def test_known_programs_without_matrices_run_as_written(name: str) -> None:
    """Elementwise programs, and those with sums, pay nothing for branches."""
    program = known()[name]
    if not any(isinstance(OPS[statement.op].meaning, Matrixwise) for statement in program.statements):
        assert schedule(program) == tuple(range(len(program.statements)))
