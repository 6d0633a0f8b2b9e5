"""The fixed numbers that behavioural keys are made of: what a program is given at each step of the probe.

There are two sets. `PLAIN` reaches as far as training does, over 27 binary orders of magnitude within one tensor. For a
program with matrix decompositions those numbers would make matrices so nearly singular that the result hangs on the
last bits of a platform's arithmetic; it gets `TAME`, where the magnitude varies from tensor to tensor, and small sides.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evolion.primitives.dataflow import live_statements
from evolion.primitives.layout import Layout
from evolion.primitives.numpy_interpreter import Value, initial_slots, stepper
from evolion.primitives.op import Matrixwise
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program

__all__ = ["DECOMPOSITIONS", "PLAIN", "TAME", "ProbeInputs", "has_decomposition", "probe_updates"]

DECOMPOSITIONS: frozenset[str] = frozenset(
    name
    for name, op in OPS.items()
    if isinstance(op.meaning, Matrixwise) and "linalg" in op.meaning.compute.__code__.co_names
)
"""The ops that call LAPACK, whose results differ between platforms by far more than a rounding error of each entry."""

_RATES = (0.0021, 0.87, 0.013, 0.0009, 0.11, 0.34, 0.05, 0.6)
_TIMES, _HORIZON = (1, 2, 3, 5, 60, 700, 701, 900), 1000
_QUIET_STEP, _QUIET = 4, -20
_ORTHOGONAL_STEP = 6
_SIZE_OF_STEP = (0, -1, 1, 0, -2, 0)


@dataclass(frozen=True)
class ProbeInputs:
    """Reserved inputs for a few steps, from SHAKE-256, which no library version or platform can change.

    Attributes:
        shapes: The shapes of the parameter tensors.
        count: The number of steps.
        magnitudes: For each parameter tensor the binary exponent of its gradients; () to spread those of each tensor
            from 2^7 down to 2^-20, and to make those of one step a millionth of the others.

    """

    shapes: tuple[tuple[int, ...], ...]
    count: int
    magnitudes: tuple[int, ...] = ()

    @cached_property
    def layout(self) -> Layout:
        """Where the tensors lie in the flat vectors."""
        return Layout(self.shapes)

    @cached_property
    def steps(self) -> tuple[dict[str, Value], ...]:
        """The reserved inputs of each step.

        They must reach at least as far as those of training do: what a bound such as `clip(lr * g, 1)` or
        `max(w, -1.1)` never touches here would share the key, and so the score, of the program without it. Learning
        rates go from 1e-3 to just below 1, weights over seven binary orders of magnitude up to 8, the step to 900.

        Gradients have a persistent part in each coordinate, so that epsilons, decay rates and sign flips all show; one
        in eight coordinates has gradient zero throughout, as unused weights do, and one in eight at every other step.
        At one of the plain steps all gradients are tiny, and at one they are orthogonal to the weights, in each tensor
        and in each row of even length, as those of weights before a normalization are.
        """
        entries = self.layout.entries
        columns = 3 * self.count + 6
        stream = hashlib.shake_256(b"evolion probe").digest(8 * columns * entries)
        uniform = (np.frombuffer(stream, "<u8") >> np.uint64(11)).astype(np.float64) / 2.0**53
        table = uniform.reshape(columns, entries)
        signed = 2.0 * table - 1.0
        rare = np.arange(entries) % 8
        w0 = w = np.ldexp(signed[-3], np.floor(7.0 * table[-4]).astype(int) - 3)
        steps = []
        for step, (lr, t) in enumerate(zip(_RATES[: self.count], _TIMES[: self.count], strict=True)):
            drawn = signed[3 * step + 2]
            w = w - 0.0625 * drawn
            if step == _ORTHOGONAL_STEP:
                g = _turned(w) * np.repeat(np.ldexp(1.0, -np.floor(9.0 * table[-6, ::2]).astype(int)), 2)
            else:
                g = self._gradient(step, table, signed)
            g = np.where((rare == 0) | ((rare == 1) & (step % 2 == 0)), 0.0, g)
            steps.append(
                {
                    "w": w,
                    "g": g,
                    "w0": w0,
                    "hess": np.abs(np.roll(g, 1)) + 0.0625 * np.roll(g, 2),
                    "noise": 4.0 * drawn * drawn * drawn,
                    "lr": np.float64(lr),
                    "t": np.float64(t),
                    "horizon": np.float64(_HORIZON),
                    "loss": np.float64(5.3 / 3.0**step),
                }
            )
        return tuple(steps)

    def _gradient(self, step: int, table: NDArray[np.float64], signed: NDArray[np.float64]) -> NDArray[np.float64]:
        drawn = signed[3 * step + 1]
        if self.magnitudes:
            drift = np.where(signed[-1] < 0.0, -1.0, 1.0) * (1.0 + table[-1])
            drift = np.ldexp(drift, np.repeat(self.magnitudes, self.layout.sizes))
            return np.asarray(drift * (0.25 + np.ldexp(drawn, _SIZE_OF_STEP[step])))
        drift = np.ldexp(signed[-1], 7 - np.floor(27.0 * table[-2]).astype(int))
        spread = np.ldexp(1.0, np.floor(6.0 * table[3 * step]).astype(int) - 3)
        return np.asarray(np.ldexp(drift * (0.25 + drawn * spread), _QUIET if step == _QUIET_STEP else 0))


def _turned(w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn each pair of neighbours by a right angle."""
    pairs = w.reshape(-1, 2)
    return np.stack([-pairs[:, 1], pairs[:, 0]], axis=1).reshape(-1)


PLAIN = ProbeInputs(((24, 16), (9,), (3, 5, 5), (3, 3, 4, 6), (52,), (32,)), 8)
"""For programs without matrix decompositions."""

TAME = ProbeInputs(((12, 10), (9,), (2, 2, 9)), 6, (1, -3, -12))
"""For programs with matrix decompositions."""


def has_decomposition(program: Program) -> bool:
    """Say whether a matrix decomposition can reach an update."""
    statements = program.statements
    if not any(statement.op in DECOMPOSITIONS for statement in statements):
        return False
    return any(statements[index].op in DECOMPOSITIONS for index in live_statements(program)[0])


def probe_updates(program: Program, inputs: ProbeInputs) -> NDArray[np.float64]:
    """Return the updates for these inputs, shape (steps, entries).

    The weights follow a given path instead of the program's own updates, so the result says what the program makes of
    its inputs.
    """
    layout = inputs.layout
    step = stepper(program, layout)
    values: dict[str, Value] = {h.name: np.float64(h.value) for h in program.hyperparameters}
    slots = initial_slots(program, layout)
    updates = np.empty((inputs.count, layout.entries))
    with np.errstate(all="ignore"):
        for index, given in enumerate(inputs.steps):
            updates[index], slots = step(given | values | slots)
    return updates
