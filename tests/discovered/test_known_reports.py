import math
from dataclasses import replace
from typing import Any

import pytest

from evolion.discovered.library import known
from evolion.primitives.cost import Cost, cost
from evolion.primitives.keys import behavioural_key
from evolion.primitives.lifting import lift
from evolion.primitives.program import Program
from evolion.primitives.properties import properties

COSTS = {
    "adagrad": Cost(7, slots=1, state=1),
    "adam": Cost(13, scalar_operations=4, slots=2, state=2),
    "adamw": Cost(15, scalar_operations=4, slots=2, state=2),
    "adamw_seed": Cost(14, slots=2, state=2),
    "lion": Cost(10, slots=1, state=1),
    "momentum": Cost(3, slots=1, state=1),
    "nesterov": Cost(5, slots=1, state=1),
    "rmsprop": Cost(8, slots=1, state=1),
    "sgd": Cost(1),
    "signsgd": Cost(2),
}

# Invariant and equivariant to the scale of the loss, the gradient size where that begins, largest entry over lr, decay.
SCALES: dict[str, tuple[bool, bool, float, float | None, float]] = {
    "adagrad": (True, False, 10.0, 1.0, 0.0),
    "adam": (True, False, 1e-5, 1.6267, 0.0),
    "adamw": (True, False, 1e-5, 1.6267, 1e-4),
    "adamw_seed": (True, False, 1e-3, 6.2732, 0.01),
    "lion": (True, False, 0.0, 1.0, 0.001),
    "momentum": (False, True, 0.0, None, 0.0),
    "nesterov": (False, True, 0.0, None, 0.0),
    "rmsprop": (True, False, 1e-2, math.sqrt(10.0), 0.0),
    "sgd": (False, True, 0.0, None, 0.0),
    "signsgd": (True, False, 0.0, 1.0, 0.0),
}


@pytest.mark.parametrize("name", COSTS)
def test_costs_of_known_programs(name: str) -> None:
    """The best-known programs have their cost here, counted by hand."""
    assert replace(cost(known()[name]), workspace=0) == COSTS[name]


@pytest.mark.parametrize("name", known())
def test_every_known_program_has_a_report(name: str) -> None:
    """Its cost and its inputs are known, and constants written out as numbers are lifted without a change."""
    program = known()[name]
    paid = cost(program)
    assert paid.operations + paid.matrix_operations > 0
    assert paid.slots == len(program.slots)
    assert properties(program).inputs == program.inputs
    assert behavioural_key(lift(written_out(program))) == behavioural_key(written_out(program))


@pytest.mark.parametrize("name", SCALES)
def test_properties_of_known_programs(name: str) -> None:
    """The best-known programs have their properties here; all are odd, linear in lr, and work entry by entry."""
    found = properties(known()[name])
    invariant, equivariant, start, bound, decay = SCALES[name]
    assert (found.gradient_scale_invariant, found.gradient_scale_equivariant) == (invariant, equivariant)
    assert found.gradient_scale_from == pytest.approx(start)
    assert found.bounded is (bound is not None)
    assert found.bound == (None if bound is None else pytest.approx(bound, rel=1e-4))
    assert found.weight_decay == pytest.approx(decay, rel=1e-9)
    assert (found.odd, found.linear_in_lr, found.reach) == (True, True, "entry")
    assert found.inputs == known()[name].inputs


@pytest.mark.parametrize("decay", [1e-4, 1e-3, 0.01])
def test_decay_of_adamw_is_measured(decay: float) -> None:
    """Whatever its default, the decay comes out of the updates."""
    assert properties(known()["adamw"].with_hyperparameters(weight_decay=decay)).weight_decay == pytest.approx(decay)


RENAMED: dict[str, dict[str, Any]] = {
    "adam": {"b1": 0.9, "b2": 0.999, "eps": 1e-8},
    "adamw": {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 1e-4},
    "adamw_seed": {"b1": 0.9, "b2": 0.999, "weight_decay": 0.01},
    "lion": {"b1": 0.9, "b2": 0.99, "weight_decay": 0.001},
    "rmsprop": {"b1": 0.9, "eps": 1e-8},
    "adagrad": {"eps": 1e-7},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9},
    "sgd": {},
    "signsgd": {},
}


def written_out(program: Program) -> Program:
    """The program with numbers in place of its hyperparameters."""
    values = {h.name: h.value for h in program.hyperparameters}
    return replace(
        program,
        hyperparameters=(),
        statements=tuple(
            replace(s, args=tuple(a if isinstance(a, float) else values.get(a, a) for a in s.args))
            for s in program.statements
        ),
    )


@pytest.mark.parametrize("name", RENAMED)
def test_names_come_back(name: str) -> None:
    """With its hyperparameters written out as numbers, a known program gets names back, its own as a rule."""
    program = known()[name]
    lifted = lift(written_out(program))
    assert behavioural_key(lifted) == behavioural_key(program)
    assert {h.name: h.value for h in lifted.hyperparameters} == RENAMED[name]
    assert all(name == "adagrad" or not isinstance(a, float) or a == 1.0 for s in lifted.statements for a in s.args)
