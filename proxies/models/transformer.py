"""Transformers."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from evolion.proxies.models.parts import ACTIVATIONS, one_hot_embedding


class Block(nn.Module):
    """Attention, then a two-layer perceptron of `expansion` times the width; no biases.

    `norm`: "pre" normalizes what a branch reads, "post" the sum, "none" nothing.
    """

    heads: int
    causal: bool = True
    expansion: int = 2
    activation: str = "relu"
    norm: str = "pre"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (sequences, positions, width) to the same shape."""
        width = x.shape[-1]
        x = self._branch(x, self._attention)

        def perceptron(y: jax.Array) -> jax.Array:
            y = ACTIVATIONS[self.activation](nn.Dense(self.expansion * width, use_bias=False)(y))
            return nn.Dense(width, use_bias=False)(y)

        return self._branch(x, perceptron)

    def _branch(self, x: jax.Array, branch: Callable[[jax.Array], jax.Array]) -> jax.Array:
        if self.norm == "pre":
            normalized: Any = nn.LayerNorm(use_bias=False)(x)
            return x + branch(normalized)
        total: Any = x + branch(x)
        return jnp.asarray(nn.LayerNorm(use_bias=False)(total)) if self.norm == "post" else jnp.asarray(total)

    def _attention(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        size = width // self.heads
        projected = nn.Dense(3 * width, use_bias=False)(x)
        query, key, value = jnp.split(projected.reshape(*x.shape[:2], 3 * self.heads, size), 3, axis=2)
        logits = jnp.einsum("bthd,bshd->bhts", query, key) / math.sqrt(size)
        if self.causal:
            past = np.tri(x.shape[1], dtype=np.bool_)[None, None]
            logits = jnp.where(past, logits, -1e9)
        mixed = jnp.einsum("bhts,bshd->bthd", nn.softmax(logits), value).reshape(x.shape)
        return nn.Dense(width, use_bias=False)(mixed)


class LanguageModel(nn.Module):
    """A decoder-only transformer with learned positions."""

    width: int
    depth: int
    heads: int
    vocabulary: int
    context: int
    expansion: int = 2
    activation: str = "relu"
    norm: str = "pre"

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits (sequences, positions, vocabulary) of tokens (sequences, positions); positions up to `context`."""
        normal = nn.initializers.normal(1.0)
        embedding = self.param("token_embedding", normal, (self.vocabulary, self.width))
        positions = self.param("position_embedding", normal, (self.context, self.width))
        x = one_hot_embedding(tokens, embedding) + positions[None, : tokens.shape[1]]
        for _ in range(self.depth):
            x = Block(self.heads, True, self.expansion, self.activation, self.norm)(x)
        if self.norm == "pre":
            x = nn.LayerNorm(use_bias=False)(x)
        return nn.Dense(self.vocabulary, use_bias=False)(x)
