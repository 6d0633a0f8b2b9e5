"""Published formulas of elementwise known programs that have no stored trajectory, written out once more.

Each reference is a generator over gradients that yields the weights after each step, written after the source that it
names and not after the program.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray
from oracles.running import STEPS

Vector = NDArray[np.float64]
Path = Iterator[Vector]
Reference = Callable[[list[Vector], Vector], Path]

LR = 0.02


def dampened(gradients: list[Vector], w: Vector) -> Path:
    """torch.optim.SGD, the algorithm in its documentation."""
    buffer = None
    for g in gradients:
        buffer = g.copy() if buffer is None else 0.9 * buffer + (1 - 0.6) * g
        w = w - LR * buffer
        yield w


def amsbound(gradients: list[Vector], w: Vector) -> Path:
    """adabound.py of the authors (Luolc/AdaBound), amsbound=True, without a schedule."""
    exp_avg, exp_avg_sq, largest = (np.zeros_like(w) for _ in range(3))
    for step, g in enumerate(gradients, 1):
        exp_avg = 0.9 * exp_avg + 0.1 * g
        exp_avg_sq = 0.99 * exp_avg_sq + 0.01 * g**2
        largest = np.maximum(largest, exp_avg_sq)
        size = LR * np.sqrt(1 - 0.99**step) / (1 - 0.9**step)
        low, high = 0.1 * (1 - 1 / (0.05 * step + 1)), 0.1 * (1 + 1 / (0.05 * step))
        w = w - np.clip(size / (np.sqrt(largest) + 1e-8), low, high) * exp_avg
        yield w


def signs(kind: str, decay: Callable[[int], float]) -> Reference:
    """The kernels of tf.contrib.opt and the decays of its sign_decay.py, whose global step starts at 0."""

    def follow(gradients: list[Vector], w: Vector) -> Path:
        m = np.zeros_like(w)
        for step, g in enumerate(gradients):
            m = m + (g - m) * (1 - 0.8)
            agreement = decay(step) * np.sign(g) * np.sign(m)
            w = w - LR * g * (np.exp(1.5 * agreement) if kind == "power" else 0.7 + agreement)
            yield w

    return follow


def linear_decay(step: int) -> float:
    return (STEPS - min(step, STEPS)) / STEPS


def cosine_decay(step: int) -> float:
    return float(0.5 * (1 + np.cos(2 * np.pi * 1.5 * min(step, STEPS) / STEPS)))


def ademamix(gradients: list[Vector], w: Vector) -> Path:
    """The authors' code (apple/ml-ademamix) with both warm-ups, in half-lives, without its 1e-8 beside the decays."""
    warmup = 0.6 * STEPS

    def half_life(beta: float) -> float:
        return float(np.log(0.5) / np.log(beta))

    fast, slow, squares = (np.zeros_like(w) for _ in range(3))
    for step, g in enumerate(gradients, 1):
        a = min(step / warmup, 1.0)
        alpha = a * 6.0
        beta3 = 0.5 ** (1 / ((1 - a) * half_life(0.9) + a * half_life(0.999)))
        fast += (1 - 0.9) * (g - fast)
        slow += (1 - beta3) * (g - slow)
        squares += (1 - 0.99) * (g * g - squares)
        denominator = np.sqrt(squares) / np.sqrt(1 - 0.99**step) + 1e-8
        w = w - LR * ((fast / (1 - 0.9**step) + alpha * slow) / denominator + 0.05 * w)
        yield w


