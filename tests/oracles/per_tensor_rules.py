"""Update rules per tensor, row, column or tree, written down anew from papers and authors' code.

Each function returns a rule: from the step, the weights and the gradients (`w` as torch has it, outputs by inputs, and
`b`) to the new weights. They share nothing with the programs but the formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from oracles.running import STEPS, Case, curvature, flat, gradient, layout, start

Array = NDArray[Any]
Rule = Callable[[int, list[Array], list[Array]], list[Array]]


def reference_path(case: Case, regime: str, rule: Rule) -> Array:
    """The weights of a rule over all steps, laid out as the program sees them, shape (STEPS + 1, entries)."""
    plain = replace(case, transposed=False)
    lay = layout(plain)
    params = [np.asarray(tensor) for tensor in lay.unflatten(start(plain, regime))]
    path = [flat(case, *params)]
    with np.errstate(all="ignore"):
        for t in range(1, STEPS + 1):
            g = lay.unflatten(gradient(plain, regime, t - 1, lay.flatten(params)))
            params = rule(t, params, [np.asarray(tensor) for tensor in g])
            path.append(flat(case, *params))
    return np.stack(path)


def from_optax(make: Callable[[], Any], **extra: Any) -> Rule:
    """The rule of an Optax transform, in float64."""
    memory: dict[str, Any] = {}

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        with jax.enable_x64(True):
            params = [jnp.asarray(tensor) for tensor in w]
            if t == 1:
                memory["tx"] = make()
                memory["state"] = memory["tx"].init(params)
                memory["update"] = jax.jit(lambda *arguments: memory["tx"].update(*arguments, **extra))
            grads = [jnp.asarray(tensor) for tensor in g]
            updates, memory["state"] = memory["update"](grads, memory["state"], params)
            return [np.asarray(p + u) for p, u in zip(params, updates, strict=True)]

    return rule


def length(tensors: list[Array]) -> float:
    return float(np.sqrt(sum(float(np.sum(x * x)) for x in tensors)))


def mars(kind: str, lr: float, b1: float, b2: float, gamma: float, decay: float) -> Rule:
    """AGI-Arena/MARS, optimizers/mars.py, update_fn with optimize_1d, and timm's first step."""
    exp_avg: list[Any] = [0.0, 0.0]
    exp_avg_sq: list[Any] = [0.0, 0.0]
    last: list[Any] = [0.0, 0.0]

    def newton_schulz(x: Array) -> Array:
        x = x / np.linalg.norm(x)
        x = x.T if x.shape[0] > x.shape[1] else x
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        return x

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        new = []
        for i, (p, grad) in enumerate(zip(w, g, strict=True)):
            c = grad.copy() if t == 1 else (grad - last[i]) * (gamma * b1 / (1 - b1)) + grad
            c = c / np.linalg.norm(c) if np.linalg.norm(c) > 1 else c
            last[i] = grad
            exp_avg[i] = exp_avg[i] * b1 + (1 - b1) * c
            exp_avg_sq[i] = exp_avg_sq[i] * b2 + (1 - b2) * c * c
            if kind == "lion":
                update = np.sign(exp_avg[i])
            elif p.ndim == 1:
                update = exp_avg[i] / ((np.sqrt(exp_avg_sq[i]) / np.sqrt(1 - b2**t) + 1e-8) * (1 - b1**t))
            elif not exp_avg[i].any():
                update = exp_avg[i]
            else:
                rows, columns = p.shape
                update = newton_schulz(exp_avg[i] / (1 - b1)) * max(1, rows / columns) ** 0.5
                update = update if update.shape == p.shape else update.T
            new.append(p - lr * (p * decay + update))
        return new

    return rule


def adafactor_relative_step(lr: float, minimum: float, decay: float) -> Rule:
    """Shazeer and Stern, algorithms 4 and 5, with full second moments rebuilt as outer products."""
    moments: list[Any] = [(0.0, 0.0), 0.0]

    def rms(x: Array) -> float:
        return float(np.sqrt(np.mean(x**2)))

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        beta = 1 - t**-0.8
        alpha = [max(minimum, rms(p)) * min(lr, t**-0.5) for p in w]
        squares = [x**2 + 1e-30 for x in g]
        r = beta * moments[0][0] + (1 - beta) * squares[0].sum(axis=1)
        c = beta * moments[0][1] + (1 - beta) * squares[0].sum(axis=0)
        moments[:] = [(r, c), beta * moments[1] + (1 - beta) * squares[1]]
        second = [np.outer(r, c) / r.sum(), moments[1]]
        direction = [x / np.sqrt(v) for x, v in zip(g, second, strict=True)]
        clipped = [u / max(1.0, rms(u)) for u in direction]
        return [p - lr * decay * p - a * u for p, a, u in zip(w, alpha, clipped, strict=True)]

    return rule


