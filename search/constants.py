"""The constants of a program as a vector that has no limits, and programs that differ in them alone.

Constants are the literals and the defaults of hyperparameters in use, without those that are zero. A constant between
one half and one is almost always a decay rate, of which the distance from one matters: it is tuned by its logit. All
others are tuned by the logarithm of their absolute value. Signs stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from evolion.primitives.keys import structural_key
from evolion.primitives.program import Argument, Hyperparameter, Program
from evolion.search.drafts import argument_at, constants_of, draft_of, finish, prepared, with_argument

__all__ = ["coordinates_of", "structure_of", "with_coordinates"]

DIGITS = 6
"""Significant digits of a tuned constant: more tell nobody anything, and the last ones hang on the machine."""

LARGEST = 50.0
"""The largest absolute value of a coordinate: constants of 1e-21 to 1e21, and rates of decay that are not yet one."""


@lru_cache(maxsize=1024)
def coordinates_of(program: Program) -> tuple[float, ...]:
    """Return the constants of a program without dead code, in the order of their first use."""
    return tuple([_coordinate(value) for value in _constants(program).values()])


def with_coordinates(program: Program, coordinates: Sequence[float]) -> Program | None:
    """Return the program, without dead code, with other constants; None where that is none."""
    constants = _constants(program)
    values = [_value(x, old) for x, old in zip(coordinates, constants.values(), strict=True)]
    return _with_values(program, values)


@lru_cache(maxsize=1024)
def structure_of(program: Program) -> str:
    """Return a digest of what a program is whatever its constants are: 16 hex digits."""
    live = prepared(program)[0]
    # Each its own, as two uses of one constant are not two constants.
    values = [math.copysign(1.0 + index, value) for index, value in enumerate(_constants(program).values())]
    blank = _with_values(program, values)
    return structural_key(live if blank is None else blank)[:16]


def _constants(program: Program) -> dict[Argument | tuple[int, int], float]:
    """Return the constants, a hyperparameter by its name, which it has wherever it is used, a literal by its place."""
    live = prepared(program)[0]
    found: dict[Argument | tuple[int, int], float] = {}
    for place, value in constants_of(live).items():
        argument = argument_at(live, place)
        found[argument if isinstance(argument, str) else place] = value
    return {site: value for site, value in found.items() if value}


def _with_values(program: Program, values: Sequence[float]) -> Program | None:
    live = prepared(program)[0]
    draft = draft_of(live)
    sites = dict(zip(_constants(program), values, strict=True))
    for site, value in sites.items():
        if isinstance(site, tuple):
            draft = with_argument(draft, site, value)
    named = tuple([Hyperparameter(h.name, sites.get(h.name, h.value)) for h in live.hyperparameters])
    return finish(replace(draft, hyperparameters=named))


def _coordinate(value: float) -> float:
    size = abs(value)
    found = math.log(size / (1.0 - size)) if 0.5 < size < 1.0 else math.log(size)
    return min(max(found, -LARGEST), LARGEST)


def _value(coordinate: float, old: float) -> float:
    """Return the constant of a coordinate; the old one says which coordinate it is, and gives the sign."""
    x = min(max(coordinate, -LARGEST), LARGEST)
    size = 1.0 / (1.0 + math.exp(-x)) if 0.5 < abs(old) < 1.0 else math.exp(x)
    return math.copysign(float(f"{size:.{DIGITS}g}"), old)
