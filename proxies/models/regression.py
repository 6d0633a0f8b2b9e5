"""Autoencoders and linear transformers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from evolion.proxies.models.parts import ACTIVATIONS


class Autoencoder(nn.Module):
    """`depth` dense layers of `width`, a code, and as many layers up again, with activations; ends are linear."""

    width: int
    depth: int
    code: int
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Mean squared errors (examples,) of what inputs (examples, values) are reconstructed as."""
        inputs = x
        for outputs in (self.code, inputs.shape[-1]):
            for _ in range(self.depth):
                x = ACTIVATIONS[self.activation](nn.Dense(self.width)(x))
            x = nn.Dense(outputs)(x)
        return jnp.mean(jnp.square(x - inputs), axis=-1)


class LinearTransformer(nn.Module):
    """`depth` layers of linear attention, each Z + P Z (Z' Q Z) / n with full matrices P and Q, and nothing else.

    The model of Ahn et al. (arXiv:2310.01082); the last of the n + 1 tokens, which asks, is not attended to.
    """

    depth: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Minus the last entry of the last token, (examples, 1), for tokens (examples, n + 1, entries)."""
        given, entries = tokens.shape[1] - 1, tokens.shape[2]
        pairs = tokens[:, :-1]
        moments = jnp.einsum("bti,btj->bij", pairs, pairs) / given
        # A layer multiplies all tokens of a sequence by the same matrix, so that it suffices to follow the product.
        product = jnp.broadcast_to(jnp.eye(entries)[None], (tokens.shape[0], entries, entries))
        for _ in range(self.depth):
            values = nn.Dense(entries, use_bias=False)(product)
            queries = nn.Dense(entries, use_bias=False)(product)
            attention = jnp.swapaxes(product, 1, 2) @ (moments @ values)
            product = product + queries @ attention
        return -jnp.einsum("bi,bi->b", tokens[:, -1], product[:, :, -1])[:, None]