def gravity(lr: float, alpha: float, beta: float, noise: Callable[[int], tuple[Array, Array]] | None) -> Rule:
    """dariush-bahrami/gravity.optimizer, implementations/gravity_optimizer_pytorch.py."""
    velocity = [alpha / lr * x for x in noise(0)] if noise else [0.0, 0.0]

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        rate = (beta * t + 1) / (t + 2)
        for i, grad in enumerate(g):
            m = 1 / np.max(np.abs(grad))
            velocity[i] = rate * velocity[i] + (1 - rate) * grad / (1 + (grad / m) ** 2)
        return [p - lr * v for p, v in zip(w, velocity, strict=True)]

    return rule


def adam_mini(lr: float, b1: float, b2: float, eps: float, decay: float) -> Rule:
    """zyushun/Adam-mini, adam_mini.py: an mlp layer's weight by output unit, its bias as in Adam."""
    m: list[Any] = [0.0, 0.0]
    vmean: list[Any] = [0.0, 0.0]

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        means = [(g[0] ** 2).mean(axis=1, keepdims=True), g[1] ** 2]
        for i in range(2):
            vmean[i] = b2 * vmean[i] + (1 - b2) * means[i]
            m[i] = b1 * m[i] + (1 - b1) * g[i]
        steps = [1 / (1 - b1**t) / (np.sqrt(v) / np.sqrt(1 - b2**t) + eps) for v in vmean]
        return [p * (1 - lr * decay) - lr * x * s for p, x, s in zip(w, m, steps, strict=True)]

    return rule


def subset_norm_adam(lr: float, b1: float, b2: float, eps: float, decay: float) -> Rule:
    """timmytonga/sn-sm, adamw_sn.py: (8, 5) has one moment a row; a bias is not in the group of subsets."""
    m: list[Any] = [0.0, 0.0]
    v: list[Any] = [0.0, 0.0]

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        sums = [np.sum(g[0] ** 2, axis=1, keepdims=True), g[1] ** 2]
        step_size = lr * np.sqrt(1 - b2**t) / (1 - b1**t)
        new = []
        for i, p in enumerate(w):
            m[i] = b1 * m[i] + (1 - b1) * g[i]
            v[i] = b2 * v[i] + (1 - b2) * sums[i]
            p = p - step_size * m[i] / (np.sqrt(v[i]) + eps)
            new.append(p - lr * decay * p)
        return new

    return rule


def dadapt_sgd(lr: float, momentum: float, d0: float, decay: float) -> Rule:
    """facebookresearch/dadaptation, dadapt_sgd.py (version 3.2)."""
    group: dict[str, Any] = {"d": d0, "numerator": 0.0, "s": [0.0, 0.0]}

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        if t == 1:
            group["x0"], group["g0"] = w, length(g)
        dlr = group["d"] * lr / group["g0"]
        g = [x + decay * p for x, p in zip(g, w, strict=True)]
        group["numerator"] += dlr * sum(float(np.sum(x * s)) for x, s in zip(g, group["s"], strict=True))
        group["s"] = [s + dlr * x for s, x in zip(group["s"], g, strict=True)]
        group["d"] = max(group["d"], 2 * group["numerator"] / length(group["s"]))
        z = [x0 - s for x0, s in zip(group["x0"], group["s"], strict=True)]
        return [p * momentum + (1 - momentum) * target for p, target in zip(w, z, strict=True)]

    return rule


def orthograd(lr: float, rescale: bool) -> Rule:
    """Prieto et al.'s OrthoGrad over SGD: the projection on flat vectors."""

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        new = []
        for p, grad in zip(w, g, strict=True):
            weights, flat_grad = p.ravel(), grad.ravel()
            rest = flat_grad - np.dot(weights, flat_grad) / (np.dot(weights, weights) + 1e-30) * weights
            if rescale:
                rest = rest * (np.linalg.norm(flat_grad) / (np.linalg.norm(rest) + 1e-30))
            new.append(p - lr * rest.reshape(p.shape))
        return new

    return rule


