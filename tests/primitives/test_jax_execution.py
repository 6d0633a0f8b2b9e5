import math
import random
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategies import arguments_of, program_of, random_program

from evolion.primitives import jax_execution, numpy_interpreter
from evolion.primitives.kinds import Kind
from evolion.primitives.layout import Layout, matrix_sides
from evolion.primitives.op import Elementwise, Op
from evolion.primitives.ops import OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import Hyperparameter, Parameter, Program, Statement

LAYOUT = Layout(((1, 2, 1, 3), ()))
MIXED = Layout(((2, 3), (4,), (2, 1, 2)))
UNOPTIMIZED = {"xla_backend_optimization_level": 0}


@pytest.fixture
def strict() -> Iterator[None]:
    """float64 throughout, and no promotion that a program's author did not write."""
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        stack.enter_context(jax.numpy_dtype_promotion("strict"))
        stack.enter_context(jax.numpy_rank_promotion("raise"))
        yield


def values_for(program: Program, layout: Layout, rng: np.random.Generator) -> dict[str, Any]:
    """Values of all parameters as the NumPy interpreter takes them."""
    values = {p.name: rng.normal(size=layout.shape(p.kind)) for p in program.parameters}
    return values | {h.name: h.value for h in program.hyperparameters}


def split(value: Any, kind: Kind, layout: Layout) -> Any:
    """A value as the tree executor takes it: one array for each tensor, cut from a flat vector."""
    if kind is Kind.SCALAR:
        return jnp.asarray(value)
    parts = np.split(value, layout.starts_by_kind[kind][1:])
    shapes = [jax_execution.shape_of(kind, shape) for shape in layout.shapes]
    return [jnp.asarray(part).reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def both(program: Program, values: dict[str, Any], layout: Layout) -> tuple[list[Any], list[Any]]:
    """Update and slots of one step by NumPy and by JAX, as flat arrays of their kinds."""
    kinds = [Kind.TENSOR, *(slot.kind for slot in program.slots)]
    with np.errstate(all="ignore"):
        update, slots = numpy_interpreter.stepper(program, layout)(values)
    reference = [update, *slots.values()]
    numbers = {h.name: h.value for h in program.hyperparameters}
    step = jax_execution.stepper(program)
    # Compiled in one piece and without optimization, as compilation is what these tests take their time for.
    run = jax.jit(lambda leaves: step(leaves | numbers, layout.shapes, jnp.float64), compiler_options=UNOPTIMIZED)
    update, slots = run({p.name: split(values[p.name], p.kind, layout) for p in program.parameters})
    found = [update, *(slots[slot.name] for slot in program.slots)]  # JAX sorts names
    for kind, value in zip(kinds, found, strict=True):
        shapes = [jax_execution.shape_of(kind, shape) for shape in layout.shapes]
        assert kind is Kind.SCALAR or [part.shape for part in value] == shapes
    computed = [
        np.asarray(value) if kind is Kind.SCALAR else np.concatenate([np.ravel(part) for part in value])
        for value, kind in zip(found, kinds, strict=True)
    ]
    return reference, computed


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
@pytest.mark.usefixtures("strict")
def test_every_op_takes_every_mixture_of_kinds(op: Op) -> None:
    """No signature asks JAX for a promotion of types or ranks, and the result has the shape of its kind."""
    for kinds, result in op.signatures.items():
        step = jax_execution.stepper(program_of(op, kinds))
        leaves: dict[str, Any] = {"out": []}
        for index, kind in enumerate(kinds):
            shapes = [jax_execution.shape_of(kind, shape) for shape in LAYOUT.shapes]
            arrays = [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in shapes]
            leaves[f"s{index}"] = arrays[-1] if kind is Kind.SCALAR else arrays
        _, slots = jax.eval_shape(lambda leaves, step=step: step(leaves, LAYOUT.shapes, jnp.float64), leaves)
        expected = [jax_execution.shape_of(result, shape) for shape in LAYOUT.shapes]
        assert [leaf.shape for leaf in jax.tree.leaves(slots["out"])] == expected[: 1 if result is Kind.SCALAR else 2]


def compared(op: Op) -> list[tuple[Kind, ...]]:
    """Kinds of arguments on which an op is run: all, but for elementwise ops other than `add` one mixture.

    How kinds are broadcast does not hang on the op, and each mixture costs a compilation.
    """
    found = sorted(op.signatures)
    if not isinstance(op.meaning, Elementwise) or op.name == "add":
        return found
    return [max(found, key=lambda kinds: (op.signatures[kinds] is Kind.TENSOR, len(set(kinds)), kinds))]


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
@pytest.mark.usefixtures("strict")
def test_every_op_follows_numpy(op: Op) -> None:
    """Broadcasting, reductions of each scope and matrices mean in JAX what they mean in NumPy."""
    rng = np.random.default_rng(0)
    for kinds in compared(op):
        for protected in (False, True)[: 1 + (op.protected is not None)]:
            program = program_of(op, kinds, protected=protected)
            reference, computed = both(program, arguments_of(op, kinds, LAYOUT, rng), LAYOUT)
            rtol = 1e-12 if isinstance(op.meaning, Elementwise) else 1e-9
            np.testing.assert_allclose(computed[-1], reference[-1], rtol=rtol, atol=rtol / 10)


@pytest.mark.usefixtures("strict")
def test_random_programs_follow_numpy() -> None:
    """Whole programs agree: rebound names, constants, folded scalars, slots of each kind, dead code."""
    rng, compared = random.Random(1), 0
    for number in range(25):
        program = random_program(rng, prose=False)
        values = values_for(program, MIXED, np.random.default_rng(number))
        reference, computed = both(program, values, MIXED)
        stable = [np.full(np.shape(value), True) for value in reference]
        for factor in (1 + 1e-13, 1 - 3e-13):
            shifted = {name: value * factor for name, value in values.items()}
            with np.errstate(all="ignore"):
                update, slots = numpy_interpreter.stepper(program, MIXED)(shifted)
            for kept, near, theirs in zip(stable, [update, *slots.values()], reference, strict=True):
                # Some programs magnify rounding without bound (the sine of 1e15); there is nothing to compare there.
                kept &= np.isclose(theirs, near, rtol=1e-9, atol=0.0, equal_nan=True)
        for ours, theirs, kept in zip(computed, reference, stable, strict=True):
            np.testing.assert_allclose(ours[kept], theirs[kept], rtol=1e-8, atol=1e-290)
            compared += int(np.sum(kept & np.isfinite(theirs)))
    assert compared > 500


@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 3)], ids=str)
@pytest.mark.usefixtures("strict")
def test_a_tensor_is_its_matrix_view(shape: tuple[int, ...]) -> None:
    """Values of each kind have the entries of those for the tensor as a matrix, whatever its rank."""
    program = parse(
        "def train(w, g, a: row, b: column, c: left, d: right):\n"
        "    a = row_sum(w) + row_norm(g)\n"
        "    b = column_max(w)\n"
        "    c = matmul_transposed(w, g) + diagonal_matrix(a)\n"
        "    d = transposed_matmul(w, g) * 2\n"
        "    u = matmul(matmul(c, g), d) + a * b\n"
        "    return u, a, b, c, d\n"
    )
    rng = np.random.default_rng(3)
    tensors = {name: rng.normal(size=shape) for name in ("w", "g")}
    found = []
    for view in (shape, matrix_sides(shape)):
        layout = Layout((view,))
        inputs = {name: [jnp.asarray(tensor).reshape(view)] for name, tensor in tensors.items()}
        inputs |= jax_execution.initial_slots(program, [view], jnp.float64)
        update, slots = jax_execution.stepper(program)(inputs, [view], jnp.float64)
        flat = {name: np.ravel(tensor) for name, tensor in tensors.items()}
        flat |= numpy_interpreter.initial_slots(program, layout)
        reference, _ = numpy_interpreter.stepper(program, layout)(flat)
        np.testing.assert_allclose(np.ravel(update[0]), reference, rtol=1e-12)
        found.append([np.ravel(value[0]) for value in (update, *slots.values())])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
@pytest.mark.usefixtures("strict")
def test_every_op_takes_a_tree_without_leaves(op: Op) -> None:
    """Where nothing is trained there are no numbers of any kind but scalars, and those are sums over nothing."""
    kinds = max(op.signatures, key=lambda kinds: kinds.count(Kind.TENSOR))
    program = program_of(op, kinds)
    values = {f"s{i}": jnp.asarray(0.5) if kind is Kind.SCALAR else [] for i, kind in enumerate(kinds)}
    update, slots = jax_execution.stepper(program)(values | {"out": []}, [], jnp.float64)
    assert update == []
    assert op.signatures[kinds] is Kind.SCALAR or slots["out"] == []
    if op.name in ("global_sum", "global_max", "global_mean", "global_norm", "dot"):
        nothing = {"global_max": -math.inf, "global_mean": math.nan}.get(op.name, 0.0)
        np.testing.assert_equal(float(slots["out"]), nothing)


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
