"""What several models are made of."""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "tanh": jnp.tanh,
}
"""By the name that a specification gives them (`modifiers.ACTIVATIONS`)."""


def one_hot_embedding(tokens: jax.Array, embedding: jax.Array) -> jax.Array:
    """The rows of `embedding` (vocabulary, width) for tokens (…): a product with one-hot rows, (…, width).

    The gradient of a look-up is a scatter, slow on CPUs. Above 1,024 rows the look-up is the cheaper of the two.
    """
    if embedding.shape[0] > 1024:
        return jnp.take(embedding, tokens, axis=0)
    return jax.nn.one_hot(tokens, embedding.shape[0], dtype=embedding.dtype) @ embedding
