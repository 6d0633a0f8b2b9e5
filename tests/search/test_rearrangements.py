"""What the mutations make that rearrange one program or cross two."""

from collections.abc import Iterator

import numpy as np
import pytest

from evolion.primitives.keys import behavioural_key, structural_key
from evolion.primitives.ops import OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.search.mutation import MUTATIONS, MutationConfig, mutate

ADAM = parse("""
def train(g, m, v, lr, *, b1=0.9, b2=0.999):
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    return lr * m / sqrt(v), m, v
""")
SIGN = parse("def train(w, g, lr, *, b1=0.5, c=0.1):\n    u = sign(g)\n    return lr * u + c * b1 * w\n")


def children(name: str, parent: Program, count: int = 200, mate: Program | None = None) -> Iterator[Program]:
    config = MutationConfig(weights=((name, 1.0),))
    for number in range(count):
        yield mutate(parent, np.random.default_rng([3, number]), config, mate)[0]


def texts(name: str, body: str) -> set[str]:
    parent = parse(f"def train(w, g, m, lr):\n    {body}\n")
    return {str(child) for child in children(name, parent)}


def same(first: str, second: str) -> bool:
    return structural_key(parse(first)) == structural_key(parse(second))


def test_a_swap_changes_what_is_read() -> None:
    """Two statements change places and names keep their meaning by position; nothing else is possible here."""
    found = texts("swap", "m = g + m\n    update = m * lr\n    return update, m")
    assert found == {"def train(g, m, lr):\n    update = m * lr\n    m = g + m\n    return update, m\n"}


def test_a_swap_that_changes_nothing_is_not_drawn() -> None:
    """Where every order that binds all names means the same, the mutation does not apply."""
    for body in ("return sqrt(g) + square(w)", "a = sqrt(g)\n    return square(a)", "return g"):
        assert not MUTATIONS["swap"].applies(parse(f"def train(w, g):\n    {body}\n"), MutationConfig())


def test_a_swap_keeps_the_statements() -> None:
    """The operations of the child are those of the parent, less what nothing reads any more."""
    for child in children("swap", ADAM):
        left = [(s.target, s.op, s.args) for s in ADAM.statements]
        for statement in child.statements:
            left.remove((statement.target, statement.op, statement.args))


def test_a_replaced_op_keeps_arguments_and_kinds() -> None:
    """One op differs, and nothing else."""
    for child in children("replace_op", ADAM):
        pairs = [(a, b) for a, b in zip(ADAM.statements, child.statements, strict=True) if a != b]
        assert len(pairs) == 1
        before, after = pairs[0]
        assert (before.target, before.args) == (after.target, after.args)
        assert OPS[before.op].arity == OPS[after.op].arity


def test_a_twin_slot_has_its_own_update_with_another_constant() -> None:
    """The copy of a slot differs by one constant, and both it and the old update are in use."""
    parent = parse("def train(g, m, lr):\n    m = interp(g, m, 0.9)\n    return lr * m + square(m), m\n")
    pairs = set()
    for child in children("duplicate_slot", parent):
        averages = [statement for statement in child.statements if statement.op == "interp"]
        assert len(averages) == 2
        constants = {statement.args[2] for statement in averages}
        assert len(constants) == 2
        assert 0.9 in constants
        pairs.add(tuple(slot.name for slot in child.slots))
    assert pairs == {("m", "m2"), ("m2",)}


def test_a_twin_slot_makes_lions_pair_of_averages() -> None:
    """From momentum with one use comes the form of Lion: an update with one decay rate, a slot with another."""
    parent = parse("def train(g, m, lr):\n    m = interp(g, m, 0.9)\n    return lr * m, m\n")
    for child in children("duplicate_slot", parent, 20):
        (constant,) = (s.args[2] for s in child.statements if s.op == "interp" and s.args[2] != 0.9)
        wanted = (
            f"def train(g, m, lr):\n    u = interp(g, m, 0.9)\n    m = interp(g, m, {constant})\n    return lr * u, m"
        )
        assert same(str(child), wanted)


@pytest.mark.parametrize(
    "text",
    [
        "def train(g, lr):\n    return lr * g * 2\n",
        "def train(g, m, lr):\n    m = g + m\n    return lr * m, m\n",
        "def train(g, m, lr):\n    u = g + m\n    m = g\n    return lr * u * 3, m\n",
    ],
)
def test_a_slot_without_a_constant_is_not_duplicated(text: str) -> None:
    """Without a slot, or a constant to tell the twin from it, the mutation is not drawn."""
    assert not MUTATIONS["duplicate_slot"].applies(parse(text), MutationConfig())


def test_crossover_takes_a_value_with_all_it_is_made_from() -> None:
    """Slots come with their updates, constants with their values; names that are taken get others."""
    found = [str(child) for child in children("crossover", SIGN, 400, ADAM)]
    average_for_sign = "def train(w, g, m, lr):\n    m = interp(g, m, 0.9)\n    return lr * m + 0.1 * 0.5 * w, m\n"
    assert any(same(text, average_for_sign) for text in found)


def test_crossover_can_give_the_value_alone() -> None:
    """A value in the place of the update computes what it did in the mate, whatever the other program binds."""
    parent = parse("def train(g, lr):\n    g = square(g)\n    lr = lr * 3\n    return g * lr\n")
    mate = parse("def train(g, m, lr):\n    m = interp(g, m, 0.9)\n    return lr * m, m\n")
    keys = {behavioural_key(child) for child in children("crossover", parent, 200, mate)}
    assert behavioural_key(mate) in keys


def test_crossover_of_relatives_shares_their_slots() -> None:
    """A slot that both parents have with the same update does not come twice."""
    mate = parse(str(ADAM).replace("update = lr * m", "update = lr * sign(m)").replace("sqrt(v)", "cbrt(v)"))
    shared = 0
    for child in children("crossover", ADAM, 200, mate):
        shared += len(child.slots) <= 2
        assert len(child.slots) <= 4
    assert shared > 100


def test_crossover_needs_another_program_with_the_same_arithmetic() -> None:
    """Without a mate, with itself, or across protected and plain arithmetic, crossover is not drawn."""
    protected = parse(f"@protected\n{SIGN}")
    applies = MUTATIONS["crossover"].applies
    config = MutationConfig()
    assert applies(ADAM, config, SIGN)
    assert not applies(ADAM, config)
    assert not applies(ADAM, config, parse(str(ADAM)))
    assert not applies(ADAM, config, protected)
    assert not applies(ADAM, config, parse("def train(g):\n    return g\n"))
