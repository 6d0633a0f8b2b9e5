"""Reference programs beside the stored trajectories of independent implementations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from evolion.discovered.library import known
from evolion.discovered.optax_transform import EXTRA_ARGUMENTS, to_optax
from evolion.primitives.layout import Layout
from evolion.primitives.numpy_interpreter import initial_slots, stepper
from evolion.primitives.program import Program

STEPS = 20


@dataclass(frozen=True)
class Case:
    """One known program against one implementation.

    Attributes:
        program: Name of the known program.
        source: Name of the implementation in `trajectories.npz`, such as `adamw@torch`.
        learning_rate: The learning rate of the implementation's run; None for a program without.
        hyperparameters: Values that make the program that of the run; the others keep their defaults.
        tolerance: The largest gap that is allowed, see README.md.
        regimes: Those of the implementation unless named here, with a note.
        parameters: "" for the parameters, or the prefix of another stored pair, such as `eval_`.
        transposed: Whether the program gets the transpose of `w`, for rules that tell outputs from inputs: the
            implementations have torch's weights (out, in), the language has Flax's (in, out).
        leaves: Which of `w` and `b` are compared; an implementation may leave one alone.
        steps: How many steps are compared.
        loss: The loss of every step, for a program that takes `loss`.
        noise: For a program that takes `noise`: the step from 0 to what the implementation drew for `w` and `b`.
        note: Why the tolerance is wide, or a regime is left out.

    """

    program: str
    source: str
    learning_rate: float | None
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    tolerance: float = 1e-9
    regimes: tuple[str, ...] = ()
    parameters: str = ""
    transposed: bool = False
    leaves: str = "wb"
    steps: int = STEPS
    loss: float = 1.0
    noise: Callable[[int], tuple[NDArray[Any], NDArray[Any]]] | None = None
    note: str = ""


@cache
def stored() -> Mapping[str, Any]:
    with np.load(Path(__file__).with_name("trajectories.npz")) as file:
        return {name: file[name] for name in file.files}


@cache
def meta() -> Mapping[str, Any]:
    """For each `NAME@SOURCE/REGIME` the class, its version and its hyperparameters."""
    records: Mapping[str, Any] = json.loads(str(stored()["meta"]))
    return records


def regimes_of(case: Case) -> tuple[str, ...]:
    own = tuple(name.split("/")[1] for name in meta() if name.split("/")[0] == case.source)
    assert own, f"there is no trajectory {case.source}"
    return case.regimes or own


def layout(case: Case) -> Layout:
    return Layout(((5, 8) if case.transposed else (8, 5), (5,)))


def flat(case: Case, w: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Lay a stored pair into one vector as the program sees it."""
    return layout(case).flatten([w.T if case.transposed else w, b])


def gradient(case: Case, regime: str, step: int, weights: NDArray[Any]) -> NDArray[Any]:
    """The gradient at a step, shape (entries,)."""
    data = stored()
    given = flat(case, *[data[f"gradients/{regime}/g_{name}"][step] for name in "wb"])
    return given + curvature(case, regime) * weights if regime == "affine" else given


def curvature(case: Case, regime: str) -> NDArray[Any]:
    """The diagonal Hessian, shape (entries,)."""
    return flat(case, *[stored()[f"gradients/{regime}/H_{name}"] for name in "wb"])


def start(case: Case, regime: str) -> NDArray[Any]:
    return flat(case, *[stored()[f"gradients/{regime}/p0_{name}"] for name in "wb"])


def compared(case: Case, path: NDArray[Any]) -> NDArray[Any]:
    """The leaves and steps of a path that are compared."""
    split = layout(case).starts[1]
    parts = {"w": path[: case.steps + 1, :split], "b": path[: case.steps + 1, split:]}
    return np.concatenate([parts[name] for name in case.leaves], axis=1)


def expected(case: Case, regime: str) -> NDArray[Any]:
    """The parameters of the implementation, shape (STEPS + 1, entries)."""
    w, b = (stored()[f"{case.source}/{regime}/{case.parameters}{name}"] for name in "wb")
    return np.stack([flat(case, w[row], b[row]) for row in range(STEPS + 1)])


def program_of(case: Case) -> Program:
    return known()[case.program].with_hyperparameters(**case.hyperparameters)


def by_numpy(case: Case, regime: str) -> NDArray[Any]:
    """What the NumPy interpreter does, shape (STEPS + 1, entries)."""
    program, lay = program_of(case), layout(case)
    step, slots = stepper(program, lay), initial_slots(program, lay)
    w = start(case, regime)
    fixed: dict[str, Any] = {h.name: h.value for h in program.hyperparameters}
    fixed |= {"w0": w, "lr": np.float64(case.learning_rate or 0.0), "horizon": np.float64(STEPS)}
    fixed |= {"hess": curvature(case, regime), "loss": np.float64(case.loss)}
    path = [w]
    with np.errstate(all="ignore"):
        for t in range(STEPS):
            values = {"w": w, "g": gradient(case, regime, t, w), "t": np.float64(t + 1)}
            values |= {"noise": flat(case, *case.noise(t)) if case.noise else np.zeros_like(w)}
            update, slots = step(fixed | slots | values)
            w = w - update
            path.append(w)
    return np.stack(path)


def by_jax(case: Case, regime: str) -> NDArray[Any]:
    """What the Optax transform does in float64, shape (STEPS + 1, entries)."""
    program, lay = program_of(case), layout(case)
    more = {"horizon": STEPS} if "horizon" in program.inputs else {}
    with jax.enable_x64(True):
        tx: Any = to_optax(program, case.learning_rate if "lr" in program.inputs else None, **more)
        params = [jnp.asarray(tensor) for tensor in lay.unflatten(start(case, regime))]
        state = tx.init(params)
        update = jax.jit(tx.update)
        given = {"hess": [jnp.asarray(tensor) for tensor in lay.unflatten(curvature(case, regime))], "loss": case.loss}
        extra = {EXTRA_ARGUMENTS[name]: value for name, value in given.items() if name in program.inputs}
        path = [lay.flatten([np.asarray(p) for p in params])]
        for t in range(STEPS):
            g = [jnp.asarray(tensor) for tensor in lay.unflatten(gradient(case, regime, t, path[-1]))]
            updates, state = update(g, state, params, **extra)
            params = [p + u for p, u in zip(params, updates, strict=True)]
            path.append(lay.flatten([np.asarray(p) for p in params]))
    return np.stack(path)


def gap(case: Case, regime: str, ours: NDArray[Any]) -> float:
    """The largest difference from the implementation over its largest displacement from the start."""
    mine, theirs = compared(case, ours), compared(case, expected(case, regime))
    return float(np.abs(mine - theirs).max() / np.abs(theirs - theirs[0]).max())
