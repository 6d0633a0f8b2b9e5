import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import disguised, programs

from evolion.primitives.keys import behavioural_key
from evolion.primitives.lifting import lift
from evolion.primitives.parser import parse
from evolion.primitives.program import Program

PARTS = {
    "interp weights in order": (
        "m = interp(g, m, 0.9)\nv = interp(m, v, 0.99)\nreturn lr * v, m, v",
        {"b1": 0.9, "b2": 0.99},
    ),
    "bias corrections share the weight": (
        "m = interp(g, m, 0.9)\nv = interp(g, v, 0.99)\n"
        "return lr * ((m / (1 - 0.9 ** t)) / (v / (1 - 0.99 ** t))), m, v",
        {"b1": 0.9, "b2": 0.99},
    ),
    "a correction with another number stays": (
        "m = interp(g, m, 0.9)\nreturn lr * (m / (1 - 0.8 ** t)), m, v",
        {"b1": 0.9},
    ),
    "one correction of two values stays": (
        "m = interp(g, m, 0.9)\nv = interp(w, v, 0.9)\nc = 1 - 0.9 ** t\nreturn lr * (m / c + v / c), m, v",
        {"b1": 0.9, "b2": 0.9},
    ),
    "momentum": ("m = 0.9 * m + g\nreturn lr * m, m, v", {"momentum": 0.9}),
    "momentum looked ahead": ("m = 0.9 * m + g\nreturn lr * (m * 0.9 + g), m, v", {"momentum": 0.9}),
    "another number looked ahead": ("m = 0.9 * m + g\nreturn lr * (m * 0.8 + g), m, v", {"momentum": 0.9}),
    "momentum beside decay": (
        "m = m * 0.9 + g + 0.01 * w\nreturn lr * m, m, v",
        {"momentum": 0.9, "weight_decay": 0.01},
    ),
    "two momenta": ("m = 0.9 * m + g\nv = v * 0.8 + m\nreturn lr * v, m, v", {"momentum": 0.9, "momentum_2": 0.8}),
    "epsilon outside the root": ("return lr * (g / (abs(g) + 1e-8)), m, v", {"eps": 1e-8}),
    "epsilon inside the root": ("return lr * (g / sqrt(1e-6 + square(g))), m, v", {"eps": 1e-6}),
    "two epsilons": ("return lr * (g / (sqrt(square(g) + 1e-12) + 1e-8)), m, v", {"eps": 1e-12, "eps_2": 1e-8}),
    "epsilon as the least value": ("return lr * (g * reciprocal(max(abs(g), 1e-5))), m, v", {"eps": 1e-5}),
    "large numbers in a denominator": ("return lr * (g / (abs(g) + 0.5)), m, v", {}),
    "weight decay": ("return lr * (sign(g) + 0.01 * w), m, v", {"weight_decay": 0.01}),
    "decay through the learning rate": ("d = lr * 0.01\nreturn lr * g + d * w, m, v", {"weight_decay": 0.01}),
    "scale of all terms": (
        "s = lr * 0.5\nreturn s * sign(g) + (s * 0.01) * w, m, v",
        {"learning_rate_scale": 0.5, "weight_decay": 0.01},
    ),
    "scale through a quotient": (
        "s = lr * 0.5\nreturn (s * g) / norm(g) - s * 0.1 * w, m, v",
        {"learning_rate_scale": 0.5, "weight_decay": 0.1},
    ),
    "a factor of one term of two is neither": ("return lr * 0.5 * g + lr * sign(g), m, v", {}),
    "signs are no scale": ("return -1 * lr * g, m, v", {}),
    "exponents stay": ("return lr * g ** 3, m, v", {}),
    "dead code stays": ("x = interp(g, w, 0.5)\nreturn lr * g, m, v", {}),
}


def written(body: str, hyperparameters: str = "") -> Program:
    lines = "\n".join(f"    {line}" for line in body.split("\n"))
    return parse(f"def train(w, g, m, v, lr, t{hyperparameters}):\n{lines}\n")


@pytest.mark.parametrize(("body", "expected"), PARTS.values(), ids=PARTS)
def test_constants_get_the_name_of_their_part(body: str, expected: dict[str, float]) -> None:
    """Each part that the documentation names is recognised, and nothing else becomes a setting."""
    program = written(body)
    lifted = lift(program)
    found = {h.name: h.value for h in lifted.hyperparameters}
    assert found == expected
    assert behavioural_key(lifted) == behavioural_key(program)
    assert parse(str(lifted)) == lifted


def test_existing_names_are_never_taken() -> None:
    """Slots, variables and hyperparameters keep their names and values; the new ones count on."""
    text = "def train(w, g, b1, eps: leaf, lr, *, b3=0.3, weight_decay=0.1):\n"
    text += "    b1 = interp(g, b1, 0.9)\n    b2 = interp(g, b1, 0.8)\n"
    text += "    return lr * (b2 / (abs(g) + 1e-8) + weight_decay * w + 0.2 * w), b1, eps\n"
    lifted = lift(parse(text))
    assert {h.name: h.value for h in lifted.hyperparameters} == {
        "b3": 0.3, "weight_decay": 0.1, "b4": 0.9, "b5": 0.8, "eps_2": 1e-8, "weight_decay_2": 0.2
    }  # fmt: skip
    assert [h.name for h in lifted.hyperparameters[:2]] == ["b3", "weight_decay"]


def test_lifted_constants_can_be_tuned() -> None:
    """The name stands wherever the constant stood: a corrected mean stays a mean for another decay rate."""
    program = written("m = interp(g, m, 0.9)\nreturn lr * (m / (1 - 0.9 ** t)), m, v")
    other = written("m = interp(g, m, 0.8)\nreturn lr * (m / (1 - 0.8 ** t)), m, v")
    assert behavioural_key(lift(program).with_hyperparameters(b1=0.8)) == behavioural_key(other)


@given(programs())
@settings(deadline=None)
def test_behaviour_stays(program: Program) -> None:
    """Lifting changes no update, keeps what has a name, and has nothing left to do the second time."""
    lifted = lift(program)
    assert behavioural_key(lifted) == behavioural_key(program)
    assert lifted.hyperparameters[: len(program.hyperparameters)] == program.hyperparameters
    assert (lifted.docstring, lifted.comments, lifted.parameters) == (
        program.docstring,
        program.comments,
        program.parameters,
    )
    assert lift(lifted) == lifted


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_form_does_not_matter(seed: int) -> None:
    """Renamed, reordered and with arguments swapped, the same constants are found."""
    for body, expected in PARTS.values():
        lifted = lift(disguised(written(body), random.Random(seed)))
        stems = sorted((h.value, h.name.rstrip("0123456789_")) for h in lifted.hyperparameters if h.name != "spare")
        assert stems == sorted((value, name.rstrip("0123456789_")) for name, value in expected.items())


def test_large_programs_stay_quick() -> None:
    """Sums of sums and products of products do not explode."""
    lines = ["x = g"]
    lines += ["x = x + x"] * 1500 + ["x = x * x"] * 500 + ["x = 0.5 * x"] * 500
    program = written("\n".join([*lines, "return lr * x, m, v"]))
    lift(program)