def induced_metric(lr: float, momentum: float, xi: float, beta: float, decay: float, loss: float | None) -> Rule:
    """harveyThomas4692/Induced-Metric-Optimiser, jax_imp.py: custom_sgd, and custom_sgd_log with a loss."""
    memory: dict[str, Any] = {"ema": 0.0, "m": [0.0, 0.0]}

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        memory["ema"] = beta * memory["ema"] + (1 - beta) * xi * length(g) ** 2
        corrected = memory["ema"] / (1 - beta**t)
        scale = 1 / (1 + abs(corrected)) if loss is None else loss / (loss**2 + corrected)
        memory["m"] = [momentum * m + (1 - momentum) * x for m, x in zip(memory["m"], g, strict=True)]
        debias = 1 - momentum**t
        return [p - lr * scale * m / debias - lr * decay * p for p, m in zip(w, memory["m"], strict=True)]

    return rule


def adagrad_norm(lr: float, b0: float) -> Rule:
    """Ward, Wu and Bottou, algorithm 1: b_j^2 = b_(j-1)^2 + |g|^2."""
    b = [b0]

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        b[0] = float(np.hypot(b[0], length(g)))
        return [p - lr / b[0] * x for p, x in zip(w, g, strict=True)]

    return rule


def normalized_sgdm(lr: float, momentum: float, eps: float) -> Rule:
    """Cutkosky and Mehta, algorithm 1, with its momentum written as a difference."""
    m: list[Any] = [0.0, 0.0]

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        m[:] = [old + (1 - momentum) * (x - old) for old, x in zip(m, g, strict=True)]
        return [p - lr * x / (length(m) + eps) for p, x in zip(w, m, strict=True)]

    return rule


def fira_limiter(lr: float, b1: float, b2: float, gamma: float, decay: float) -> Rule:
    """The norm-growth limiter of xichen-fy/Fira, fira_adamw.py, on Adam's direction."""
    m: list[Any] = [0.0, 0.0]
    v: list[Any] = [0.0, 0.0]
    before: dict[int, float] = {}

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        new = []
        for i, (p, grad) in enumerate(zip(w, g, strict=True)):
            m[i] = b1 * m[i] + (1 - b1) * grad
            v[i] = b2 * v[i] + (1 - b2) * grad**2
            scaling_grad = m[i] / (1 - b1**t) / (np.sqrt(v[i] / (1 - b2**t)) + 1e-8)
            if i in before:
                norm = np.linalg.norm(scaling_grad)
                limiter = max(norm / (before[i] + 1e-8), gamma) / gamma
                scaling_grad, before[i] = scaling_grad / limiter, float(norm / limiter)
            else:
                before[i] = float(np.linalg.norm(scaling_grad))
            new.append(p * (1 - lr * decay) - lr * scaling_grad)
        return new

    return rule


def sophia(lr: float, b1: float, b2: float, scale: float, floor: float, decay: float, every: int, added: bool) -> Rule:
    """Liu et al., algorithm 3, entry by entry; with `added` the quotient of Liuhong99/Sophia, sophia.py."""
    plain = Case("sophia_h", "", None)
    hessian = layout(plain).unflatten(curvature(plain, "affine"))
    m: list[Any] = [0.0, 0.0]
    h: list[Any] = [0.0, 0.0]

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        new = []
        for i, p in enumerate(w):
            m[i] = b1 * m[i] + (1 - b1) * g[i]
            if every == 1 or t % every == 1:
                h[i] = b2 * h[i] + (1 - b2) * np.asarray(hessian[i])
            denominator = scale * h[i] + floor if added else np.maximum(scale * h[i], floor)
            ratio = np.minimum(np.abs(m[i]) / denominator, 1)
            p = p - lr * decay * p
            new.append(p - lr * np.sign(m[i]) * ratio)
        return new

    return rule


def swats(lr: float, b1: float, b2: float, eps: float, tolerance: float) -> Rule:
    """Keskar and Socher, algorithm 1, line by line, on one vector."""
    state: dict[str, Any] = {"phase": "Adam", "m": 0.0, "a": 0.0, "v": 0.0, "lambda": 0.0}

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        weights = np.concatenate([w[0].ravel(), w[1]])
        grad = np.concatenate([g[0].ravel(), g[1]])
        if state["phase"] == "SGD":
            state["v"] = b1 * state["v"] + grad
            weights = weights - (1 - b1) * state["Lambda"] * state["v"]
        else:
            state["m"] = b1 * state["m"] + (1 - b1) * grad
            state["a"] = b2 * state["a"] + (1 - b2) * grad**2
            p = -lr * np.sqrt(1 - b2**t) / (1 - b1**t) * state["m"] / (np.sqrt(state["a"]) + eps)
            weights = weights + p
            if p @ grad != 0:
                gamma = p @ p / -(p @ grad)
                state["lambda"] = b2 * state["lambda"] + (1 - b2) * gamma
                corrected = state["lambda"] / (1 - b2**t)
                if t > 1 and corrected > 0 and abs(corrected - gamma) < tolerance:
                    state["phase"], state["Lambda"] = "SGD", corrected
        return [weights[:40].reshape(8, 5), weights[40:]]

    return rule


