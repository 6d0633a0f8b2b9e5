"""Graph networks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from evolion.proxies.models.parts import ACTIVATIONS


def normalized_adjacency(adjacency: jax.Array) -> jax.Array:
    """D^-1/2 (A + I) D^-1/2 of A (graphs, nodes, nodes), D the row sums of A + I (Kipf, Welling, arXiv:1609.02907)."""
    joined = adjacency + jnp.eye(adjacency.shape[-1], dtype=adjacency.dtype)[None]
    scale = jax.lax.rsqrt(jnp.sum(joined, axis=-1))
    return joined * scale[:, :, None] * scale[:, None, :]


class GraphNet(nn.Module):
    """A graph convolutional network with residual layers: each mixes neighbours, then features.

    `norm`: "pre" normalizes what a layer reads, "post" the sum, "none" nothing.
    """

    width: int
    depth: int
    outputs: int
    activation: str = "relu"
    norm: str = "pre"

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Logits (graphs, nodes, outputs) of adjacency beside features, (graphs, nodes, nodes + features)."""
        nodes = inputs.shape[1]
        adjacency = normalized_adjacency(inputs[..., :nodes])
        x: Any = nn.Dense(self.width, use_bias=False)(inputs[..., nodes:])
        for _ in range(self.depth):
            y: Any = nn.LayerNorm(use_bias=False)(x) if self.norm == "pre" else x
            y = ACTIVATIONS[self.activation](nn.Dense(2 * self.width, use_bias=False)(adjacency @ y))
            x = x + nn.Dense(self.width, use_bias=False)(y)
            if self.norm == "post":
                x = nn.LayerNorm(use_bias=False)(x)
        if self.norm == "pre":
            x = nn.LayerNorm(use_bias=False)(x)
        return jnp.asarray(nn.Dense(self.outputs, use_bias=False)(x))