def grams(gradients: list[Vector], w: Vector) -> Path:
    """The paper (arXiv:2412.17107): the sign of g times the absolute value of Adam's step; decay as in AdamW."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        u = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-6)
        w = (1 - LR * 0.1) * w - LR * np.copysign(np.abs(u), g) * (g != 0)
        yield w


def exadam(rate: Callable[[int], float]) -> Reference:
    """exadam.py of the author (AhmedMostafa16/EXAdam); its first release multiplied the learning rate."""

    def follow(gradients: list[Vector], w: Vector) -> Path:
        m, v = np.zeros_like(w), np.zeros_like(w)
        for step, g in enumerate(gradients, 1):
            beta1_t, beta2_t = 0.9**step, 0.99**step
            m = m * 0.9 + (1 - 0.9) * g
            v = v * 0.99 + (1 - 0.99) * g * g
            d1 = 1 + (v / (v + 1e-8)) * beta2_t
            d2 = 1 + (m**2 / (m**2 + 1e-8)) * beta1_t
            m_tilde, v_tilde = m / (1 - beta1_t) * d1, v / (1 - beta2_t) * d2
            g_tilde = g / (1 - beta1_t) * d1
            w = w - LR * rate(step) * (m_tilde + g_tilde) / (np.sqrt(v_tilde) + 1e-8)
            yield w

    return follow


def laprop(gradients: list[Vector], w: Vector) -> Path:
    """laprop.py of the authors (Z-T-WANG/LaProp-Optimizer), which keeps the learning rate in the slot."""
    exp_avg, exp_avg_sq = np.zeros_like(w), np.zeros_like(w)
    rates, ones = 0.0, 0.0
    for g in gradients:
        exp_avg_sq = 0.95 * exp_avg_sq + 0.05 * g * g
        rates = rates * 0.8 + (1 - 0.8) * LR
        ones = ones * 0.95 + (1 - 0.95)
        exp_avg = exp_avg * 0.8 + (1 - 0.8) * LR * g / (np.sqrt(exp_avg_sq / ones) + 1e-15)
        w = w - exp_avg / (rates / LR)
        yield w


def qhm(gradients: list[Vector], w: Vector) -> Path:
    """qhm.py of the authors (facebookresearch/qhoptim)."""
    buffer = np.zeros_like(w)
    for g in gradients:
        buffer = 0.95 * buffer + (1.0 - 0.95) * g
        w = w - (LR * 0.6 * buffer + LR * (1.0 - 0.6) * g)
        yield w


def mt_dao(gradients: list[Vector], w: Vector) -> Path:
    """The sum of the paper (arXiv:2510.05361) with explicit sums of weighted gradients as corrected momenta."""

    def average(beta: float, values: list[Vector]) -> Vector:
        weights = beta ** np.arange(len(values))[::-1]
        return np.tensordot(weights / weights.sum(), np.stack(values), 1)

    for t in range(1, STEPS + 1):
        seen = gradients[:t]
        mixed = 0.6 * average(0.999, seen) + 0.3 * average(0.8, seen) + 0.1 * seen[-1]
        w = w - LR * (mixed / (np.sqrt(average(0.99, [g**2 for g in seen])) + 1e-8) + 0.1 * w)
        yield w


def innaprop(gradients: list[Vector], w: Vector) -> Path:
    """innaprop.py of the authors (innaprop/innaprop)."""
    alpha, beta, sigma = 0.5, 0.8, 0.99
    psi, exp_avg_sq = (1 - alpha * beta) * w, np.zeros_like(w)
    for step, g in enumerate(gradients, 1):
        w = w * (1 - LR * 0.1)
        exp_avg_sq = exp_avg_sq * sigma + (1 - sigma) * g * g
        denominator = np.sqrt(exp_avg_sq) / np.sqrt(1 - sigma**step) + 1e-8
        psi = psi * (1 - LR / beta) + w * LR * (1 / beta - alpha)
        w = w * (1 + LR * (1 - beta * alpha) / (beta - LR)) - psi * LR / (beta - LR) - LR * beta * g / denominator
        yield w


def adamomentum(gradients: list[Vector], w: Vector) -> Path:
    """AdaM3.py of the authors (wyzjack/AdaM3) with rectify=False."""
    exp_avg, exp_avg_var = np.zeros_like(w), np.zeros_like(w)
    for step, g in enumerate(gradients, 1):
        exp_avg = exp_avg * 0.8 + (1 - 0.8) * g
        exp_avg_var = exp_avg_var * 0.99 + (1 - 0.99) * exp_avg**2
        exp_avg_var += 1e-14
        w = w - LR / (1 - 0.8**step) * exp_avg / (np.sqrt(exp_avg_var) / np.sqrt(1 - 0.99**step))
        yield w


def vsgd(gradients: list[Vector], w: Vector) -> Path:
    """The authors' code (generativeai-tue/vsgd) as pytorch_optimizer.VSGD has it, in float64."""
    ps, ghattg = 1e-6, 20.0
    pa2, pbg2, pbhg2 = 2.0 * ps + 1.0 + 1e-4, 2.0 * ps, 2.0 * ghattg * ps
    mug, bg, bhg = (np.zeros_like(w) for _ in range(3))
    for step, g in enumerate(gradients, 1):
        rho1, rho2 = step**-0.7, step**-0.8
        w = w * (1 - LR * 0.1)
        sg, shg = (pbg2 / (pa2 - 1), pbhg2 / (pa2 - 1)) if step == 1 else (bg / pa2, bhg / pa2)
        old, mug = mug, (mug * shg + g * sg) / (sg + shg)
        second = mug**2 + sg * shg / (sg + shg)
        bg = bg * (1 - rho1) + rho1 * (pbg2 + second - 2 * mug * old + old**2)
        bhg = bhg * (1 - rho2) + rho2 * (pbhg2 + second - 2 * g * mug + g**2)
        w = w - LR * mug / (np.sqrt(second) + 1e-8)
        yield w


