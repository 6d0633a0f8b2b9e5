"""What of a program a search may look at besides its fitness: descriptors, which place it, and costs, to be kept low.

All of it is the same on every machine, and nothing is timed: a program's cost is read off its text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from evolion.primitives.cost import Cost, cost
from evolion.primitives.measurement import EVEN_LAYOUT, even_inputs, runner, scaled_loss, without_weights
from evolion.primitives.program import Program
from evolion.primitives.properties import TOLERANCE

__all__ = ["DESCRIPTORS", "EXPENSES", "Descriptor", "Expense", "descriptors_of", "expenses_of", "gradient_degree"]

TRANSCENDENTAL = 10
"""How many additions a sine, an exponential or a general power counts for in a program's step time."""

_LARGE, _LARGER = 1e5, 1e6
_LENGTHS = (4, 8, 12, 20)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One row of `DESCRIPTORS`.

    Attributes:
        name: As in the configuration.
        summary: One line for people.
        labels: What the bins hold, first to last.
        place: The bin of a program, of which the cost is known.

    """

    name: str
    summary: str
    labels: tuple[str, ...]
    place: Callable[[Program, Cost], int]


@dataclass(frozen=True, slots=True)
class Expense:
    """One row of `EXPENSES`: a number per program, smaller is better."""

    name: str
    summary: str
    measure: Callable[[Program, Cost], float]


def gradient_degree(program: Program) -> int | None:
    """Return the k, 0 or 1, for which a loss times c gives an update times c to the k; None if there is none.

    It holds for large gradients, where no epsilon counts: 0 for Adam, whose update does not depend on the scale of the
    loss, and 1 for plain momentum. Weights are zero, so that weight decay does not count. This takes about a
    millisecond; `properties` looks at more scales.
    """
    run, inputs = runner(program, EVEN_LAYOUT), without_weights(even_inputs())
    small, large = run(scaled_loss(inputs, _LARGE)), run(scaled_loss(inputs, _LARGER))
    most, size = float(np.abs(small).max()), float(np.abs(large).max())
    if not (math.isfinite(most + size) and most > 0.0 and size > 0.0):
        return None
    ratio = size / most
    for degree in (0, 1):
        factor = (_LARGER / _LARGE) ** degree
        if math.isclose(ratio, factor, rel_tol=0.1) and np.allclose(large, factor * small, 0.0, TOLERANCE * size):
            return degree
    return None


def _memory(program: Program, costs: Cost) -> int:
    return min(int(costs.state), 3)


def _scale(program: Program, costs: Cost) -> int:
    degree = gradient_degree(program)
    return 2 if degree is None else degree


def _reach(program: Program, costs: Cost) -> int:
    if costs.tree_reductions:
        return 2
    return int(bool(costs.tensor_reductions or costs.matrix_operations or costs.decompositions))


def _length(program: Program, costs: Cost) -> int:
    return sum(len(program.statements) > longest for longest in _LENGTHS)


DESCRIPTORS: Mapping[str, Descriptor] = MappingProxyType(
    {
        row.name: row
        for row in (
            Descriptor(
                "memory",
                "numbers of state per parameter, rounded down",
                ("less than one number per parameter", "one", "two", "three or more"),
                _memory,
            ),
            Descriptor(
                "scale",
                "what becomes of the update when the loss is multiplied by a large constant",
                ("update stays", "update multiplied as well", "neither"),
                _scale,
            ),
            Descriptor(
                "reach",
                "how far the entries of a gradient influence each other",
                ("entry by entry", "within a tensor", "whole network"),
                _reach,
            ),
            Descriptor(
                "length",
                "statements",
                ("up to 4 statements", "5 to 8", "9 to 12", "13 to 20", "more than 20"),
                _length,
            ),
        )
    }
)
"""What places a program among others that are alike in kind, whatever they are worth."""

EXPENSES: Mapping[str, Expense] = MappingProxyType(
    {
        row.name: row
        for row in (
            Expense("statements", "statements", lambda program, costs: len(program.statements)),
            Expense("memory", "numbers of state per parameter", lambda program, costs: costs.state),
            Expense(
                "time",
                f"operations per parameter and step, a transcendental function counted as {TRANSCENDENTAL}",
                lambda program, costs: (
                    costs.operations + (TRANSCENDENTAL - 1) * costs.transcendental + costs.matrix_operations
                ),
            ),
        )
    }
)
"""What a program takes besides the luck of its training; parameters are one large matrix (`REFERENCE_SHAPES`)."""


@lru_cache(maxsize=1024)
def descriptors_of(program: Program, names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the bins of a program by the named descriptors."""
    costs = cost(program)
    return tuple([DESCRIPTORS[name].place(program, costs) for name in names])


@lru_cache(maxsize=1024)
def expenses_of(program: Program, names: tuple[str, ...]) -> tuple[float, ...]:
    """Return the named expenses of a program."""
    costs = cost(program)
    return tuple([float(EXPENSES[name].measure(program, costs)) for name in names])
