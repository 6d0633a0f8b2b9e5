"""Regression: teacher and student, autoencoder, denoiser, in-context linear regression."""

from evolion.proxies.spec import TaskSpec

TEACHER_STUDENT = TaskSpec(
    name="teacher-student",
    family="perceptron",
    summary="perceptron 32-128-128-1 on a tanh network of inputs with a power-law spectrum",
    model="perceptron.Perceptron",
    sizes={"width": 128, "depth": 2, "outputs": 1, "activation": "relu"},
    data="teacher:?inputs=32&width=32&power=1",
    objective="mean squared error",
    steps=2000,
    batch_size=64,
    learning_rates=(1e-3, 3e-3, 1e-2),
    start=1.0,
    metric="mean squared error, share of the variance",
    purpose="ranking",
    rungs={"10x": {"width": 2, "horizon": 2.5}, "100x": {"width": 5, "horizon": 4}},
)

PATCH_AUTOENCODER = TaskSpec(
    name="patch-autoencoder",
    family="autoencoder",
    summary="autoencoder 192-128-24-128-192 on patches of 8x8 pixels of two photographs",
    model="regression.Autoencoder",
    sizes={"width": 128, "depth": 1, "code": 24, "activation": "relu"},
    data="image-patches:?size=8&stride=2",
    objective="mean output",
    steps=1300,
    batch_size=64,
    learning_rates=(1e-3, 3e-3, 1e-2),
    start=0.5,
    metric="mean squared error of pixels from -1 to 1",
    rungs={"10x": {"width": 4, "horizon": 2.5}, "100x": {"width": 8, "depth": 2, "horizon": 2.5}},
)

DIGITS_DENOISER = TaskSpec(
    name="digits-denoiser",
    family="denoiser",
    summary="perceptron 65-128-128-64 that predicts the noise in digits, of levels 0.1 to 2",
    model="perceptron.Perceptron",
    sizes={"width": 128, "depth": 2, "outputs": 64, "activation": "relu"},
    data="noisy-digits:?low=0.1&high=2",
    objective="mean squared error",
    steps=1000,
    batch_size=32,
    learning_rates=(1e-3, 3e-3, 1e-2),
    start=1.0,
    metric="mean squared error of the noise, share of its variance",
    rungs={"10x": {"width": 2, "horizon": 2.5}, "100x": {"width": 5, "horizon": 4}},
)

LINEAR_ATTENTION = TaskSpec(
    name="linear-attention",
    family="in-context regression",
    summary="linear transformer of three layers on linear regressions of 20 examples in 5 dimensions",
    model="regression.LinearTransformer",
    sizes={"depth": 3},
    data="linear-regression:?dimension=5&examples=20",
    objective="mean squared error",
    steps=1000,
    batch_size=64,
    learning_rates=(1e-3, 3e-3, 1e-2),
    start=1.0,
    metric="mean squared error, share of the variance",
    rungs={"10x": {"depth": 2, "horizon": 4}, "100x": {"depth": 4, "horizon": 16}},
    init_scale=0.25,
)

SPECS: tuple[TaskSpec, ...] = (TEACHER_STUDENT, PATCH_AUTOENCODER, DIGITS_DENOISER, LINEAR_ATTENTION)
