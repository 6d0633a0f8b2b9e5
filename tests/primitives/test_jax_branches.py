import random
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from branching_programs import LAYOUT, blocks, drawn, numbers
from jax.extend.core import jaxprs_in_params
from jax.sharding import AxisType, PartitionSpec

from evolion.primitives import jax_execution, numpy_interpreter
from evolion.primitives.jax_execution import initial_slots, shape_of, stepper
from evolion.primitives.kinds import Kind
from evolion.primitives.parser import parse
from evolion.primitives.program import Program

PERIODIC = parse("""\
def train(g, l: left, r: right, pl: left, pr: right, t, lr):
    l = l + left_gram(g)
    r = r + right_gram(g)
    due = equal(mod(t, 3), 1)
    pl = where(due, inverse_root(l + 0.1 * eye(l), 4), pl)
    pr = where(due, inverse_root(r + 0.1 * eye(r), 4), pr)
    return lr * matmul(matmul(pl, g), pr), l, r, pl, pr
""")
SHAPES = [(4, 3), (2, 3), (5,)]
STEPS = 8
UNOPTIMIZED = {"xla_backend_optimization_level": 0}


@pytest.fixture
def strict() -> Iterator[None]:
    """float64 throughout, and no promotion that a program's author did not write."""
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        stack.enter_context(jax.numpy_dtype_promotion("strict"))
        stack.enter_context(jax.numpy_rank_promotion("raise"))
        yield


def split(value: Any, kind: Kind) -> Any:
    """A value of the NumPy interpreter as one array for each tensor."""
    if kind is Kind.SCALAR:
        return jnp.asarray(value)
    parts = np.split(value, LAYOUT.starts_by_kind[kind][1:])
    return [jnp.asarray(part).reshape(shape_of(kind, s)) for part, s in zip(parts, LAYOUT.shapes, strict=True)]


def eager(program: Program, monkeypatch: pytest.MonkeyPatch, **options: bool) -> jax_execution.Stepper:
    """A step that runs every statement."""
    with monkeypatch.context() as patch:
        patch.setattr(jax_execution, "schedule", lambda program: tuple(range(len(program.statements))))
        return stepper(program, **options)


def primitives(jaxpr: Any, *, inside: bool) -> set[str]:
    """The names of the operations inside or outside of the branches of a traced function, calls looked into."""
    found: set[str] = set()
    for equation in jaxpr.eqns:
        found |= set() if inside else {equation.primitive.name}
        for inner in jaxprs_in_params(equation.params):
            if equation.primitive.name != "cond":
                found |= primitives(inner, inside=inside)
            elif inside:
                found |= primitives(inner, inside=False) | primitives(inner, inside=True)
    return found


def gradients(dtype: Any) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(STEPS, *shape)), dtype) for shape in SHAPES]


