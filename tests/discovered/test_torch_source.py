import ast
import importlib.util
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from strategies import arguments_of, program_of, random_program

from evolion.discovered import torch_source
from evolion.discovered.library import known
from evolion.discovered.torch_expressions import function_names
from evolion.discovered.torch_source import class_name, torch_module
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.kinds import Kind
from evolion.primitives.layout import Layout, matrix_sides
from evolion.primitives.numpy_interpreter import stepper, trajectory
from evolion.primitives.op import Elementwise, Op
from evolion.primitives.ops import OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import Program

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

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
    path = folder / f"module_{len(list(folder.iterdir()))}.py"
    path.write_text(torch_module(program, name, ""), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, class_name(name))


def built(program: Program, made: Any, params: Any, lr: float = 0.01) -> Any:
    """The optimizer with what it needs."""
    inputs = remove_dead_code(program).inputs
    options: dict[str, Any] = {"lr": lr} if "lr" in inputs else {}
    return made(params, **options, **({"horizon": 10.0} if "horizon" in inputs else {}))


def set_gradients(params: Sequence[Any], gradient: Sequence[NDArray[Any]]) -> None:
    for p, g in zip(params, gradient, strict=True):
        p.grad = torch.tensor(g).to(p.dtype).reshape(p.shape)


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


def moderate(program: Program) -> bool:
    """Whether rounding is not magnified without bound."""
    constants = [a for s in program.statements for a in s.args if isinstance(a, float)]
    constants += [h.value for h in program.hyperparameters] + [u for u in [program.update] if isinstance(u, float)]
    return all(abs(value) < 30.0 and (value == 0.0 or abs(value) > 1e-9) for value in constants)


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


def network() -> Any:
    torch.manual_seed(0)
    layers = (torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3, bias=False))
    return torch.nn.Sequential(*layers).double()


DATA = torch.linspace(-1, 1, 48, dtype=torch.float64).reshape(8, 6).sin()


def train(optimizer: Any, model: Any, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(DATA) - DATA[:, :3]).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


OWN: dict[str, tuple[dict[str, float], Any, dict[str, Any]]] = {
    "adamw": ({"weight_decay": 0.1}, torch.optim.AdamW, {"weight_decay": 0.1}),
    "adam": ({}, torch.optim.Adam, {}),
    "momentum": ({}, torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": ({}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "sgd": ({}, torch.optim.SGD, {}),
    "rmsprop_momentum": ({"decay": 0.9, "momentum": 0.0}, torch.optim.RMSprop, {"alpha": 0.9}),
    "adadelta": ({}, torch.optim.Adadelta, {}),
    "adamax": ({}, torch.optim.Adamax, {}),
    "radam": ({}, torch.optim.RAdam, {}),
}


@pytest.mark.parametrize("name", OWN)
def test_training_is_that_of_the_optimizers_of_torch(name: str, tmp_path: Path) -> None:
    """An exported program takes the place of the optimizer that PyTorch ships, step for step."""
    changed, own, options = OWN[name]
    program = known()[name].with_hyperparameters(**changed)
    models = network(), network()
    ours = imported(program, tmp_path)(models[0].parameters(), 0.01)
    theirs = own(models[1].parameters(), 0.01, foreach=True, **options)
    np.testing.assert_allclose(train(ours, models[0], 30), train(theirs, models[1], 30), rtol=1e-6)


def test_muon_is_that_of_torch(tmp_path: Path) -> None:
    """Rows and columns are those of PyTorch's layers, and half precision that of its Muon: the same update."""
    shapes = (6, 3), (3, 6), (4, 4)
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    made = imported(known()["muon"], tmp_path)(ours, 0.02, orthogonalize_dtype=torch.bfloat16)
    reference = torch.optim.Muon(theirs, 0.02, weight_decay=0.1)
    rng = np.random.default_rng(0)
    for _ in range(4):
        gradient = [rng.normal(size=shape) for shape in shapes]
        for params, optimizer in ((ours, made), (theirs, reference)):
            set_gradients(params, gradient)
            optimizer.step()
    for mine, other in zip(ours, theirs, strict=True):
        # They round to half precision after other orders of the products.
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), atol=4 * 0.02 * 0.02)


def test_outputs_of_layers_are_the_last_axis(tmp_path: Path) -> None:
    """A rule that tells inputs from outputs sees torch's weights and kernels (out, in, …) as Flax's (…, in, out)."""
    program = known()["adafactor"]
    made = imported(program, tmp_path)
    as_torch = [torch.nn.Parameter(torch.tensor(np.moveaxis(w, -1, 0) if w.ndim > 1 else w)) for w in WEIGHTS]
    optimizer = made(as_torch, 0.01)
    for gradient in GRADIENTS:
        set_gradients(as_torch, [np.ascontiguousarray(np.moveaxis(g, -1, 0)) if g.ndim > 1 else g for g in gradient])
        optimizer.step()
    path = trajectory(program, WEIGHTS, GRADIENTS, learning_rate=0.01)
    turned = [p.detach().numpy() for p in as_torch]
    assert gap([[np.moveaxis(p, 0, -1) if p.ndim > 1 else p for p in turned]], [path[-1]]) < 1e-9


