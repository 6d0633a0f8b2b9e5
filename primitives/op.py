"""What an op is: one record with every meaning that it must have, so an op that lacks one fails at import.

The JAX meanings take the `jax.numpy` module as their first argument: no record imports JAX, and neither do the
checker, the keys and the search, which read them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

from evolion.primitives.kinds import Kind, join

__all__ = [
    "Elementwise",
    "Matrixwise",
    "Meaning",
    "Op",
    "Reduction",
    "Signatures",
    "elementwise_signatures",
    "result_kind",
]

Signatures = Mapping[tuple[Kind, ...], Kind]
"""The kinds of the arguments that an op takes, and the kind of its result for them."""


@dataclass(frozen=True, slots=True)
class Elementwise:
    """A meaning that works entry by entry, after broadcasting its arguments to a common kind.

    Attributes:
        numpy: Called with the arguments as NumPy arrays or floats.
        jax: Called with the `jax.numpy` module and then the arguments.
        source: The expression in generated JAX code; `{0}`, `{1}`, … stand for the arguments.
        operations: Floating-point operations per entry of the result, by the convention of `evolion.primitives.cost`.
        transcendental: How many of them are calls of a transcendental function.

    """

    numpy: Callable[..., Any]
    jax: Callable[..., Any]
    source: str
    operations: int
    transcendental: int = 0


@dataclass(frozen=True, slots=True)
class Reduction:
    """A meaning that sums, averages or takes the largest over rows, columns, parameter tensors or the whole tree.

    The value is `apply(combine(reduced terms))`. All three are written once over an array namespace, `numpy` or
    `jax.numpy`, so that a flat vector with segments, a tree of leaves and NumPy share one text.

    Attributes:
        scope: What is left: `Kind.ROW`, `Kind.COLUMN` or `Kind.LEAF` to reduce each row, column or parameter tensor,
            `Kind.SCALAR` to reduce the whole tree.
        reducer: How entries become one: their sum, their mean, or the largest (NaN if any is NaN).
        terms: (namespace, *arguments) to the arrays that are reduced, each of the kind of the first argument.
        combine: (namespace, reduced terms, *arguments) to the reduced value; reads arguments of the kind scalar only.
        apply: (namespace, reduced value, *arguments) to the result, entry by entry.
        source: The reduced value in generated code; in scope scalar the arguments are trees.
        apply_source: The result in generated code from `{reduced}` and the arguments of one leaf.
        operations: Floating-point operations per entry of the arguments, the sums included.
        transcendental: How many of them are calls of a transcendental function.

    """

    scope: Kind
    reducer: Literal["sum", "mean", "max"]
    terms: Callable[..., tuple[Any, ...]]
    combine: Callable[..., Any]
    apply: Callable[..., Any]
    source: str
    apply_source: str
    operations: int
    transcendental: int = 0


@dataclass(frozen=True, slots=True)
class Matrixwise:
    """A meaning that works on the matrix view of each parameter tensor (see `evolion.primitives.kinds`), one by one.

    Attributes:
        compute: Called with an array namespace, `numpy` or `jax.numpy`, and the arguments for one parameter tensor:
            matrices of shapes (m, n) for a tensor, (m, 1) for a row, (1, n) for a column, (m, m) and (n, n) for left
            and right, numbers for a leaf and a scalar. Gives the result in the same way. It is a function of a module,
            as generated code takes its text.
        operations: (m, n, kinds of the arguments, arguments) to floating-point operations per parameter tensor.

    """

    compute: Callable[..., Any]
    operations: Callable[[float, float, tuple[Kind, ...], tuple[Any, ...]], float]


Meaning = Elementwise | Reduction | Matrixwise


@dataclass(frozen=True, slots=True)
class Op:
    """One primitive.

    Attributes:
        name: The name in a program text, such as `sqrt`; an op with a symbol may be written either way.
        signatures: For the kinds of the arguments the kind of the result; what is not listed is refused.
        meaning: What it does in a program with plain IEEE arithmetic.
        summary: One line for people.
        latex: The formula; `{0}`, `{1}`, … stand for the arguments.
        domain: Where the result of numbers of moderate size is not finite, or differs from what the name says; "" if
            nowhere.
        protected: What it does under `@protected`, where that differs.
        commutative: Whether the first two arguments may be swapped without changing any result (of two zeros of
            different sign, max and min may give either).
        symbol: The infix operator, or "" for a call.
        arity: The number of arguments.

    """

    name: str
    arity: int
    signatures: Signatures
    meaning: Meaning
    summary: str
    latex: str
    domain: str = ""
    protected: Meaning | None = None
    commutative: bool = False
    symbol: str = ""

    def under(self, protected: bool) -> Meaning:
        """Return the meaning in a program that is, or is not, marked `@protected`."""
        return self.protected if protected and self.protected is not None else self.meaning


def result_kind(op: Op, kinds: Sequence[Kind]) -> Kind | None:
    """Return the kind of the result for arguments of the given kinds, or None if `op` does not take them."""
    return op.signatures.get(tuple(kinds))


@cache
def elementwise_signatures(arity: int) -> Signatures:
    """Return the signatures of an op that works entry by entry: arguments of any kinds that have a join."""
    table: dict[tuple[Kind, ...], Kind] = {}
    for kinds in itertools.product(Kind, repeat=arity):
        kind = join(kinds)
        if kind is not None:
            table[kinds] = kind
    return MappingProxyType(table)
