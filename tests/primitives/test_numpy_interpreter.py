import itertools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from strategies import programs, trees

from evolion.discovered.library import known
from evolion.primitives.kinds import Kind, widens
from evolion.primitives.layout import Layout
from evolion.primitives.numpy_interpreter import initial_slots, stepper, trajectory
from evolion.primitives.parser import parse
from evolion.primitives.program import Parameter, Program, Statement

TREE = [np.array([[1.0, -2.0], [0.5, 4.0]]), np.array(3.0), np.array([-1.0, 2.0, 2.0])]
GRADIENTS = [[np.full_like(tensor, 1.0 + step) + tensor for tensor in TREE] for step in range(3)]


def updates(body: str, parameters: str = "w, g", **options: Any) -> list[list[np.ndarray]]:
    """What is subtracted at each step."""
    path = trajectory(parse(f"def train({parameters}):\n{body}"), TREE, GRADIENTS, **options)
    steps = itertools.pairwise(path)
    return [[before - after for before, after in zip(*pair, strict=True)] for pair in steps]


def equal(ours: list[list[np.ndarray]], expected: list[list[Any]]) -> None:
    assert len(ours) == len(expected)
    for tree, other in zip(ours, expected, strict=True):
        for one, two in zip(tree, other, strict=True):
            np.testing.assert_allclose(one, np.broadcast_to(two, one.shape), rtol=1e-12, atol=1e-13)


def test_momentum_by_hand() -> None:
    """Heavy-ball momentum worked out on paper: m = 0.5 m + g, w = w - 0.1 m."""
    program = parse("def train(g, m, lr, *, b=0.5):\n    m = b * m + g\n    return lr * m, m\n")
    path = trajectory(program, [np.array([1.0])], [[np.array([2.0])], [np.array([4.0])]], learning_rate=0.1)
    np.testing.assert_allclose([float(step[0][0]) for step in path], [1.0, 1.0 - 0.2, 1.0 - 0.2 - 0.5])


def test_the_start_comes_first_and_shapes_stay() -> None:
    """A trajectory has one tree for each step and the start; scalars and matrices keep their shape."""
    path = trajectory(parse("def train(g):\n    return g\n"), TREE, GRADIENTS)
    assert len(path) == 4
    equal(path[:1], [TREE])
    assert all([tensor.shape for tensor in tree] == [tensor.shape for tensor in TREE] for tree in path)
    assert all(tensor.dtype == np.float64 for tree in path for tensor in tree)


def test_inputs_have_their_meaning() -> None:
    """The step counts from 1, the learning rate follows its schedule, w moves and w0 stays."""
    equal(updates("    return t\n", "t"), [[1.0] * 3, [2.0] * 3, [3.0] * 3])
    equal(updates("    return lr\n", "lr", learning_rate=[0.3, 0.2, 0.1]), [[0.3] * 3, [0.2] * 3, [0.1] * 3])
    equal(updates("    return lr\n", "lr", learning_rate=0.5), [[0.5] * 3] * 3)
    half = [[tensor / 2**step for tensor in TREE] for step in (1, 2, 3)]
    equal(updates("    return w / 2\n"), half)
    equal(updates("    return w0 / 2\n", "w0"), [half[0]] * 3)


def test_other_inputs_are_given() -> None:
    """Tensors come as trees, as lists or arrays; scalars as numbers; what the program does not take is left alone."""
    inputs = {"hess": [[tensor * 3 for tensor in g] for g in GRADIENTS], "loss": [1.0, 2, np.float32(3)], "noise": []}
    expected = [[tensor * 3 + s + 1 for tensor in g] for s, g in enumerate(GRADIENTS)]
    equal(updates("    return hess + loss\n", "hess, loss", inputs=inputs), expected)
    table = np.arange(6.0).reshape(2, 1, 3)
    path = trajectory(parse("def train(noise):\n    return noise\n"), [np.zeros(3)], table, inputs={"noise": table})
    np.testing.assert_array_equal(path[-1][0], -table.sum(axis=(0, 1)))


def test_missing_inputs_are_named() -> None:
    """A program is not run on inputs that nobody gave."""
    with pytest.raises(ValueError, match="the program takes hess, loss; give it in `inputs`"):
        updates("    return hess * loss\n", "hess, loss, g, w, lr, t, w0")
    with pytest.raises(ValueError, match="the program takes horizon;"):
        updates("    return horizon\n", "horizon", inputs={"loss": [1.0] * 3})


