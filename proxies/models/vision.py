"""Transformers for images."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from evolion.proxies.models.transformer import Block


class VisionTransformer(nn.Module):
    """A transformer over the patches of an image (Dosovitskiy et al., arXiv:2010.11929), with learned positions.

    The class is read off the mean over patches. Sides of an image are multiples of `patch`.
    """

    width: int
    depth: int
    heads: int
    outputs: int
    patch: int
    expansion: int = 2
    activation: str = "gelu"
    norm: str = "pre"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (examples, outputs) of images (examples, height, width, channels)."""
        examples, height, width, channels = x.shape
        rows, columns = height // self.patch, width // self.patch
        x = x.reshape(examples, rows, self.patch, columns, self.patch, channels).transpose(0, 1, 3, 2, 4, 5)
        x = nn.Dense(self.width)(x.reshape(examples, rows * columns, -1))
        normal = nn.initializers.normal(1.0)
        x = x + self.param("position_embedding", normal, (rows * columns, self.width))[None]
        for _ in range(self.depth):
            x = Block(self.heads, False, self.expansion, self.activation, self.norm)(x)
        if self.norm == "pre":
            x = nn.LayerNorm(use_bias=False)(x)
        return nn.Dense(self.outputs)(jnp.mean(x, axis=1))
