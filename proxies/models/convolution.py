"""Convolutional networks, with convolutions as matrix products."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from evolion.proxies.models.parts import ACTIVATIONS


class PatchConv(nn.Module):
    """A square convolution with padding "SAME", as a matrix product over patches.

    Same parameters and values as `flax.linen.Conv(features, (size, size), stride, padding="SAME")`. Mapped over weights
    (one model per candidate), XLA turns a convolution into a grouped one that runs for minutes on CPUs; this one stays
    a batch of matrix products.
    """

    features: int
    size: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (examples, height, width, channels) to (examples, height / stride, width / stride, features)."""
        channels = x.shape[-1]
        shape = (self.size, self.size, channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return _patches(x, self.size, self.stride) @ kernel.reshape(-1, self.features) + bias.reshape(1, 1, 1, -1)


def _patches(x: jax.Array, size: int, stride: int) -> jax.Array:
    def window(extent: int) -> tuple[tuple[int, int], list[slice]]:
        reach = (-(-extent // stride) - 1) * stride
        padding = max(reach + size - extent, 0)
        return (padding // 2, padding - padding // 2), [slice(i, i + reach + 1, stride) for i in range(size)]

    row_padding, rows = window(x.shape[1])
    column_padding, columns = window(x.shape[2])
    x = jnp.pad(x, ((0, 0), row_padding, column_padding, (0, 0)))
    return jnp.concatenate([x[:, row, column] for row in rows for column in columns], axis=-1)


class ConvNet(nn.Module):
    """`depth` 3x3 convolutions of `width` features with an activation, each halving the resolution, then one dense."""

    width: int
    depth: int
    outputs: int
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (examples, outputs) of images (examples, height, width, channels)."""
        for _ in range(self.depth):
            x = ACTIVATIONS[self.activation](PatchConv(self.width, stride=2)(x))
        return nn.Dense(self.outputs)(x.reshape(x.shape[0], -1))
