"""The models of images and signals."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from evolion.proxies.initialization import initialize, parameter_count
from evolion.proxies.models.convolution import BatchNorm, ResidualNet, SequenceConv
from evolion.proxies.models.recurrent import Gru, GruClassifier, GruLanguageModel
from evolion.proxies.models.vision import VisionTransformer
from evolion.proxies.registry import get_task
from evolion.proxies.task import ModelTask

IMAGES = np.random.default_rng(0).normal(size=(6, 16, 16, 1)).astype(np.float32)
SIGNALS = np.random.default_rng(1).normal(size=(3, 7, 4)).astype(np.float32)
SIZES = {
    "mnist1d-cnn": 12106,
    "mnist1d-gru": 3690,
    "glyph-cnn": 16670,
    "glyph-resnet": 21502,
    "glyph-vit": 41726,
    "glyph-vit-large-batch": 11390,
}


@pytest.mark.parametrize("name", SIZES)
def test_parameter_counts(name: str) -> None:
    """The sizes that measurements and documentation quote."""
    task = get_task(name)
    assert isinstance(task, ModelTask)
    field = task.info.fields["inputs"]
    assert parameter_count(task.model, np.zeros((1, *field.shape), np.float32)) == SIZES[name]


@pytest.mark.parametrize(("positions", "size", "stride"), [(40, 5, 1), (40, 5, 2), (7, 3, 2), (9, 4, 3), (5, 1, 2)])
def test_sequence_convolution_is_a_convolution(positions: int, size: int, stride: int) -> None:
    """`SequenceConv` takes the parameters of flax's Conv and gives its values."""
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.normal(size=(2, positions, 3)), jnp.float32)
    kernel = jnp.asarray(generator.normal(size=(size, 3, 4)), jnp.float32)
    params = {"params": {"kernel": kernel, "bias": jnp.arange(4, dtype=jnp.float32)}}
    expected = nn.Conv(4, (size,), stride, padding="SAME").apply(params, x)
    assert np.allclose(SequenceConv(4, size, stride).apply(params, x), expected, atol=1e-5)


def test_batch_norm_is_that_of_flax_in_training() -> None:
    """Statistics are those of the batch: values are flax's without running averages."""
    params = {"scale": jnp.asarray([1.5]), "bias": jnp.asarray([-0.5])}
    stored = {"mean": jnp.zeros(1), "var": jnp.ones(1)}
    reference = nn.BatchNorm(use_running_average=False)
    expected, _ = reference.apply({"params": params, "batch_stats": stored}, IMAGES, mutable=["batch_stats"])
    assert np.allclose(BatchNorm().apply({"params": params}, IMAGES), expected, atol=1e-5)


def test_gru_is_that_of_flax() -> None:
    """The loop with one product for the three gates has the values of flax's cell with its six."""
    width = 5
    layer = Gru(width)
    params = initialize(layer, SIGNALS, 3)
    inputs, recurrent = params["Dense_0"]["kernel"], params["Gates_0"]["kernel"]
    bias = np.arange(3 * width, dtype=np.float32) / 10
    hidden_bias = np.concatenate([np.zeros(2 * width), np.arange(width) / 7]).astype(np.float32)
    params["Dense_0"]["bias"], params["Gates_0"]["bias"] = jnp.asarray(bias), jnp.asarray(hidden_bias)
    cell: dict[str, dict[str, NDArray[np.float32]]] = {}
    for place, gate in enumerate("rzn"):
        part = slice(place * width, (place + 1) * width)
        cell[f"i{gate}"] = {"kernel": inputs[:, part], "bias": bias[part]}
        cell[f"h{gate}"] = {"kernel": recurrent[:, part]}
    cell["hn"]["bias"] = hidden_bias[2 * width :]
    with jax.numpy_rank_promotion("allow"):
        expected = nn.RNN(nn.GRUCell(width)).apply({"params": {"cell": cell}}, SIGNALS)
    assert np.allclose(layer.apply({"params": params}, SIGNALS), expected, atol=1e-5)


def test_gru_language_model_sees_only_the_past() -> None:
    """Changing a token leaves the predictions before it as they were."""
    model = GruLanguageModel(width=8, depth=2, vocabulary=11)
    tokens = np.random.default_rng(0).integers(0, 11, (2, 9)).astype(np.int32)
    params = {"params": initialize(model, tokens, 0)}
    changed = tokens.copy()
    changed[:, 5] = (changed[:, 5] + 1) % 11
    before, after = (model.apply(params, x) for x in (tokens, changed))
    assert before.shape == (2, 9, 11)
    assert np.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not np.allclose(before[:, 5:], after[:, 5:], atol=1e-3)


def test_gru_classifier_reads_the_whole_sequence() -> None:
    """The first position and the last both reach the answer."""
    model = GruClassifier(width=8, depth=1, outputs=3)
    params = {"params": initialize(model, SIGNALS, 0)}
    answer = model.apply(params, SIGNALS)
    for place in (0, -1):
        changed = SIGNALS.copy()
        changed[:, place] += 1
        assert not np.allclose(model.apply(params, changed), answer, atol=1e-4)


@pytest.mark.parametrize(("norm", "activation"), [("pre", "relu"), ("post", "tanh"), ("none", "silu")])
def test_variants_keep_shapes_and_values_finite(norm: str, activation: str) -> None:
    """Every place of the norms gives logits of a sensible size from standard inputs."""
    for model in (
        ResidualNet(width=4, depth=2, outputs=5, activation=activation, norm=norm),
        VisionTransformer(width=8, depth=2, heads=2, outputs=5, patch=4, activation=activation, norm=norm),
    ):
        logits = jax.jit(model.apply)({"params": initialize(model, IMAGES, 0)}, IMAGES)
        assert logits.shape == (6, 5)
        assert 0.01 < float(jnp.std(logits)) < 100


def test_norms_add_their_parameters() -> None:
    """Without norm there is neither scale nor bias of one; before and after a branch there are."""
    counts = {}
    for norm in ("pre", "post", "none"):
        model = ResidualNet(width=4, depth=1, outputs=5, norm=norm)
        variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
        names = jax.tree.flatten_with_path(variables)[0]
        counts[norm] = sum(path[-1].key == "scale" for path, _ in names)
    assert counts == {"pre": 5, "post": 4, "none": 0}


def test_patches_are_those_of_the_image() -> None:
    """Without positions and blocks, the mean over patches is that of the image's own 4x4 squares."""
    model = VisionTransformer(width=16, depth=0, heads=1, outputs=16, patch=4, norm="none")
    params = initialize(model, IMAGES, 0)
    params["Dense_0"]["kernel"] = params["Dense_1"]["kernel"] = jnp.eye(16)
    params["position_embedding"] = jnp.zeros((16, 16))
    squares = [IMAGES[:, i : i + 4, j : j + 4, 0].reshape(-1, 16) for i in range(0, 16, 4) for j in range(0, 16, 4)]
    assert np.allclose(model.apply({"params": params}, IMAGES), np.mean(squares, axis=0), atol=1e-5)


def test_no_convolution_reaches_the_compiler() -> None:
    """Convolutions mapped over weights take XLA minutes on CPUs: the nets are matrix products alone."""
    for model, inputs in (
        (ResidualNet(width=4, depth=1, outputs=5), IMAGES),
        (SequenceConv(4), SIGNALS),
        (VisionTransformer(width=8, depth=1, heads=2, outputs=5, patch=4), IMAGES),
    ):
        params = jax.eval_shape(model.init, jax.random.key(0), inputs)
        assert "conv_general_dilated" not in str(jax.make_jaxpr(model.apply)(params, inputs))
