"""Programs run on fixed numbers, for reports: the inputs and what a program makes of them.

The weights follow a given path, not the program's own updates, so that a measurement says what the program makes of its
inputs. All numbers come from SHAKE-256, which no library version or platform can change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from evolion.primitives.layout import Layout
from evolion.primitives.numpy_interpreter import Value, initial_slots, stepper
from evolion.primitives.program import Program

__all__ = [
    "EVEN_LAYOUT",
    "VARIED_LAYOUT",
    "Inputs",
    "Runner",
    "even_inputs",
    "runner",
    "scaled_loss",
    "spiked",
    "varied_inputs",
    "without_weights",
]

Inputs = list[dict[str, Value]]
"""The reserved inputs of each step; tensors as flat vectors over a layout."""

Runner = Callable[..., NDArray[np.float64]]

EVEN_LAYOUT = Layout(((6, 5), (7,), (3,)))
"""The parameters of `even_inputs`."""

VARIED_LAYOUT = Layout(((16, 8), (9,), (63,)))
"""The parameters of `varied_inputs`."""

_EVEN_STEPS, _VARIED_STEPS = 12, 16
_HORIZON = 100.0


def runner(program: Program, layout: Layout) -> Runner:
    """Return a function of inputs and, if others than the program's are meant, hyperparameters.

    It gives the updates, shape (steps, entries), and is silent about what is not finite.
    """
    step = stepper(program, layout)
    defaults = {h.name: np.float64(h.value) for h in program.hyperparameters}

    def run(inputs: Inputs, hyperparameters: Mapping[str, Value] | None = None) -> NDArray[np.float64]:
        values = defaults | dict(hyperparameters or {})
        slots = initial_slots(program, layout)
        updates = np.empty((len(inputs), layout.entries))
        with np.errstate(all="ignore"):
            for index, given in enumerate(inputs):
                updates[index], slots = step({**given, **values, **slots})
        return updates

    return run


def _uniform(name: str, rows: int, entries: int) -> NDArray[np.float64]:
    """Return numbers from [0, 1) that depend on nothing but the arguments, shape (rows, entries)."""
    stream = hashlib.shake_256(name.encode()).digest(8 * rows * entries)
    integers = np.frombuffer(stream, "<u8") >> np.uint64(11)
    return (integers.astype(np.float64) / 2.0**53).reshape(rows, entries)


def _step(index: int, g: NDArray[np.float64], w: NDArray[np.float64], noise: NDArray[np.float64]) -> dict[str, Value]:
    return {
        "w": w,
        "g": g,
        "hess": np.abs(g) * (1.25 + 0.75 * np.roll(noise, 1)),
        "noise": 2.0 * noise,
        "lr": np.float64(0.01 * (1 + (index * 7) % 10)),
        "t": np.float64(index + 1),
        "horizon": np.float64(_HORIZON),
        "loss": np.float64(3.0 / (1.0 + 0.2 * index)),
    }


@cache
def even_inputs() -> Inputs:
    """Return 12 steps whose gradients are of one size, 0.5 to 2 in absolute value, with changing signs.

    Weights lie in [-1, 1], learning rates are 0.01 to 0.1.
    """
    table = _uniform("evolion even", 3 * _EVEN_STEPS + 2, EVEN_LAYOUT.entries)
    w0 = 2.0 * table[-1] - 1.0
    steps = []
    for index in range(_EVEN_STEPS):
        size, side, drawn = table[3 * index : 3 * index + 3]
        persistent = np.where(table[-2] < 0.5, -1.0, 1.0)
        g = persistent * np.where(side < 0.3, -1.0, 1.0) * 4.0 ** (size - 0.5)
        w = np.clip(w0 + 0.25 * (2.0 * drawn - 1.0), -1.0, 1.0)
        steps.append(_step(index, g, w, 2.0 * drawn - 1.0) | {"w0": w0})
    return steps


@cache
def varied_inputs() -> Inputs:
    """Return 16 steps whose gradients reach from 1e-4 to 10, each entry of a size of its own, and change sign."""
    table = _uniform("evolion varied", 2 * _VARIED_STEPS + 3, VARIED_LAYOUT.entries)
    drift = (2.0 * table[-1] - 1.0) * 10.0 ** (1.0 - 4.0 * table[-2])
    w0 = 2.0 * table[-3] - 1.0
    steps = []
    for index in range(_VARIED_STEPS):
        spread, drawn = 2.0 * table[2 * index] - 1.0, 2.0 * table[2 * index + 1] - 1.0
        w = w0 + 0.125 * drawn
        steps.append(_step(index, drift * (0.3 + 1.2 * spread), w, drawn) | {"w0": w0})
    return steps


def scaled_loss(inputs: Inputs, factor: float) -> Inputs:
    """Return the inputs with the loss, and so the gradients and the Hessian estimate, multiplied by a number."""
    return [{**step, **{name: step[name] * factor for name in ("g", "hess", "loss")}} for step in inputs]


def spiked(inputs: Inputs, quiet: int, small: float, large: float) -> Inputs:
    """Return the first step `quiet` times with its loss multiplied by `small`, then once with it times `large`."""
    steps = (*scaled_loss(inputs[:1], small) * quiet, *scaled_loss(inputs[:1], large))
    return [{**step, "t": np.float64(index + 1)} for index, step in enumerate(steps)]


def without_weights(inputs: Inputs) -> Inputs:
    """Return the inputs with all weights zero."""
    return [{**step, "w": np.zeros_like(step["w"])} for step in inputs]
