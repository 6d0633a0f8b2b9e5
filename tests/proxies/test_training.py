"""The training loop, on a task small enough to compile at once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from own_tasks import own_task

from evolion.proxies.models.perceptron import Perceptron
from evolion.proxies.score import Run, Status
from evolion.proxies.task import ModelTask
from evolion.proxies.training import train


def tiny_task() -> ModelTask:
    generator = np.random.default_rng(0)

    def batch(examples: int) -> dict[str, Any]:
        inputs = generator.normal(size=(examples, 2)).astype(np.float32)
        return {"inputs": inputs, "targets": (inputs.sum(axis=1) > 0).astype(np.int32)}

    splits = {"train": batch(64), "validation": batch(32), "test": batch(32)}
    return own_task(Perceptron(4, 1, 2), splits, steps=30, batch_size=8)


TASK = tiny_task()


def last_step(size: float, horizon: int) -> optax.GradientTransformation:
    """A transform that does nothing but for one step of `size` at the end."""

    def update(grads: Any, count: Any, params: Any = None) -> tuple[Any, Any]:
        change = jnp.where(count == horizon - 1, size, 0.0)
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, change), grads), count + 1

    return optax.GradientTransformation(lambda params: jnp.int32(0), update)


def test_loop_equals_a_plain_one() -> None:
    """The compiled loop does what a loop in Python does with the same batches."""
    tx = optax.adam(0.05)
    params = TASK.init(2)
    state, losses = tx.init(params), []
    gradient, update = jax.jit(jax.value_and_grad(TASK.loss)), jax.jit(tx.update)
    for indices in TASK.order(2, 10):
        batch = jax.tree.map(lambda leaf, chosen=indices: leaf[chosen], dict(TASK.data("train")))
        loss, grads = gradient(params, batch)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(loss))
    score = train(TASK, tx, steps=10, seed=2)
    assert score.curve == pytest.approx(losses, rel=1e-4)
    assert score.train_loss == pytest.approx(losses[-1], rel=1e-4)
    assert score.loss == pytest.approx(float(TASK.loss(params, TASK.data("validation"))), rel=1e-4)
    assert score.runs == (Run(None, 2, Status.OK, score.loss, score.train_loss, 10),)
    assert score.seconds > 0


def test_default_horizon_and_test_split() -> None:
    """Without `steps` the horizon is the task's, and the split asked for is the one scored."""
    tx = optax.sgd(0.1)
    on_validation, on_test = train(TASK, tx), train(TASK, tx, split="test")
    assert on_validation.steps == TASK.steps
    assert on_validation.curve == on_test.curve
    assert on_validation.loss != on_test.loss


@pytest.mark.parametrize(
    "tx",
    [
        optax.polyak_sgd(1.0),
        optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1)),
        optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    ],
    ids=["value", "value in a wrapper", "chain", "hyperparameters in the state"],
)
def test_any_optax_transform_is_taken_as_it_is(tx: optax.GradientTransformation) -> None:
    """Extra arguments, nested states and chains need no adapter, even where promotion is strict."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        assert train(TASK, tx, steps=5).status is Status.OK


def test_line_search_may_evaluate_the_loss() -> None:
    """A transform that calls `value_fn` gets the loss of the current batch."""
    score = train(TASK, optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)), steps=20)
    assert score.loss is not None
    assert score.loss < score.curve[0]


def test_exploded_final_loss_is_divergence() -> None:
    """A run that stays finite but ends far above its start has diverged, at its full length."""
    score = train(TASK, last_step(1e4, 5), steps=5)
    assert (score.status, score.loss, score.steps) == (Status.DIVERGED, None, 5)


def test_last_update_can_diverge() -> None:
    """Parameters that turn non-finite in the very last update are noticed."""
    assert train(TASK, last_step(float("inf"), 5), steps=5).status is Status.DIVERGED


def test_divergence_stops_at_the_first_bad_loss() -> None:
    """No gradients are spent after the loss is lost: the second step sees NaN, the third never runs."""
    score = train(TASK, optax.scale(float("nan")), steps=30)
    assert (score.status, score.steps, len(score.curve)) == (Status.DIVERGED, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [({"steps": 0}, "steps is 0"), ({"seed": -1}, "seed is -1"), ({"split": "train"}, "split is 'train'")],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], complaint: str) -> None:
    """Bad input is one clear error before anything is compiled."""
    with pytest.raises(ValueError, match=complaint):
        train(TASK, optax.sgd(0.1), **arguments)


def test_unknown_parameter_name_is_refused() -> None:
    """A model with a parameter that has no initial value says which, and what names do."""
    import flax.linen as nn

    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return x @ self.param("matrix", nn.initializers.zeros_init(), (x.shape[-1], 2))

    task = ModelTask(TASK.spec, source=TASK.source, model=Odd())
    with pytest.raises(ValueError, match=r"'matrix'.*kernel"):
        task.init(0)
