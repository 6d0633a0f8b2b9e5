import math

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import programs

from evolion.primitives.measurement import EVEN_LAYOUT, VARIED_LAYOUT, even_inputs, runner, spiked, varied_inputs
from evolion.primitives.parser import parse
from evolion.primitives.program import RESERVED, Program
from evolion.primitives.properties import Properties, properties


def measured(expression: str, before: str = "") -> Properties:
    head = "def train(w, g, m, n: leaf, lr, t, w0, loss, hess, noise, horizon):\n"
    return properties(parse(f"{head}    {before}\n    return {expression}, m, n\n"))


@given(programs())
@settings(max_examples=60, deadline=None)
def test_measuring_never_fails(program: Program) -> None:
    """Whatever a search comes up with has a report, without a warning, and twice the same."""
    found = properties(program)
    assert repr(found) == repr(properties(program))
    assert set(found.inputs) <= set(program.inputs)
    assert (found.bound is not None) is (found.bounded is True)
    if found.bound is not None:
        assert math.isfinite(found.bound)
    assert not (found.gradient_scale_invariant and found.gradient_scale_equivariant)


@pytest.mark.parametrize(
    ("expression", "invariant", "equivariant", "start"),
    [
        ("lr * g", False, True, 0.0),
        ("lr * sign(g)", True, False, 0.0),
        ("lr * square(g)", False, False, None),
        ("lr * (g + 1)", False, False, None),
        ("lr * (g + 0.001)", False, True, 1.0),
        ("lr * g / (abs(g) + 1e-8)", True, False, 1e-4),
        ("lr * g / sqrt(square(g) + 1e-8)", True, False, 1e-2),
        ("lr * g / hess", True, False, 0.0),
        ("lr * g / loss", True, False, 0.0),
        ("lr * clip(g, 1)", True, False, 1.0),
        ("lr * w", True, False, 0.0),
        ("lr * (sign(g) + 0.1 * w)", True, False, 0.0),
        ("lr * (g + 0.1 * w)", False, True, 0.0),
        ("lr * cosh(g)", None, None, None),
        ("lr * log(g)", None, None, None),
        ("lr * log(abs(g))", False, False, None),
    ],
)
def test_gradient_scale(expression: str, invariant: bool, equivariant: bool, start: float | None) -> None:
    """The scale of the loss is seen through gradient, Hessian and loss; decay is apart; an epsilon has its size."""
    found = measured(expression)
    assert (found.gradient_scale_invariant, found.gradient_scale_equivariant) == (invariant, equivariant)
    assert found.gradient_scale_from == (None if start is None else pytest.approx(start))


@pytest.mark.parametrize(
    ("expression", "odd"),
    [
        ("lr * g", True),
        ("lr * g / norm(g)", True),
        ("lr * cube(g) + 0.1 * lr * w", True),
        ("lr * abs(g)", False),
        ("lr * (g + 0.1 * w * abs(w))", False),
        ("g + noise", False),
        ("max(g, 0)", False),
        ("1 / (g - g)", None),
    ],
)
def test_odd(expression: str, odd: bool | None) -> None:
    """Mirrored gradients give a mirrored update, apart from decoupled decay."""
    assert measured(expression).odd is odd


@pytest.mark.parametrize(
    ("expression", "bound"),
    [
        ("lr * sign(g)", 1.0),
        ("2 * lr * tanh(g) + lr * 0.1 * w", 2.0),
        ("sign(g)", 1.0),
        ("lr * clip(g, 0.5)", 0.5),
        ("lr * g", None),
        ("lr * arcsinh(g)", None),
        ("lr * g ** 2", None),
        ("lr * log(g)", None),
    ],
)
def test_bound(expression: str, bound: float | None) -> None:
    """A bound is one for gradients up to 1e6, in units of the learning rate where that is a factor."""
    found = measured(expression)
    if bound is None:
        assert not found.bounded
        assert found.bound is None
    else:
        assert found.bounded
        # Entries that share one norm have less than its bound each.
        assert 0.2 * bound <= found.bound <= bound * (1.0 + 1e-9)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("expression", "linear"),
    [("lr * g", True), ("lr * lr * g", False), ("g", False), ("lr / (1 + t) * g", True), ("log(-1) * lr", None)],
)
def test_linear_in_lr(expression: str, linear: bool | None) -> None:
    """Twice the learning rate at every step is twice the update, or not."""
    assert measured(expression).linear_in_lr is linear


