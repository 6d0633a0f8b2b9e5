"""Reference programs beside the stored trajectories of independent implementations."""

from __future__ import annotations

import json
from collections.abc import Mapping
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

LAYOUT = Layout(((8, 5), (5,)))
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
        note: Why the tolerance is wide, or a regime is left out.

    """

    program: str
    source: str
    learning_rate: float | None
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    tolerance: float = 1e-9
    regimes: tuple[str, ...] = ()
    parameters: str = ""
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


def gradient(regime: str, step: int, weights: NDArray[Any]) -> NDArray[Any]:
    """The gradient at a step, shape (entries,)."""
    data = stored()
    given = LAYOUT.flatten([data[f"gradients/{regime}/g_{name}"][step] for name in "wb"])
    return given + curvature(regime) * weights if regime == "affine" else given


def curvature(regime: str) -> NDArray[Any]:
    """The diagonal Hessian, shape (entries,)."""
    return LAYOUT.flatten([stored()[f"gradients/{regime}/H_{name}"] for name in "wb"])


def start(regime: str) -> NDArray[Any]:
    return LAYOUT.flatten([stored()[f"gradients/{regime}/p0_{name}"] for name in "wb"])


def expected(case: Case, regime: str) -> NDArray[Any]:
    """The parameters of the implementation, shape (STEPS + 1, entries)."""
    prefix = f"{case.source}/{regime}/{case.parameters}"
    both = [stored()[f"{prefix}{name}"] for name in "wb"]
    return np.stack([LAYOUT.flatten([both[0][row], both[1][row]]) for row in range(STEPS + 1)])


def program_of(case: Case) -> Program:
    return known()[case.program].with_hyperparameters(**case.hyperparameters)


def by_numpy(case: Case, regime: str) -> NDArray[Any]:
    """What the NumPy interpreter does, shape (STEPS + 1, entries)."""
    program = program_of(case)
    step, slots = stepper(program, LAYOUT), initial_slots(program, LAYOUT)
    w = start(regime)
    fixed: dict[str, Any] = {h.name: h.value for h in program.hyperparameters}
    fixed |= {"w0": w, "lr": np.float64(case.learning_rate or 0.0), "horizon": np.float64(STEPS)}
    path = [w]
    with np.errstate(all="ignore"):
        for t in range(STEPS):
            values = {"w": w, "g": gradient(regime, t, w), "t": np.float64(t + 1), "hess": curvature(regime)}
            update, slots = step(fixed | slots | values)
            w = w - update
            path.append(w)
    return np.stack(path)


def by_jax(case: Case, regime: str) -> NDArray[Any]:
    """What the Optax transform does in float64, shape (STEPS + 1, entries)."""
    program = program_of(case)
    more = {"horizon": STEPS} if "horizon" in program.inputs else {}
    with jax.enable_x64(True):
        tx: Any = to_optax(program, case.learning_rate if "lr" in program.inputs else None, **more)
        params = [jnp.asarray(tensor) for tensor in LAYOUT.unflatten(start(regime))]
        state = tx.init(params)
        update = jax.jit(tx.update)
        hess = [jnp.asarray(tensor) for tensor in LAYOUT.unflatten(curvature(regime))]
        extra = {EXTRA_ARGUMENTS[name]: hess for name in program.inputs if name == "hess"}
        path = [LAYOUT.flatten([np.asarray(p) for p in params])]
        for t in range(STEPS):
            g = [jnp.asarray(tensor) for tensor in LAYOUT.unflatten(gradient(regime, t, path[-1]))]
            updates, state = update(g, state, params, **extra)
            params = [p + u for p, u in zip(params, updates, strict=True)]
            path.append(LAYOUT.flatten([np.asarray(p) for p in params]))
    return np.stack(path)


def gap(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """The largest difference over the largest displacement from the start."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs - theirs[0]).max())
