import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from strategies import disguised, programs, random_program, trees

from evolion.primitives.dataflow import data_flow, live_statements, remove_dead_code
from evolion.primitives.keys import probe, structural_key
from evolion.primitives.numpy_interpreter import trajectory
from evolion.primitives.parser import parse
from evolion.primitives.program import Comment, Program, infer_kinds

TEXT = """\
def train(w, g, m, v, n: leaf, lr, t, *, b=0.9, c=0.5):
    # kept
    m = interp(g, m, b)
    # dropped
    v = interp(g, v, c)
    lr = lr * 2
    n = norm(v)
    a = sign(m)
    # last
    return a * lr, m, v, n
"""


def path(program: Program, tree: list[np.ndarray]) -> list[list[np.ndarray]]:
    steps = 4
    gradients = [[np.sin(step + tensor) for tensor in tree] for step in range(steps)]
    inputs = {
        "loss": [1.0 / (step + 1) for step in range(steps)],
        "horizon": [4.0] * steps,
        "hess": [[np.abs(tensor) for tensor in gradient] for gradient in gradients],
        "noise": [[np.cos(tensor) for tensor in gradient] for gradient in gradients],
    }
    return trajectory(program, tree, gradients, learning_rate=[0.1, 0.2, 0.3, 0.1], inputs=inputs)


def test_names_refer_to_their_last_binding() -> None:
    """A rebound input or slot means its new value in later statements, and its entry value before."""
    flow = data_flow(parse("def train(g, m):\n    g = g * m\n    m = m + g\n    g = m / 2\n    return g, m\n"))
    assert flow.arguments == (("g", "m"), ("m", 0), (1, 2.0))
    assert (flow.update, flow.next_slots) == (2, {"m": 1})


def test_what_is_live() -> None:
    """Only what an update can depend on, now or later, is live; a slot that feeds itself alone is not."""
    statements, parameters = live_statements(parse(TEXT))
    assert statements == {0, 2, 4, 5}
    assert parameters == {"g", "m", "lr", "b"}


def test_what_is_removed() -> None:
    """Dead statements, slots, inputs, hyperparameters and their comments go; the rest stays in order."""
    expected = """\
def train(g, m, lr, *, b=0.9):
    # kept
    m = interp(g, m, b)
    lr = lr * 2
    a = sign(m)
    # last
    update = a * lr
    return update, m
"""
    assert str(remove_dead_code(parse(TEXT))) == expected


def test_slots_that_feed_each_other_are_live_together() -> None:
    """Liveness passes through the state of later steps."""
    text = "def train(g, a, b, c):\n    g = a * g\n    a = b + 0\n    b = c + 0\n    c = g + 0\n    return g, a, b, c\n"
    program = parse(text)
    assert remove_dead_code(program) == program
    program = parse("def train(g, a, b):\n    a = b + 0\n    b = a + g\n    return g, a, b\n")
    assert str(remove_dead_code(program)) == "def train(g):\n    return g\n"


def test_an_update_that_is_a_number() -> None:
    """Nothing is left of a program whose update depends on nothing."""
    program = parse("@protected\ndef train(w, m, *, b=1):\n    m = w * b\n    return 0.5, m\n")
    assert str(remove_dead_code(program)) == "@protected\ndef train():\n    return 0.5\n"


@given(programs(), trees())
def test_updates_stay_bit_equal(program: Program, tree: list[np.ndarray]) -> None:
    """Removing dead code changes no bit of any weight at any step."""
    for one, other in zip(path(program, tree), path(remove_dead_code(program), tree), strict=True):
        for ours, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@given(programs())
def test_removing_twice_removes_nothing_more(program: Program) -> None:
    """The result is a fixed point without dead code, and has the keys of what it came from."""
    lean = remove_dead_code(program)
    assert remove_dead_code(lean) == lean
    assert len(live_statements(lean)[0]) == len(lean.statements)
    assert structural_key(lean) == structural_key(program)
    assert probe(lean) == probe(program)
    assert (lean.protected, lean.docstring) == (program.protected, program.docstring)


@given(programs())
def test_a_program_without_dead_code_is_given_back(program: Program) -> None:
    """No copy is made where nothing changes: the common case of a search costs nothing."""
    lean = remove_dead_code(program)
    assert remove_dead_code(lean) is lean


def test_comments_follow_their_statement() -> None:
    """A comment above a kept statement stays above it, wherever that moves."""
    program = parse(TEXT)
    assert program.comments == (Comment(0, "kept"), Comment(1, "dropped"), Comment(5, "last"))
    assert remove_dead_code(program).comments == (Comment(0, "kept"), Comment(3, "last"))


@given(programs(), st.randoms(use_true_random=False))
def test_added_dead_code_is_found(program: Program, rng: random.Random) -> None:
    """Statements, a slot and a number that nothing reads are removed again."""
    lean = remove_dead_code(disguised(program, rng))
    assert not {p.name for p in lean.parameters} & {"unused"}
    assert not {h.name for h in lean.hyperparameters} & {"spare"}
    assert not {s.target for s in lean.statements} & {"dead"}


def test_kinds_survive() -> None:
    """The live statements keep their kinds: nothing is widened or narrowed by what was removed."""
    rng = random.Random(3)
    for _ in range(500):
        program = random_program(rng)
        kinds, kept = infer_kinds(program), sorted(live_statements(program)[0])
        assert infer_kinds(remove_dead_code(program)) == tuple(kinds[index] for index in kept)
