import random
from pathlib import Path

import numpy as np
import pytest
from exactness import any_numbers, bits, drawn, updates
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import disguised, programs, random_program

from evolion.discovered.library import known, load
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.keys import behavioural_key
from evolion.primitives.numpy_interpreter import trajectory
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.primitives.simplify import simplified, simplify
from evolion.search.mutation import MutationConfig, mutate

RAW = load(str(Path(__file__).resolve().parents[2] / "benchmarks" / "lion_raw.txt"))
ALGEBRA = (
    *("negative", "abs", "square", "sqrt", "multiply", "multiply", "divide", "add", "add", "subtract", "sign"),
    *("interp", "max", "tanh", "reciprocal", "cube", "power", "norm", "clip", "dot", "identity"),
)


def text(body: str, signature: str = "w, g, m, v, lr", slots: str = "m, v", protected: bool = False) -> Program:
    """A program from its lines, which end with `u`."""
    lines = "".join(f"    {line.strip()}\n" for line in body.split(";"))
    returned = ", ".join(["u", *slots.split(", ")] if slots else ["u"])
    return parse(f"{'@protected' if protected else ''}\ndef train({signature}):\n{lines}    return {returned}\n")


def assert_same_bits(program: Program, shorter: Program, seed: int) -> None:
    """Four steps give the same updates, of ordinary and of special numbers."""
    rng = np.random.default_rng(seed)
    for numbers in (any_numbers, lambda rng, count: rng.normal(size=count)):
        steps = [drawn(rng, numbers) for _ in range(4)]
        before, after = updates(program, steps), updates(shorter, steps)
        assert bits(before) == bits(after), f"\n{program}\n{shorter}\n{simplified(program).fired}"


def paths(*programs: Program, steps: int = 500) -> list[np.ndarray]:
    """The weights of 60 parameters over random gradients with a drift, learning rate 1."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(10, 5)), rng.normal(size=10)]
    drift = [rng.normal(size=w.shape) for w in weights]
    gradients = [[rng.normal(size=d.shape) + d for d in drift] for _ in range(steps)]
    found = [trajectory(program, weights, gradients, learning_rate=1.0) for program in programs]
    return [np.array([np.concatenate([np.ravel(leaf) for leaf in point]) for point in path]) for path in found]


def test_exact_rules_take_the_raw_program_to_eleven_statements() -> None:
    """The Lion paper's raw program: 21 statements and two slots become 11 and one, and no weight of 500 steps moves."""
    shorter = simplify(RAW)
    assert (len(RAW.statements), len(RAW.slots)) == (21, 2)
    assert len(shorter.statements) <= 11
    assert [slot.name for slot in shorter.slots] == ["v"]
    before, after = paths(RAW, shorter)
    np.testing.assert_array_equal(after, before)
    assert np.isfinite(before).all()


def test_approximate_rules_take_the_raw_program_to_nine_statements() -> None:
    """One sign of one average, the decay and the rate: 9 statements, and 500 steps within 2e-6 of the raw ones."""
    shorter = simplify(RAW, exact=False)
    assert len(shorter.statements) <= 9
    assert [statement.op for statement in shorter.statements].count("sign") == 1
    before, after = paths(RAW, shorter)
    moved = np.abs(before[-1] - before[0]).max()
    assert np.abs(after - before).max() < 2e-6 < 1e-4 * moved


@settings(max_examples=150, deadline=None)
@given(program=programs(statements=20), seed=st.integers(0, 2**32 - 1))
def test_exact_simplification_keeps_every_bit(program: Program, seed: int) -> None:
    """Whatever the program and its inputs: the same updates, the same key, no longer text, which reads back."""
    shorter = simplify(program)
    assert_same_bits(program, shorter, seed)
    assert behavioural_key(shorter) == behavioural_key(program)
    assert len(shorter.statements) <= len(remove_dead_code(program).statements)
    assert parse(str(shorter)) == shorter


