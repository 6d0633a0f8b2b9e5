import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import disguised, programs

from evolion.primitives.cost import Cost, cost, statement_cost
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.kinds import Kind
from evolion.primitives.op import Elementwise
from evolion.primitives.ops import OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import Program, Statement, infer_kinds


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
    assert cost(body("\n    ".join(text.split("; ")))) == expected


def test_initial_weights_are_state() -> None:
    """A rule that reads the initial weights keeps a copy of them, though it has no slot for it."""
    assert cost(parse("def train(w, w0, g):\n    return g + w - w0\n")) == Cost(operations=2, state=1)


def test_protection_costs() -> None:
    """A protected division adds its epsilon, a protected root takes an absolute value."""
    text = "def train(w, g):\n    return sqrt(g) / w\n"
    assert (cost(parse(text)).operations, cost(parse("@protected\n" + text)).operations) == (2, 4)


@given(programs())
def test_dead_code_is_free(program: Program) -> None:
    """A program costs what it costs without its dead code."""
    assert cost(program) == cost(remove_dead_code(program))


@given(programs(prose=False), st.integers(0, 2**32))
def test_names_and_order_are_free(program: Program, seed: int) -> None:
    """Renamed, reordered, with statements that nothing uses: the cost is that of the data flow."""
    assert cost(disguised(program, random.Random(seed))) == cost(program)


@given(programs())
def test_costs_add_up(program: Program) -> None:
    """The cost of live statements is the sum of their own, whatever stands beside them."""
    live = remove_dead_code(program)
    kinds = infer_kinds(live)
    total = sum((statement_cost(s, k, live.protected) for s, k in zip(live.statements, kinds, strict=True)), Cost())
    tensors = sum(slot.kind is Kind.TENSOR for slot in live.slots) + ("w0" in live.inputs)
    assert cost(program) == total + Cost(slots=len(live.slots), state=tensors)


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_a_cost(op: str) -> None:
    """Nothing but an assignment and a constant is free."""
    paid = statement_cost(Statement("x", op, ()), Kind.TENSOR, False)
    free = op == "identity" or OPS[op].arity == 0
    assert (paid.operations == 0) is free
    assert paid.tensor_reductions + paid.tree_reductions == (not isinstance(OPS[op].meaning, Elementwise))