def test_norm_is_per_tensor_and_widens() -> None:
    """A leaf meets a tensor entry by entry, a scalar meets both, and a leaf is a valid update."""
    norms = [[np.linalg.norm(np.ravel(tensor)) for tensor in g] for g in GRADIENTS]
    equal(updates("    return norm(g)\n"), norms)
    pairs = [list(zip(g, row, strict=True)) for g, row in zip(GRADIENTS, norms, strict=True)]
    equal(updates("    return g / norm(g)\n"), [[t / n for t, n in pair] for pair in pairs])
    mixed = [[0.75 * n + 0.25 * t for t, n in pair] for pair in pairs]
    equal(updates("    return interp(norm(g), g, 0.25) + t * 0\n", "g, t"), mixed)


def test_reductions_over_the_tree() -> None:
    """global_norm, dot and cosine_sim see all tensors as one vector, at the step's values."""
    flat = [np.concatenate([np.ravel(tensor) for tensor in g]) for g in GRADIENTS]
    start = np.concatenate([np.ravel(tensor) for tensor in TREE])
    equal(updates("    return global_norm(g)\n"), [[np.linalg.norm(v)] * 3 for v in flat])
    equal(updates("    return dot(g, w0)\n", "g, w0"), [[v @ start] * 3 for v in flat])
    cosines = [v @ start / np.linalg.norm(v) / np.linalg.norm(start) for v in flat]
    equal(updates("    return cosine_sim(g, w0)\n", "g, w0"), [[c] * 3 for c in cosines])


@pytest.mark.parametrize("limit", [1e-3, 1.0, 9.5, 1e6])
def test_clip_is_that_of_optax(limit: float) -> None:
    """clip(x, s) is the field's clipping by global norm."""
    clip = optax.clip_by_global_norm(limit)
    expected = []
    for gradient in GRADIENTS:
        tree = [jnp.asarray(tensor, jnp.float32) for tensor in gradient]
        expected.append([np.asarray(tensor, np.float64) for tensor in clip.update(tree, clip.init(tree))[0]])
    for tree, other in zip(updates(f"    return clip(g, {limit})\n"), expected, strict=True):
        for one, two in zip(tree, other, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5)


def test_slots_of_every_kind() -> None:
    """Slots start at zero, keep their kind from step to step, and count what they are given."""
    text = "    s = s + 1\n    n = n + norm(g) * s\n    m = 2\n    return m0 + n + s, s, n, m, m0\n"
    text = text.replace("    m = 2\n", "    m0 = m\n    m = 2\n")
    norms = [[np.linalg.norm(np.ravel(tensor)) for tensor in g] for g in GRADIENTS]
    totals = np.cumsum([np.array(row) * (step + 1) for step, row in enumerate(norms)], axis=0)
    expected = [[(2 if step else 0) + totals[step][i] + step + 1 for i in range(3)] for step in range(3)]
    equal(updates(text, "g, s: scalar, n: leaf, m, m0"), expected)


def test_a_tensor_slot_left_at_a_leaf_is_widened() -> None:
    """What a slot holds in the next step has the slot's kind, so reductions may read it."""
    ours = updates("    a = norm(m)\n    m = norm(g)\n    return a, m\n", "g, m")
    sizes = [tensor.size for tensor in TREE]
    norms = [[np.linalg.norm(np.ravel(tensor)) for tensor in g] for g in GRADIENTS]
    expected = [[0.0] * 3] + [[n * math.sqrt(k) for n, k in zip(row, sizes, strict=True)] for row in norms[:2]]
    equal(ours, expected)


def test_swapped_slots() -> None:
    """Slots are assigned together: each gets what its name means at the end."""
    body = "    c = a\n    a = b\n    b = c + 1\n    return a, a, b\n"
    equal(updates(body, "a, b"), [[0.0] * 3, [1.0] * 3, [1.0] * 3])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 / 0", math.inf),
        ("-1 / 0", -math.inf),
        ("0 / 0", math.nan),
        ("reciprocal(0)", math.inf),
        ("reciprocal(-0.0)", -math.inf),
        ("1e200 * 1e200", math.inf),
        ("1.7e308 + 1.7e308", math.inf),
        ("10 ** 400", math.inf),
        ("0 ** -1", math.inf),
        ("(-2) ** 0.5", math.nan),
        ("exp10(400)", math.inf),
        ("exp2(5000)", math.inf),
        ("exp(1000)", math.inf),
        ("cosh(1e4)", math.inf),
        ("square(1e200)", math.inf),
        ("cube(-1e200)", -math.inf),
        ("log(0)", -math.inf),
        ("log(-1)", math.nan),
        ("log1p(-1)", -math.inf),
        ("sqrt(-1)", math.nan),
        ("arcsin(2)", math.nan),
        ("arctanh(1)", math.inf),
        ("interp(1e308, -1e308, 10)", -math.inf),
        ("max(0 / 0, 1)", math.nan),
        ("1e308 * 10 - 1e308 * 10", math.nan),
    ],
)
def test_constants_follow_ieee_arithmetic(expression: str, expected: float) -> None:
    """Where Python's floats would raise, a program goes on with infinity or NaN, without a warning."""
    program = parse(f"def train():\n    return {expression}\n")
    np.testing.assert_equal(trajectory(program, [np.zeros(2)], [[np.zeros(2)]])[1][0], np.full(2, 0.0 - expected))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [("1 / 0", 1e8), ("log(-2)", math.log(2)), ("sqrt(-4)", 2.0), ("log1p(-3)", math.log(2)), ("log2(0)", -math.inf)],
)
def test_protected_constants(expression: str, expected: float) -> None:
    """Protected ops apply to literals as to tensors."""
    program = parse(f"@protected\ndef train():\n    return {expression}\n")
    np.testing.assert_allclose(trajectory(program, [np.zeros(1)], [[np.zeros(1)]])[1][0], [-expected])


