"""Losses, by name: what a task makes of its model and a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["OBJECTIVES", "Objective", "Predict", "cross_entropy"]

Predict = Callable[[jax.Array], jax.Array]
"""The model with its parameters: inputs of a batch to outputs."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss.

    Attributes:
        loss: (predict, batch) to the mean loss over the batch, float32 of shape (). It may differentiate `predict`.
        labels: Whether the outputs are logits of the classes that `targets` holds, so that labels can be drawn.

    """

    loss: Callable[[Predict, Mapping[str, Any]], jax.Array]
    labels: bool = False


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean over all leading axes of -log softmax(logits)[target], in nats; logits (…, classes), targets (…)."""
    return jnp.mean(_surprise(logits, targets))


def asked_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Like `cross_entropy`, as the mean over the positions whose target is not below zero."""
    asked = (targets >= 0).astype(logits.dtype)
    each = _surprise(logits, targets)
    return jnp.sum(each * asked) / jnp.maximum(jnp.sum(asked), jnp.ones((), logits.dtype))


def _surprise(logits: jax.Array, targets: jax.Array) -> jax.Array:
    # A masked sum: the gradient of a gather is a scatter, which XLA runs element by element on CPUs. Of logarithms of
    # probabilities: of logits so large that their differences are lost, the chosen one less the sum would be zero.
    chosen = jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
    return -jnp.sum(jax.nn.log_softmax(logits, axis=-1) * chosen, axis=-1)


def mean_squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean over everything of (output - target)**2."""
    return jnp.mean(jnp.square(outputs - targets))


def _poisson(predict: Predict, batch: Mapping[str, Any]) -> jax.Array:
    """Mean of (u''(x) + targets)**2 at inputs x of shape (examples, 1), for -u'' = targets.

    An output may depend on its own input alone: both derivatives are taken forward, for all examples at once.
    """

    def slope(x: jax.Array) -> jax.Array:
        return jnp.asarray(jax.jvp(predict, (x,), (jnp.ones_like(x),))[1])

    inputs = batch["inputs"]
    second = jnp.asarray(jax.jvp(slope, (inputs,), (jnp.ones_like(inputs),))[1])
    return jnp.mean(jnp.square(second + batch["targets"]))


OBJECTIVES: Mapping[str, Objective] = {
    "cross-entropy": Objective(lambda predict, batch: cross_entropy(predict(batch["inputs"]), batch["targets"]), True),
    "asked cross-entropy": Objective(
        lambda predict, batch: asked_cross_entropy(predict(batch["inputs"]), batch["targets"])
    ),
    "mean squared error": Objective(
        lambda predict, batch: mean_squared_error(predict(batch["inputs"]), batch["targets"])
    ),
    "mean output": Objective(lambda predict, batch: jnp.mean(predict(batch["inputs"]))),
    "poisson equation": Objective(_poisson),
}
"""`mean output` is for models that compute the loss of an example themselves."""
