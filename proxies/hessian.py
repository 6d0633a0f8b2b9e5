"""Estimates of the diagonal of the Hessian of a task's loss on one batch, for optimizers that use curvature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from evolion.proxies.curvature import Curvature, Estimator
from evolion.proxies.task import Batch, Params, Task

__all__ = ["check_curvature", "diagonal", "gauss_newton_bartlett", "hutchinson", "refreshed", "step_key"]

_STREAM = 1


def step_key(seed: jax.Array, step: jax.Array) -> jax.Array:
    """The random key of one step of one run; `seed` and `step` (from 0) are integers of shape ()."""
    # The key of the step itself is that of the noise a program may read.
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step), _STREAM)


def hutchinson(loss: Callable[[Params], jax.Array], params: Params, key: jax.Array) -> Params:
    """Return u * (H u) for random signs u, with H the Hessian of the loss: a tree like the parameters.

    Its expectation is the diagonal of H; it is the diagonal itself where H is diagonal. Hutchinson, "A stochastic
    estimator of the trace of the influence matrix" (1989); for optimizers Yao et al. (arXiv:2006.00719), section 3.1.
    """
    flat, unravel = ravel_pytree(params)
    # One draw for all leaves: compiling a draw takes longer than running it.
    signs = unravel(jax.random.rademacher(key, flat.shape, flat.dtype))
    _, product = jax.jvp(jax.grad(loss), (params,), (signs,))
    return jax.tree.map(jnp.multiply, signs, product)


def gauss_newton_bartlett(
    loss: Callable[[Params, Batch], jax.Array],
    logits: Callable[[Params, Batch], jax.Array],
    params: Params,
    batch: Batch,
    key: jax.Array,
) -> Params:
    """Return n * square(gradient of the loss for labels drawn from the logits): a tree like the parameters.

    With n predictions in the batch, whose mean cross-entropy the loss is, the expectation is the diagonal of the
    Gauss-Newton matrix, which is the Fisher information. Liu et al. (arXiv:2305.14342), algorithm 2.
    """
    targets = jax.random.categorical(key, logits(params, batch)).astype(jnp.int32)
    gradient = jax.grad(loss)(params, {**batch, "targets": targets})
    return jax.tree.map(lambda leaf: targets.size * jnp.square(leaf), gradient)


def _logits(task: Task) -> Any:
    """Return the function of (parameters, batch) to logits (…, classes) for targets (…); None for other tasks."""
    return getattr(task, "logits", None)


def check_curvature(task: Task, curvature: Curvature) -> None:
    """Raise ValueError if the task cannot give the estimate."""
    if curvature.estimator is Estimator.GAUSS_NEWTON_BARTLETT and _logits(task) is None:
        raise ValueError(
            f"task {task.name!r} has no logits to draw labels from, as {curvature.estimator.value} needs: "
            f"choose {Estimator.HUTCHINSON.value}"
        )


def diagonal(
    task: Task,
    curvature: Curvature,
    tree: Callable[[Any], Params],
    params: Any,
    batch: Batch,
    key: jax.Array,
) -> Any:
    """Return the estimate on a batch, of the structure of `params`, which `tree` makes the parameters of the task.

    Raises:
        ValueError: If the task cannot give it.

    """
    check_curvature(task, curvature)
    if curvature.estimator is Estimator.HUTCHINSON:
        return hutchinson(lambda own: task.loss(tree(own), batch), params, key)
    logits = _logits(task)
    return gauss_newton_bartlett(
        lambda own, given: task.loss(tree(own), given),
        lambda own, given: logits(tree(own), given),
        params,
        batch,
        key,
    )


def refreshed(estimate: Callable[[], Any], held: Any, step: jax.Array, period: int) -> Any:
    """Return a new estimate at every `period`-th step from 0, else the one that is held."""
    if period == 1:
        return estimate()
    return jax.lax.cond(step % period == 0, estimate, lambda: held)