@pytest.mark.parametrize("name", ["adamw", "prodigy", "adafactor", "gradient_noise", "schedule_free_adamw", "soap"])
def test_training_goes_on_after_a_checkpoint(name: str, tmp_path: Path) -> None:
    """A loaded state continues bit for bit, steps, numbers for a whole group and noise included."""
    made, program = imported(known()[name], tmp_path), known()[name]
    model = network()
    optimizer = built(program, made, model.parameters())
    train(optimizer, model, 3)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    losses = train(optimizer, model, 3)
    other = network()
    other.load_state_dict(weights)
    resumed = built(program, made, other.parameters(), lr=1.0)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert train(resumed, other, 3) == losses
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_groups_have_their_own_options(tmp_path: Path) -> None:
    """Weight decay can be kept from biases, a schedule changes each group's learning rate, and groups may come late."""
    p, q, r = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
    groups = [{"params": [p]}, {"params": [q], "weight_decay": 0.0, "lr": 0.2}]
    optimizer = imported(known()["lion"], tmp_path)(groups, 0.1, weight_decay=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step == 0 else 0.0)
    for x in (p, q):
        x.grad = torch.zeros(3)
    optimizer.step()
    schedule.step()
    optimizer.add_param_group({"params": [r], "lr": 0.3, "weight_decay": 1.0})
    r.grad = torch.zeros(3)
    optimizer.step()
    assert [float(x[0].detach()) for x in (p, q, r)] == pytest.approx([0.95, 1.0, 0.7])


def test_parameters_without_a_gradient_are_left_alone(tmp_path: Path) -> None:
    """A frozen layer neither moves nor ages: its first step counts as its first whenever it comes."""
    p, q, empty = (torch.nn.Parameter(torch.ones(size)) for size in (3, 2, 0))
    optimizer = imported(known()["adam"], tmp_path)([p, q, empty], 0.1)
    p.grad, empty.grad = torch.ones(3), torch.ones(0)
    optimizer.step()
    assert q not in optimizer.state
    q.grad = torch.ones(2)
    optimizer.step()
    assert float(q[0].detach()) == pytest.approx(0.9)
    assert [optimizer.state[x]["step"] for x in (p, q)] == [2, 1]


def test_a_closure_gives_the_loss(tmp_path: Path) -> None:
    """What reads the loss gets that of the closure, and says so where there is none."""
    program = parse("def train(g, lr, loss):\n    return lr * loss * g\n")
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = imported(program, tmp_path)([p], 0.5)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert p.tolist() == [-1.0, -1.0]
    with pytest.raises(ValueError, match="closure"):
        optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "muon", "prodigy"])
def test_half_precision_keeps_its_state_in_float32(name: str, tmp_path: Path) -> None:
    """Parameters of half precision train as rounded ones of single precision, also after a checkpoint."""
    program = known()[name]
    made = imported(program, tmp_path)
    p, wide = (torch.nn.Parameter(torch.ones(2, 3, dtype=dtype)) for dtype in (torch.bfloat16, torch.float32))
    ours, reference = made([p], 0.01), made([wide], 0.01)
    for step in range(3):
        for x, optimizer in ((p, ours), (wide, reference)):
            x.grad = torch.full_like(x, 0.25 * step + 0.1).bfloat16().to(x.dtype)
            optimizer.step()
        with torch.no_grad():
            assert torch.equal(p, wide.bfloat16())
            wide.copy_(p)
    state = ours.state_dict()
    again = made([p], 0.01)
    again.load_state_dict(state)
    for name, value in ours.state[p].items():
        if torch.is_tensor(value):
            assert value.dtype == again.state[p][name].dtype == torch.float32
            assert torch.equal(value, again.state[p][name])


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    """A sparse or complex gradient, a missing estimate of the Hessian and a number that is none are named."""
    made = imported(known()["adamw"], tmp_path, "adamw")
    p = torch.nn.Parameter(torch.ones(2))
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="weight_decay must be a finite number"):
            made([p], 0.1, weight_decay=wrong)
        with pytest.raises(ValueError, match="lr must be a finite number"):
            made([{"params": [p], "lr": wrong}], 0.1)
    p.grad = torch.ones(2).to_sparse()
    with pytest.raises(TypeError, match="adamw needs dense gradients"):
        made([p], 0.1).step()
    number = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    number.grad = torch.ones_like(number)
    with pytest.raises(TypeError, match="real parameters"):
        made([number], 0.1).step()
    sophia = imported(known()["sophia_h"], tmp_path)([p], 0.1)
    p.grad = torch.ones(2)
    for hess in (None, [], [torch.ones(3)]):
        with pytest.raises(ValueError, match="needs hess, one tensor for each parameter"):
            sophia.step(hess=hess)


@pytest.mark.parametrize(("name", "learning_rate"), [("adamw", 0.01), ("lion", 0.003), ("muon", 0.02)])
def test_a_network_learns_digits(name: str, learning_rate: float, tmp_path: Path) -> None:
    """An exported optimizer trains a real network on real data."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16.0, dtype=torch.float32), torch.tensor(labels)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = imported(known()[name], tmp_path)(model.parameters(), learning_rate)
    for batch in torch.randint(0, 1500, (150, 64)):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    accuracy = (model(x[1500:]).argmax(1) == y[1500:]).float().mean()
    assert accuracy > 0.85


@pytest.mark.parametrize("name", list(known()))
def test_modules_read_well(name: str) -> None:
    """A module stands alone, in lines that fit, and names what it computes."""
    source = torch_module(known()[name], name, "Trained on digits.")
    tree = ast.parse(source)
    assert {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names} <= {
        "math", "numpy", "torch"
    }  # fmt: skip
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert "evolion" not in source
    assert "Trained on digits." in (ast.get_docstring(tree) or "")
    assert max(map(len, source.splitlines())) <= 120


def test_writing_needs_no_torch() -> None:
    """A machine without PyTorch can export, and importing Evolion costs no import of it."""
    code = (
        "import sys; import evolion.discovered.torch_source as t; from evolion.discovered.library import known;"
        "t.torch_module(known()['muon'], 'muon', ''); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