def trained(step: jax_execution.Stepper, start: Any, dtype: Any) -> Any:
    """The updates of all steps in one scan."""

    def one(slots: Any, given: Any) -> Any:
        t, g = given
        update, slots = step({"g": g, "t": t, "lr": 0.5} | slots, SHAPES, dtype)
        return slots, update

    return jax.lax.scan(one, start, (jnp.arange(1, STEPS + 1).astype(dtype), gradients(dtype)))


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
    ("dtype", "negated"), [(jnp.float32, False), (jnp.float64, True)], ids=["float32", "float64 negated"]
)
def test_branches_change_no_bit_of_a_trajectory(dtype: Any, negated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates and slots of a scan are those of a step that runs every statement; under vmap as well."""
    steps = [stepper(PERIODIC, negated=negated), eager(PERIODIC, monkeypatch, negated=negated)]
    start = initial_slots(PERIODIC, SHAPES, dtype)
    ours, theirs = jax.jit(lambda: [trained(step, start, dtype) for step in steps], compiler_options=UNOPTIMIZED)()
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    several = jax.tree.map(lambda slot: jnp.stack([slot, slot]), start)
    run = jax.jit(jax.vmap(lambda start: trained(steps[0], start, dtype)), compiler_options=UNOPTIMIZED)
    tolerance = 1e-4 if dtype is jnp.float32 else 1e-10
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1], y, rtol=tolerance, atol=tolerance), run(several), ours)


def test_steps_that_do_not_need_a_decomposition_do_not_run_it() -> None:
    """The decompositions of a periodic preconditioner are inside of one branch of the compiled step, nowhere else."""
    start = initial_slots(PERIODIC, SHAPES, jnp.float32)
    traced = jax.make_jaxpr(lambda: trained(stepper(PERIODIC), start, jnp.float32))()
    assert "eigh" in primitives(traced.jaxpr, inside=True)
    assert "eigh" not in primitives(traced.jaxpr, inside=False)
    assert str(traced).count(" cond[") == 1


@pytest.mark.parametrize(("t", "due"), [(1.0, True), (2.0, False)])
def test_a_known_condition_is_decided_while_tracing(t: float, due: bool) -> None:
    """A condition of Python floats, or of an eager step, takes its branch at once and compiles no other."""
    start = initial_slots(PERIODIC, SHAPES, jnp.float32)
    inputs = {"g": [g[0] for g in gradients(jnp.float32)], "t": t, "lr": 0.5}
    run = jax.make_jaxpr(lambda slots: stepper(PERIODIC)(inputs | slots, SHAPES, jnp.float32))
    traced = run(start).jaxpr
    assert "cond" not in primitives(traced, inside=False)
    assert ("eigh" in primitives(traced, inside=False)) is due
    eager_step = stepper(PERIODIC)(inputs | start, SHAPES, jnp.float32)
    compiled = jax.jit(lambda t: stepper(PERIODIC)(inputs | start | {"t": t}, SHAPES, jnp.float32))(jnp.float32(t))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), eager_step, compiled)


@pytest.mark.usefixtures("strict")
def test_random_programs_keep_every_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks by tensor and by one number, under several guards, give what a selection gives, NaN and all."""
    rng, cases = random.Random(4), []
    for seed in range(20):
        program = drawn(rng)
        if blocks(program):
            cases.append((program, numbers(program, seed)))
    cases = cases[:5]
    assert len(cases) == 5
    given = [{p.name: split(v[p.name], p.kind) for p in program.parameters} for program, v in cases]
    fixed = [{h.name: h.value for h in program.hyperparameters} for program, _ in cases]
    steps = [(stepper(program), eager(program, monkeypatch)) for program, _ in cases]

    def run(given: Any, which: int) -> Any:
        return [s[which](g | f, LAYOUT.shapes, jnp.float64) for s, g, f in zip(steps, given, fixed, strict=True)]

    ours, theirs = jax.jit(lambda given: (run(given, 0), run(given, 1)), compiler_options=UNOPTIMIZED)(given)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    for (program, values), (update, _) in zip(cases, ours, strict=True):
        with np.errstate(all="ignore"):
            expected, _ = numpy_interpreter.stepper(program, LAYOUT)(values)
        found = np.concatenate([np.ravel(part) for part in update])
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-6, atol=1e-9)


def test_branches_run_on_every_device_of_a_mesh() -> None:
    """What is left out has the type of what is computed, inside of shard_map too."""
    mesh = jax.make_mesh((1,), ("devices",), axis_types=(AxisType.Auto,))
    start = initial_slots(PERIODIC, SHAPES, jnp.float32)

    def one(g: Any, t: Any) -> Any:
        return stepper(PERIODIC)({"g": g, "t": t, "lr": 0.5} | start, SHAPES, jnp.float32)[0]

    sharded = jax.shard_map(
        one, mesh=mesh, in_specs=(PartitionSpec("devices"), PartitionSpec()), out_specs=PartitionSpec("devices")
    )
    traced = jax.make_jaxpr(sharded)([g[0] for g in gradients(jnp.float32)], jnp.float32(1.0))
    assert "eigh" in primitives(traced.jaxpr, inside=True)
