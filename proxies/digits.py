"""`digits-mlp` and `digits-cnn`: handwritten digits, the real data that scikit-learn brings along.

1,797 grey images of 8x8 pixels in 10 classes: the test part of Alpaydin and Kaynak, Optical Recognition of Handwritten
Digits (UCI, 1998). On so small a set seeds move the validation loss more than optimizers do; the training loss at the
end of the run (`Score.train_loss`) tells optimizers apart.
"""

import hashlib
from functools import lru_cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from evolion.proxies.task import Batch, ClassificationTask, Split

CLASSES = 10
VALIDATION_SIZE = 300
TEST_SIZE = 300
_SPLIT_RULE = (
    "scikit-learn's 1,797 digits ordered by the SHA-256 of their 64 pixels (one byte each, 0 to 16, row by row) and "
    "label; first 1,197 train, next 300 validation, last 300 test; inputs are pixels / 8 - 1"
)


@lru_cache(maxsize=1)
def digits_splits() -> dict[Split, Batch]:
    """Images (float32, (examples, 8, 8, 1), -1 to 1) and labels (int32) of each split.

    The images are ordered by the SHA-256 of their pixels and label, so that the split depends on their content alone:
    the first 1,197 are for training, the next 300 for validation, the last 300 for testing.
    """
    source = load_digits()
    pixels, labels = source.data.astype(np.uint8), source.target.astype(np.uint8)
    records = np.column_stack([pixels, labels])
    keys = [hashlib.sha256(record.tobytes()).digest() for record in records]
    by_key = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    images = (pixels[by_key].reshape(-1, 8, 8, 1) / 8 - 1).astype(np.float32)
    targets = labels[by_key].astype(np.int32)
    first, second = len(keys) - VALIDATION_SIZE - TEST_SIZE, len(keys) - TEST_SIZE
    parts: dict[Split, slice] = {
        "train": slice(first),
        "validation": slice(first, second),
        "test": slice(second, None),
    }
    return {split: {"inputs": images[part], "targets": targets[part]} for split, part in parts.items()}


class Perceptron(nn.Module):
    """Dense layers with ReLU between them, on flattened inputs."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (examples, widths[-1]) of inputs (examples, …)."""
        x = x.reshape(x.shape[0], -1)
        for width in self.widths[:-1]:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.widths[-1])(x)


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
    """3x3 convolutions with ReLU, each halving the resolution, then one dense layer."""

    features: tuple[int, ...]
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (examples, classes) of images (examples, height, width, channels)."""
        for features in self.features:
            x = nn.relu(PatchConv(features, stride=2)(x))
        return nn.Dense(self.classes)(x.reshape(x.shape[0], -1))


def digits_mlp() -> ClassificationTask:
    """A perceptron 64-32-32-10 on the digits: 3,466 parameters, runs in milliseconds."""
    return ClassificationTask(
        name="digits-mlp",
        summary="perceptron 64-32-32-10 on scikit-learn's digits",
        recipe=f"perceptron 64-32-32-10, ReLU; {_SPLIT_RULE}",
        model=Perceptron((32, 32, CLASSES)),
        splits=digits_splits(),
        steps=500,
        batch_size=64,
        learning_rates=(3e-3, 1e-2, 3e-2),
    )


def digits_cnn() -> ClassificationTask:
    """Two convolutions of 16 features on the digits: 3,130 parameters."""
    return ClassificationTask(
        name="digits-cnn",
        summary="convolutional net, two layers of 16 features, on scikit-learn's digits",
        recipe=f"two 3x3 convolutions with stride 2 and 16 features, ReLU, dense 10; {_SPLIT_RULE}",
        model=ConvNet((16, 16), CLASSES),
        splits=digits_splits(),
        steps=500,
        batch_size=64,
        learning_rates=(3e-3, 1e-2, 3e-2),
    )
