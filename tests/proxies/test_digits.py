"""The digits: their split and their models."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from evolion.proxies.data.arrays import digest
from evolion.proxies.data.digits import digits_splits
from evolion.proxies.models.convolution import PatchConv
from evolion.proxies.registry import get_task

DATA_DIGEST = "8a22746b119da947807793899bea86955a4cc8d511d762156aa794909bea9b93"


def test_split_is_pinned() -> None:
    """The same images are trained on and scored for ever: the digest of the split never changes."""
    splits = digits_splits()
    assert {split: batch["inputs"].shape for split, batch in splits.items()} == {
        "train": (1197, 8, 8, 1),
        "validation": (300, 8, 8, 1),
        "test": (300, 8, 8, 1),
    }
    assert digest("digits", splits) == DATA_DIGEST


def test_split_keeps_every_image() -> None:
    """The three splits together are scikit-learn's digits, images and labels."""
    splits = digits_splits().values()
    images = np.concatenate([batch["inputs"] for batch in splits]).reshape(-1, 64)
    ours = sorted(zip(((images + 1) * 8).tolist(), np.concatenate([batch["targets"] for batch in splits]), strict=True))
    source = load_digits()
    assert ours == sorted(zip(source.data.tolist(), source.target, strict=True))


def test_parameter_counts() -> None:
    """The sizes that measurements and documentation quote."""
    counts = [
        sum(leaf.size for leaf in jax.tree.leaves(task.init(0)))
        for task in (get_task("digits-mlp"), get_task("digits-cnn"))
    ]
    assert counts == [3466, 3130]


@pytest.mark.parametrize(
    ("extent", "size", "stride"), [((8, 8), 3, 1), ((8, 8), 3, 2), ((7, 5), 3, 2), ((6, 9), 2, 3), ((5, 5), 1, 2)]
)
def test_patch_convolution_is_a_convolution(extent: tuple[int, int], size: int, stride: int) -> None:
    """`PatchConv` takes the parameters of flax's Conv and gives its values."""
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.normal(size=(2, *extent, 3)), jnp.float32)
    kernel = jnp.asarray(generator.normal(size=(size, size, 3, 4)), jnp.float32)
    params = {"params": {"kernel": kernel, "bias": jnp.arange(4, dtype=jnp.float32)}}
    expected = nn.Conv(4, (size, size), stride, padding="SAME").apply(params, x)
    assert np.allclose(PatchConv(4, size, stride).apply(params, x), expected, atol=1e-5)


def test_no_convolution_reaches_the_compiler() -> None:
    """Convolutions mapped over weights take XLA minutes on CPUs: the net is matrix products alone."""
    task = get_task("digits-cnn")
    assert "conv_general_dilated" not in str(jax.make_jaxpr(task.loss)(task.init(0), task.data("test")))
