import math
import re
from dataclasses import replace

import numpy as np
import pytest
from exactness import LAYOUT, Numbers, any_numbers, bits, drawn, ordinary_numbers, results
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evolion.primitives.kinds import Kind
from evolion.primitives.parser import parse
from evolion.primitives.program import RESERVED, Program, infer_kinds
from evolion.primitives.rules import EXAMPLE_CONSTANTS, RULES, VALUES, Rule
from evolion.primitives.simplify import apply_once

INPUTS = {"x": "w", "y": "g", "z": "noise", "s": "loss", "a": "lr", "b": "t", "p": "horizon"}
HEAD = "w, g, noise, loss, lr, t, horizon"
SCALAR_INPUTS = [name for name, kind in RESERVED.items() if kind is Kind.SCALAR]
SEEDS = st.integers(0, 2**32 - 1)
ARITHMETIC = [(rule, protected) for rule in RULES.values() for protected in (False, True)
              if rule.arithmetic == "both" or protected == (rule.arithmetic == "protected")]  # fmt: skip
CONDITIONS = {
    "nonnegative": "abs({})",
    "bounded": "sin({})",
    "finite": "where(is_finite({0}), {0}, 0)",
    "indicator": "greater({}, 0)",
}
LIBRARY = "the library's order of summation"
"""What reasons say of products of matrices, whose last bits are those of the machine."""


def example(
    rule: Rule, *, protected: bool, kinds: tuple[Kind, ...] = (), constants: dict[str, float] | None = None
) -> Program:
    """A program that is the pattern of the rule over values that fulfil its conditions.

    Values of other kinds than tensor are slots, and so is a result that no update can be.
    """
    table = dict(INPUTS)
    slots: dict[str, Kind] = {}
    for name, kind in zip(VALUES, kinds or rule.combinations()[0], strict=True):
        if kind is Kind.SCALAR:
            table[name] = "loss"
        elif kind is not Kind.TENSOR:
            table[name] = f"{name}_slot"
            slots[table[name]] = kind
    for condition, form in CONDITIONS.items():
        table |= {name: form.format(table[name]) for name in getattr(rule, condition)}
    table |= {name: repr(number) for name, number in (constants or EXAMPLE_CONSTANTS).items()}
    expression = re.sub(r"\b([xyzsabpck])\b", lambda found: table[found[1]], rule.pattern)

    def program(update: str) -> Program:
        head = ", ".join([HEAD, *(f"{name}: {kind}" for name, kind in slots.items())])
        # Nothing is known of a slot that anything is subtracted from.
        moved = "".join(f"    {name} = {name} - 1\n" for name in slots if name != "result")
        body = f"    before = {update}\n    value = {expression}\n{moved}    result = value\n"
        returned = ", ".join(["before" if "result" in slots or update == "0" else "result", *slots])
        return parse(f"{'@protected' if protected else ''}\ndef train({head}):\n{body}    return {returned}\n")

    whole = program("0")
    kind = infer_kinds(whole)[-1]
    if kind not in (Kind.LEFT, Kind.RIGHT):
        return program("1")
    slots["result"] = kind
    return program("global_sum(result)")


def changed(
    rule: Rule, protected: bool, rng: np.random.Generator, kinds: tuple[Kind, ...] = ()
) -> tuple[Program, Program]:
    """The example with random constants, and what the rule makes of it."""
    constants = {"c": rng.uniform(1.0 if rule.exact else 0.2, 3.0), "k": rng.uniform(-3.0, -0.2)}
    program = example(rule, protected=protected, kinds=kinds, constants=constants)
    after = apply_once(program, rule)
    assert after is not None
    return program, after


