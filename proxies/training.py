"""Trains a task with any optax transform, as it is, in one compiled loop."""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from evolion.proxies.curvature import Curvature
from evolion.proxies.data.source import Split
from evolion.proxies.delay import delayed, kept_weights
from evolion.proxies.evaluation import mean_loss
from evolion.proxies.hessian import diagonal, refreshed, step_key
from evolion.proxies.score import Score, score_of_run
from evolion.proxies.task import Batch, Params, Task

# Losses of the steps done (NaN after them), their number, loss on the evaluation split, whether all ended finite.
_Outcome = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
_CURVATURE = Curvature()


def train(
    task: Task,
    tx: optax.GradientTransformation,
    *,
    steps: int | None = None,
    seed: int = 0,
    split: Split = "validation",
    curvature: Curvature = _CURVATURE,
) -> Score:
    """Trains `task` from scratch with `tx` and scores the final parameters on the whole of `split`.

    `tx` carries its own learning rate or schedule (`schedules.warmup_cosine`) and may use the extra arguments `value`,
    `grad`, `value_fn` and `hess`, an estimate of the Hessian diagonal as `curvature` has it, which is made for those
    alone that use it. `steps` defaults to the horizon of the task. Training stops at the first non-finite loss; that, a
    non-finite parameter or an exploded final loss (`score.final_loss_diverged`) gives status "diverged", not an
    exception.

    Raises ValueError for steps < 1, an unusable seed, a split that is not "validation" or "test", or an estimate that
    the task cannot give.
    """
    if split not in ("validation", "test"):
        raise ValueError(f"split is {split!r}: a run is scored on 'validation' or 'test'")
    started = time.perf_counter()
    horizon = task.steps if steps is None else steps
    order = task.order(seed, horizon)
    loop = _compiled(task, tx, curvature)
    losses, done, final, finite = loop(task.init(seed), task.data("train"), order, task.data(split), np.uint32(seed))
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
def _compiled(
    task: Task, tx: optax.GradientTransformation, curvature: Curvature
) -> Callable[[Params, Batch, Any, Batch, Any], _Outcome]:
    def loop(params: Params, data: Batch, order: jax.Array, evaluation: Batch, seed: jax.Array) -> _Outcome:
        horizon = order.shape[0]
        first = jax.tree.map(lambda leaf: leaf[order[0]], data)
        # Without a reader the estimate has no leaves: the loop is the one that it would be without curvature.
        start = jax.tree.map(jnp.zeros_like, params) if _reads_hess(task, tx, params, first) else None

        def unfinished(carry: tuple[Any, ...]) -> jax.Array:
            step, *_, finite = carry
            return jnp.logical_and(step < horizon, finite)

        def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            step, params, past, state, hess, losses, _ = carry
            batch = jax.tree.map(lambda leaf: leaf[order[step]], data)
            seen, past = delayed(past, params, step)
            value, grad = jax.value_and_grad(task.loss)(seen, batch)
            if hess is not None:

                def estimate() -> Params:
                    # Over the flat vector, as evaluators have it, so that both draw the same signs.
                    flat, unravel = ravel_pytree(params)
                    return unravel(diagonal(task, curvature, unravel, flat, batch, step_key(seed, step)))

                hess = refreshed(estimate, hess, step, curvature.period)
            params, state = _update(task, tx, batch, value, grad, state, params, hess)
            return step + 1, params, past, state, hess, losses.at[step].set(value), jnp.isfinite(value)

        losses = jnp.full(horizon, jnp.nan, jnp.float32)
        past = kept_weights(params, task.gradient_delay)
        carry = (jnp.int32(0), params, past, _init(tx, params), start, losses, jnp.bool_(True))
        done, params, *_, losses, finite = jax.lax.while_loop(unfinished, advance, carry)
        finite = jax.tree.reduce(lambda so_far, leaf: so_far & jnp.isfinite(leaf).all(), params, finite)
        return losses, done, mean_loss(task.loss, params, evaluation, task.evaluation_batch), finite

    return jax.jit(loop)


def _reads_hess(task: Task, tx: optax.GradientTransformation, params: Params, batch: Batch) -> bool:
    """Return whether an estimate of the Hessian diagonal enters the update: it is traced once to see."""
    if not isinstance(tx, optax.GradientTransformationExtraArgs):
        return False

    def update(params: Params, hess: Params) -> Any:
        value, grad = jax.value_and_grad(task.loss)(params, batch)
        return _update(task, tx, batch, value, grad, _init(tx, params), params, hess)

    traced = jax.make_jaxpr(update)(params, params).jaxpr
    given = {id(variable) for variable in traced.invars[len(jax.tree.leaves(params)) :]}
    read = [variable for equation in traced.eqns for variable in equation.invars] + traced.outvars
    return any(id(variable) in given for variable in read)


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
    hess: Params | None,
) -> tuple[Params, Any]:
    # Transforms are other people's code: even optax.adam (`decay ** count`) does not trace under strict promotion.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        if isinstance(tx, optax.GradientTransformationExtraArgs):
            # A line search refuses what its function does not take, so the function takes what the others may read.
            extra = {"value": value, "grad": grad, "value_fn": lambda weights, hess=None: task.loss(weights, batch)}
            extra |= {} if hess is None else {"hess": hess}
            updates, state = tx.update(grad, state, params, **extra)
        else:
            updates, state = tx.update(grad, state, params)
        return optax.apply_updates(params, updates), state
