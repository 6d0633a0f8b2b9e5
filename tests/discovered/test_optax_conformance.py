"""Every property of an Optax citizen, for programs of every class."""

import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
import pytest
from optax_subjects import (
    FEW,
    RATE,
    STEPS,
    SUBJECTS,
    assert_close,
    gradients,
    only,
    plain,
    start,
    trajectory,
    tree,
)

from evolion.discovered.optax_transform import state_fields
from evolion.primitives.kinds import Kind

NAMES = [pytest.param(name, marks=[] if name in FEW else [pytest.mark.slow]) for name in SUBJECTS]
every_subject = pytest.mark.parametrize("name", NAMES)


def jitted(tx: Any) -> Callable[..., Any]:
    return jax.jit(lambda grads, state, params, extra: tx.update(grads, state, params, **extra))


def both(first: Any, second: Any) -> Any:
    """A tree of the leaves of two trees, each of which is None where the other is not."""
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None)


def like(params: Any) -> Any:
    """Shapes and dtypes."""
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), params)


@every_subject
def test_a_schedule_is_exact_at_each_step(name: str) -> None:
    """Step k has the rate that the schedule gives for k, as if that number had been given."""
    rates = [0.1, 0.02, 0.3]
    tx = SUBJECTS[name].make(lambda count: jnp.asarray(rates)[count], SUBJECTS[name].values[0])
    update, params, state = jitted(tx), tree(0), tx.init(tree(0))
    for step, rate in enumerate(rates):
        extra = SUBJECTS[name].extra(step)
        expected = plain(name, gradients(step), state, params, step, rate=rate)
        updates, state = update(gradients(step), state, params, extra)
        assert_close((updates, state), expected, SUBJECTS[name].tolerance)
        params = optax.apply_updates(params, updates)


@every_subject
def test_chains(name: str) -> None:
    """What stands before it in a chain changes its gradient, what stands behind its update."""
    clip, decay = optax.clip_by_global_norm(0.5), optax.add_decayed_weights(0.1)
    tx = optax.chain(clip, start(name), decay, optax.scale(0.5))
    params, extra = tree(0), SUBJECTS[name].extra(0)
    updates, state = jitted(tx)(gradients(0), tx.init(params), params, extra)
    clipped, _ = clip.update(gradients(0), clip.init(params))
    expected, expected_state = plain(name, clipped, start(name).init(params), params)
    expected = jax.tree.map(lambda u, w: 0.5 * (u + 0.1 * w), expected, params)
    assert_close((updates, state[1]), (expected, expected_state), SUBJECTS[name].tolerance)


@every_subject
def test_groups_and_masks(name: str) -> None:
    """Under multi_transform and masked it sees its own leaves alone; the others are as if they were not there."""
    params, grads, extra = tree(0), gradients(0), SUBJECTS[name].extra(0)
    labels = {"matrix": "first", "rest": [None, "second", ()], "none": {}}
    groups = optax.partition({"first": start(name), "second": optax.sgd(0.5)}, labels, mask_compatible_extra_args=True)
    masked = optax.masked(
        start(name), jax.tree.map(lambda label: label == "first", labels), mask_compatible_extra_args=True
    )
    extra_alone = extra | ({"hess": only("matrix", extra["hess"])} if "hess" in extra else {})
    alone, _ = plain(
        name,
        only("matrix", grads),
        start(name).init(only("matrix", params)),
        only("matrix", params),
        extra=extra_alone,
    )
    together = optax.chain(
        masked, optax.masked(optax.scale(-0.5), jax.tree.map(lambda label: label == "second", labels))
    )
    expected = both(alone, only("rest", jax.tree.map(lambda g: -0.5 * g, grads)))
    for tx in (groups, together):
        updates, _ = jitted(tx)(grads, tx.init(params), params, extra)
        assert_close(updates, expected, SUBJECTS[name].tolerance)


@every_subject
def test_injected_hyperparameters_change_between_steps(name: str) -> None:
    """A rate or a hyperparameter set in the state holds from the next step, without another compilation."""
    subject = SUBJECTS[name]
    named = {"learning_rate": RATE} | ({"value": subject.values[0]} if subject.hyperparameter else {})
    make = (
        (lambda learning_rate, value: subject.make(learning_rate, value))
        if subject.hyperparameter
        else (lambda learning_rate: subject.make(learning_rate))
    )
    tx = optax.inject_hyperparams(make)(**named)
    update, params, state = jitted(tx), tree(0), tx.init(tree(0))
    for step, (rate, value) in enumerate([(RATE, subject.values[0]), (0.03, subject.values[1])]):
        new = {key: jnp.float32(number) for key, number in zip(named, (rate, value), strict=False)}
        state = state._replace(hyperparams={**state.hyperparams, **new})
        expected = plain(name, gradients(step), state.inner_state, params, step, rate=rate, value=value)
        updates, state = update(gradients(step), state, params, subject.extra(step))
        assert_close((updates, state.inner_state), expected, subject.tolerance)
    assert update._cache_size() == 1


