"""Models of regressions, of fields and of noisy quadratics."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.typing import NDArray

from evolion.proxies.data.collocation import source_term
from evolion.proxies.data.streams import normal, raw_stream
from evolion.proxies.data.uri import open_source
from evolion.proxies.initialization import initialize
from evolion.proxies.models.fields import BoundedField, fourier_frequencies
from evolion.proxies.models.quadratic import NoisyQuadratic, curvatures, optimum, rotation
from evolion.proxies.models.regression import Autoencoder, LinearTransformer
from evolion.proxies.objectives import OBJECTIVES
from evolion.proxies.registry import get_spec

DIMENSION, BATCH, STEPS, RUNS, RATE, SPREAD = 24, 4, 40, 512, 0.3, 0.1


def _expected(momentum: float) -> NDArray[np.float64]:
    """Expected losses after 0 … STEPS steps: the second moments of error and velocity, coordinate by coordinate."""
    h = curvatures(DIMENSION, 1.0)
    zero, one = np.zeros_like(h), np.ones_like(h)
    step = np.moveaxis(np.array([[one - RATE * h, -RATE * momentum * one], [h, momentum * one]]), -1, 0)
    noise = (h / BATCH)[:, None, None] * np.array([[RATE**2, -RATE], [-RATE, 1.0]])
    moments = np.moveaxis(np.array([[one + SPREAD**2, zero], [zero, zero]]), -1, 0)
    losses = [0.5 * h @ moments[:, 0, 0]]
    for _ in range(STEPS):
        moments = step @ moments @ np.swapaxes(step, 1, 2) + noise
        losses.append(0.5 * h @ moments[:, 0, 0])
    return np.array(losses)


def _simulated(model: NoisyQuadratic, momentum: float) -> NDArray[np.float32]:
    """Losses without noise of so many runs, shape (RUNS, STEPS + 1)."""
    indices = np.arange(RUNS * STEPS * BATCH)
    drawn = open_source(f"quadratic:?dimension={DIMENSION}").gather("train", indices)["inputs"]
    noise = (drawn.astype(np.float32) / 127.5 - 1).reshape(RUNS, STEPS, BATCH, DIMENSION)
    tx = optax.sgd(RATE, momentum=momentum)

    def loss(weights: jax.Array, noise: jax.Array) -> jax.Array:
        outputs: Any = model.apply({"params": {"weights_embedding": weights}}, noise)
        return jnp.mean(outputs)

    def run(start: jax.Array, noise: jax.Array) -> jax.Array:
        def advance(carry: Any, batch: jax.Array) -> tuple[Any, jax.Array]:
            weights, state = carry
            updates, state = tx.update(jax.grad(loss)(weights, batch), state)
            weights = optax.apply_updates(weights, updates)
            return (weights, state), loss(weights, jnp.zeros_like(batch))

        losses = jax.lax.scan(advance, (start, tx.init(start)), noise)[1]
        return jnp.concatenate([loss(start, jnp.zeros_like(noise[0]))[None], losses])

    starts = np.asarray(SPREAD * normal(raw_stream(9, 14), (RUNS, DIMENSION)), np.float32)
    return np.asarray(jax.jit(jax.vmap(run))(starts, noise))


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_quadratics_follow_the_exact_recursion(momentum: float, *, rotated: bool) -> None:
    """Mean losses under gradient descent, with and without momentum, are those that theory gives (arXiv:1907.04164)."""
    losses = _simulated(NoisyQuadratic(DIMENSION, rotated=rotated), momentum)
    error = losses.std(axis=0) / np.sqrt(RUNS)
    assert (np.abs(losses.mean(axis=0) - _expected(momentum)) < 4.5 * error).all()
    assert losses[:, -1].mean() < 0.7 * losses[:, 0].mean()


def test_rotation_changes_the_basis_alone() -> None:
    """The matrix is orthogonal, full, and takes the weights of one quadratic to those of the other."""
    turn = rotation(DIMENSION)
    assert np.abs(turn.T.astype(np.float64) @ turn - np.eye(DIMENSION)).max() < 1e-5
    assert np.abs(turn).max() < 0.95
    weights, noise = np.linspace(-2, 2, DIMENSION, dtype=np.float32), np.full((3, DIMENSION), 0.5, np.float32)
    plain = NoisyQuadratic(DIMENSION).apply({"params": {"weights_embedding": weights}}, noise)
    rotated = NoisyQuadratic(DIMENSION, rotated=True).apply({"params": {"weights_embedding": turn @ weights}}, noise)
    assert np.allclose(plain, rotated, rtol=1e-4)


@pytest.mark.parametrize("name", ["noisy-quadratic", "noisy-quadratic-rotated"])
def test_start_of_a_quadratic_is_its_expectation(name: str) -> None:
    """The stated loss at the start is the mean over initial weights; the best weights have none, in evaluation."""
    spec = get_spec(name)
    dimension, turned = int(str(spec.sizes["dimension"])), bool(spec.sizes["rotated"])
    assert spec.start == pytest.approx(0.5 * curvatures(dimension, 1.0).sum() * (1 + spec.init_scale**2))
    best = optimum(dimension)
    pair = open_source(spec.data).gather("validation", np.arange(2))["inputs"].astype(np.float32) / 127.5 - 1
    model = NoisyQuadratic(dimension, rotated=turned)
    weights = rotation(dimension) @ best if turned else best
    outputs: Any = model.apply({"params": {"weights_embedding": weights}}, pair)
    assert abs(float(jnp.mean(outputs))) < 1e-5


def test_poisson_residual_of_known_functions() -> None:
    """The second derivative is exact: no residual for the solution, and that of a polynomial where it is not one."""
    x = np.linspace(0, 1, 50, dtype=np.float32)[:, None]
    loss = OBJECTIVES["poisson equation"].loss
    term = source_term(x.astype(np.float64), (1, 3)).astype(np.float32)

    def solved(x: jax.Array) -> jax.Array:
        return jnp.sin(np.pi * x) / np.pi**2 + jnp.sin(3 * np.pi * x) / (3 * np.pi) ** 2

    assert float(loss(solved, {"inputs": x, "targets": term})) < 1e-9
    assert float(loss(lambda x: x**3, {"inputs": x, "targets": term})) == pytest.approx(
        float(np.mean((6 * x + term) ** 2)), rel=1e-4
    )


def test_poisson_loss_has_a_gradient() -> None:
    """The gradient of a residual with respect to weights agrees with differences of the loss."""
    model, x = BoundedField(8, 2), np.linspace(0, 1, 16, dtype=np.float32)[:, None]
    params = initialize(model, x, 0)
    batch = {"inputs": x, "targets": np.sin(np.pi * x)}

    @jax.jit
    def loss(scale: jax.Array) -> jax.Array:
        def predict(inputs: jax.Array) -> jax.Array:
            scaled = jax.tree.map(lambda leaf: leaf * scale, params)
            outputs: Any = model.apply({"params": scaled}, inputs)
            return jnp.asarray(outputs)

        return OBJECTIVES["poisson equation"].loss(predict, batch)

    difference = (loss(np.float32(1.01)) - loss(np.float32(0.99))) / 0.02
    assert float(jax.jit(jax.grad(loss))(np.float32(1))) == pytest.approx(float(difference), rel=1e-2)


def test_bounded_field_keeps_the_boundary() -> None:
    """The function is zero at both ends whatever the weights are, and not between."""
    x, model = np.array([[0], [0.25], [1]], np.float32), BoundedField(8, 2)
    left, between, right = np.ravel(model.apply({"params": initialize(model, x, 0)}, x))
    assert left == right == 0
    assert between != 0


def _layer_by_layer(params: Mapping[str, Any], depth: int, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    attended = tokens.shape[1] - 1
    for layer in range(depth):
        value, query = (params[f"Dense_{2 * layer + place}"]["kernel"] for place in (0, 1))
        keys = tokens[:, :attended]
        scores = (tokens @ query) @ np.swapaxes(keys, 1, 2)
        tokens = tokens + scores @ (keys @ value) / attended
    return -tokens[:, -1, -1:]


def test_linear_transformer_is_linear_attention() -> None:
    """Following one small matrix for each sequence gives what attention between all tokens gives, layer by layer."""
    tokens = open_source("linear-regression:?dimension=3&examples=8").gather("train", np.arange(4))["inputs"]
    params = initialize(LinearTransformer(3), tokens, 0)
    outputs = LinearTransformer(3).apply({"params": params}, tokens)
    by_layers = np.asarray(_layer_by_layer(params, 3, tokens))
    assert np.allclose(outputs, by_layers, rtol=1e-3, atol=1e-4 * np.abs(by_layers).max())


def test_autoencoder_narrows_to_its_code() -> None:
    """The narrowest layer is the code, and the loss of an example is the mean squared error of its values."""
    model, inputs = Autoencoder(16, 1, 3), np.full((5, 12), 3, np.float32)
    params = initialize(model, inputs, 0)
    assert [params[f"Dense_{layer}"]["kernel"].shape[1] for layer in range(4)] == [16, 3, 16, 12]
    losses: Any = model.apply({"params": jax.tree.map(np.zeros_like, params)}, inputs)
    assert losses.shape == (5,)
    assert np.allclose(losses, 9)


def test_fourier_frequencies_are_fixed() -> None:
    """Every run and machine has the same features, of the bandwidth that is asked for."""
    first = fourier_frequencies(2, 256, 10.0)
    assert first.std() == pytest.approx(10, rel=0.1)
    assert np.array_equal(first, fourier_frequencies.__wrapped__(2, 256, 10.0))
