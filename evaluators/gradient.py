"""The gradient of a task as jax traces it: what estimates of time and memory are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from evolion.evaluators.loop import flat_task

__all__ = ["gradient_equations"]


def gradient_equations(task: str) -> Iterator[JaxprEqn]:
    """Trace loss and gradient of a task on one batch and yield the equations, those of loops and branches once each.

    It takes a tenth of a second.
    """
    flat = flat_task(task)
    shaped: Any = jax.ShapeDtypeStruct  # jax leaves it without types
    batch = {
        name: shaped((flat.task.batch_size, *leaf.shape[1:]), leaf.dtype)
        for name, leaf in flat.task.data("train").items()
    }

    def loss(weights: jax.Array, batch: Any) -> jax.Array:
        return flat.task.loss(flat.unravel(weights), batch)

    weights = shaped((flat.layout.entries,), jnp.float32)
    yield from _equations(jax.make_jaxpr(jax.value_and_grad(loss))(weights, batch).jaxpr)


def _equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                if isinstance(item, ClosedJaxpr | Jaxpr):
                    yield from _equations(item.jaxpr if isinstance(item, ClosedJaxpr) else item)
