import random
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import disguised, programs

from evolion.primitives.cost import DECOMPOSITIONS, REFERENCE_SHAPES, Cost, cost, statement_cost
from evolion.primitives.dataflow import data_flow, remove_dead_code
from evolion.primitives.kinds import Kind
from evolion.primitives.op import Reduction
from evolion.primitives.ops import OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import Program, infer_kinds


def body(text: str, parameters: str = "w, g, m, n: leaf, r: scalar, lr, t") -> Program:
    return parse(f"def train({parameters}):\n    {text}\n    return u, m, n, r\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        "u = g": Cost(),
        "u = g * lr": Cost(operations=1),
        "u = sin(g) ** w": Cost(operations=2, transcendental=2),
        "u = g * (1 - 0.9 ** t)": Cost(operations=1, scalar_operations=2),
        "u = g * sqrt(norm(g) + 1)": Cost(operations=3, tensor_operations=2, tensor_reductions=1),
        "u = clip(g, lr) / global_norm(w)": Cost(operations=6, tree_reductions=2),
        "u = cosine_sim(g, w) * dot(g, w)": Cost(operations=8, scalar_operations=1, tree_reductions=2),
        "m = interp(g, m, 0.9); u = m": Cost(operations=3, slots=1, state=1),
        "n = n + norm(g); u = n * g": Cost(operations=3, tensor_operations=1, tensor_reductions=1, slots=1),
        "r = r + dot(g, g); u = r * g": Cost(operations=3, scalar_operations=1, tree_reductions=1, slots=1),
        "m = square(g); n = norm(m); u = g": Cost(),
    }.items(),
)
def test_costs_by_hand(text: str, expected: Cost) -> None:
    """Work is counted by the kind of its value, sums by their scope, state by what is kept for each parameter."""
    found = cost(body("\n    ".join(text.split("; "))))
    assert replace(found, workspace=0) == expected


def test_initial_weights_are_state() -> None:
    """A rule that reads the initial weights keeps a copy of them, though it has no slot for it."""
    assert cost(parse("def train(w, w0, g):\n    return g + w - w0\n")) == Cost(operations=2, state=1, workspace=2)


def test_protection_costs() -> None:
    """A protected division adds its epsilon, a protected root takes an absolute value."""
    text = "def train(w, g):\n    return sqrt(g) / w\n"
    assert (cost(parse(text)).operations, cost(parse("@protected\n" + text)).operations) == (2, 4)


@pytest.mark.parametrize(
    ("expression", "expected"),
    {
        "g * row_sum(g)": Cost(operations=2, tensor_reductions=1, workspace=1 + 1 / 32),
        "g * sqrt(row_mean(g))": Cost(operations=2 + 1 / 32, tensor_reductions=1, workspace=1 + 1 / 32),
        "g * column_max(g)": Cost(operations=2, tensor_reductions=1, workspace=1 + 1 / 64),
        "matmul(left_gram(g), g)": Cost(matrix_operations=2 * 64 + 2 * 64, workspace=3),
        "matmul(g, inverse_root(right_gram(g), 4))": Cost(
            matrix_operations=2 * 32 + 11 * 32 * 32 / 64 + 2 * 32, decompositions=1, workspace=1.5
        ),
        "g + tensor_sum(left_gram(g) * 2)": Cost(
            operations=2 + 2 + 1, matrix_operations=128, tensor_reductions=1, workspace=4
        ),
        "orthogonalize(g, 5, 3, -5, 2)": Cost(matrix_operations=5 * (4 * 32 + 2 * 16 + 3 * 0.5 + 2), workspace=1),
        "orthogonalize(g, s, 3, -5, 2)": Cost(matrix_operations=2 * (4 * 32 + 2 * 16 + 3 * 0.5 + 2), workspace=1),
    }.items(),
)
def test_matrices_by_hand(expression: str, expected: Cost) -> None:
    """Of a matrix of 64 rows and 32 columns: products, decompositions, and what has less than one number per entry."""
    text = f"def train(w, g, *, s=2.0):\n    return {expression}\n"
    found = cost(parse(text), [(64, 32)])
    assert found == cost(parse(text), [(64, 32), (8, 8, 32), (64, 32)])
    assert replace(found, matrix_operations=pytest.approx(expected.matrix_operations)) == expected