@pytest.mark.parametrize("decay", [1e-4, 0.01, 0.1, 3.0, -0.01])
@pytest.mark.parametrize("rule", ["sign(g)", "g", "g / norm(g)", "g + noise"])
def test_decoupled_decay_is_recognised(rule: str, decay: float) -> None:
    """Its coefficient is measured, not read, in any form of writing."""
    assert measured(f"lr * ({rule} + {decay} * w)").weight_decay == pytest.approx(decay, rel=1e-6)
    assert measured(f"{decay / 2} * w * (lr + lr) + lr * {rule}").weight_decay == pytest.approx(decay, rel=1e-6)


@pytest.mark.parametrize(
    ("expression", "decay"),
    [
        ("lr * g", 0.0),
        ("lr * g + (w - w)", 0.0),
        ("0.1 * w + lr * g", None),
        ("lr * lr * w", None),
        ("lr * sign(g + 0.1 * w)", None),
        ("lr * (g + square(w))", None),
        ("lr * g * norm(w)", None),
        ("lr * norm(g) * w", None),
        ("lr * (w - w0)", 1.0),
        ("log(-1) * g", 0.0),
        ("log(-1) * w", None),
    ],
)
def test_other_uses_of_the_weights_are_no_decay(expression: str, decay: float | None) -> None:
    """Only lr c w is decoupled decay; what has no effect is none, and the rest is left open."""
    assert measured(expression).weight_decay == decay


@pytest.mark.parametrize(
    ("expression", "reach"),
    [
        ("lr * g * w", "entry"),
        ("lr * g / row_norm(g)", "row"),
        ("lr * (g - column_mean(g))", "column"),
        ("lr * g / sqrt(min(row_max(square(g)), column_max(square(g))) + square(g))", "row and column"),
        ("lr * g / sqrt(row_norm(g) * column_norm(g))", "row and column"),
        ("lr * matmul(left_gram(g), g)", "tensor"),
        ("lr * g * norm(noise)", "tensor"),
        ("lr * g / global_norm(g)", "tree"),
        ("clip(g, lr)", "tree"),
        ("clip(g, 1e9)", "entry"),
        ("dot(g, w) * n", "entry"),
        ("m", "tensor"),
        ("1 / (g - g)", None),
    ],
)
def test_reach(expression: str, reach: str | None) -> None:
    """A change of one entry shows how far the rule looks; a clip that never clips looks at nothing else."""
    assert measured(expression, "m = norm(g) + m").reach == reach


def test_inputs_are_those_that_matter() -> None:
    """An input of dead code is not read."""
    program = parse("def train(w, g, t, horizon, lr):\n    x = w * t\n    return lr * g * horizon\n")
    assert properties(program).inputs == ("g", "horizon", "lr")


def test_fixed_numbers_are_what_they_say() -> None:
    """The sizes that the documentation states, every input there, and none of the numbers drawn anew."""
    assert {name for step in (*even_inputs(), *varied_inputs()) for name in step} == set(RESERVED)
    sizes = np.abs([step["g"] for step in even_inputs()])
    assert 0.5 <= sizes.min() < 0.6 < 1.8 < sizes.max() <= 2.0
    assert all(np.abs(step["w"]).max() <= 1.0 for step in even_inputs())
    varied = np.median(np.abs([step["g"] for step in varied_inputs()]), axis=0)
    assert varied.min() < 1e-3 < 1.0 < varied.max()
    assert even_inputs()[3]["g"][7] == pytest.approx(0.9089215709434556, rel=1e-12)
    assert varied_inputs()[5]["g"][11] == pytest.approx(-0.0013072082295646549, rel=1e-12)
    assert [layout.entries for layout in (EVEN_LAYOUT, VARIED_LAYOUT)] == [40, 200]


def test_runner_keeps_state_and_takes_hyperparameters() -> None:
    """Slots start at zero and go from step to step; a given value replaces the default."""
    program = parse("def train(g, m, *, c=1.0):\n    m = m + c\n    return m, m\n")
    run = runner(program, EVEN_LAYOUT)
    assert run(even_inputs())[:, 0].tolist() == list(range(1, 13))
    assert run(even_inputs(), {"c": 2.0})[-1, -1] == 24.0
    steps = spiked(even_inputs(), 5, 0.5, 8.0)
    assert [float(step["t"]) for step in steps] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(steps[-1]["g"], 16.0 * steps[0]["g"])