def adahessian(lr: float, b1: float, b2: float, eps: float, power: float) -> Rule:
    """Yao et al., equations 9 to 12."""
    plain = Case("adahessian", "", None)
    hessian = [np.asarray(d) for d in layout(plain).unflatten(curvature(plain, "affine"))]
    seen: list[list[Array]] = []

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        seen.append(g)
        new = []
        for i, p in enumerate(w):
            m = sum((1 - b1) * b1 ** (t - 1 - k) * old[i] for k, old in enumerate(seen)) / (1 - b1**t)
            v = sum((1 - b2) * b2 ** (t - 1 - k) * hessian[i] ** 2 for k in range(t)) / (1 - b2**t)
            new.append(p - lr * m / (np.sqrt(v) ** power + eps))
        return new

    return rule


def lars(lr: float, momentum: float, dampening: float, decay: float, coefficient: float) -> Rule:
    """timm.optim.Lars with nesterov and trust_clip (LARC)."""
    buffers: dict[int, Array] = {}

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        new = []
        for i, (p, grad) in enumerate(zip(w, g, strict=True)):
            p_norm, g_norm = np.linalg.norm(p), np.linalg.norm(grad)
            ratio = coefficient * p_norm / (g_norm + p_norm * decay + 1e-8) if p_norm > 0 and g_norm > 0 else 1.0
            grad = (grad + decay * p) * min(ratio / lr, 1.0)
            first = i not in buffers
            buffers[i] = grad.copy() if first else momentum * buffers[i] + (1 - dampening) * grad
            new.append(p - lr * (grad + momentum * buffers[i]))
        return new

    return rule


def radial(p: Array, grad: Array, step: Array, delta: float) -> tuple[Array, bool]:
    """clovaai/AdamP, adamp.py, projection: the step without its radial part, and whether it lost one."""
    for rows in (p.reshape(p.shape[0], -1), p.reshape(1, -1)):
        g = grad.reshape(rows.shape)
        cosine = np.abs(np.sum(rows * g, axis=1)) / (np.linalg.norm(rows, axis=1) * np.linalg.norm(g, axis=1))
        if cosine.max() < delta / np.sqrt(rows.shape[1]):
            unit = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-8)
            flat_step = step.reshape(rows.shape)
            return (flat_step - unit * np.sum(unit * flat_step, axis=1, keepdims=True)).reshape(p.shape), True
    return step, False


def adamp(lr: float, b1: float, b2: float, decay: float, delta: float) -> Rule:
    """timm.optim.AdamP with nesterov and a wd_ratio of 0.2."""
    m: list[Any] = [0.0, 0.0]
    v: list[Any] = [0.0, 0.0]

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        new = []
        for i, p in enumerate(w):
            m[i] = b1 * m[i] + (1 - b1) * g[i]
            v[i] = b2 * v[i] + (1 - b2) * g[i] ** 2
            step = (b1 * m[i] + (1 - b1) * g[i]) / (np.sqrt(v[i]) / np.sqrt(1 - b2**t) + 1e-8)
            step, lost = radial(p, g[i], step, delta) if p.ndim > 1 else (step, False)
            new.append(p * (1 - lr * decay * (0.2 if lost else 1.0)) - lr / (1 - b1**t) * step)
        return new

    return rule


def sgdp(lr: float, momentum: float, dampening: float, decay: float, delta: float) -> Rule:
    """timm.optim.SGDP with nesterov and a wd_ratio of 0.2."""
    buffers: list[Any] = [0.0, 0.0]

    def rule(t: int, w: list[Array], g: list[Array]) -> list[Array]:
        new = []
        for i, p in enumerate(w):
            buffers[i] = momentum * buffers[i] + (1 - dampening) * g[i]
            step = g[i] + momentum * buffers[i]
            step, lost = radial(p, g[i], step, delta) if p.ndim > 1 else (step, False)
            new.append(p * (1 - lr * decay * (0.2 if lost else 1.0) / (1 - momentum)) - lr * step)
        return new

    return rule
