"""Programs of each class as Optax transforms, on one small tree: what the conformance tests share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from evolion.discovered.library import known
from evolion.discovered.optax_transform import EXTRA_ARGUMENTS, to_optax
from evolion.primitives.parser import parse
from evolion.primitives.program import Program

STEPS = 3
RATE = 0.1

EVERY_INPUT = parse(
    """
def train(w, g, w0, loss, hess, m, n: leaf, total: scalar, lr, t, horizon, *, b1=0.9):
    m = interp(g, m, b1)
    n = n + norm(g)
    total = total + loss
    return lr * (1 - t / horizon) * (m / (hess + n) + 0.1 * (w - w0) / total), m, n, total
"""
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A program, what it needs besides a learning rate, and a hyperparameter to change with two values of it."""

    program: Program
    needs: Mapping[str, Any]
    hyperparameter: str | None = None
    values: tuple[float, float] = (0.5, 0.75)
    tolerance: float = 2e-5

    def make(self, learning_rate: Any = RATE, value: Any = None) -> Any:
        """Make the transform, with the hyperparameter at a value."""
        changed = {self.hyperparameter: value} if self.hyperparameter and value is not None else {}
        return to_optax(self.program, learning_rate, **self.needs, **changed)

    def extra(self, step: int) -> dict[str, Any]:
        """Return the keyword arguments of `update` in a step."""
        given = {"value": jnp.float32(2.0 - 0.5 * step), "hess": tree(10 + step, positive=True)}
        return {key: given[key] for name, key in EXTRA_ARGUMENTS.items() if name in self.program.inputs}


def _known(name: str, hyperparameter: str | None = None, tolerance: float = 2e-5, **needs: Any) -> Subject:
    return Subject(known()[name], needs, hyperparameter, tolerance=tolerance)


SUBJECTS: Mapping[str, Subject] = {
    "every_input": Subject(EVERY_INPUT, {"horizon": 10}, "b1"),
    "sgd": _known("sgd"),
    "adamw": _known("adamw", "b1"),
    "novograd": _known("novograd", "b1"),
    "sm3": _known("sm3", "momentum"),
    "prodigy": _known("prodigy", "b1", d0=0.01),
    "muon": _known("muon", "momentum", tolerance=1e-3),
    "lion": _known("lion", "weight_decay"),
    "ademamix": _known("ademamix", "b3"),
    "adafactor": _known("adafactor", "decay_rate"),
    "shampoo": _known("shampoo", "momentum", tolerance=1e-3, eps=1e-2),
    "soap": _known("soap", "b1", tolerance=1e-3, precondition_frequency=2),
    "gradient_noise": _known("gradient_noise", "gamma"),
    "sophia_h": _known("sophia_h", "b1"),
    "addsign_linear_decay": _known("addsign_linear_decay", horizon=10),
    "lookahead_momentum": _known("lookahead_momentum", "momentum"),
}
"""One program of each class at least: stateless, t, slots of every kind, and every input."""

FEW = ("every_input", "sgd", "adamw", "sm3", "prodigy")
"""Those that a plain run looks at: every input but noise, slots of every kind but matrices, which compile long."""


def tree(seed: int, positive: bool = False, dtype: Any = jnp.float32) -> Any:
    """Return a matrix and a vector among None and empty containers."""
    rng = np.random.default_rng(seed)

    def leaf(*shape: int) -> jax.Array:
        values = rng.normal(size=shape)
        return jnp.asarray(np.abs(values) + 0.5 if positive else values, dtype)

    return {"matrix": leaf(8, 4), "rest": [None, leaf(4), ()], "none": {}}


def only(part: str, values: Any) -> Any:
    """Return a tree with one of its two leaves, and None for the other."""
    matrix, (_, vector, _) = values["matrix"], values["rest"]
    kept = (matrix, None) if part == "matrix" else (None, vector)
    return {"matrix": kept[0], "rest": [None, kept[1], ()], "none": {}}


def gradients(step: int, dtype: Any = jnp.float32) -> Any:
    return tree(100 + step, dtype=dtype)


Update = Callable[..., tuple[Any, Any]]


@cache
def compiled(name: str) -> Update:
    """Return the jitted `(rate, value, gradients, state, params, extra arguments) -> (updates, state)` of a subject.

    The other ways to run a transform are compared with it; rate and value of the hyperparameter are arguments.
    """
    subject = SUBJECTS[name]

    def update(rate: Any, value: Any, grads: Any, state: Any, params: Any, extra: Any) -> Any:
        return subject.make(rate, value).update(grads, state, params, **extra)

    return jax.jit(update)


def plain(name: str, grads: Any, state: Any, params: Any, step: int = 0, **given: Any) -> tuple[Any, Any]:
    """Run one step, at `rate` RATE, the first `value` of the hyperparameter, and the step's own `extra` by default."""
    subject = SUBJECTS[name]
    rate, value = given.get("rate", RATE), given.get("value", subject.values[0])
    extra = given.get("extra", subject.extra(step))
    return compiled(name)(jnp.float32(rate), jnp.float32(value), grads, state, params, extra)


def start(name: str) -> Any:
    """Make the transform as `plain` runs it by default."""
    return SUBJECTS[name].make(RATE, SUBJECTS[name].values[0])


@cache
def trajectory(name: str) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the updates of `STEPS` steps, and parameters and states from the start on."""
    params, state = [tree(0)], [start(name).init(tree(0))]
    updates = []
    for step in range(STEPS):
        change, following = plain(name, gradients(step), state[-1], params[-1], step)
        updates.append(change)
        state.append(following)
        params.append(optax.apply_updates(params[-1], change))
    return updates, params, state


def assert_close(found: Any, expected: Any, tolerance: float = 2e-5) -> None:
    """Compare two trees of one structure, leaf by leaf, relative to the largest entry of each leaf."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        scale = np.max(np.abs(other), initial=0.0, where=np.isfinite(other))
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * scale + 1e-9)