@pytest.mark.parametrize("exact", [True, False])
def test_many_programs_are_simplified_once_and_for_all(exact: bool) -> None:
    """Simplifying twice changes nothing more; exact rules keep the bits of programs full of what rules are about."""
    for number in range(2000):
        rng = random.Random(number)
        program = random_program(rng, statements=16, ops=ALGEBRA, prose=False)
        program = disguised(program, rng, swap=False) if number % 4 == 0 else program
        shorter = simplify(program, exact=exact)
        assert simplify(shorter, exact=exact) is shorter, f"\n{program}\n{shorter}"
        if exact and number % 2 == 0:
            assert_same_bits(program, shorter, number)


def test_children_keep_their_behaviour() -> None:
    """What the search makes of AdamW, generations deep, keeps its key and every bit under the exact rules."""
    seed = known()["adamw_seed"]
    config = MutationConfig().for_seed(seed)
    program = seed
    for number in range(1000):
        program, _ = mutate(seed if number % 40 == 0 else program, np.random.default_rng([3, number]), config)
        shorter = simplify(program)
        assert behavioural_key(shorter) == behavioural_key(program), f"\n{program}\n{shorter}"
        if number % 4 == 0:
            assert_same_bits(program, shorter, number)


@pytest.mark.parametrize("name", ["adam", "adamw", "adamw_seed", "lion", "momentum", "rmsprop", "sgd", "signsgd"])
def test_known_programs_have_nothing_to_lose(name: str) -> None:
    """The best-known programs are as short as they can be said; comments and documentation stay."""
    assert simplify(known()[name]) is known()[name]


def test_known_programs_stay_what_they_are() -> None:
    """Every reference program does bit for bit what it did, whatever of its text can be shorter."""
    for name, program in known().items():
        assert_same_bits(program, simplify(program), len(name))


GUARDED = {
    "sum": ("c = where(g, n, n); u = global_sum(c); u = u * g", "c = n * 1; u = global_sum(c); u = u * g"),
    "both sums": (
        "c = where(g, n, n); a = global_sum(n); u = global_sum(c); u = u * g; u = u * a",
        "c = where(g, n, n); a = global_sum(c); u = global_sum(n); u = u * g; u = u * a",
    ),
    "norm": ("c = where(g, r, r); u = norm(c); u = u * g", "c = where(g, r, r); u = row_sum(c); u = u * g"),
}


@pytest.mark.parametrize("bodies", GUARDED.values(), ids=GUARDED)
@pytest.mark.parametrize("exact", [True, False])
def test_no_rewrite_narrows_what_is_summed(bodies: tuple[str, str], exact: bool) -> None:
    """The sum over a tensor of equal entries is not the sum over one number for each parameter tensor."""
    for body in bodies:
        program = text(f"n = n + norm(g); r = r + row_norm(g); {body}", "w, g, n: leaf, r: row", "n, r")
        shorter = simplify(program, exact=exact)
        assert ("where" in str(shorter)) is ("where" in body)
        assert_same_bits(program, shorter, 0)


def test_no_rewrite_narrows_what_is_summed_in_long_programs() -> None:
    """Nor where many rewrites happen at once."""
    chain = ";".join(f"c = abs(c); g{i} = sin(g); g{i} = negative(g{i}); u = u + g{i}" for i in range(36))
    program = text(
        f"u = g; n = n + norm(g); c = where(g, n, n); {chain}; c = global_norm(c); u = u * c", "g, n: leaf", "n"
    )
    assert_same_bits(program, simplify(program), 0)


