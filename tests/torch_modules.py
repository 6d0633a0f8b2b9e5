"""Exported PyTorch optimizers as a user has them, and what they are given. Without torch, importing this skips."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import exported_modules
import numpy as np
import pytest
from numpy.typing import NDArray

from evolion.discovered.torch_source import class_name, torch_module
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.program import Program

torch = pytest.importorskip("torch")

RANKS = ((), (3,), (2, 3), (3, 1, 2), (2, 1, 2, 3))
RNG = np.random.default_rng(3)
STEPS = 4
WEIGHTS = [np.asarray(RNG.normal(size=shape)) for shape in RANKS]
GRADIENTS = [[np.asarray(RNG.normal(size=shape)) for shape in RANKS] for _ in range(STEPS)]
INPUTS: dict[str, list[Any]] = {
    "loss": [0.7, 0.5, 0.6, 0.4],
    "hess": [[np.abs(RNG.normal(size=shape)) for shape in RANKS] for _ in range(STEPS)],
    "noise": [[np.asarray(RNG.normal(size=shape)) for shape in RANKS] for _ in range(STEPS)],
    "horizon": [10.0] * STEPS,
}


def imported(program: Program, folder: Path, name: str = "optimizer") -> Any:
    """The module of an exported program, imported from a file as a user would."""
    return exported_modules.imported(torch_module(program, name, ""), folder, class_name(name))


def built(program: Program, made: Any, params: Any, lr: float = 0.01) -> Any:
    """The optimizer with what it needs."""
    inputs = remove_dead_code(program).inputs
    options: dict[str, Any] = {"lr": lr} if "lr" in inputs else {}
    return made(params, **options, **({"horizon": 10.0} if "horizon" in inputs else {}))


def set_gradients(params: Sequence[Any], gradient: Sequence[NDArray[Any]]) -> None:
    for p, g in zip(params, gradient, strict=True):
        p.grad = torch.tensor(g).to(p.dtype).reshape(p.shape)


def gap(path: Sequence[Any], reference: Sequence[Any]) -> float:
    """The largest difference, relative to the largest weight; infinity and NaN must stand in the same places."""
    worst = 0.0
    for mine, theirs in zip(path, reference, strict=True):
        for x, y in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(np.isnan(x), np.isnan(y))
            finite = np.isfinite(x) & np.isfinite(y)
            np.testing.assert_array_equal(x[~finite], y[~finite])
            scale = max(1.0, float(np.max(np.abs(y), initial=0.0, where=finite)))
            worst = max(worst, float(np.max(np.abs(x[finite] - y[finite]), initial=0.0)) / scale)
    return worst
