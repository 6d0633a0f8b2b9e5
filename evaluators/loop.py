"""The training loop that the interpreter and the compiled path share: everything but the update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from evolion.primitives.layout import Layout
from evolion.proxies.curvature import Curvature
from evolion.proxies.data.source import Split
from evolion.proxies.delay import delayed, kept_weights
from evolion.proxies.evaluation import mean_loss
from evolion.proxies.hessian import check_curvature, diagonal, refreshed, step_key
from evolion.proxies.registry import get_task
from evolion.proxies.task import Task

__all__ = ["Outcome", "StepInputs", "TrainingLoop", "UpdateRule", "flat_task", "training_loop"]


SMALLEST_CAPACITY = 512


class StepInputs(NamedTuple):
    """What an update rule may read at one step, besides its own state, which holds the weights.

    Attributes:
        gradient: The gradient, one array for each parameter tensor.
        loss: The training loss, shape ().
        scalars: The row of the scalar table for this step, shape (scalars,).
        seed: The seed of the run, shape ().
        step: The number of this step from 0, shape ().
        hess: An estimate of the Hessian diagonal, shape (parameters,), in a loop that makes it.

    """

    gradient: Sequence[jax.Array]
    loss: jax.Array
    scalars: jax.Array
    seed: jax.Array
    step: jax.Array
    hess: jax.Array | None = None

    def noise(self) -> jax.Array:
        """Draw standard normal noise, shape (parameters,), the same for the same seed and step.

        The key is derived here and not in the loop: a threefry call at every step costs more than an update.
        """
        return noise_of(self.seed, self.step, sum(leaf.size for leaf in self.gradient))


def noise_of(seed: jax.Array, step: jax.Array, entries: int) -> jax.Array:
    """Return the noise of one step of one run, shape (entries,); `step` is from 0."""
    return jax.random.normal(jax.random.fold_in(jax.random.key(seed), step), (entries,), jnp.float32)


def tensors_of(vector: jax.Array, layout: Layout, base: int = 0) -> list[jax.Array]:
    """Cut the parameter tensors out of a vector in which they lie one after the other from `base` on."""
    places = zip((base + layout.starts).tolist(), layout.sizes.tolist(), layout.shapes, strict=True)
    return [jnp.reshape(lax.slice(vector, (start,), (start + size,)), shape) for start, size, shape in places]


class UpdateRule(NamedTuple):
    """An update rule as three traceable functions; its state holds the weights, in whatever form suits it.

    Attributes:
        init: (program arguments, weights as arrays for each parameter tensor) to the state.
        weights: The state to the weights, one array for each parameter tensor.
        update: (program arguments, state, step inputs) to the state after the step.

    """

    init: Callable[[Any, Sequence[jax.Array]], Any]
    weights: Callable[[Any], Sequence[jax.Array]]
    update: Callable[[Any, Any, StepInputs], Any]


class Outcome(NamedTuple):
    """What one training run leaves.

    Attributes:
        losses: Training loss of each step done, NaN after them; its shape is at least (horizon,).
        steps: The number of steps done, shape ().
        final: The loss on the evaluation split, shape ().
        finite: Whether weights and loss ended finite, shape ().

    """

    losses: jax.Array
    steps: jax.Array
    final: jax.Array
    finite: jax.Array


class FlatTask(NamedTuple):
    """A task over one flat vector of parameters."""

    task: Task
    layout: Layout
    unravel: Callable[[jax.Array], Any]
    weights: Callable[[int], jax.Array]
    order: Callable[[int, int], jax.Array]
    batches: Callable[[Split], Any]


@lru_cache(maxsize=16)
def flat_task(name: str) -> FlatTask:
    """Prepare a task once per process: its layout, its initial weights by seed and its data on the device."""
    task = get_task(name)
    params = task.init(0)
    _, unravel = ravel_pytree(params)
    layout = Layout(tuple(tuple(leaf.shape) for leaf in jax.tree.leaves(params)))

    @lru_cache(maxsize=64)
    def weights(seed: int) -> jax.Array:
        return ravel_pytree(task.init(seed))[0]

    # Few: padded orders of large batches take tens of megabytes.
    @lru_cache(maxsize=8)
    def order(seed: int, steps: int) -> jax.Array:
        rows = task.order(seed, steps)
        return jnp.asarray(np.pad(rows, ((0, _capacity(steps) - steps), (0, 0))))

    @lru_cache(maxsize=3)
    def batches(split: Split) -> Any:
        return jax.device_put(dict(task.data(split)))

    return FlatTask(task, layout, unravel, weights, order, batches)


def _capacity(steps: int) -> int:
    """Return the length to which the arrays of a run are padded, so that runs of many lengths share a compilation."""
    capacity = SMALLEST_CAPACITY
    while capacity < steps:
        capacity *= 8
    return capacity


class TrainingLoop(Protocol):
    """Trains a task with one update rule."""

    def __call__(
        self, arguments: Any, table: np.ndarray[Any, np.dtype[np.float32]], *, seed: int, split: Split
    ) -> Outcome:
        """Train from a seed for as many steps as the scalar table has rows, and score the end on a split."""
        ...


def training_loop(flat: FlatTask, rule: UpdateRule, curvature: Curvature | None = None) -> TrainingLoop:
    """Return the compiled loop of a task and an update rule, whose `arguments` it takes.

    It is traced once per shape of the arguments and for horizons up to 512, 4,096, 32,768, …, whatever the program.
    It stops at the first loss that is not finite. With `curvature` the rule is given that estimate of the Hessian
    diagonal.

    Raises:
        ValueError: If the task cannot give the estimate.

    """
    if curvature is not None:
        check_curvature(flat.task, curvature)

    compiled = jax.jit(_run(flat, rule, curvature))

    def train(arguments: Any, table: np.ndarray[Any, np.dtype[np.float32]], *, seed: int, split: Split) -> Outcome:
        horizon = len(table)
        weights, order = flat.weights(seed), flat.order(seed, horizon)
        padded = np.zeros((len(order), table.shape[1]), np.float32)
        padded[:horizon] = table
        outcome: Outcome = compiled(
            arguments,
            weights,
            flat.batches("train"),
            order,
            flat.batches(split),
            padded,
            np.int32(horizon),
            np.int32(seed),
        )
        return outcome

    return train


def _estimate(
    flat: FlatTask,
    curvature: Curvature | None,
    hess: jax.Array | None,
    weights: Sequence[jax.Array],
    batch: Any,
    seed: jax.Array,
    step: jax.Array,
) -> jax.Array | None:
    """Return the estimate of the Hessian diagonal for this step, made anew every so often; None without curvature."""
    if curvature is None or hess is None:
        return None
    vector = jnp.concatenate([jnp.ravel(tensor) for tensor in weights])
    estimate: jax.Array = refreshed(
        lambda: diagonal(flat.task, curvature, flat.unravel, vector, batch, step_key(seed, step)),
        hess,
        step,
        curvature.period,
    )
    return estimate


def _run(flat: FlatTask, rule: UpdateRule, curvature: Curvature | None) -> Callable[..., Outcome]:
    structure = jax.tree.structure(flat.unravel(flat.weights(0)))

    def loss(weights: Sequence[jax.Array], batch: Any) -> jax.Array:
        return flat.task.loss(jax.tree.unflatten(structure, weights), batch)

    def run(
        arguments: Any,
        start: jax.Array,
        data: Any,
        order: jax.Array,
        evaluation: Any,
        table: jax.Array,
        horizon: jax.Array,
        seed: jax.Array,
    ) -> Outcome:
        def unfinished(carry: tuple[Any, ...]) -> jax.Array:
            step, *_, finite = carry
            return jnp.logical_and(step < horizon, finite)

        def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            step, past, state, hess, losses, _ = carry
            indices = lax.dynamic_index_in_dim(order, step, keepdims=False)
            batch = jax.tree.map(lambda leaf: jnp.take(leaf, indices, axis=0, mode="clip"), data)
            weights = rule.weights(state)
            seen, past = delayed(past, weights, step)
            value, gradient = jax.value_and_grad(loss)(seen, batch)
            hess = _estimate(flat, curvature, hess, weights, batch, seed, step)
            scalars = lax.dynamic_index_in_dim(table, step, keepdims=False)
            state = rule.update(arguments, state, StepInputs(gradient, value, scalars, seed, step, hess))
            losses = lax.dynamic_update_index_in_dim(losses, value, step, 0)
            return step + 1, past, state, hess, losses, jnp.isfinite(value)

        # Tensors from here on: a gradient by one vector would be laid together from them at every step.
        weights: Sequence[jax.Array] = jax.tree.leaves(flat.unravel(start))
        losses = jnp.full(order.shape[0], jnp.nan, jnp.float32)
        # Without an estimate there is nothing to carry: programs that do not read it train in the loop they had.
        hess = None if curvature is None else jnp.zeros(flat.layout.entries, jnp.float32)
        past = kept_weights(weights, flat.task.gradient_delay)
        carry = (jnp.int32(0), past, rule.init(arguments, weights), hess, losses, jnp.bool_(True))
        steps, _, state, _, losses, finite = lax.while_loop(unfinished, advance, carry)
        weights = rule.weights(state)
        final = mean_loss(loss, weights, evaluation, flat.task.evaluation_batch)
        sound = jnp.stack([jnp.isfinite(leaf).all() for leaf in weights]).all()
        return Outcome(losses, steps, final, finite & sound)

    return run
