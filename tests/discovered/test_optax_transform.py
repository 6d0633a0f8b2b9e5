import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from evolion.discovered.library import known
from evolion.discovered.optax_transform import state_fields, to_optax
from evolion.primitives.jax_execution import stepper
from evolion.primitives.parser import parse
from evolion.primitives.program import Program

EVERY_KIND = parse(
    """
def train(w, g, m, r: scalar, n: leaf, lr, t, *, b1=0.9):
    m = interp(g, m, b1)
    r = r + dot(g, m)
    n = n + norm(g)
    return lr * (m / (1 + n) + w / (t + abs(r))), m, r, n
"""
)
PARAMS = {"a": jnp.arange(6.0).reshape(2, 3), "b": [jnp.float32(2.0), None, jnp.zeros((0, 4))], "c": ()}
GRADIENTS = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), PARAMS)


def program(text: str) -> Program:
    return parse(text)


def assert_same(one: Any, other: Any, rtol: float = 1e-6) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=rtol, atol=1e-7)


def test_the_state_bears_the_names_of_the_slots() -> None:
    """A user finds the momentum under the name that the program gives it, in the structure of the parameters."""
    state = to_optax(EVERY_KIND, 0.1).init(PARAMS)
    assert state._fields == ("count", "m", "r", "n") == state_fields(EVERY_KIND)
    assert jax.tree.structure(state.m) == jax.tree.structure(state.n) == jax.tree.structure(PARAMS)
    assert state.m["a"].shape == (2, 3)
    assert state.n["a"].shape == state.r.shape == state.count.shape == ()
    assert state.count.dtype == jnp.int32


MATRICES = parse(
    """
def train(g, m, r: row, c: column, L: left, R: right, lr, *, b1=0.9, steps=2):
    m = interp(g, m, b1)
    r = r + row_max(g)
    c = c + column_mean(g)
    L = L + left_gram(g)
    R = power_iteration(right_gram(m), R)
    mask = where(greater(g, 0), 1, 2)
    direction = matmul(matmul(inverse_root(L, 2), orthogonalize(m * mask, steps, 1.5, -0.5, 0)), R)
    return lr * (direction + r * c), m, r, c, L, R
"""
)
RANKS = {f"rank{len(shape)}": jnp.ones(shape) for shape in ((), (3,), (2, 3), (3, 1, 2), (2, 1, 2, 3))} | {"none": None}


def test_slots_have_the_shapes_of_their_kinds() -> None:
    """Rows and columns keep the axes of their tensor; left and right are matrices of the sides of its matrix view."""
    state = to_optax(MATRICES, 0.1).init(RANKS)
    assert [leaf.shape for leaf in jax.tree.leaves(state.r)] == [(), (1,), (2, 1), (3, 1, 1), (2, 1, 2, 1)]
    assert [leaf.shape for leaf in jax.tree.leaves(state.c)] == [(), (3,), (1, 3), (1, 1, 2), (1, 1, 1, 3)]
    assert [leaf.shape for leaf in jax.tree.leaves(state.L)] == [(side, side) for side in (1, 1, 2, 3, 4)]
    assert [leaf.shape for leaf in jax.tree.leaves(state.R)] == [(side, side) for side in (1, 3, 3, 2, 3)]
    assert {jax.tree.structure(field) for field in state[1:]} == {jax.tree.structure(RANKS)}


def test_matrices_pass_the_strict_modes_and_compile_once() -> None:
    """A program on matrices promotes nothing that it does not say, with parameters of low precision as well."""
    params = {"number": RANKS["rank0"], "half": RANKS["rank2"].astype(jnp.bfloat16), "none": None}
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        tx = to_optax(MATRICES, 0.1)
        update = jax.jit(tx.update)
        state = tx.init(params)
        for _ in range(2):
            updates, state = update(params, state, params)
    assert update._cache_size() == 1
    assert jax.tree.map(lambda leaf: leaf.dtype, updates) == jax.tree.map(lambda leaf: leaf.dtype, params)


def test_iterations_can_be_injected_and_mapped() -> None:
    """A number of Newton-Schulz steps that is traced, and a batch of trainings, change nothing else."""
    kernel = jnp.arange(6.0).reshape(1, 2, 3)
    plain = to_optax(MATRICES, 0.1)
    expected, _ = jax.jit(plain.update)(kernel[0], plain.init(kernel[0]))
    tx = optax.inject_hyperparams(lambda learning_rate, steps: to_optax(MATRICES, learning_rate, steps=steps))(0.1, 2.0)
    updates, _ = jax.jit(tx.update)(kernel[0], tx.init(kernel[0]))
    assert_same(updates, expected, rtol=1e-4)
    mapped, _ = jax.jit(jax.vmap(plain.update))(kernel, jax.vmap(plain.init)(kernel))
    assert_same(mapped[0], expected, rtol=1e-4)


