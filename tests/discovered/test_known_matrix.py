"""Matrix programs without a stored trajectory, beside direct transcriptions of their algorithms over one matrix."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from evolion.discovered.library import known
from evolion.primitives.layout import Layout
from evolion.primitives.matrices import eigenvectors
from evolion.primitives.numpy_interpreter import initial_slots, stepper

Matrix = NDArray[np.float64]
Rule = Callable[[int, Matrix, Matrix, Matrix], Matrix]
"""(step from 1, weights, gradient, noise) to the next weights."""

STEPS = 14
RATE = 0.03
SHAPES = ((6, 4), (4, 7), (5, 5))


def basis(gram: Matrix) -> Matrix:
    """Eigenvectors, largest first: signs and the basis of a kernel are the program's choice, all else is checked."""
    vectors: Matrix = eigenvectors(np, gram)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(gram)), atol=1e-10)
    values = np.diag(vectors.T @ gram @ vectors)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(gram)[::-1], rtol=1e-6, atol=1e-9)
    return vectors


def soap(shape: tuple[int, int]) -> Rule:
    """Vyas et al. (arXiv:2409.11321), algorithm 3, in the order of the authors' code."""
    beta, eps, decay, frequency = 0.95, 1e-8, 0.01, 3
    m, v = np.zeros(shape), np.zeros(shape)
    grams = [np.zeros((side, side)) for side in shape]
    bases: list[Matrix] = []

    def step(t: int, w: Matrix, g: Matrix, _: Matrix) -> Matrix:
        nonlocal m, v, bases
        if t > 1:
            left, right = bases
            m = beta * m + (1 - beta) * g
            v = beta * v + (1 - beta) * (left.T @ g @ right) ** 2
            n = t - 1
            size = RATE * np.sqrt(1 - beta**n) / (1 - beta**n)
            w = w - size * left @ (left.T @ m @ right / (np.sqrt(v) + eps)) @ right.T
            w = w - RATE * decay * w
        for gram, new in zip(grams, (g @ g.T, g.T @ g), strict=True):
            gram *= beta
            gram += (1 - beta) * new
        if t == 1:
            bases = [basis(gram) for gram in grams]
        elif (t - 1) % frequency == 0:
            for side, gram in enumerate(grams):
                order = np.argsort(-np.diag(bases[side].T @ gram @ bases[side]))
                v = np.take(v, order, axis=side)
                q, r = np.linalg.qr(gram @ bases[side][:, order])
                bases[side] = q * np.where(np.diag(r) < 0, -1.0, 1.0)
        return w

    return step


def frugal(shape: tuple[int, int]) -> Rule:
    """Zmushko et al. (arXiv:2411.07837), algorithm 1: state-full Adam inside, state-free sign descent outside."""
    b1, b2, eps, decay, density, gap = 0.9, 0.999, 1e-8, 0.01, 0.5, 5
    tall = shape[1] >= shape[0]
    state: dict[str, Matrix] = {}

    def step(t: int, w: Matrix, g: Matrix, _: Matrix) -> Matrix:
        if (t - 1) % gap == 0:
            gram = g @ g.T if tall else g.T @ g
            state["p"] = basis(gram)[:, : round(density * len(gram))]
            state["m"] = state["v"] = np.zeros(())
        n = (t - 1) % gap + 1
        p = state["p"]
        low = p.T @ g if tall else g @ p
        state["m"] = b1 * state["m"] + (1 - b1) * low
        state["v"] = b2 * state["v"] + (1 - b2) * low**2
        adam = state["m"] / (1 - b1**n) / (np.sqrt(state["v"] / (1 - b2**n)) + eps)
        inside, back = (p @ low, p @ adam) if tall else (low @ p.T, adam @ p.T)
        return w * (1 - RATE * decay) - RATE * back - RATE * np.sign(g - inside)

    return step


def orthogonal_sgdm(shape: tuple[int, int]) -> Rule:
    """Tuddenham et al. (arXiv:2202.07052), algorithm 1, by singular values."""
    m = np.zeros(shape)

    def step(_: int, w: Matrix, g: Matrix, __: Matrix) -> Matrix:
        nonlocal m
        left, _values, right = np.linalg.svd(g, full_matrices=False)
        m = 0.9 * m + left @ right
        return w - RATE * m

    return step


def largest_singular_value(gram: Matrix) -> float:
    """The lower bound of Li's code: a row and two products."""
    size = np.abs(gram).max()
    scaled = gram / size
    x = scaled @ scaled[:, np.argmax((scaled**2).sum(axis=0))]
    return float(size * np.linalg.norm(scaled.T @ (x / np.linalg.norm(x))))


