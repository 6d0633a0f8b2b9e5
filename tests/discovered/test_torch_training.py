import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torch_modules import GRADIENTS, WEIGHTS, built, gap, imported, set_gradients, torch

from evolion.discovered.library import known
from evolion.discovered.torch_source import torch_module
from evolion.primitives.numpy_interpreter import trajectory
from evolion.primitives.parser import parse

pytestmark = pytest.mark.torch


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
