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


def _window(extent: int, size: int, stride: int) -> tuple[tuple[int, int], list[slice]]:
    """The padding of an axis, and what each tap of the filter sees of the padded one."""
    reach = (-(-extent // stride) - 1) * stride
    padding = max(reach + size - extent, 0)
    return (padding // 2, padding - padding // 2), [slice(i, i + reach + 1, stride) for i in range(size)]


def _patches(x: jax.Array, size: int, stride: int) -> jax.Array:
    row_padding, rows = _window(x.shape[1], size, stride)
    column_padding, columns = _window(x.shape[2], size, stride)
    x = jnp.pad(x, ((0, 0), row_padding, column_padding, (0, 0)))
    return jnp.concatenate([x[:, row, column] for row in rows for column in columns], axis=-1)


class SequenceConv(nn.Module):
    """A convolution over positions with padding "SAME", as a matrix product over patches: see `PatchConv`."""

    features: int
    size: int = 5
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (examples, positions, channels) to (examples, positions / stride, features)."""
        shape = (self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        padding, taps = _window(x.shape[1], self.size, self.stride)
        x = jnp.pad(x, ((0, 0), padding, (0, 0)))
        patches = jnp.concatenate([x[:, tap] for tap in taps], axis=-1)
        return patches @ kernel.reshape(-1, self.features) + bias.reshape(1, 1, -1)


class BatchNorm(nn.Module):
    """Features normalized by mean and variance over the batch it is given, then times `scale` plus `bias`.

    There are no running averages: the loss of a batch depends on the batch alone, in evaluation as in training (Ioffe
    and Szegedy, arXiv:1502.03167, have them for predictions one at a time). The loss of an evaluation split, which is
    scored in parts of up to 1,024 examples, thus depends a little on the parts.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (…, features) to the same shape."""
        axes, one = tuple(range(x.ndim - 1)), (1,) * (x.ndim - 1)
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],))
        centered = x - jnp.mean(x, axes, keepdims=True)
        variance = jnp.mean(jnp.square(centered), axes, keepdims=True)
        return centered * jax.lax.rsqrt(variance + self.epsilon) * scale.reshape(*one, -1) + bias.reshape(*one, -1)


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


class SequenceConvNet(nn.Module):
    """`depth` convolutions of `size` taps and `width` features with an activation, each halving the length, one dense.

    The net of MNIST-1D (arXiv:2011.14439).
    """

    width: int
    depth: int
    outputs: int
    size: int = 5
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (examples, outputs) of signals (examples, positions, channels)."""
        for _ in range(self.depth):
            x = ACTIVATIONS[self.activation](SequenceConv(self.width, self.size, stride=2)(x))
        return nn.Dense(self.outputs)(x.reshape(x.shape[0], -1))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the shortcut is a 1x1 convolution where the shape changes.

    `norm`: "pre" has batch norm and activation before each convolution (He et al., arXiv:1603.05027), "post" batch norm
    after each and an activation of the sum (arXiv:1512.03385), "none" is "pre" without norm.
    """

    features: int
    stride: int = 1
    activation: str = "relu"
    norm: str = "pre"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (examples, height, width, channels) to (examples, height / stride, width / stride, features)."""
        activation, shortcut = ACTIVATIONS[self.activation], x
        if self.stride != 1 or x.shape[-1] != self.features:
            shortcut = PatchConv(self.features, 1, self.stride)(x)
        y: jax.Array = x
        for first, stride in ((True, self.stride), (False, 1)):
            if self.norm == "pre":
                y = BatchNorm()(y)
            if self.norm != "post" or not first:
                y = activation(y)
            y = PatchConv(self.features, 3, stride)(y)
            if self.norm == "post":
                y = BatchNorm()(y)
        return activation(shortcut + y) if self.norm == "post" else shortcut + y


class ResidualNet(nn.Module):
    """A small residual network: a 3x3 convolution, two stages of `depth` blocks, their mean over places, one dense.

    The first convolution and the second stage halve the resolution; the second stage has twice the `width`. `norm` as
    in `ResidualBlock`.
    """

    width: int
    depth: int
    outputs: int
    activation: str = "relu"
    norm: str = "pre"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (examples, outputs) of images (examples, height, width, channels)."""
        x = PatchConv(self.width, stride=2)(x)
        for stage in (1, 2):
            for block in range(self.depth):
                stride = 2 if stage == 2 and block == 0 else 1
                x = ResidualBlock(stage * self.width, stride, self.activation, self.norm)(x)
        if self.norm == "pre":
            x = BatchNorm()(x)
        if self.norm != "post":
            x = ACTIVATIONS[self.activation](x)
        return nn.Dense(self.outputs)(jnp.mean(x, axis=(1, 2)))