@given(trees())
def test_results_have_their_kind(tree: list[np.ndarray]) -> None:
    """An update is widened to a tensor, a slot to its kind; what is as wide already is left alone."""
    layout = Layout(tuple(tensor.shape for tensor in tree))
    rng = np.random.default_rng(0)
    for kind, to in itertools.product(Kind, Kind):
        if not widens(kind, to):
            continue
        slots = (Parameter("a", kind, slot=True), Parameter("b", to, slot=True))
        program = Program(slots, (), (Statement("b", "identity", ("a",)),), "a" if widens(kind, Kind.TENSOR) else 0.0)
        value = rng.normal(size=layout.shape(kind))[()]
        update, after = stepper(program, layout)({"a": value, "b": np.zeros(layout.shape(to))})
        wide = np.full(layout.shape(to), value) if kind is Kind.SCALAR else value
        np.testing.assert_array_equal(
            after["b"], wide if kind in (Kind.SCALAR, to) else value[layout.widening(kind, to)]
        )
        np.testing.assert_array_equal(after["a"], value)
        assert update.shape == (layout.entries,)


@given(programs(), trees())
def test_slots_keep_their_shape(program: Program, tree: list[np.ndarray]) -> None:
    """The state of every valid program has the shape and type of its kind after a step as before it."""
    layout = Layout(tuple(tensor.shape for tensor in tree))
    kinds = {slot.name: slot.kind for slot in program.slots}
    slots = initial_slots(program, layout)
    values: dict[str, Any] = {h.name: h.value for h in program.hyperparameters}
    vectors = {name: layout.flatten(tree) for name in ("w", "g", "w0", "hess", "noise")}
    values |= vectors | {name: np.float64(0.5) for name in ("lr", "t", "horizon", "loss")}
    with np.errstate(all="ignore"):
        update, after = stepper(program, layout)(values | slots)
    assert update.shape == (layout.entries,)
    assert list(after) == list(slots)
    for name, value in after.items():
        assert np.shape(value) == np.shape(slots[name]) == layout.shape(kinds[name])
        assert value.dtype == np.float64


def batch_of(program: Program, layout: Layout, members: int, steps: int) -> list[list[dict[str, Any]]]:
    """Inputs by step and member."""
    rng = np.random.default_rng(11)
    inputs = []
    for step in range(steps):
        row = []
        for _ in range(members):
            given: dict[str, Any] = {name: rng.standard_normal(layout.entries) for name in ("w", "g", "w0", "noise")}
            given |= {"hess": np.abs(given["w"]), "lr": np.float64(rng.random()), "loss": np.float64(rng.random())}
            given |= {"t": np.float64(step + 1), "horizon": np.float64(9)}
            row.append({name: value for name, value in given.items() if name in program.inputs})
        inputs.append(row)
    return inputs


def check_batch(program: Program) -> None:
    """Run the members of a batch one by one and together."""
    layout, members = Layout(((3, 4), (4,), (2, 1, 3))), 3
    hyperparameters = {h.name: np.float64(h.value) for h in program.hyperparameters}
    one, together = stepper(program, layout), stepper(program, layout, batched=True)
    slots = [initial_slots(program, layout) for _ in range(members)]
    batch: dict[str, Any] = {
        slot.name: np.zeros((members, *(layout.shape(slot.kind) or (1,)))) for slot in program.slots
    }
    with np.errstate(all="ignore"):
        for row in batch_of(program, layout, members, 3):
            stacked = {name: np.stack([np.atleast_1d(given[name]) for given in row]) for name in program.inputs}
            update, batch = together(hyperparameters | stacked | batch)
            for member, given in enumerate(row):
                expected, slots[member] = one(hyperparameters | given | slots[member])
                found = np.broadcast_to(update, (members, layout.entries))[member]
                np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", known())
def test_members_of_a_batch_know_nothing_of_each_other(name: str) -> None:
    """A batch gives each member what it would get alone, whatever kinds of values a program has."""
    check_batch(known()[name])


@given(programs())
def test_batches_of_any_program(program: Program) -> None:
    """The same for programs that nobody would write."""
    check_batch(program)
