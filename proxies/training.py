"""Trains a task with any optax transform, as it is, in one compiled loop."""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from evolion.proxies.score import Score, score_of_run
from evolion.proxies.task import Batch, Params, Split, Task

# Losses of the steps done (NaN after them), their number, loss on the evaluation split, whether all ended finite.
_Outcome = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def train(
    task: Task,
    tx: optax.GradientTransformation,
    *,
    steps: int | None = None,
    seed: int = 0,
    split: Split = "validation",
) -> Score:
    """Trains `task` from scratch with `tx` and scores the final parameters on the whole of `split`.

    `tx` carries its own learning rate or schedule (`schedules.warmup_cosine`) and may use the extra arguments `value`,
    `grad` and `value_fn`. `steps` defaults to the horizon of the task. Training stops at the first non-finite loss;
    that, a non-finite parameter or an exploded final loss (`score.final_loss_diverged`) gives status "diverged", not an
    exception.

    Raises ValueError for steps < 1, an unusable seed or a split that is not "validation" or "test".
    """
    if split not in ("validation", "test"):
        raise ValueError(f"split is {split!r}: a run is scored on 'validation' or 'test'")
    started = time.perf_counter()
    horizon = task.steps if steps is None else steps
    order = task.order(seed, horizon)
    loop = _compiled(task, tx)
    losses, done, final, finite = loop(task.init(seed), task.data("train"), order, task.data(split))
    return score_of_run(
        np.asarray(losses)[: int(done)].tolist(),
        horizon=horizon,
        final=float(final),
        finite=bool(finite),
        seed=seed,
        seconds=time.perf_counter() - started,
    )


# Repeated runs of one transform (seeds) share the compiled loop; the bound keeps a long search from hoarding them.
@lru_cache(maxsize=16)
def _compiled(task: Task, tx: optax.GradientTransformation) -> Callable[[Params, Batch, Any, Batch], _Outcome]:
    def loop(params: Params, data: Batch, order: jax.Array, evaluation: Batch) -> _Outcome:
        horizon = order.shape[0]

        def unfinished(carry: tuple[Any, ...]) -> jax.Array:
            step, _, _, _, finite = carry
            return jnp.logical_and(step < horizon, finite)

        def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            step, params, state, losses, _ = carry
            batch = jax.tree.map(lambda leaf: leaf[order[step]], data)
            value, grad = jax.value_and_grad(task.loss)(params, batch)
            params, state = _update(task, tx, batch, value, grad, state, params)
            return step + 1, params, state, losses.at[step].set(value), jnp.isfinite(value)

        losses = jnp.full(horizon, jnp.nan, jnp.float32)
        carry = (jnp.int32(0), params, _init(tx, params), losses, jnp.bool_(True))
        done, params, _, losses, finite = jax.lax.while_loop(unfinished, advance, carry)
        finite = jax.tree.reduce(lambda so_far, leaf: so_far & jnp.isfinite(leaf).all(), params, finite)
        return losses, done, task.loss(params, evaluation), finite

    return jax.jit(loop)


def _init(tx: optax.GradientTransformation, params: Params) -> Any:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return tx.init(params)


def _update(
    task: Task,
    tx: optax.GradientTransformation,
    batch: Batch,
    value: jax.Array,
    grad: Params,
    state: Any,
    params: Params,
) -> tuple[Params, Any]:
    # Transforms are other people's code: even optax.adam (`decay ** count`) does not trace under strict promotion.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        if isinstance(tx, optax.GradientTransformationExtraArgs):
            updates, state = tx.update(
                grad, state, params, value=value, grad=grad, value_fn=lambda weights: task.loss(weights, batch)
            )
        else:
            updates, state = tx.update(grad, state, params)
        return optax.apply_updates(params, updates), state
