import random
from dataclasses import replace

import numpy as np
import pytest
from exactness import LAYOUT, any_numbers, drawn, ordinary_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_program

from evolion.primitives.facts import BOUND, Fact, fact_of, facts
from evolion.primitives.graph import Graph, graph_of
from evolion.primitives.kinds import Kind
from evolion.primitives.numpy_interpreter import Value, initial_slots, stepper
from evolion.primitives.ops import OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import RESERVED, Parameter, Program, Statement, infer_kinds

SURE = Fact(nonnegative=True, diagonal=True, bound=1.0, finite=True, indicator=True)
MEETING_FACTS = (
    *OPS,
    *("abs", "square", "sin", "max", "min", "where", "is_finite", "clip_value", "interp", "add", "multiply"),
    *("left_gram", "right_gram", "diagonal", "trace", "transpose", "upper_triangle", "sign", "floor", "tanh"),
)


def observed(graph: Graph) -> Program:
    """A program of all nodes of a graph, each kept in a slot of its own, `n0`, `n1`, …"""
    program = graph.program
    kept = [Parameter(f"n{index}", kind, slot=True) for index, kind in enumerate(graph.kinds)]
    slots = [p for p in program.slots if p.name in graph.next_slots]
    renamed = {slot.name: f"old_{slot.name}" for slot in slots}

    def name(reference: int | str | float) -> str | float:
        if isinstance(reference, int):
            return f"n{reference}"
        return renamed.get(reference, reference) if isinstance(reference, str) else reference

    statements = [Statement(renamed[slot.name], "identity", (slot.name,)) for slot in slots]
    statements += [Statement(f"n{i}", op, tuple(map(name, args))) for i, (op, args) in enumerate(graph.nodes)]
    statements += [Statement(slot.name, "identity", (name(graph.next_slots[slot.name]),)) for slot in slots]
    inputs = [p for p in program.parameters if not p.slot]
    return Program(
        (*inputs, *slots, *kept), program.hyperparameters, tuple(statements), 0.0, protected=program.protected
    )


def broken(fact: Fact, value: Value, kind: Kind) -> str:
    """The name of what a fact claims and a value does not keep, or nothing."""
    numbers = np.atleast_1d(value)
    there = numbers[~np.isnan(numbers)]
    diagonals = numbers
    if kind in (Kind.LEFT, Kind.RIGHT):
        cuts = np.split(numbers, LAYOUT.starts_by_kind[kind][1:])
        sides = LAYOUT.matrices_by_kind[kind]
        diagonals = np.concatenate([np.diag(c.reshape(s)) for c, s in zip(cuts, sides, strict=True)])
    checks = {
        "nonnegative": not fact.nonnegative or not np.signbit(there).any(),
        "diagonal": not fact.diagonal or not np.signbit(diagonals[~np.isnan(diagonals)]).any(),
        "bound": bool((np.abs(there) <= fact.bound * (1.0 + 1e-6) + 1e-30).all()),
        "finite": not fact.finite or bool(np.isfinite(numbers).all()),
        "indicator": not fact.indicator or bool(np.isin(numbers, (0.0, 1.0)).all()),
    }
    return next((name for name, holds in checks.items() if not holds), "")


def alive(program: Program) -> Program:
    """The program with an update that hangs on every value that a name ends with."""
    kinds = dict(zip([s.target for s in program.statements], infer_kinds(program), strict=True))
    statements = list(program.statements)
    for index, (name, kind) in enumerate(kinds.items()):
        op, args = ("identity", (name,)) if kind is Kind.SCALAR else ("global_sum", (name,))
        statements.append(Statement(f"part{index}", op, args))
        statements.append(Statement("whole", "add", ("whole" if index else 0.0, f"part{index}")))
    return replace(program, statements=tuple(statements), update="whole" if kinds else 0.0)


