"""The instructions of the interpreter. NumPy only.

The interpreter's values are as wide as the parameters: a number of a parameter tensor, a row or a column stands at each
entry that it holds for. So it can do what works entry by entry and what reduces tensors; products and decompositions of
matrices are left to the compiled path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evolion.primitives.kinds import Kind, widens
from evolion.primitives.op import Elementwise, Matrixwise, Reduction
from evolion.primitives.ops import LION, OPS, VOCABULARIES

__all__ = [
    "FIRST_OPCODE",
    "FUSED",
    "MAXIMUM_ARGUMENTS",
    "NOISE",
    "OPCODES",
    "OPCODES_OF",
    "Opcode",
    "has_instruction",
    "is_whole",
    "number_of",
]

MAXIMUM_ARGUMENTS = 3

NOISE = 0
"""The number of the instruction that draws noise."""

FIRST_OPCODE = 1
"""The number of the first of `OPCODES`."""

FUSED: tuple[tuple[str, int, str], ...] = (
    ("add", 0, "multiply"),
    ("multiply", 1, "add"),
    ("subtract", 0, "multiply"),
    ("subtract", 1, "multiply"),
    ("multiply", 0, "sign"),
    ("divide", 1, "sqrt"),
    ("divide", 1, "add"),
    ("sqrt", 0, "divide"),
    ("interp", 0, "square"),
    ("sign", 0, "interp"),
)
"""(outer op, argument position, inner op): pairs that run as one instruction. Commutative outer ops also match with
their two arguments swapped."""

_OF_TENSORS = ("top_k_mask", "entry_count", "row_count", "column_count")
"""The ops on matrix views that have an instruction: their result widens to the parameters, and they are cheap."""


@dataclass(frozen=True, slots=True)
class Opcode:
    """What an instruction does: an op, or an outer op with an inner one in place of the argument at `position`."""

    op: str
    protected: bool
    inner: str | None = None
    position: int = 0

    @property
    def arity(self) -> int:
        """The number of arguments of the instruction."""
        return OPS[self.op].arity - 1 + OPS[self.inner].arity if self.inner else OPS[self.op].arity

    @property
    def whole(self) -> bool:
        """Whether it needs the whole of its arguments: what does not work entry by entry."""
        return not isinstance(OPS[self.op].meaning, Elementwise)


def _interpretable(name: str) -> bool:
    return not isinstance(OPS[name].meaning, Matrixwise) or name in _OF_TENSORS


def _lion_opcodes() -> tuple[Opcode, ...]:
    codes = []
    for protected in (False, True):
        for name in ("identity", *LION):
            if not protected or OPS[name].protected is not None:
                codes.append(Opcode(name, protected))
        for outer, position, inner in FUSED:
            if not protected or OPS[outer].protected is not None or OPS[inner].protected is not None:
                codes.append(Opcode(outer, protected, inner, position))
    return tuple(codes)


def _further_opcodes() -> tuple[Opcode, ...]:
    names = [name for name in VOCABULARIES["full"] if name not in LION and _interpretable(name)]
    return tuple(
        Opcode(name, protected)
        for name in names
        for protected in (False, True)
        if not protected or OPS[name].protected is not None
    )


OPCODES: tuple[Opcode, ...] = _lion_opcodes() + _further_opcodes()
"""Every instruction but that of noise; its number is its place here plus `FIRST_OPCODE`."""

OPCODES_OF = {"lion": len(_lion_opcodes()), "full": len(OPCODES)}
"""How many of the first opcodes each vocabulary needs, the smaller first: the fewer, the sooner is a loop compiled."""

_NUMBER = {(code.op, code.protected, code.inner, code.position): FIRST_OPCODE + i for i, code in enumerate(OPCODES)}


def number_of(op: str, protected: bool, inner: str | None = None, position: int = 0) -> int:
    """Return the number of an instruction in a program that is, or is not, marked `@protected`."""
    differs = OPS[op].protected is not None or (inner is not None and OPS[inner].protected is not None)
    return _NUMBER[(op, protected and differs, inner, position)]


_WHOLE = frozenset({NOISE} | {FIRST_OPCODE + i for i, code in enumerate(OPCODES) if code.whole})


def is_whole(number: int) -> bool:
    """Say whether an instruction needs the whole of its arguments, so that it cannot work on tiles."""
    return number in _WHOLE


def has_instruction(op: str, kinds: Sequence[Kind]) -> bool:
    """Say whether an instruction gives what the op does, with arguments of these kinds widened to the parameters.

    The sum of a row's numbers is not that of all entries that they stand for. Their largest is, and so is their mean
    over one parameter tensor, where each stands for as many entries.
    """
    if not _interpretable(op) or not all(widens(kind, Kind.TENSOR) for kind in kinds):
        return False
    meaning = OPS[op].meaning
    if isinstance(meaning, Elementwise) or kinds[0] is Kind.TENSOR:
        return True
    if not isinstance(meaning, Reduction):
        return False
    return meaning.reducer == "max" or (meaning.reducer == "mean" and meaning.scope is Kind.LEAF)
