"""Estimates of the Hessian diagonal: exact where they can be, right in expectation elsewhere."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from own_tasks import own_task

from evolion.proxies.curvature import Curvature, Estimator
from evolion.proxies.hessian import check_curvature, diagonal, gauss_newton_bartlett, hutchinson, refreshed, step_key
from evolion.proxies.models.perceptron import Perceptron
from evolion.proxies.score import Status
from evolion.proxies.task import Batch, ModelTask, Params
from evolion.proxies.training import train

KEYS = jax.vmap(lambda step: step_key(jnp.uint32(3), step))(jnp.arange(4000))


def tiny_task(width: int = 3) -> ModelTask:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(32, 2)).astype(np.float32)
    batch = {"inputs": inputs, "targets": (inputs.sum(axis=1) > 0).astype(np.int32)}
    splits: Any = {split: {k: v.copy() for k, v in batch.items()} for split in ("train", "validation", "test")}
    return own_task(Perceptron(0, 0, width), splits, steps=12, batch_size=8)


TASK = tiny_task()


def test_hutchinson_is_exact_for_a_diagonal_hessian() -> None:
    """Any one draw gives the curvatures of a separable loss, leaf by leaf."""
    curvatures = {"a": jnp.array([[1.0, -2.0], [0.0, 5.0]]), "b": jnp.float32(3.0), "none": None}

    def loss(params: Params) -> jax.Array:
        terms = jax.tree.map(lambda c, p: jnp.sum(c * p**2) / 2, curvatures, params)
        return jnp.add(*jax.tree.leaves(terms))

    params = jax.tree.map(jnp.ones_like, curvatures)
    for key in KEYS[:3]:
        found = hutchinson(loss, params, key)
        jax.tree.map(np.testing.assert_array_equal, found, curvatures)


def test_hutchinson_is_unbiased() -> None:
    """Off-diagonal entries change single draws and cancel in the mean, which has the error that theory gives it."""
    root = np.random.default_rng(1).normal(size=(5, 5)).astype(np.float32)
    matrix = root + root.T
    draws = jax.jit(jax.vmap(lambda key: hutchinson(lambda w: w @ matrix @ w / 2, jnp.ones(5), key)))(KEYS)
    np.testing.assert_allclose(draws.mean(axis=0), np.diag(matrix), atol=4 * np.abs(matrix).sum() / np.sqrt(len(KEYS)))
    variance = np.square(matrix).sum(axis=1) - np.square(np.diag(matrix))
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=0.15)


def fisher_diagonal(params: Params, batch: Batch) -> Params:
    """By summing over all classes: the mean over examples of the expected squared gradient of the log-probability."""

    def log_probabilities(params: Params) -> jax.Array:
        return jax.nn.log_softmax(TASK.logits(params, batch))

    # Of all examples and labels at once: shape (examples, labels, …) for a parameter of shape (…).
    gradients = jax.jacrev(log_probabilities)(params)
    weights = jnp.exp(log_probabilities(params)) / len(batch["inputs"])
    return jax.tree.map(lambda leaf: jnp.einsum("el,el...->...", weights, leaf**2), gradients)


def test_gauss_newton_bartlett_is_the_fisher_diagonal_in_expectation() -> None:
    """For a linear softmax model, against a sum over all labels; there the Hessian itself is the same matrix."""
    params = TASK.init(0)
    batch = {name: leaf[:6] for name, leaf in TASK.data("train").items()}
    draws = jax.jit(jax.vmap(lambda key: gauss_newton_bartlett(TASK.loss, TASK.logits, params, batch, key)))(KEYS)
    expected = jax.jit(fisher_diagonal)(params, batch)
    for found, exact in zip(jax.tree.leaves(draws), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(
            found.mean(axis=0), exact, atol=4.5 * float(found.std(axis=0).max()) / len(KEYS) ** 0.5
        )
        assert (found >= 0).all()
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    hessian = jnp.diagonal(jax.jit(jax.hessian(lambda w: TASK.loss(unravel(w), batch)))(flat))
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(expected)[0], hessian, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("estimator", Estimator)
def test_flat_and_tree_draw_the_same(estimator: Estimator) -> None:
    """The plain loop and the evaluators' flat one make the same estimates for a seed and a step."""
    params = TASK.init(0)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    curvature = Curvature(estimator)

    def both(params: Params, flat: jax.Array) -> tuple[Params, jax.Array]:
        batch = TASK.data("test")
        of_tree = diagonal(TASK, curvature, lambda tree: tree, params, batch, KEYS[0])
        return of_tree, diagonal(TASK, curvature, unravel, flat, batch, KEYS[0])

    of_tree, of_flat = jax.jit(both)(params, flat)
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(of_tree)[0], of_flat, rtol=1e-5, atol=1e-7)