def psgd_one_sided(shape: tuple[int, int]) -> Rule:
    """Li (arXiv:2402.11858), the triangular factor of one side, as in kron_torch for two."""
    wide = shape[0] <= shape[1]
    q = np.eye(min(shape))
    m = np.zeros(shape)

    def step(t: int, w: Matrix, g: Matrix, noise: Matrix) -> Matrix:
        nonlocal q, m
        m = 0.9 * m + 0.1 * g
        mhat, probe = m / (1 - 0.9**t), noise
        if not wide:
            mhat, probe = mhat.T, probe.T
        a, b = q @ mhat, np.linalg.solve(q.T, probe)
        a, b = a @ a.T, b @ b.T
        q = q - 0.1 * np.triu(a - b) / largest_singular_value(a + b) @ q
        u = q.T @ q @ mhat
        u = u * min(1.0, 1.1 / (np.sqrt(np.mean(u**2)) + 1e-8))
        return w - RATE * (u if wide else u.T)

    return step


def online_subspace_descent(shape: tuple[int, int]) -> Rule:
    """Liang et al. (arXiv:2408.12857): the slope of the objective by automatic differentiation."""
    b1, b2, eps, rank, penalty, rate = 0.9, 0.999, 1e-8, 2, 0.1, 0.005
    wide = shape[0] <= shape[1]
    state: dict[str, Any] = {"m": 0.0, "v": 0.0, "mp": 0.0, "vp": 0.0}

    def objective(p: Any, g: Any) -> Any:
        return jnp.sum((g - p @ p.T @ g) ** 2) + penalty * jnp.sum((p.T @ p - jnp.eye(rank)) ** 2)

    def slope(p: Matrix, g: Matrix) -> Matrix:
        with jax.enable_x64(True):
            return np.asarray(jax.grad(objective)(jnp.asarray(p), jnp.asarray(g)))

    def adam(name: str, t: int, x: Matrix) -> Matrix:
        m, v = f"m{name}", f"v{name}"
        state[m] = b1 * state[m] + (1 - b1) * x
        state[v] = b2 * state[v] + (1 - b2) * x**2
        result: Matrix = state[m] / (1 - b1**t) / (np.sqrt(state[v] / (1 - b2**t)) + eps)
        return result

    def step(t: int, w: Matrix, g: Matrix, _: Matrix) -> Matrix:
        g = g if wide else g.T
        if t == 1:
            state["p"] = basis(g @ g.T)[:, :rank]
        p = state["p"]
        change = 0.25 * p @ adam("", t, p.T @ g)
        state["p"] = p - rate * adam("p", t, slope(p, g / np.linalg.norm(g)))
        return w - RATE * (change if wide else change.T)

    return step


RULES: dict[str, tuple[Callable[[tuple[int, int]], Rule], dict[str, float], float]] = {
    "soap": (soap, {"precondition_frequency": 3}, 1e-5),
    "frugal": (frugal, {"density": 0.5, "update_gap": 5}, 1e-9),
    "orthogonal_sgdm": (orthogonal_sgdm, {}, 1e-9),
    "psgd_one_sided": (psgd_one_sided, {}, 1e-9),
    "online_subspace_descent": (online_subspace_descent, {"rank": 2}, 1e-6),
}
"""By name the transcription, hyperparameters of the program, and the gap that is allowed: the power iteration of the
language is shifted by 1e-8, and Adam enlarges the rounding of a slope that starts at zero."""


def path(name: str, shape: tuple[int, int], given: list[tuple[Matrix, Matrix]], start: Matrix) -> Iterator[Matrix]:
    program = known()[name].with_hyperparameters(**RULES[name][1])
    layout = Layout((shape,))
    step, slots = stepper(program, layout), initial_slots(program, layout)
    fixed: dict[str, Any] = {h.name: h.value for h in program.hyperparameters} | {"lr": np.float64(RATE)}
    w = start.ravel()
    for t, (g, noise) in enumerate(given, start=1):
        with np.errstate(all="ignore"):
            values = {"w": w, "g": g.ravel(), "noise": noise.ravel(), "t": np.float64(t)}
            update, slots = step(fixed | slots | values)
        w = w - update
        yield w.reshape(shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", RULES)
def test_program_is_the_algorithm(name: str, shape: tuple[int, int]) -> None:
    """A matrix rule of which no trajectory is stored does what its algorithm says, for any shape of matrix."""
    rng = np.random.default_rng(3)
    start = rng.standard_normal(shape)
    drift = rng.standard_normal(shape)
    given = [(drift + rng.standard_normal(shape), rng.standard_normal(shape)) for _ in range(STEPS)]
    rule = RULES[name][0](shape)
    w, theirs = start, []
    for t, (g, noise) in enumerate(given, start=1):
        w = rule(t, w, g, noise)
        theirs.append(w)
    ours = list(path(name, shape, given, start))
    moved = max(float(np.abs(other - start).max()) for other in theirs)
    gap = max(float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True))
    assert gap / moved < RULES[name][2]
