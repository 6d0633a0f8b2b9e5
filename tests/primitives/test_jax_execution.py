import itertools
import math
import random
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategies import random_program

from evolion.primitives import jax_execution, numpy_interpreter
from evolion.primitives.kinds import Kind
from evolion.primitives.layout import Layout
from evolion.primitives.ops import OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import Hyperparameter, Parameter, Program, Statement

LAYOUT = Layout(((2, 3), (), (4,)))
SLOT_NAMES = "ijk"


@pytest.fixture
def strict() -> Iterator[None]:
    """float64 throughout, and no promotion that a program's author did not write."""
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        stack.enter_context(jax.numpy_dtype_promotion("strict"))
        stack.enter_context(jax.numpy_rank_promotion("raise"))
        yield


def values_for(program: Program, rng: np.random.Generator) -> dict[str, Any]:
    """Values of all parameters as the NumPy interpreter takes them."""
    shapes = {Kind.SCALAR: (), Kind.LEAF: (len(LAYOUT.shapes),), Kind.TENSOR: (LAYOUT.entries,)}
    values = {p.name: rng.normal(size=shapes[p.kind]) for p in program.parameters}
    return values | {h.name: h.value for h in program.hyperparameters}


def to_lists(program: Program, values: dict[str, Any]) -> dict[str, Any]:
    """The same values as leaves."""
    kinds = {p.name: p.kind for p in program.parameters}
    return {name: split(value, kinds.get(name)) for name, value in values.items()}


def split(value: Any, kind: Kind | None) -> Any:
    if kind is None:
        return value
    if kind is Kind.SCALAR:
        return jnp.asarray(value)
    parts = list(value) if kind is Kind.LEAF else LAYOUT.unflatten(value)
    return [jnp.asarray(part) for part in parts]


