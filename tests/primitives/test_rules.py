import re

import numpy as np
import pytest
from exactness import any_numbers, bits, drawn, ordinary_numbers, updates
from hypothesis import given, settings
from hypothesis import strategies as st

from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.primitives.rules import EXAMPLE_CONSTANTS, RULES, Rule
from evolion.primitives.simplify import apply_once

VALUES = {"x": "w", "y": "g", "z": "noise", "s": "loss", "a": "lr", "b": "t"}
SEEDS = st.integers(0, 2**32 - 1)
ARITHMETIC = [(rule, protected) for rule in RULES.values() for protected in (False, True)
              if rule.arithmetic == "both" or protected == (rule.arithmetic == "protected")]  # fmt: skip


def example(rule: Rule, *, protected: bool, constants: dict[str, float] | None = None) -> Program:
    """A program that is the pattern of the rule over inputs that fulfil its conditions."""
    values = VALUES | {name: f"abs({VALUES[name]})" for name in rule.nonnegative}
    values |= {name: f"sin({VALUES[name]})" for name in rule.bounded}
    numbers = dict(constants or EXAMPLE_CONSTANTS)
    table = values | {name: repr(number) for name, number in numbers.items()}
    expression = re.sub(r"\b([xyzsabck])\b", lambda found: table[found[1]], rule.pattern)
    decorator = "@protected\n" if protected else ""
    return parse(f"{decorator}def train(w, g, noise, loss, lr, t):\n    return {expression}\n")


def changed(rule: Rule, protected: bool, rng: np.random.Generator) -> tuple[Program, Program]:
    """The example with random constants, and what the rule makes of it."""
    constants = {"c": rng.uniform(1.0 if rule.exact else 0.2, 3.0), "k": rng.uniform(-3.0, -0.2)}
    program = example(rule, protected=protected, constants=constants)
    after = apply_once(program, rule)
    assert after is not None
    return program, after


@pytest.mark.parametrize(("rule", "protected"), ARITHMETIC, ids=[f"{r.name}-{p}" for r, p in ARITHMETIC])
def test_each_rule_rewrites_its_example(rule: Rule, protected: bool) -> None:
    """A rule that can never fire is an error, and so is one that fires in the other arithmetic."""
    program = example(rule, protected=protected)
    assert apply_once(program, rule) not in (None, program)
    if rule.arithmetic != "both":
        assert apply_once(example(rule, protected=not protected), rule) is None


@pytest.mark.parametrize(("rule", "protected"), [(r, p) for r, p in ARITHMETIC if r.exact],
                         ids=[f"{r.name}-{p}" for r, p in ARITHMETIC if r.exact])  # fmt: skip
@settings(max_examples=12, deadline=None)
@given(seed=SEEDS)
def test_exact_rules_change_no_bit(rule: Rule, protected: bool, seed: int) -> None:
    """On infinities, NaN, zeros of either sign and denormals alike, in float64 and float32."""
    rng = np.random.default_rng(seed)
    program, after = changed(rule, protected, rng)
    values = [drawn(rng, any_numbers)]
    for dtype in (np.float64, np.float32):
        assert bits(updates(program, values, dtype)) == bits(updates(after, values, dtype)), (
            f"{rule.name} in {dtype.__name__}\n{program}\n{after}\n{values}"
        )


@pytest.mark.parametrize(("rule", "protected"), [(r, p) for r, p in ARITHMETIC if not r.exact],
                         ids=[f"{r.name}-{p}" for r, p in ARITHMETIC if not r.exact])  # fmt: skip
@settings(max_examples=5, deadline=None)
@given(seed=SEEDS)
def test_approximate_rules_are_close_on_ordinary_numbers(rule: Rule, protected: bool, seed: int) -> None:
    """Within 1e-6 wherever the pattern has a value; scalars are positive, as learning rates and steps are."""
    rng = np.random.default_rng(seed)
    program, after = changed(rule, protected, rng)
    values = [drawn(rng, ordinary_numbers) | {name: rng.uniform(0.2, 0.9, 1) for name in ("loss", "lr", "t")}]
    before, now = updates(program, values), updates(after, values)
    valid = np.isfinite(before)
    message = f"{rule.name}\n{program}\n{after}\n{values}"
    np.testing.assert_allclose(now[valid], before[valid], rtol=1e-6, atol=1e-7, err_msg=message)


def differs(rule: Rule, protected: bool) -> bool:
    """Whether some input shows that a rule changes a bit."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        program, after = changed(rule, protected, rng)
        values = [drawn(rng, any_numbers)]
        if bits(updates(program, values)) != bits(updates(after, values)):
            return True
    return False


def test_approximate_rules_are_not_exact() -> None:
    """What holds bit for bit is marked exact; of powers, how they round hangs on the version of NumPy."""
    rules = [(rule, protected) for rule, protected in ARITHMETIC if not rule.exact and "**" not in rule.pattern]
    assert [(rule.name, protected) for rule, protected in rules if not differs(rule, protected)] == []


def test_rules_say_what_they_are() -> None:
    """Each row stands under its name, which shows what it does, and has a reason of one line."""
    for name, rule in RULES.items():
        assert name == rule.name
        assert rule.name.startswith(f"{rule.pattern} = {rule.replacement}")
        assert rule.reason.count("\n") == 0 < len(rule.reason)
        assert not rule.reason.endswith(".")