def test_names_that_a_named_tuple_lacks_are_mended() -> None:
    """A slot called count, or with a leading underscore, still has a field of its own."""
    odd = program("def train(w0, g, count, _m, m):\n    m = g\n    _m = g\n    return g - w0, count, _m, m")
    assert state_fields(odd) == ("count", "count_", "m_", "m", "w0")
    tx = to_optax(odd)
    _, state = tx.update(GRADIENTS, tx.init(PARAMS), PARAMS)
    assert_same(state.m_, GRADIENTS)
    assert_same(state.w0, PARAMS)


def test_a_state_can_be_copied_and_pickled() -> None:
    """Checkpoints and worker processes carry the state; its type is made anew where it arrives."""
    state = to_optax(EVERY_KIND, 0.1).init(PARAMS)
    for copied in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):
        assert type(copied) is type(state)
        assert_same(copied, state)


def test_the_second_call_compiles_nothing() -> None:
    """The state after a step has the type of the state before it, for a transform made anew as well."""

    @jax.jit
    def update(gradients: Any, state: Any, params: Any) -> Any:
        return to_optax(EVERY_KIND, optax.linear_schedule(0.1, 0.0, 9)).update(gradients, state, params)

    state = to_optax(EVERY_KIND, 0.1).init(PARAMS)
    for _ in range(3):
        _, state = update(GRADIENTS, state, PARAMS)
    _, again = update(GRADIENTS, to_optax(EVERY_KIND, 0.1).init(PARAMS), PARAMS)
    assert update._cache_size() == 1
    assert jax.tree.map(jax.typeof, again) == jax.tree.map(jax.typeof, state)