def lion_k(slope: Callable[[Vector], Vector]) -> Reference:
    """Lion as its authors have it (arXiv:2302.06675, algorithm 2), with the gradient of K for the sign."""

    def follow(gradients: list[Vector], w: Vector) -> Path:
        m = np.zeros_like(w)
        for g in gradients:
            w, m = w - LR * (slope(0.8 * m + 0.2 * g) + 0.1 * w), 0.95 * m + 0.05 * g
            yield w

    return follow


def in_optax(tx: Any, filtered: Callable[[list[Vector]], list[Vector]] = lambda gradients: gradients) -> Reference:
    """A transform of optax in float64, on gradients that something before it changed."""

    def follow(gradients: list[Vector], w: Vector) -> Path:
        with jax.enable_x64(True):
            params, state, update = jnp.asarray(w), tx.init(jnp.asarray(w)), jax.jit(tx.update)
            for g in filtered(gradients):
                updates, state = update(jnp.asarray(g), state, params)
                params = params + updates
                yield np.asarray(params)

    return follow


def grokfast(gradients: list[Vector]) -> list[Vector]:
    """gradfilter_ema of the authors (ironjr/grokfast), alpha 0.9 and lamb 3."""
    average = gradients[0]
    amplified = []
    for g in gradients:
        average = average * 0.9 + g * (1 - 0.9)
        amplified.append(g + average * 3.0)
    return amplified


def lookahead(gradients: list[Vector], w: Vector) -> Path:
    """optax.lookahead over optax.adamw; its fast weights."""
    tx = optax.lookahead(optax.adamw(LR, b2=0.99, weight_decay=0.1), 3, 0.7)
    with jax.enable_x64(True):
        params = optax.LookaheadParams.init_synced(jnp.asarray(w))
        state = tx.init(params)
        for g in gradients:
            updates, state = tx.update(jnp.asarray(g), state, params)
            params = optax.apply_updates(params, updates)
            yield np.asarray(params.fast)


