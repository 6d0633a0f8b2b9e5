import json
from typing import Any

import pytest
from hypothesis import given, settings
from strategies import programs

from evolion.discovered.library import known
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.program_report import program_report

SAID: dict[str, tuple[str, dict[str, str]]] = {
    "what is not known": (
        "cosh(g)",
        {"gradient": "scale not known; not odd", "bound": "not known", "lr": "not linear"},
    ),
    "sums": (
        "clip(g, lr) * sin(norm(w))",
        {
            "cost": "6 operations per parameter, 1 per tensor, "
            + "1 reduction of tensors, 1 reduction of the whole tree",
            "works on": "the whole tree at once",
            "weights": "used, not recognised as decoupled weight decay",
        },
    ),
    "transcendental functions": ("lr * sin(g)", {"cost": "2 operations per parameter (1 transcendental)"}),
    "a bound apart from the rate": ("sign(g)", {"bound": "1 for gradients up to 1e6", "weights": "no effect"}),
    "an epsilon": (
        "lr * g / (abs(g) + 1e-8)",
        {"gradient": "invariant to its scale (for gradients from 0.0001); odd"},
    ),
    "matrices": (
        "lr * matmul(g, inverse(right_gram(g)))",
        {
            "cost": "1 operations per parameter, 6827 in matrix operations of 1024 x 1024, 1 matrix decomposition",
            "workspace": "2 numbers per parameter at once",
        },
    ),
    "rows": ("g / (row_norm(g) + 1)", {"state": "0 slots, 0 numbers per parameter"}),
    "no input": ("3", {"reads": "nothing", "nearest": "no known optimizer is near"}),
}


@pytest.mark.parametrize(("expression", "said"), SAID.values(), ids=SAID)
def test_what_is_said(expression: str, said: dict[str, str]) -> None:
    """Each finding is said in words that fit it, unknown ones too."""
    rows = dict(program_report(parse(f"def train(w, g, lr):\n    return {expression}\n")).rows())
    assert rows | said == rows


def test_lion_reads_well() -> None:
    """The whole report on a well-known optimizer."""
    assert dict(program_report(known()["lion"]).rows()) == {
        "nearest": "lion",
        "cost": "10 operations per parameter",
        "state": "1 slot, 1 number per parameter",
        "workspace": "4 numbers per parameter at once",
        "reads": "w g lr",
        "works on": "each entry on its own",
        "gradient": "invariant to its scale; odd",
        "bound": "1 lr for gradients up to 1e6, apart from weight decay",
        "lr": "linear",
        "weights": "decoupled weight decay 0.001",
    }


def strict(text: str) -> Any:
    """JSON as other programs read it, which have no NaN."""

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


@given(programs())
@settings(max_examples=20, deadline=None)
def test_any_program_has_a_report(program: Program) -> None:
    """It is strict JSON, and one line for each subject."""
    report = program_report(program)
    assert set(strict(json.dumps(report.as_json()))) == {"cost", "properties", "nearest"}
    assert all("\n" not in line and line for row in report.rows() for line in row)
