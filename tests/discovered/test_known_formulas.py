from typing import Any

import numpy as np
import pytest
from oracles.elementwise_formulas import FORMULAS, LR, Vector
from oracles.running import STEPS, Case, by_jax, by_numpy, expected, gradient, layout, program_of, regimes_of, start

from evolion.primitives.numpy_interpreter import initial_slots, stepper

REGIMES = ("gauss", "tiny", "sparse")
RUNS = [(name, regime) for name in FORMULAS for regime in REGIMES]


def case(name: str) -> Case:
    return Case(name, "", LR, FORMULAS[name][0])


def followed(name: str, regime: str) -> Vector:
    """The weights of the reference, shape (STEPS + 1, entries)."""
    w, none = start(case(name), regime), np.zeros(())
    gradients = [gradient(case(name), regime, step, none) for step in range(STEPS)]
    return np.stack([w, *FORMULAS[name][1](gradients, w)])


def gap(ours: Vector, theirs: Vector) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs - theirs[0]).max())


@pytest.mark.parametrize(("name", "regime"), RUNS)
def test_numpy_follows_the_formula(name: str, regime: str) -> None:
    """A reference program is the published rule, written down once more after another source."""
    assert gap(by_numpy(case(name), regime), followed(name, regime)) <= 1e-9


@pytest.mark.parametrize("name", FORMULAS)
def test_jax_follows_the_formula(name: str) -> None:
    """So is its Optax transform."""
    assert gap(by_jax(case(name), "gauss"), followed(name, "gauss")) <= 1e-9


def normals(step: int) -> tuple[Vector, Vector]:
    rng = np.random.default_rng([5, step])
    return rng.normal(size=(8, 5)), rng.normal(size=5)


def test_gradient_noise_has_the_variance_of_the_paper() -> None:
    """The noise shrinks as the paper says (arXiv:1511.06807), where steps count from 0."""
    noisy = Case("gradient_noise", "", LR, {"eta": 0.3, "gamma": 0.7}, noise=normals)
    w = start(noisy, "gauss")
    path = [w]
    for step in range(STEPS):
        sigma = np.sqrt(0.3 / (1 + step) ** 0.7)
        w = w - LR * (gradient(noisy, "gauss", step, w) + sigma * np.concatenate([x.ravel() for x in normals(step)]))
        path.append(w)
    assert gap(by_numpy(noisy, "gauss"), np.stack(path)) <= 1e-12


def test_random_scaling_projects_the_noise_on_two_directions() -> None:
    """One number scales the whole step: half the squares of the noise along orthonormal directions made from m."""
    scaled = Case("random_scaled_sgdm", "", LR, {"momentum": 0.8}, noise=normals)
    w = start(scaled, "gauss")
    m, path = np.zeros_like(w), [w]
    for step in range(STEPS):
        m = 0.8 * m + 0.2 * gradient(scaled, "gauss", step, w)
        basis, _ = np.linalg.qr(np.stack([np.ones_like(m), m], axis=1))
        z = basis.T @ np.concatenate([x.ravel() for x in normals(step)])
        w = w - LR * 0.5 * float(z @ z) * m
        path.append(w)
    assert gap(by_numpy(scaled, "gauss"), np.stack(path)) <= 1e-12


def test_random_scales_are_exponential() -> None:
    """Over many steps the scales have the distribution function of Exp(1) and are not correlated."""
    scaled = Case("random_scaled_sgdm", "", 1.0, {"momentum": 0.0})
    step = stepper(program_of(scaled), layout(scaled))
    slots = initial_slots(program_of(scaled), layout(scaled))
    rng, scales = np.random.default_rng(3), []
    for _ in range(2000):
        g = rng.normal(size=45)
        update, slots = step({"g": g, "noise": rng.normal(size=45), "lr": np.float64(1), "momentum": 0.0} | slots)
        scales.append(update[0] / g[0])
    parts = np.arange(1, 10) / 10
    np.testing.assert_allclose(np.quantile(scales, parts), -np.log(1 - parts), rtol=0.12)
    assert abs(np.corrcoef(scales[1:], scales[:-1])[0, 1]) < 0.07


@pytest.mark.parametrize(
    "sampled",
    [
        Case("schedule_free_sgd", "schedulefree_sgd@sf", 0.1, parameters="eval_"),
        Case("schedule_free_adamw", "schedulefree_adamw@sf", 0.02, {"b2": 0.99}, parameters="eval_"),
    ],
    ids=lambda one: one.program,
)
def test_schedule_free_point_of_evaluation(sampled: Case) -> None:
    """The average that schedule-free optimizers evaluate at comes back from weights and slot as the docstring says."""
    program, lay = program_of(sampled), layout(sampled)
    constants: dict[str, Any] = {h.name: h.value for h in program.hyperparameters}
    momentum = constants.get("momentum", constants.get("b1"))
    step = stepper(program, lay)
    for regime in regimes_of(sampled):
        w, slots = start(sampled, regime), initial_slots(program, lay)
        path = [w]
        for t in range(STEPS):
            given = {"w": w, "g": gradient(sampled, regime, t, w), "lr": np.float64(sampled.learning_rate or 0.0)}
            update, slots = step(constants | slots | given | {"t": np.float64(t + 1)})
            w = w - update
            path.append((w - (1 - momentum) * slots["z"]) / momentum)
        assert gap(np.stack(path), expected(sampled, regime)) <= 1e-9