def slots_of(program: Program, numbers: Numbers, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Values for the slots at the start of a step."""
    return {slot.name: numbers(rng, math.prod(LAYOUT.shape(slot.kind))).reshape(LAYOUT.shape(slot.kind))
            for slot in program.slots}  # fmt: skip


@pytest.mark.parametrize(("rule", "protected"), ARITHMETIC, ids=[f"{r.name}-{p}" for r, p in ARITHMETIC])
def test_each_rule_rewrites_its_example(rule: Rule, protected: bool) -> None:
    """A rule that can never fire is an error, and so is one that fires in the other arithmetic.

    Where it asks for certain kinds or conditions, it does not fire without them.
    """
    program = example(rule, protected=protected)
    assert apply_once(program, rule) not in (None, program)
    if any(getattr(rule, condition) for condition in CONDITIONS):
        free = replace(rule, nonnegative=(), bounded=(), finite=(), indicator=())
        assert apply_once(example(free, protected=protected), rule) is None
    if rule.arithmetic != "both":
        assert apply_once(example(rule, protected=not protected), rule) is None


@pytest.mark.parametrize(("rule", "protected"), [(r, p) for r, p in ARITHMETIC if r.exact],
                         ids=[f"{r.name}-{p}" for r, p in ARITHMETIC if r.exact])  # fmt: skip
@settings(max_examples=6, deadline=None)
@given(seed=SEEDS)
def test_exact_rules_change_no_bit(rule: Rule, protected: bool, seed: int) -> None:
    """On infinities, NaN, zeros of either sign and denormals alike, in float64 and float32."""
    rng = np.random.default_rng(seed)
    for kinds in rule.combinations():
        program, after = changed(rule, protected, rng, kinds)
        inputs, slots = drawn(rng, any_numbers), slots_of(program, any_numbers, rng)
        for dtype in (np.float64, np.float32):
            pairs = zip(results(program, inputs, slots, dtype), results(after, inputs, slots, dtype), strict=True)
            assert all(bits(one) == bits(other) for one, other in pairs), (
                f"{rule.name} in {dtype.__name__}\n{program}\n{after}\n{inputs}\n{slots}"
            )


@pytest.mark.parametrize(("rule", "protected"), [(r, p) for r, p in ARITHMETIC if not r.exact],
                         ids=[f"{r.name}-{p}" for r, p in ARITHMETIC if not r.exact])  # fmt: skip
@settings(max_examples=3, deadline=None)
@given(seed=SEEDS)
def test_approximate_rules_are_close_on_ordinary_numbers(rule: Rule, protected: bool, seed: int) -> None:
    """Within 1e-6 wherever the pattern has a value; scalars are positive, as learning rates and steps are."""
    rng = np.random.default_rng(seed)
    for kinds in rule.combinations():
        program, after = changed(rule, protected, rng, kinds)
        inputs = drawn(rng, ordinary_numbers) | {name: rng.uniform(0.2, 0.9, 1) for name in SCALAR_INPUTS}
        slots = slots_of(program, ordinary_numbers, rng)
        pairs = zip(results(program, inputs, slots, np.float64), results(after, inputs, slots, np.float64), strict=True)
        for before, now in pairs:
            valid = np.isfinite(before)
            message = f"{rule.name}\n{program}\n{after}\n{inputs}"
            np.testing.assert_allclose(now[valid], before[valid], rtol=1e-6, atol=1e-7, err_msg=message)


def differs(rule: Rule, protected: bool) -> bool:
    """Whether some input shows that a rule changes a bit."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        program, after = changed(rule, protected, rng)
        inputs, slots = drawn(rng, any_numbers), slots_of(program, any_numbers, rng)
        pairs = zip(results(program, inputs, slots, np.float64), results(after, inputs, slots, np.float64), strict=True)
        if any(bits(one) != bits(other) for one, other in pairs):
            return True
    return False


def test_approximate_rules_are_not_exact() -> None:
    """What holds bit for bit is marked exact; how powers and products of matrices round hangs on the libraries."""
    rules = [(rule, protected) for rule, protected in ARITHMETIC
             if not rule.exact and "**" not in rule.pattern and LIBRARY not in rule.reason]  # fmt: skip
    assert [(rule.name, protected) for rule, protected in rules if not differs(rule, protected)] == []


def test_rules_say_what_they_are() -> None:
    """Each row stands under its name, which shows what it does, and has a reason of one line."""
    for name, rule in RULES.items():
        assert name == rule.name
        assert rule.name.startswith(f"{rule.pattern} = {rule.replacement}")
        assert rule.reason.count("\n") == 0 < len(rule.reason)
        assert not rule.reason.endswith(".")