SHORTER = {
    "constant": (text("a = get_pi(); a = a * 2; u = g * a", "g", ""), "    u = g * 6.283185307179586\n"),
    "copies": (text("a = g; b = a; u = b * lr", "g, lr", ""), "    u = g * lr\n"),
    "repeated values": (text("a = g * lr; b = lr * g; u = a + b; u = sin(u)", "g, lr", ""), "    a = g * lr\n"),
    "zero slot": (text("m = m * 0.5; u = g - m", "g, m", "m"), "def train(g):\n    return g\n"),
    "equal slots": (text("m = interp(g, m, 0.9); v = interp(g, v, 0.9); u = max(m, v)", "g, m, v"), "return m, m\n"),
    "dead slot": (text("m = m + g; u = g", "g, m", "m"), "def train(g):\n"),
    "sign of a slot": (text("v = interp(abs(g), v, 0.9); u = abs(v)", "g, v", "v"), "    return v, v\n"),
    "old value": (text("u = m * 1; m = g", "g, m", "m"), "    x1 = m\n    m = g\n    return x1, m\n"),
}


@pytest.mark.parametrize(("program", "expected"), SHORTER.values(), ids=SHORTER)
def test_what_can_go_goes(program: Program, expected: str) -> None:
    """Constants, copies, repeated values and slots without a use, each in the text that is left."""
    shorter = simplify(program)
    assert expected in str(shorter)
    assert_same_bits(program, shorter, 0)


def test_a_zero_slot_stays_where_a_tensor_is_needed() -> None:
    """The norm of a slot that is always zero has no constant that it could be taken of."""
    program = text("u = norm(m); u = u + g", "g, m", "m")
    assert simplify(program) is program


def test_slots_that_change_places_do() -> None:
    """Two slots that read each other's old value keep doing so, whatever goes around them."""
    program = text("a = m * 1; m = v + g; m = m / 1; v = a; u = m * v")
    shorter = simplify(program)
    assert len(shorter.statements) < len(program.statements)
    assert_same_bits(program, shorter, 1)


def test_a_square_is_undone_exactly_where_it_cannot_overflow() -> None:
    """Protected division by sqrt(m * m) is division by |m| where m is bounded; elsewhere that is approximate."""
    bounded = text("m = interp(sin(g), m, 0.9); a = m * m; a = sqrt(a); u = g / a", "g, m", "m", protected=True)
    growing = text("m = interp(sin(g), m, 1.5); a = m * m; a = sqrt(a); u = g / a", "g, m", "m", protected=True)
    assert "abs" in str(simplify(bounded))
    assert "abs" not in str(simplify(growing))
    assert "abs" in str(simplify(growing, exact=False))


def test_hyperparameters_keep_their_names() -> None:
    """A constant that tuning may change is never folded, and leaves with its last reader."""
    program = text(
        "a = 1 - b1; a = a * g; b = b1 * m; m = a + b; u = m * spare; u = m", "g, m, *, b1=0.9, spare=2", "m"
    )
    shorter = simplify(program)
    assert [h.name for h in shorter.hyperparameters] == ["b1"]
    assert "    m = interp(g, m, b1)\n" in str(shorter)


def test_comments_stay_with_their_statements() -> None:
    """The docstring and the comments of what stays are kept, the others go."""
    program = parse(
        '# top\ndef train(g, lr):\n    """Doc."""\n    # dead\n    a = g + 1\n    # kept\n    u = lr * g\n'
        "    u = u * 1\n    # end\n    return u\n"
    )
    kept = '# top\ndef train(g, lr):\n    """Doc."""\n    # kept\n    u = lr * g\n    # end\n    return u\n'
    assert str(simplify(program)) == kept


@pytest.mark.parametrize(("operation", "left"), [("negative(u)", 0), ("u * 1.01", 1), ("u + g", 2000)])
def test_long_programs_are_simplified_at_once(operation: str, left: int) -> None:
    """Two thousand statements that all go, or none, take about a second: not one walk for each rewrite."""
    program = text("u = g;" + f"u = {operation};" * 1999 + f"u = {operation}", "g", "")
    assert len(simplify(program, exact=False).statements) == left


def test_what_fired_is_counted() -> None:
    """A report names every rule that was used, and nothing where nothing was."""
    fired = dict(simplified(RAW).fired)
    assert fired["x * x = square(x)"] == 1
    assert fired["dead slot"] == 1
    assert simplified(known()["lion"]).fired == ()
