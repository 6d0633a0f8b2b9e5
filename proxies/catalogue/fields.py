"""Networks of coordinates: an image as a function, and a differential equation."""

from evolion.proxies.spec import TaskSpec

IMAGE_FIELD = TaskSpec(
    name="image-field",
    family="coordinate network",
    summary="perceptron on Fourier features, two layers of 64, that holds 64x64 pixels of a photograph",
    model="fields.FourierField",
    sizes={"width": 64, "depth": 2, "outputs": 3, "features": 32, "bandwidth": 10.0, "activation": "relu"},
    data="image-field:?image=china&size=64",
    objective="mean squared error",
    steps=1500,
    batch_size=128,
    learning_rates=(1e-3, 3e-3, 1e-2),
    start=1.0,
    metric="mean squared error of the pixels between, share of the variance",
    rungs={"10x": {"width": 4, "horizon": 2}, "100x": {"width": 12, "horizon": 3}},
)

POISSON_PINN = TaskSpec(
    name="poisson-pinn",
    family="physics-informed",
    summary="tanh perceptron, two layers of 32, that solves Poisson's equation on the unit interval by its residuals",
    model="fields.BoundedField",
    sizes={"width": 32, "depth": 2},
    data="collocation:?frequencies=1-3-6",
    objective="poisson equation",
    steps=1500,
    batch_size=64,
    learning_rates=(1e-2, 3e-2, 1e-1),
    start=1.0,
    metric="mean squared residual, share of the mean squared right-hand side",
    rungs={"10x": {"width": 2, "horizon": 3}, "100x": {"width": 5, "horizon": 5}},
    init_scale=0.3,
)

SPECS: tuple[TaskSpec, ...] = (IMAGE_FIELD, POISSON_PINN)
