"""Exported modules as a user has them: files that are imported."""

import importlib.util
from pathlib import Path
from typing import Any

import jax
import numpy as np

from evolion.primitives.program import Program

UNSTABLE = {"inverse", "eigenvectors", "power_iteration", "inverse_root", "sorting", "cosine_sim"}
"""Ops that magnify rounding without bound where matrices are degenerate, as in random programs."""


def imported(source: str, folder: Path, name: str = "optimizer") -> Any:
    """The function of an exported module, imported from a file as a user would."""
    path = folder / f"module_{len(list(folder.iterdir()))}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def assert_close(one: Any, other: Any, rtol: float, about: str = "") -> None:
    for mine, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        scale = np.max(np.abs(mine), initial=0.0, where=np.isfinite(mine))
        np.testing.assert_allclose(theirs, mine, rtol=rtol, atol=rtol * scale, err_msg=about)


def moderate(program: Program) -> bool:
    """Whether float32 holds the constants, and rounding is not magnified without bound."""
    constants = [a for s in program.statements for a in s.args if isinstance(a, float)]
    constants += [h.value for h in program.hyperparameters] + [u for u in [program.update] if isinstance(u, float)]
    return all(abs(value) < 30.0 and (value == 0.0 or abs(value) > 1e-9) for value in constants)