FORMULAS: Mapping[str, tuple[Mapping[str, float], Reference]] = {
    "momentum_dampened": ({"dampening": 0.6}, dampened),
    "amsbound": ({"b2": 0.99, "base_lr": LR, "gamma": 0.05}, amsbound),
    "addsign": ({"b1": 0.8, "alpha": 0.7}, signs("add", lambda step: 1.0)),
    "addsign_linear_decay": ({"b1": 0.8, "alpha": 0.7}, signs("add", linear_decay)),
    "addsign_cosine_decay": ({"b1": 0.8, "alpha": 0.7, "periods": 1.5}, signs("add", cosine_decay)),
    "powersign_linear_decay": ({"b1": 0.8, "logbase": 1.5}, signs("power", linear_decay)),
    "powersign_cosine_decay": ({"b1": 0.8, "logbase": 1.5, "periods": 1.5}, signs("power", cosine_decay)),
    "ademamix_scheduled": (
        {"b2": 0.99, "b3": 0.999, "alpha": 6.0, "weight_decay": 0.05, "warmup": 0.6},
        ademamix,
    ),
    "simplified_ademamix": (
        {"b1": 0.9, "b2": 0.99, "alpha": 3.0},
        in_optax(optax.contrib.simplified_ademamix(LR, b1=0.9, b2=0.99, alpha=3.0)),
    ),
    "nadamw": (
        {"b2": 0.99, "weight_decay": 0.1},
        in_optax(optax.nadamw(LR, b2=0.99, weight_decay=0.1)),
    ),
    "grams": ({"b2": 0.99, "weight_decay": 0.1}, grams),
    "exadam": ({"b2": 0.99}, exadam(lambda step: 1.0)),
    "exadam_growing": ({"b2": 0.99}, exadam(lambda step: float(np.log(np.sqrt(2) * np.sqrt(step + 1))))),
    "laprop": ({"b1": 0.8, "b2": 0.95}, laprop),
    "qhm": ({"momentum": 0.95, "nu": 0.6}, qhm),
    "mt_dao": ({"b1": 0.8, "b2": 0.99, "slow_share": 0.6, "fast_share": 0.3, "weight_decay": 0.1}, mt_dao),
    "innaprop": ({"alpha": 0.5, "beta": 0.8, "b2": 0.99, "weight_decay": 0.1}, innaprop),
    "adamomentum": ({"b1": 0.8, "b2": 0.99, "eps": 1e-14}, adamomentum),
    "grokfast_adamw": (
        {"alpha": 0.9, "lamb": 3.0, "weight_decay": 0.1},
        in_optax(optax.adamw(LR, b2=0.98, weight_decay=0.1), grokfast),
    ),
    "optimistic_adam": (
        {"b2": 0.99, "optimism": 0.5},
        in_optax(
            optax.chain(
                optax.scale_by_adam(b2=0.99), optax.scale_by_optimistic_gradient(LR, 0.5 * LR), optax.scale(-1.0)
            )
        ),
    ),
    "lookahead_adamw": ({"b2": 0.99, "weight_decay": 0.1, "sync_period": 3, "slow_step_size": 0.7}, lookahead),
    "vsgd": ({"ps": 1e-6, "ghattg": 20.0, "tau1": 0.7, "tau2": 0.8, "weight_decay": 0.1}, vsgd),
    "rmsprop_centered": (
        {"decay": 0.9},
        in_optax(optax.rmsprop(LR, decay=0.9, eps=1e-8, eps_in_sqrt=False, centered=True)),
    ),
    "lion_k_clip": (
        {"b1": 0.8, "b2": 0.95, "threshold": 0.3, "weight_decay": 0.1},
        lion_k(lambda x: np.clip(x, -0.3, 0.3) / 0.3),
    ),
    "lion_k_threshold": (
        {"b1": 0.8, "b2": 0.95, "threshold": 0.3, "weight_decay": 0.1},
        lion_k(lambda x: (x > 0.3) * 1.0 - (x < -0.3)),
    ),
    "lion_k_tanh": (
        {"b1": 0.8, "b2": 0.95, "scale": 0.3, "weight_decay": 0.1},
        lion_k(lambda x: 1 - 2 / (np.exp(2 * x / 0.3) + 1)),
    ),
}
"""For each program the hyperparameters that make it the rule of the reference, and the reference."""