@every_subject
def test_a_gradient_that_is_not_finite_is_skipped(name: str) -> None:
    """Under apply_if_finite such a step updates nothing, the state included; the next one is as if it had not been."""
    tx = optax.apply_if_finite(start(name), 3)
    update, params, extra = jitted(tx), tree(0), SUBJECTS[name].extra(0)
    before = tx.init(params)
    broken = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), gradients(0))
    updates, skipped = update(broken, before, params, extra)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(updates))
    assert_close(skipped.inner_state, before.inner_state, 0.0)
    updates, after = update(gradients(0), skipped, params, extra)
    first, _, states = trajectory(name)
    assert_close((updates, after.inner_state), (first[0], states[1]), SUBJECTS[name].tolerance)


@every_subject
def test_accumulated_gradients_are_averaged(name: str) -> None:
    """Under MultiSteps every second call is a step on the average of two gradients."""
    tx = optax.MultiSteps(start(name), 2)
    update, params, extra = jitted(tx), tree(0), SUBJECTS[name].extra(0)
    nothing, state = update(gradients(0), tx.init(params), params, extra)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(nothing))
    updates, state = update(gradients(1), state, params, extra)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, gradients(0), gradients(1))
    expected = plain(name, mean, start(name).init(params), params)
    assert_close((updates, state.inner_opt_state), expected, SUBJECTS[name].tolerance)


@every_subject
def test_parameters_and_state_may_be_donated(name: str) -> None:
    """A training loop that gives both away gets the same numbers, and no warning, as every buffer finds a use."""
    tx = start(name)

    def step(params: Any, state: Any, grads: Any, extra: Any) -> Any:
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    run = jax.jit(step, donate_argnums=(0, 1))
    params, state = tree(0), tx.init(tree(0))
    given = jax.tree.leaves((params, state))
    for number in range(STEPS):
        params, state = run(params, state, gradients(number), SUBJECTS[name].extra(number))
    _, expected, states = trajectory(name)
    assert_close((params, state), (expected[-1], states[-1]), SUBJECTS[name].tolerance)
    assert all(leaf.is_deleted() for leaf in given)
    assert run._cache_size() == 1


@every_subject
def test_it_runs_without_compilation(name: str) -> None:
    """An eager step gives what a compiled one does."""
    updates, _, states = trajectory(name)
    found = start(name).update(gradients(0), states[0], tree(0), **SUBJECTS[name].extra(0))
    assert_close(found, (updates[0], states[1]), SUBJECTS[name].tolerance)


@every_subject
def test_an_ensemble_is_trained_by_vmap(name: str) -> None:
    """Members of an ensemble are updated as each would be alone."""
    tx, members = start(name), [0, 1]
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731
    params, grads = stack([tree(i) for i in members]), stack([gradients(i) for i in members])
    extra = stack([SUBJECTS[name].extra(i) for i in members])
    states = jax.vmap(tx.init)(params)
    together = jax.jit(jax.vmap(lambda g, s, p, e: tx.update(g, s, p, **e)))(grads, states, params, extra)
    alone = [plain(name, gradients(i), tx.init(tree(i)), tree(i), i) for i in members]
    assert_close(together, stack(alone), SUBJECTS[name].tolerance)


@every_subject
def test_a_loop_may_be_a_scan(name: str) -> None:
    """The state has the same structure, shapes and dtypes after a step as before it."""
    tx = start(name)
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731
    inputs = stack([(gradients(step), SUBJECTS[name].extra(step)) for step in range(STEPS)])

    def step(carry: Any, given: Any) -> Any:
        params, state = carry
        updates, state = tx.update(given[0], state, params, **given[1])
        return (optax.apply_updates(params, updates), state), None

    ended, _ = jax.jit(lambda: jax.lax.scan(step, (tree(0), tx.init(tree(0))), inputs))()
    _, params, states = trajectory(name)
    assert_close(ended, (params[-1], states[-1]), SUBJECTS[name].tolerance)


@every_subject
def test_parameters_of_low_precision_have_a_float32_state(name: str) -> None:
    """The step is that of the same numbers in float32, rounded once; the state keeps its dtypes."""
    params, grads = tree(0, dtype=jnp.bfloat16), gradients(0, dtype=jnp.bfloat16)
    state = start(name).init(params)
    updates, after = plain(name, grads, state, params)
    assert like(after) == like(state) == like(start(name).init(tree(0)))
    assert like(updates) == like(params)
    wide = lambda values: jax.tree.map(lambda leaf: leaf.astype(jnp.float32), values)  # noqa: E731
    expected, _ = plain(name, wide(grads), start(name).init(wide(params)), wide(params))
    assert_close(wide(updates), expected, 2**-7)


@flax.struct.dataclass
class Block:
    kernel: Any
    bias: Any
    unused: Any = None


