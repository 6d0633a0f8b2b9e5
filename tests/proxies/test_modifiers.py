"""Tasks by name and modifiers: what each changes, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from own_tasks import own_task

from evolion.proxies.models.perceptron import Perceptron
from evolion.proxies.modifiers import MODIFIERS, RUNGS
from evolion.proxies.registry import SPECS, get_spec, get_task
from evolion.proxies.score import Status
from evolion.proxies.task import ModelTask
from evolion.proxies.training import train

VALUES = {
    "width": "2",
    "depth": "2",
    "batch": "2",
    "horizon": "2",
    "activation": "tanh",
    "norm": "post",
    "init": "2",
    "label-noise": "0.5",
    "delay": "3",
}


def example(key: str) -> str:
    return f"zipf-lm:{key}" + (f"={VALUES[key]}" if key in VALUES else "")


@pytest.mark.parametrize("key", [*MODIFIERS, *RUNGS])
def test_a_modified_task_is_another_task(key: str) -> None:
    """The name carries the modifier, and the recipe or the horizon differs."""
    spec, plain = get_spec(example(key)), SPECS["zipf-lm"]
    assert spec.name == example(key)
    assert (spec.recipe(), spec.steps) != (plain.recipe(), plain.steps)
    assert spec.family == plain.family


def test_modifiers_are_applied_from_left_to_right() -> None:
    """Knobs multiply, also on top of a rung."""
    rung, spec = get_spec("zipf-lm:10x"), get_spec("zipf-lm:10x,horizon=2,batch=0.5")
    assert spec.steps == 2 * rung.steps
    assert spec.batch_size == rung.batch_size // 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zipf-lm:", "has no modifier ''"),
        ("zipf-lm:wide=2", "has no modifier 'wide=2'"),
        ("zipf-lm:width", "has no modifier 'width'"),
        ("zipf-lm:width=two", "width is 'two', not a number"),
        ("zipf-lm:width=0", "width is '0', not a number from"),
        ("zipf-lm:delay=1.5", "not a whole number of steps"),
        ("zipf-lm:batch=big", "batch is 'big', not a number"),
        ("zipf-lm:horizon=0", "horizon is '0', not a number from"),
        ("zipf-lm:reparameterized=no", "has no modifier 'reparameterized=no'"),
        ("zipf-lm:bfloat16-gradients=", "has no modifier 'bfloat16-gradients='"),
        ("zipf-lm:activation=step", "choose one of relu"),
        ("digits-mlp:norm=post", "has no norm to change"),
        ("noisy-quadratic:depth=2", "has no depth to scale"),
        ("zipf-ml:10x", "did you mean 'zipf-lm'"),
    ],
)
def test_what_cannot_be_is_refused(name: str, message: str) -> None:
    """One line says which task, which modifier, and what would be right."""
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        get_spec(name)


def tiny(**more: object) -> ModelTask:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(64, 3)).astype(np.float32)
    batch = {"inputs": inputs, "targets": (inputs.sum(axis=1) > 0).astype(np.int32)}
    splits = {split: {k: v.copy() for k, v in batch.items()} for split in ("train", "validation", "test")}
    return own_task(Perceptron(4, 1, 2), splits, steps=20, batch_size=8, **more)


def test_other_units_leave_the_function_and_change_the_path() -> None:
    """Reparameterized weights give the loss of the plain ones at the start, and another path of Adam."""
    plain, other = tiny(), tiny(reparameterized=True)
    batch = plain.data("train")
    assert float(plain.loss(plain.init(1), batch)) == pytest.approx(float(other.loss(other.init(1), batch)), rel=1e-5)
    assert not np.allclose(jax.tree.leaves(plain.init(1))[1], jax.tree.leaves(other.init(1))[1])
    assert train(plain, optax.adam(0.1)) != train(other, optax.adam(0.1))


def test_gradients_are_rounded_and_the_loss_is_not() -> None:
    """A bfloat16 gradient is the gradient to eight bits; the loss itself stays as it was."""
    plain, rounded = tiny(), tiny(gradient_dtype="bfloat16")
    params, batch = plain.init(0), plain.data("train")
    (value, exact), (same, coarse) = (jax.value_and_grad(task.loss)(params, batch) for task in (plain, rounded))
    assert float(value) == float(same)
    for fine, leaf in zip(jax.tree.leaves(exact), jax.tree.leaves(coarse), strict=True):
        assert np.array_equal(leaf, leaf.astype(jnp.bfloat16).astype(jnp.float32))
        assert np.allclose(fine, leaf, rtol=0.01, atol=1e-6)


def test_a_delayed_gradient_is_that_of_older_weights() -> None:
    """With a delay of one, gradient descent is w[t+1] = w[t] - rate * grad(w[t-1])."""
    task, rate = tiny(gradient_delay=1), 0.3
    assert task.gradient_delay == 1
    order, data = task.order(0, task.steps), task.data("train")
    old = weights = task.init(0)
    gradient = jax.jit(jax.grad(task.loss))
    for rows in order:
        batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], dict(data))
        moved = jax.tree.map(lambda w, g: w - rate * g, weights, gradient(old, batch))
        old, weights = weights, moved
    score = train(task, optax.sgd(rate))
    assert score.status is Status.OK
    assert score.loss == pytest.approx(float(task.loss(weights, task.data("validation"))), rel=1e-4)


def test_label_noise_reaches_training_alone() -> None:
    """A share of the training targets is another example's; inputs and the other splits stay."""
    plain, noisy = tiny(), tiny(label_noise=0.5)
    assert np.array_equal(plain.data("train")["inputs"], noisy.data("train")["inputs"])
    assert np.array_equal(plain.data("test")["targets"], noisy.data("test")["targets"])
    differ = float(np.mean(plain.data("train")["targets"] != noisy.data("train")["targets"]))
    assert 0.1 < differ < 0.45


def test_a_larger_start_is_a_factor_of_every_kernel() -> None:
    """`init=2` doubles kernels and leaves biases and scales."""
    one, two = jax.tree.leaves(get_task("digits-mlp").init(0)), jax.tree.leaves(get_task("digits-mlp:init=2").init(0))
    assert all(np.allclose(2 * a, b) for a, b in zip(one, two, strict=True))


def test_initial_scales_multiply() -> None:
    """A variant starts twice as large as its task does, whatever that is."""
    assert get_spec("linear-attention").init_scale != 1.0
    assert get_spec("linear-attention:init=2").init_scale == 2 * get_spec("linear-attention").init_scale