@pytest.mark.parametrize(
    ("kind", "share"),
    {"scalar": 0, "leaf": 0, "row": 1 / 32, "column": 1 / 64, "tensor": 1, "left": 2, "right": 0.5}.items(),
)
def test_state_by_kind(kind: str, share: float) -> None:
    """A slot counts by its numbers per parameter: m + n of m n for the factors of a matrix."""
    size = "s" if kind == "scalar" else "global_norm(s)"
    program = parse(f"def train(g, s: {kind}):\n    s = s * 2\n    return g * {size}, s\n")
    assert (cost(program, [(64, 32)]).slots, cost(program, [(64, 32)]).state) == (1, share)


def test_shapes_are_checked() -> None:
    """Nothing can be said per parameter where there is none; a vector and a number are matrices."""
    program = parse("def train(g):\n    return g * row_sum(g)\n")
    assert cost(program, [(7,)]).operations == 2
    assert cost(program, [()]).operations == 2
    for shapes in ([], [(3, 0)]):
        with pytest.raises(ValueError, match="shapes must be"):
            cost(program, shapes)
    assert cost(program) == cost(program, REFERENCE_SHAPES)


def test_the_check_takes_microseconds() -> None:
    """A search can ask for the cost of every candidate: far under a millisecond for AdamW's size."""
    program = parse("def train(w, g, m, v, lr):\n    m = interp(g, m, 0.9)\n    v = interp(g * g, v, 0.99)\n"
                    "    return lr * m / (sqrt(v) + 1e-8) + lr * w, m, v\n")  # fmt: skip
    times = []
    for _ in range(50):
        start = time.perf_counter()
        cost(program)
        times.append(time.perf_counter() - start)
    assert min(times) < 5e-4


@given(programs())
def test_dead_code_is_free(program: Program) -> None:
    """A program costs what it costs without its dead code."""
    assert cost(program) == cost(remove_dead_code(program))


@given(programs(prose=False), st.integers(0, 2**32))
def test_names_and_order_are_free(program: Program, seed: int) -> None:
    """Renamed, reordered, with statements that nothing uses: the cost is that of the data flow, but for the workspace.

    How much is held at once hangs on the order.
    """
    assert replace(cost(disguised(program, random.Random(seed))), workspace=cost(program).workspace) == cost(program)


@given(programs())
def test_costs_add_up(program: Program) -> None:
    """The cost of live statements is the sum of their own, whatever stands beside them."""
    live = remove_dead_code(program)
    kinds, flow = infer_kinds(live), data_flow(live)
    entry = {p.name: p.kind for p in live.parameters}
    values = {h.name: h.value for h in live.hyperparameters}
    total = Cost()
    for statement, references in zip(live.statements, flow.arguments, strict=True):
        found = tuple(kinds[r] if isinstance(r, int) else entry.get(r, Kind.SCALAR) for r in references)
        numbers = tuple(values.get(r, r) for r in references)
        total += statement_cost(statement.op, found, live.protected, args=numbers)
    paid = cost(program)
    assert (paid.slots, paid.transcendental) == (len(live.slots), pytest.approx(total.transcendental))
    assert paid.operations == pytest.approx(total.operations)
    assert paid.matrix_operations == pytest.approx(total.matrix_operations)
    assert (paid.tree_reductions, paid.decompositions) == (total.tree_reductions, total.decompositions)
    assert paid.workspace <= sum({Kind.SCALAR: 0, Kind.LEAF: 0}.get(kind, 1) for kind in kinds)


FREE = ("transpose", "eye", "diagonal", "diagonal_matrix", "upper_triangle", "entry_count", "row_count", "column_count")


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_a_cost(op: str) -> None:
    """For every signature: nothing but assignments, constants and moves of numbers is free."""
    for kinds in OPS[op].signatures:
        paid = statement_cost(op, kinds, False)
        work = paid.operations + paid.matrix_operations + paid.tensor_operations + paid.scalar_operations
        assert work >= paid.transcendental >= 0
        assert (work == 0) is (op in FREE or op == "identity" or OPS[op].arity == 0)
        assert paid.tensor_reductions + paid.tree_reductions == isinstance(OPS[op].meaning, Reduction)
    assert set(FREE) | DECOMPOSITIONS <= set(OPS)
