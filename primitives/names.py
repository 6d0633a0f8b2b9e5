"""Names in a program: the reserved inputs, and what else may be a name."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from evolion.primitives.kinds import Kind
from evolion.primitives.ops import OPS

__all__ = ["RESERVED", "objection"]

_MAXIMUM_NAME = 64

RESERVED: Mapping[str, Kind] = MappingProxyType(
    {
        "w": Kind.TENSOR,
        "g": Kind.TENSOR,
        "lr": Kind.SCALAR,
        "t": Kind.SCALAR,
        "horizon": Kind.SCALAR,
        "w0": Kind.TENSOR,
        "loss": Kind.SCALAR,
        "hess": Kind.TENSOR,
        "noise": Kind.TENSOR,
    }
)
"""The inputs that have a fixed meaning: weights, gradient, learning rate of this step, step from 1, planned number of
steps, initial weights, loss, estimate of the Hessian diagonal, standard normal noise of the shape of the weights."""


@lru_cache(maxsize=4096)
def objection(name: str) -> str:
    """Say why this cannot be the name of a variable, or nothing if it can."""
    if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name) or name.startswith("__"):
        return f"{name!r} is not allowed as a name; use letters, digits and _"
    if len(name) > _MAXIMUM_NAME:
        return f"the name {name[:_MAXIMUM_NAME]}… is longer than {_MAXIMUM_NAME} characters; shorten it"
    if name in OPS or name == "train":
        return f"{name!r} is the name of a function; choose another for the variable"
    return ""