def both(program: Program, values: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Update and slots of one step by NumPy and by JAX, as flat arrays of their kinds."""
    kinds = [Kind.TENSOR, *(slot.kind for slot in program.slots)]
    with np.errstate(all="ignore"):
        update, slots = numpy_interpreter.stepper(program, LAYOUT)(values)
        reference = [
            numpy_interpreter.widen(value, kind, LAYOUT)
            for value, kind in zip([update, *slots.values()], kinds, strict=True)
        ]
    update, slots = jax_execution.stepper(program)(to_lists(program, values), LAYOUT.shapes, jnp.float64)
    computed = [
        np.asarray(value) if kind is Kind.SCALAR else np.concatenate([np.ravel(part) for part in value])
        for value, kind in zip([update, *slots.values()], kinds, strict=True)
    ]
    return reference, computed


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("protected", [False, True], ids=["plain", "protected"])
@pytest.mark.usefixtures("strict")
def test_every_op_on_every_mixture_of_kinds(name: str, protected: bool) -> None:
    """Broadcasting, sums over leaves and sums over the tree mean in JAX what they mean in NumPy."""
    rng = np.random.default_rng(0)
    for kinds in itertools.product(*OPS[name].accepts):
        slots = tuple(Parameter(f"s{i}", kind, slot=True) for i, kind in enumerate(kinds))
        statement = Statement("y", name, tuple(slot.name for slot in slots))
        program = Program(slots, (), (statement,), "y", protected)
        reference, computed = both(program, values_for(program, rng))
        np.testing.assert_allclose(computed[0], reference[0], rtol=1e-12, atol=1e-300)


@pytest.mark.usefixtures("strict")
def test_random_programs_follow_numpy() -> None:
    """Whole programs agree: rebound names, constants, folded scalars, slots of each kind, dead code."""
    rng, compared = random.Random(1), 0
    for number in range(60):
        program = random_program(rng, prose=False)
        values = values_for(program, np.random.default_rng(number))
        reference, computed = both(program, values)
        shifted = {name: value * (1 + 1e-13) for name, value in values.items()}
        with np.errstate(all="ignore"):
            nearby, _ = both(program, shifted)
            for ours, theirs, near in zip(computed, reference, nearby, strict=True):
                # Some programs magnify rounding without bound (the sine of 1e15); there is nothing to compare there.
                stable = np.isclose(theirs, near, rtol=1e-9, atol=0.0, equal_nan=True)
                np.testing.assert_allclose(ours[stable], theirs[stable], rtol=1e-8, atol=1e-290)
                compared += int(np.sum(stable & np.isfinite(theirs)))
    assert compared > 200


def test_scalars_are_computed_once() -> None:
    """The cost of scalar arithmetic does not grow with the number of parameter tensors."""
    program = parse("def train(g, t):\n    return exp(tanh(t)) * g")
    shapes = [(2,)] * 20

    def run(g: list[jax.Array], t: jax.Array) -> Any:
        return jax_execution.stepper(program)({"g": g, "t": t}, shapes, jnp.float32)

    text = str(jax.make_jaxpr(run)([jnp.ones(2)] * 20, jnp.float32(1.0)))
    assert text.count("= exp") == text.count("= tanh") == 1
    assert text.count("= mul") == 20


def test_a_tree_without_leaves_has_sums() -> None:
    """Nothing to train is no error: the sums over no tensors are zero."""
    program = parse("def train(g, r: scalar):\n    r = dot(g, g) + 2\n    return clip(g, r), r")
    update, slots = jax_execution.stepper(program)({"g": [], "r": jnp.float32(0.0)}, [], jnp.float32)
    assert update == []
    assert float(slots["r"]) == 2.0


def test_slots_keep_their_type() -> None:
    """A slot that becomes a bare constant is as strongly typed as the zeros that it started from."""
    program = parse("def train(g, r: scalar, n: leaf, m):\n    r = 1\n    n = 2\n    m = 0.5\n    return g, r, n, m")
    shapes = [(2, 3), ()]
    start = jax_execution.initial_slots(program, shapes, jnp.float32)
    inputs = {"g": [jnp.ones(shape) for shape in shapes], **start}
    _, after = jax_execution.stepper(program)(inputs, shapes, jnp.float32)
    assert jax.tree.map(jax.typeof, start) == jax.tree.map(jax.typeof, after)


def test_constants_beyond_the_dtype_are_infinite() -> None:
    """A constant that float32 cannot hold is an infinity, as in hardware, and no warning or error."""
    program = parse("def train(g, *, big=1e300):\n    return max(g, -1e300) * big")
    inputs = {"g": [jnp.asarray([1.0, -1.0])], "big": program.hyperparameters[0].value}
    update, _ = jax_execution.stepper(program)(inputs, [(2,)], jnp.float32)
    np.testing.assert_array_equal(update[0], [math.inf, -math.inf])


def test_hyperparameters_may_be_traced() -> None:
    """One compiled step serves all values of the hyperparameters."""
    program = Program(
        (Parameter("g", Kind.TENSOR, slot=False),),
        (Hyperparameter("b", 2.0),),
        (Statement("c", "exp", ("b",)), Statement("u", "multiply", ("c", "g"))),
        "u",
    )

    @jax.jit
    def run(b: jax.Array) -> Any:
        return jax_execution.stepper(program)({"g": [jnp.ones(2)], "b": b}, [(2,)], jnp.float32)[0][0]

    for value in (0.5, 2.0):
        np.testing.assert_allclose(run(jnp.float32(value)), np.exp([value, value]), rtol=1e-6)
    assert run._cache_size() == 1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_few_bits_are_computed_in_float32(dtype: Any) -> None:
    """Half precision is a storage format: no step is computed in it."""
    assert jax_execution.compute_dtype([jnp.ones(2, dtype), np.ones(2, np.float32)]) is jnp.float32


def test_other_numbers_are_refused() -> None:
    """Integers and complex numbers are no parameters of a program, and the error says what to do."""
    for leaf in (jnp.ones(2, jnp.int32), jnp.ones(2, jnp.complex64)):
        with pytest.raises(ValueError, match=r"floating-point parameters, got a leaf of .*optax\.masked"):
            jax_execution.compute_dtype([leaf])


@pytest.mark.usefixtures("strict")
def test_float64_stays_float64() -> None:
    """Where parameters are double, so is the arithmetic."""
    assert jax_execution.compute_dtype([jnp.ones(2), jnp.ones(2, jnp.float32)]) is jnp.float64
