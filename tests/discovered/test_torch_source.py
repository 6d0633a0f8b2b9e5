import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_modules import moderate
from numpy.typing import NDArray
from strategies import arguments_of, program_of, random_program
from torch_modules import GRADIENTS, INPUTS, RANKS, WEIGHTS, built, gap, imported, set_gradients, torch

from evolion.discovered import torch_source
from evolion.discovered.library import known
from evolion.discovered.torch_expressions import function_names
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.kinds import Kind
from evolion.primitives.layout import Layout, matrix_sides
from evolion.primitives.numpy_interpreter import stepper, trajectory
from evolion.primitives.op import Elementwise, Op
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program

pytestmark = pytest.mark.torch


def by_torch(
    program: Program, folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any = torch.float64
) -> list[list[NDArray[Any]]]:
    """The weights after each step, the start first; axes as the language has them."""
    params = [torch.nn.Parameter(torch.tensor(w).to(dtype)) for w in WEIGHTS]
    optimizer = built(program, imported(program, folder), params)
    for group in optimizer.param_groups:
        if "output_axis" in group:
            group["output_axis"] = -1
    inputs = remove_dead_code(program).inputs
    path = [list(WEIGHTS)]
    for step, gradient in enumerate(GRADIENTS):
        set_gradients(params, gradient)
        given = {"closure": lambda step=step: INPUTS["loss"][step]} if "loss" in inputs else {}
        given |= {"hess": [torch.as_tensor(h) for h in INPUTS["hess"][step]]} if "hess" in inputs else {}
        drawn = iter(INPUTS["noise"][step])
        monkeypatch.setattr(torch, "randn", lambda *_, drawn=drawn, **options: torch.tensor(next(drawn)))
        optimizer.step(**given)
        path.append([p.detach().double().numpy().copy() for p in params])
    return path


ROUNDING = {"online_subspace_descent": 1e-3}
"""Programs that magnify rounding, by decompositions of almost singular matrices: JAX and NumPy differ as much."""


@pytest.mark.parametrize("name", list(known()))
def test_known_programs_follow_their_reference(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What trains under PyTorch is the program that was searched and checked, for parameters of every rank."""
    program = known()[name]
    reference = trajectory(program, WEIGHTS, GRADIENTS, learning_rate=0.01, inputs=INPUTS)
    path = by_torch(program, tmp_path, monkeypatch)
    if name == "orthograd":  # what of a single number is orthogonal to it is rounding, scaled up
        path, reference = [tensors[1:] for tensors in path], [tensors[1:] for tensors in reference]
    assert gap(path, reference) < ROUNDING.get(name, 1e-9)


def cut(value: NDArray[Any], kind: Kind, layout: Layout) -> list[NDArray[Any]]:
    """The numbers, rows, columns, tensors or matrices of each parameter, shaped as in generated code."""
    shapes = {
        Kind.LEAF: lambda shape: (),
        Kind.ROW: lambda shape: (*shape[:-1], 1) if shape else (),
        Kind.COLUMN: lambda shape: (*(1,) * (len(shape) - 1), shape[-1]) if shape else (),
        Kind.TENSOR: lambda shape: shape,
        Kind.LEFT: lambda shape: (matrix_sides(shape)[0],) * 2,
        Kind.RIGHT: lambda shape: (matrix_sides(shape)[1],) * 2,
    }
    pieces = np.split(value, layout.starts_by_kind[kind][1:])
    return [x.reshape(shapes[kind](shape)) for x, shape in zip(pieces, layout.shapes, strict=True)]


def signatures_of(op: Op, rng: random.Random) -> list[tuple[Kind, ...]]:
    """All kinds of arguments of an op; of an op on entries that of numbers alone and some others."""
    found = list(op.signatures)
    return [found[0], *rng.sample(found[1:], min(6, len(found) - 1))] if isinstance(op.meaning, Elementwise) else found


def assert_op(program: Program, values: dict[str, Any], folder: Path) -> None:
    layout = Layout(RANKS)
    with np.errstate(all="ignore"):
        expected = stepper(program, layout)(values)[1]["out"]
    params = [torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in RANKS]
    set_gradients(params, WEIGHTS)
    optimizer = imported(program, folder)(params)
    (group,) = optimizer.param_groups
    group |= {"output_axis": -1} if "output_axis" in group else {}
    optimizer.step()
    kinds = {slot.name: slot.kind for slot in program.slots}
    for name, kind in kinds.items():
        if kind is Kind.SCALAR:
            group[name] = torch.tensor(float(values[name]), dtype=torch.float64)
            continue
        for p, x in zip(params, cut(values[name], kind, layout), strict=True):
            optimizer.state[p][name] = torch.tensor(x)
    optimizer.step()
    kind = kinds["out"]
    pieces = [expected] if kind is Kind.SCALAR else cut(expected, kind, layout)
    found = [group["out"]] if kind is Kind.SCALAR else [optimizer.state[p]["out"] for p in params]
    for mine, theirs in zip(found, pieces, strict=True):
        assert mine.dtype == torch.float64
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-9, atol=1e-9, err_msg=str(program))


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.arity])
def test_every_op_is_written_as_it_is_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No op means anything else under PyTorch, on values of any kind, in either arithmetic."""
    monkeypatch.setattr(torch_source, "remove_dead_code", lambda program: program)
    op, rng = OPS[name], random.Random(name)
    for protected in [False, True] if op.protected else [False]:
        for kinds in signatures_of(op, rng):
            values = arguments_of(op, kinds, Layout(RANKS), np.random.default_rng(7))
            assert_op(program_of(op, kinds, protected=protected), values, tmp_path)


def test_functions_of_generated_code_cover_the_ops() -> None:
    """An op that is added without a PyTorch function is noticed at once."""
    assert {name for name, op in OPS.items() if not isinstance(op.meaning, Elementwise)} <= function_names()


UNSTABLE = {"inverse", "eigenvectors", "power_iteration", "inverse_root", "sorting", "cosine_sim", "top_k_mask",
            "tan", "exp10", "cosh", "sinh", "power", "cube", "sin", "cos", "mod", "floor", "exp"}  # fmt: skip
"""Ops that magnify rounding, or choose by it, on the degenerate values of random programs."""


def test_random_programs_are_written_as_they_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebound names, clashes with Python's own, precedence, memory used again and narrow slots survive the export."""
    rng, count = random.Random(4), 0
    tame = tuple(name for name in OPS if name not in UNSTABLE)
    while count < 120:
        program = remove_dead_code(random_program(rng, statements=16, ops=tame, prose=False))
        if not moderate(program) or len(program.statements) < 4:
            continue
        reference = trajectory(program, WEIGHTS, GRADIENTS, learning_rate=0.01, inputs=INPUTS)
        # An interpolation between infinities is NaN in PyTorch.
        if all(np.isfinite(x).all() and np.abs(x).max() < 1e6 for tensors in reference for x in tensors):
            path = by_torch(program, tmp_path, monkeypatch)
            assert gap(path, reference) < 1e-7, str(program)
            count += 1
