"""The objectives where single precision could flatter a program."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolion.proxies.objectives import asked_cross_entropy, cross_entropy

LOSSES = (cross_entropy, asked_cross_entropy)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [0.0, 1.0, 1e8, 1e30])
def test_logits_that_say_nothing_have_no_small_loss(loss: Callable[..., jax.Array], size: float) -> None:
    """Weights that explode make logits so large that their differences are lost: that is a guess, not certainty."""
    logits, targets = jnp.full((4, 10), size, jnp.float32), jnp.array([0, 3, 7, 9])
    np.testing.assert_allclose(loss(logits, targets), np.log(10), rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_confident_mistake_costs_what_it_should(loss: Callable[..., jax.Array]) -> None:
    """The loss of a wrong answer grows with its certainty, without bound."""
    logits = jnp.zeros((1, 3), jnp.float32).at[0, 0].set(1e6)
    np.testing.assert_allclose(loss(logits, jnp.array([1])), 1e6, rtol=1e-6)