def test_keys_differ_by_seed_and_step() -> None:
    """Each step of each run draws for itself, and the same again: a repeated draw would never average out."""
    keys = {str(jax.random.key_data(step_key(jnp.uint32(a), jnp.int32(b)))) for a in range(4) for b in range(4)}
    assert len(keys) == 16
    assert (step_key(jnp.uint32(7), jnp.int32(2)) == step_key(jnp.int32(7), jnp.int32(2))).all()


def test_an_estimate_is_held_between() -> None:
    """With a period of 3 there is a new one at steps 0, 3, 6 …; with 1 at each."""

    def path(period: int) -> list[int]:
        held, seen = jnp.int32(-1), []
        for step in map(jnp.int32, range(7)):
            held = refreshed(lambda step=step: step, held, step, period)
            seen.append(int(held))
        return seen

    assert path(3) == [0, 0, 0, 3, 3, 3, 6]
    assert path(1) == list(range(7))


class _Regression:
    """A task without labels, as far as the check looks at it."""

    name = "regression"


def test_bad_settings_are_named() -> None:
    """A period that is none, an estimator that there is not, or one that a task cannot give: one clear error."""
    with pytest.raises(ValueError, match="period is 0"):
        Curvature(period=0)
    with pytest.raises(ValueError, match="newton"):
        Curvature("newton")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'regression'.*hutchinson"):
        check_curvature(_Regression(), Curvature(Estimator.GAUSS_NEWTON_BARTLETT))  # type: ignore[arg-type]
    check_curvature(_Regression(), Curvature())  # type: ignore[arg-type]


def test_cost_in_gradients() -> None:
    """An estimate costs more than a gradient, and there are as many as periods begun."""
    assert Curvature().gradients(500) == 150
    assert Curvature().gradients(501) == 153
    assert Curvature(Estimator.GAUSS_NEWTON_BARTLETT, 1).gradients(3) == pytest.approx(4)


def reader(seen: list[bool], *, use: bool = True) -> optax.GradientTransformationExtraArgs:
    """Gradient descent scaled by the estimate, which notes whether it was given one."""

    def update(grads: Any, state: Any, params: Any = None, *, hess: Any = None, **_: Any) -> tuple[Any, Any]:
        seen.append(hess is not None)
        if hess is None or not use:
            return jax.tree.map(lambda g: -0.1 * g, grads), state
        return jax.tree.map(lambda g, h: -0.1 * g / (jnp.abs(h) + 0.1), grads, hess), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def test_transforms_that_read_it_are_given_it() -> None:
    """Also inside a chain; one that leaves it alone trains in a loop that makes none, to the last bit the same."""
    seen: list[bool] = []
    score = train(TASK, optax.chain(optax.clip(1.0), reader(seen)), curvature=Curvature(period=4))
    assert score.status is Status.OK
    assert seen[-1]
    idle: list[bool] = []
    assert train(TASK, reader(idle, use=False)) == train(TASK, optax.sgd(0.1))
    assert not idle[-1]


@pytest.mark.parametrize("estimator", Estimator)
def test_training_loop_makes_the_estimates_of_the_function(estimator: Estimator) -> None:
    """Steps 1, 4, 7 … estimate on their own batch and weights, for a seed of its own: as a loop in Python does."""
    curvature, seed, steps = Curvature(estimator, 3), 5, 8
    params, losses = TASK.init(seed), []
    value_and_grad = jax.jit(jax.value_and_grad(TASK.loss))
    estimate = jax.jit(lambda p, b, key: diagonal(TASK, curvature, lambda tree: tree, p, b, key))
    hess = jax.tree.map(jnp.zeros_like, params)
    for step, indices in enumerate(TASK.order(seed, steps)):
        batch = {name: leaf[indices] for name, leaf in TASK.data("train").items()}
        loss, grads = value_and_grad(params, batch)
        if step % 3 == 0:
            hess = estimate(params, batch, step_key(jnp.uint32(seed), jnp.int32(step)))
        params = jax.tree.map(lambda p, g, h: p - 0.1 * g / (jnp.abs(h) + 0.1), params, grads, hess)
        losses.append(float(loss))
    score = train(TASK, reader([]), steps=steps, seed=seed, curvature=curvature)
    assert score.curve == pytest.approx(losses, rel=1e-4)