@every_subject
def test_any_container_holds_parameters(name: str) -> None:
    """Structs, frozen dictionaries, lists, None and empty containers come back as they were."""
    wrap = lambda values: flax.core.freeze(  # noqa: E731
        {"block": Block(values["matrix"], [values["rest"][1], ()]), "none": None, "empty": {}}
    )
    tx, params = start(name), wrap(tree(0))
    extra = {key: wrap(value) if key == "hess" else value for key, value in SUBJECTS[name].extra(0).items()}
    updates, state = jax.eval_shape(lambda: tx.update(wrap(gradients(0)), tx.init(params), params, **extra))
    expected, expected_state = jax.eval_shape(lambda: plain(name, gradients(0), tx.init(tree(0)), tree(0)))
    assert like(updates) == like(wrap(expected))
    tensors = [slot.kind is not Kind.SCALAR for slot in SUBJECTS[name].program.slots]
    for wide, one, other in zip(tensors, state[1:], expected_state[1:], strict=False):
        assert like(one) == like(wrap(other) if wide else other)


@every_subject
def test_the_state_is_a_named_tuple_of_the_slots(name: str) -> None:
    """A user finds each slot by its name, also with optax.tree.get, and the number of steps as count."""
    program = SUBJECTS[name].program
    state = trajectory(name)[2][-1]
    assert state._fields == state_fields(program)
    assert {slot.name for slot in program.slots} <= set(state._fields)
    for field in state._fields:
        assert optax.tree.get(state, field) is getattr(state, field)
    assert int(state.count) == STEPS
    assert state.count.dtype == jnp.int32


@every_subject
def test_map_params_maps_what_is_kept_per_parameter(name: str) -> None:
    """All slots but scalars are trees like the parameters; numbers of the whole tree and the count are none."""
    tx, state = start(name), trajectory(name)[2][-1]
    mapped = optax.tree.map_params(
        tx, lambda leaf, params: jnp.full_like(leaf, params.size), state, tree(0), transform_non_params=lambda _: None
    )
    for slot, before, after in zip(SUBJECTS[name].program.slots, state[1:], mapped[1:], strict=False):
        if slot.kind is Kind.SCALAR:
            assert after is None
        else:
            sizes = jax.tree.map(lambda leaf, params: jnp.full_like(leaf, params.size), before, tree(0))
            assert_close(after, sizes, 0.0)
    assert mapped.count is None


@every_subject
def test_a_state_is_restored_from_a_checkpoint(name: str, tmp_path: Path) -> None:
    """Training goes on from what orbax wrote as if it had not stopped."""
    updates, params, states = trajectory(name)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", states[1])
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(start(name).init, params[1]))
    assert type(restored) is type(states[1])
    assert_close(restored, states[1], 0.0)
    again, _ = plain(name, gradients(1), restored, params[1], 1)
    assert_close(again, updates[1], 0.0)


@every_subject
def test_a_state_is_copied_and_pickled(name: str) -> None:
    """Copies made by Python's own means are states of the same type."""
    state = trajectory(name)[2][-1]
    for made in (copy.copy(state), copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        assert type(made) is type(state)
        assert_close(made, state, 0.0)


@every_subject
def test_abstract_evaluation_tells_shapes(name: str) -> None:
    """Without any array, init and update give the shapes and dtypes that they have, and optax.tree takes them."""
    subject, tx = SUBJECTS[name], start(name)
    updates, _, states = trajectory(name)
    abstract = jax.eval_shape(tx.init, tree(0))
    assert abstract == jax.eval_shape(lambda: states[0])
    extra = jax.eval_shape(lambda: subject.extra(0))
    shapes = jax.eval_shape(lambda g, s, p, e: tx.update(g, s, p, **e), gradients(0), abstract, tree(0), extra)
    assert shapes == jax.eval_shape(lambda: (updates[0], states[1]))
    assert jax.tree.structure(optax.tree.map_params(tx, lambda leaf: leaf, abstract)) == jax.tree.structure(abstract)


@every_subject
def test_the_second_step_compiles_nothing(name: str) -> None:
    """The first state and every later one have one type."""
    tx = start(name)
    update = jitted(tx)
    state = tx.init(tree(0))
    for step in range(2):
        _, state = update(gradients(step), state, tree(0), SUBJECTS[name].extra(step))
    assert update._cache_size() == 1


def _on_several_devices(names: Iterable[str]) -> None:
    script = Path(__file__).parents[1] / "sharded_updates.py"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), *names],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout) == dict.fromkeys(names, "same")


def test_a_few_are_sharded_over_devices() -> None:
    """On a mesh of four devices the numbers are those of one, and slots lie as their parameters do."""
    _on_several_devices(FEW)


@pytest.mark.slow
def test_all_are_sharded_over_devices() -> None:
    """The same for every class of program."""
    _on_several_devices([name for name in SUBJECTS if name not in FEW])
