"""What tests of exact rewriting share: numbers of every sort, and the bits of what programs make of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.primitives.kinds import Kind
from evolion.primitives.layout import Layout
from evolion.primitives.numpy_interpreter import initial_slots, stepper
from evolion.primitives.program import RESERVED, Program

LAYOUT = Layout(((3, 5), (17,), ()))
SPECIAL = (
    *(0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 5e-324, -5e-324, 1e-310, -1e-160, 1e-45, 1e-30, -1e30),
    *(1e160, -1e300, 1.7976931348623157e308, 0.5, -2.0, 1e-8, -1e-8, np.pi),
)
SCALES = (1.0, 1.0, 10.0, 1e-3, 1e-20, 1e18, 1e-170, 1e150, 1e290)

Numbers = Callable[[np.random.Generator, int], NDArray[np.float64]]


def any_numbers(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Infinities, NaN, zeros of either sign and denormals among numbers of every size."""
    scaled = rng.normal(size=count) * rng.choice(SCALES, count)
    return np.where(rng.random(count) < 0.5, rng.choice(SPECIAL, count), scaled)


def ordinary_numbers(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Numbers of either sign between 0.2 and 0.9."""
    return rng.choice((-1.0, 1.0), count) * rng.uniform(0.2, 0.9, count)


def drawn(rng: np.random.Generator, numbers: Numbers) -> dict[str, NDArray[np.float64]]:
    """A value for every reserved input: shape (entries,), or (1,) for a scalar."""
    return {name: numbers(rng, LAYOUT.entries if kind is Kind.TENSOR else 1) for name, kind in RESERVED.items()}


def updates(program: Program, steps: list[dict[str, NDArray[np.float64]]], dtype: Any = np.float64) -> NDArray[Any]:
    """The updates of a program that is given these inputs, shape (steps, entries)."""
    step = stepper(program, LAYOUT, dtype)
    slots = initial_slots(program, LAYOUT, dtype)
    fixed = {h.name: h.value for h in program.hyperparameters}
    rows = []
    with np.errstate(all="ignore"):
        for values in steps:
            inputs = {name: values[name].astype(dtype) for name in program.inputs}
            inputs = {name: v if RESERVED[name] is Kind.TENSOR else v[0] for name, v in inputs.items()}
            update, slots = step(inputs | fixed | slots)
            rows.append(update)
    return np.array(rows)


def bits(values: NDArray[Any]) -> bytes:
    """The bits of the entries, with one pattern for every NaN."""
    return np.where(np.isnan(values), np.asarray(np.nan, values.dtype), values).tobytes()


def results(
    program: Program, inputs: dict[str, NDArray[np.float64]], slots: dict[str, NDArray[np.float64]], dtype: Any
) -> list[NDArray[Any]]:
    """The update of one step from given slots, and the next value of the slot `result` where there is one."""
    step, fixed = stepper(program, LAYOUT, dtype), {h.name: h.value for h in program.hyperparameters}
    with np.errstate(all="ignore"):
        values = {name: inputs[name].astype(dtype) for name in program.inputs}
        values = {name: v if RESERVED[name] is Kind.TENSOR else v[0] for name, v in values.items()}
        update, after = step(fixed | values | {slot.name: slots[slot.name].astype(dtype)[()] for slot in program.slots})
    return [update, *(after[name] for name in after if name == "result")]
