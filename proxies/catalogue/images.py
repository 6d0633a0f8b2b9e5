"""Models of images."""

import math

from evolion.proxies.spec import TaskSpec

DIGITS_MLP = TaskSpec(
    name="digits-mlp",
    family="perceptron",
    summary="perceptron 64-32-32-10 on scikit-learn's digits",
    model="perceptron.Perceptron",
    sizes={"width": 32, "depth": 2, "outputs": 10, "activation": "relu"},
    data="digits:",
    objective="cross-entropy",
    steps=500,
    batch_size=64,
    learning_rates=(3e-3, 1e-2, 3e-2),
    start=math.log(10),
    metric="cross-entropy, nats",
    purpose="smoke",
    rungs={"10x": {"width": 3, "horizon": 2}, "100x": {"width": 8, "horizon": 4}},
)

DIGITS_CNN = TaskSpec(
    name="digits-cnn",
    family="convolution",
    summary="convolutional net, two layers of 16 features, on scikit-learn's digits",
    model="convolution.ConvNet",
    sizes={"width": 16, "depth": 2, "outputs": 10, "activation": "relu"},
    data="digits:",
    objective="cross-entropy",
    steps=500,
    batch_size=64,
    learning_rates=(3e-3, 1e-2, 3e-2),
    start=math.log(10),
    metric="cross-entropy, nats",
    purpose="smoke",
    rungs={"10x": {"width": 2, "horizon": 2.5}, "100x": {"width": 5, "horizon": 4}},
)

MNIST1D_CNN = TaskSpec(
    name="mnist1d-cnn",
    family="convolution",
    summary="convolutional net, three layers of 32 features, on generated one-dimensional digits",
    model="convolution.SequenceConvNet",
    sizes={"width": 32, "depth": 3, "outputs": 10, "activation": "relu"},
    data="mnist1d:",
    objective="cross-entropy",
    steps=1000,
    batch_size=64,
    learning_rates=(1e-2, 3e-2, 1e-1),
    start=math.log(10),
    metric="cross-entropy, nats",
    rungs={"10x": {"width": 2, "horizon": 2.5}, "100x": {"width": 5, "horizon": 4}},
)

MNIST1D_GRU = TaskSpec(
    name="mnist1d-gru",
    family="recurrent",
    summary="gated recurrent units, one layer of width 32, on generated one-dimensional digits",
    model="recurrent.GruClassifier",
    sizes={"width": 32, "depth": 1, "outputs": 10, "activation": "tanh"},
    data="mnist1d:",
    objective="cross-entropy",
    steps=800,
    batch_size=64,
    learning_rates=(1e-2, 3e-2, 1e-1),
    start=math.log(10),
    metric="cross-entropy, nats",
    rungs={"10x": {"width": 2, "horizon": 2.5}, "100x": {"width": 5, "horizon": 4}},
)

GLYPH_CNN = TaskSpec(
    name="glyph-cnn",
    family="convolution",
    summary="convolutional net, three layers of 24 features, on rendered characters; faces held out",
    model="convolution.ConvNet",
    sizes={"width": 24, "depth": 3, "outputs": 62, "activation": "relu"},
    data="glyphs:?size=16",
    objective="cross-entropy",
    steps=500,
    batch_size=32,
    learning_rates=(3e-3, 1e-2, 3e-2),
    start=math.log(62),
    metric="cross-entropy, nats",
    purpose="ranking",
    rungs={"10x": {"width": 2, "horizon": 2.5}, "100x": {"width": 5, "horizon": 4}},
)

GLYPH_RESNET = TaskSpec(
    name="glyph-resnet",
    family="convolution",
    summary="residual net with batch norm, two stages of one block, on rendered characters; faces held out",
    model="convolution.ResidualNet",
    sizes={"width": 16, "depth": 1, "outputs": 62, "activation": "relu", "norm": "pre"},
    data="glyphs:?size=16",
    objective="cross-entropy",
    steps=300,
    batch_size=32,
    learning_rates=(1e-2, 3e-2, 1e-1),
    start=math.log(62),
    metric="cross-entropy, nats",
    rungs={"10x": {"width": 2, "horizon": 2.5}, "100x": {"width": 4, "depth": 2, "horizon": 3}},
)

GLYPH_VIT = TaskSpec(
    name="glyph-vit",
    family="transformer",
    summary="vision transformer of width 48, two layers, on rendered characters; faces held out",
    model="vision.VisionTransformer",
    sizes={"width": 48, "depth": 2, "heads": 4, "outputs": 62, "patch": 4, "activation": "gelu", "norm": "pre"},
    data="glyphs:?size=16",
    objective="cross-entropy",
    steps=800,
    batch_size=32,
    learning_rates=(3e-3, 1e-2, 3e-2),
    start=math.log(62),
    metric="cross-entropy, nats",
    rungs={"10x": {"width": 2, "horizon": 2.5}, "100x": {"width": 4, "depth": 2, "horizon": 3}},
)

GLYPH_VIT_LARGE_BATCH = TaskSpec(
    name="glyph-vit-large-batch",
    family="transformer",
    summary="vision transformer of width 32, one layer, on rendered characters in batches of 256; faces held out",
    model="vision.VisionTransformer",
    sizes={"width": 32, "depth": 1, "heads": 2, "outputs": 62, "patch": 4, "activation": "gelu", "norm": "pre"},
    data="glyphs:?size=16",
    objective="cross-entropy",
    steps=250,
    batch_size=256,
    learning_rates=(1e-2, 3e-2, 1e-1),
    start=math.log(62),
    metric="cross-entropy, nats",
    rungs={"10x": {"width": 2, "batch": 2.5}, "100x": {"width": 4, "depth": 2, "batch": 3}},
)

SPECS = (
    DIGITS_MLP,
    DIGITS_CNN,
    MNIST1D_CNN,
    MNIST1D_GRU,
    GLYPH_CNN,
    GLYPH_RESNET,
    GLYPH_VIT,
    GLYPH_VIT_LARGE_BATCH,
)