def test_jit_changes_nothing_and_strict_modes_pass() -> None:
    """Eager and compiled steps agree; nothing is promoted that the program does not say."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        tx = to_optax(EVERY_KIND, 0.1)
        state = tx.init(PARAMS)
        assert_same(jax.jit(tx.update)(GRADIENTS, state, PARAMS), tx.update(GRADIENTS, state, PARAMS))


def test_half_precision_parameters_have_float32_slots() -> None:
    """Updates come in the dtype of each parameter; state and arithmetic do not lose bits."""
    params = {"half": jnp.ones(3, jnp.bfloat16), "full": jnp.ones(2, jnp.float32), "short": jnp.ones((), jnp.float16)}
    tx = to_optax(known()["adamw"], 1e-3)
    updates, state = tx.update(params, tx.init(params), params)
    assert jax.tree.map(lambda leaf: leaf.dtype, updates) == jax.tree.map(lambda leaf: leaf.dtype, params)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.m, state.v))} == {jnp.dtype("float32")}
    without = to_optax(known()["sgd"], 0.1)
    assert without.update(params, without.init(params))[0]["half"].dtype == jnp.bfloat16


def test_double_parameters_have_double_slots() -> None:
    """Nothing is cut to float32 where a user asked for double, even under a float32 schedule."""
    with jax.enable_x64(True):
        params = {"a": jnp.ones(3), "b": jnp.ones(2, jnp.float32)}
        tx = to_optax(known()["adam"], lambda count: jnp.float32(0.1))
        updates, state = tx.update(params, tx.init(params))
        assert updates["a"].dtype == state.m["a"].dtype == state.m["b"].dtype == jnp.float64
        assert updates["b"].dtype == jnp.float32


@pytest.mark.parametrize(
    "text",
    [
        "def train(g, lr):\n    return lr * g",
        "def train(g, lr):\n    return g * lr",
        "def train(g, *, c=0.3):\n    return c / g",
        "@protected\ndef train(g, lr):\n    return lr / g",
        "def train(g, lr):\n    return g / lr",
        "def train(g, lr):\n    return lr * lr",
        "def train(w, g):\n    return w * g",
        "def train(g):\n    return g",
        "def train(g):\n    return 0.5",
        "def train(g, m, lr):\n    m = lr * g\n    return m, m",
        "def train(g, m, lr):\n    u = lr * g\n    m = u - 1\n    return u, m",
    ],
)
def test_what_is_added_is_minus_the_update(text: str) -> None:
    """To the last bit, zeros and infinities included, however the sign is changed; slots keep theirs."""
    given, numbers = program(text), jnp.array([1.7, -0.3, 0.0, -0.0, jnp.inf, 1e-8])
    rates = {"lr": 0.1} if "lr" in given.inputs else {}
    tx = to_optax(given, *rates.values())
    updates, state = tx.update(numbers, tx.init(numbers), numbers)
    inputs = {"g": [numbers], "w": [numbers], "m": [jnp.zeros(6)], "c": 0.3} | {
        k: jnp.float32(v) for k, v in rates.items()
    }
    (expected,), slots = stepper(given)(inputs, [(6,)], jnp.float32)
    assert np.array_equal(np.asarray(updates), -np.asarray(expected), equal_nan=True)
    assert np.array_equal(np.signbit(updates), ~np.signbit(expected))
    for name, (value,) in slots.items():
        assert np.array_equal(getattr(state, name), value, equal_nan=True)


def test_a_schedule_starts_at_zero_and_t_at_one() -> None:
    """The first step sees the schedule at 0, as in optax, and t = 1."""
    tx = to_optax(program("def train(g, lr, t):\n    return lr + t"), lambda count: 0.25 * count)
    state = tx.init(PARAMS)
    for step in range(3):
        updates, state = tx.update(GRADIENTS, state)
        np.testing.assert_allclose(updates["a"], -(0.25 * step + step + 1))
    assert int(state.count) == 3


def test_gradients_that_are_none_leave_their_slots_alone() -> None:
    """A part of the network without gradient in a step is no error and gets no update."""
    tx = to_optax(known()["lion"], 0.1)
    state = tx.init(PARAMS)
    partial = {**GRADIENTS, "a": None}
    updates, after = jax.jit(tx.update)(partial, state, PARAMS)
    assert updates["a"] is None
    assert_same(after.m["a"], state.m["a"])
    assert float(after.m["b"][0]) != 0.0


def test_an_empty_tree_is_fine() -> None:
    """Masking may leave nothing to update."""
    tx = to_optax(EVERY_KIND, 0.1)
    updates, state = tx.update({"a": None, "b": {}}, tx.init({"a": None, "b": {}}), {"a": None, "b": {}})
    assert updates == {"a": None, "b": {}}
    assert int(state.count) == 1


def test_vmap_trains_many_at_once() -> None:
    """One vmapped update does what as many single ones do."""
    tx = to_optax(known()["adam"], 0.1)
    batch = jnp.arange(1.0, 7.0).reshape(3, 2)
    states = jax.vmap(tx.init)(batch)
    together, _ = jax.vmap(tx.update)(batch, states, batch)
    alone = [tx.update(row, tx.init(row), row)[0] for row in batch]
    assert_same(together, jnp.stack(alone))


def test_chain_and_masked() -> None:
    """A transform composes like any other of optax."""
    tx = optax.chain(
        optax.clip_by_global_norm(0.1),
        optax.masked(to_optax(known()["adam"], 0.1), lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)),
    )
    reference = optax.chain(
        optax.clip_by_global_norm(0.1),
        optax.masked(optax.adam(0.1), lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)),
    )
    ours, _ = tx.update(GRADIENTS, tx.init(PARAMS), PARAMS)
    theirs, _ = reference.update(GRADIENTS, reference.init(PARAMS), PARAMS)
    assert_same(ours, theirs)


def test_hyperparameters_can_be_injected() -> None:
    """optax.inject_hyperparams changes learning rate and hyperparameters between steps without a compile."""
    tx = optax.inject_hyperparams(lambda learning_rate, b1: to_optax(known()["lion"], learning_rate, b1=b1))(0.1, 0.5)
    state = tx.init(PARAMS)
    update = jax.jit(tx.update)
    first, state = update(GRADIENTS, state, PARAMS)
    state.hyperparams["learning_rate"] = jnp.float32(0.2)
    second, _ = update(GRADIENTS, state, PARAMS)
    assert_same(second, jax.tree.map(lambda leaf: 2 * leaf, first))
    assert update._cache_size() == 1


def test_map_params_finds_the_slots() -> None:
    """Tools that shard or cast what is shaped like the parameters recognise it in the state."""
    tx = to_optax(known()["adamw"], 0.1)
    state = optax.tree.map_params(tx, lambda leaf: leaf + 1.0, tx.init(PARAMS))
    assert_same(state.m, jax.tree.map(jnp.ones_like, PARAMS))
    assert int(state.count) == 0


def test_parameters_and_state_share_no_buffer() -> None:
    """A training loop may donate both."""
    tx = to_optax(program("def train(w, g, w0, m, v):\n    return w - w0, m, v"))
    update = jax.jit(lambda params, state: tx.update(params, state, params), donate_argnums=(0, 1))
    params = {"a": jnp.ones((8, 8))}
    update(params, tx.init(params))


def test_loss_and_curvature_come_as_extra_arguments() -> None:
    """A program that reads them says so when they are missing, and passes a chain by."""
    tx = to_optax(program("def train(g, loss, hess):\n    return loss * g / hess"))
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    chained = optax.chain(tx, optax.scale(2.0))
    hess = jax.tree.map(lambda leaf: 4.0 * jnp.ones_like(leaf), PARAMS)
    updates, _ = chained.update(GRADIENTS, chained.init(PARAMS), PARAMS, value=jnp.float32(3.0), hess=hess, grad=None)
    np.testing.assert_allclose(updates["a"], -0.75)
    for given, missing in (({"value": 1.0}, "hess"), ({"hess": hess}, "value")):
        with pytest.raises(ValueError, match=rf"the program needs '{missing}': call update\(.*{missing}=\.\.\.\)"):
            tx.update(GRADIENTS, tx.init(PARAMS), PARAMS, **given)


def test_horizon_and_noise() -> None:
    """The planned steps and a seed are given once; noise differs by step, tensor and seed, and repeats by seed."""
    text = "def train(g, noise, t, horizon):\n    return noise * (t / horizon)"

    def updates(seed: int, steps: int = 1) -> Any:
        tx = to_optax(program(text), horizon=10, seed=seed)
        state = tx.init(PARAMS)
        for _ in range(steps):
            out, state = tx.update(GRADIENTS, state)
        return 10.0 / steps * out["a"], out["b"][0]

    assert_same(updates(1), updates(1))
    samples = [updates(1), updates(2), updates(1, 2)]
    assert len({float(first[0, 0]) for first, _ in samples}) == 3
    assert np.std(samples[0][0]) > 0.1


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("def train(g, lr):\n    return lr * g", {}, "takes lr: give learning_rate"),
        ("def train(g, lr):\n    return lr * g", {"learning_rate": float("nan")}, "learning_rate must be finite"),
        ("def train(g):\n    return g", {"learning_rate": 0.1}, "does not take lr"),
        ("def train(g, *, b=1, c=2):\n    return b * c * g", {"d": 1.0}, "no hyperparameter 'd'; it has: b, c"),
        ("def train(g):\n    return g", {"d": 1.0}, "no hyperparameter 'd'; it has: none"),
        ("def train(g):\n    return g", {"horizon": 5}, "no hyperparameter 'horizon'; it has: none"),
        ("def train(g, *, b=1):\n    return b * g", {"seed": 5}, "no hyperparameter 'seed'; it has: b"),
        ("def train(g, *, b=1):\n    return b * g", {"b": float("nan")}, "'b' must be a finite number, got nan"),
        ("def train(g, *, b=1):\n    return b * g", {"b": "0.9"}, "'b' must be a finite number, got '0.9'"),
        ("def train(g, horizon):\n    return g / horizon", {}, "takes horizon: give horizon"),
    ],
)
def test_wrong_arguments_are_named(text: str, arguments: dict[str, Any], message: str) -> None:
    """Each mistake has one line that says what the program takes."""
    with pytest.raises(ValueError, match=message) as caught:
        to_optax(program(text), **arguments)
    assert "\n" not in str(caught.value)


def test_a_hyperparameter_may_be_called_seed() -> None:
    """Only a program with noise and without such a hyperparameter takes a seed of its own."""
    tx = to_optax(program("def train(g, noise, *, seed=1):\n    return seed * g + 0 * noise"), seed=3)
    np.testing.assert_allclose(tx.update(GRADIENTS, tx.init(PARAMS))[0]["a"], -1.5)


def test_missing_parameters_and_wrong_leaves_are_named() -> None:
    """The two mistakes of a call: no weights for a program that reads them, and leaves that are no real numbers."""
    tx = to_optax(known()["lion"], 0.1)
    with pytest.raises(ValueError, match=r"reads the weights: call update\(grads, state, params\)"):
        tx.update(GRADIENTS, tx.init(PARAMS))
    with pytest.raises(ValueError, match=r"got a leaf of int32.*optax\.masked"):
        tx.init({"a": jnp.arange(3)})