def check(program: Program, seed: int) -> int:
    """Assert every claim over four steps in both precisions; return how many facts said something."""
    graph, _ = graph_of(alive(program))
    known = facts(graph)
    if not graph.nodes:
        return 0
    whole = observed(graph)
    rng = np.random.default_rng(seed)
    fixed = {h.name: h.value for h in whole.hyperparameters}
    for numbers in (any_numbers, ordinary_numbers):
        for dtype in (np.float64, np.float32):
            step, slots = stepper(whole, LAYOUT, dtype), initial_slots(whole, LAYOUT, dtype)
            for _ in range(4):
                with np.errstate(all="ignore"):
                    values = {name: v.astype(dtype) for name, v in drawn(rng, numbers).items() if name in whole.inputs}
                    values = {name: v if RESERVED[name] is Kind.TENSOR else v[0] for name, v in values.items()}
                    _, slots = step(values | fixed | slots)
                for index, kind in enumerate(graph.kinds):
                    fault = broken(fact_of(known, index), slots[f"n{index}"], kind)
                    assert not fault, f"n{index} in {dtype.__name__}: {fault}, {known[index]}\n{whole}"
    return sum(known[index] != Fact() for index in range(len(graph.nodes)))


@settings(max_examples=100, deadline=None)
@given(rng=st.randoms(use_true_random=False), seed=st.integers(0, 2**32 - 1))
def test_facts_hold(rng: random.Random, seed: int) -> None:
    """What is claimed of a value of any op and kind is seen, with infinities, NaN and zeros of either sign."""
    check(random_program(rng, statements=20, ops=MEETING_FACTS, prose=False), seed)


def test_facts_hold_and_say_something() -> None:
    """The same over many fixed programs: hundreds of values have a fact, so the test is no empty one."""
    found = [
        check(random_program(random.Random(n), statements=30, ops=MEETING_FACTS, prose=False), n) for n in range(80)
    ]
    assert sum(found) > 500


@pytest.mark.parametrize(
    ("expression", "expected"),
    {
        "greater(g, w)": SURE,
        "is_finite(g) * less(g, w)": Fact(True, True, 1.0, True, True),
        "where(is_finite(g), g, 0)": Fact(finite=True),
        "where(is_finite(g), w, 0)": Fact(),
        "where(g, abs(w), 2)": Fact(True, True),
        "sigmoid(g)": Fact(True, True, 1.0),
        "clip_value(g, -2, 1)": Fact(bound=2.0),
        "softplus(g)": Fact(True, True),
        "floor(abs(sin(g)))": Fact(True, True, 2.0),
        "mod(g, 3)": Fact(True, True, 3.0),
        "row_mean(abs(g))": Fact(True, True),
        "tensor_max(sin(g))": Fact(bound=1.0),
        "diagonal(left_gram(g))": Fact(True, True),
        "diagonal(transpose(interp(right_gram(g), right_gram(w), 0.5)))": Fact(True, True),
        "trace(left_gram(g) * -1)": Fact(),
        "tensor_sum(left_gram(g))": Fact(),
        "matmul(abs(g), right_gram(abs(w)))": Fact(True, True),
        "clip(sin(g), 0.5)": Fact(bound=1.0),
        "g * 1e30": Fact(),
        "entry_count(g) - row_count(g)": Fact(bound=2.0**49, finite=True),
        "1e300 * 1": Fact(True, True),
    }.items(),
)
def test_what_is_known(expression: str, expected: Fact) -> None:
    """Signs, bounds, zeros and ones, and what is finite, op by op."""
    graph, _ = graph_of(parse(f"def train(w, g):\n    return {expression}\n"))
    found = fact_of(facts(graph), graph.update)
    bound = pytest.approx(expected.bound, rel=1e-4)
    assert (found.nonnegative, found.diagonal, found.finite, found.indicator) == (
        (expected.nonnegative, expected.diagonal, expected.finite, expected.indicator)
    )
    assert found.bound == bound


def test_facts_of_slots_are_inductive() -> None:
    """A slot has what every step keeps: an average of grams its diagonal, a switch its two values, a sum no bound."""
    program = parse(
        "def train(g, a: left, b, c, d):\n    a = interp(left_gram(g), a, 0.9)\n    b = max(b, greater(g, 1))\n"
        "    c = c + greater(g, 1)\n    d = interp(sin(g), d, 0.9)\n"
        "    return g * trace(a) + b * c * d, a, b, c, d\n"
    )
    graph, _ = graph_of(program)
    known = facts(graph)
    assert known["a"] == Fact(diagonal=True)
    assert known["b"] == Fact(True, True, BOUND, True, True)
    assert known["c"] == Fact(True, True)
    assert known["d"] == Fact(bound=BOUND)
