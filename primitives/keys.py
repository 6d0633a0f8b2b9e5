"""Keys: digests that say which programs are the same.

The structural key is over data flow: names, dead code, the order of commutative arguments and of slots do not count.
The behavioural key is over what the NumPy interpreter does on fixed numbers: programs that compute the same updates by
other statements share it. Both are equal in every process and on every machine.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from evolion.primitives.dataflow import DataFlow, Reference, data_flow, live_statements
from evolion.primitives.kinds import Kind
from evolion.primitives.ops import OPS
from evolion.primitives.probing import PLAIN, TAME, has_decomposition, probe_updates
from evolion.primitives.program import Program

__all__ = ["Probe", "ProbeStatus", "behavioural_key", "probe", "structural_key"]

_DIGEST_SIZE = 16
_NAMES: dict[str, bytes] = {name: name.encode() for name in OPS}
_COMMUTATIVE = frozenset(name for name, op in OPS.items() if op.commutative)


def _hash(*parts: bytes) -> bytes:
    return blake2b(b"".join(parts), digest_size=_DIGEST_SIZE).digest()


def structural_key(program: Program) -> str:
    """Return a digest of the data flow that reaches an update, as 32 hexadecimal digits.

    Equal keys mean equal programs but for names, dead code, the order of commutative arguments and of slots. Slots are
    numbered in the order in which a walk from the update meets them; where two commutative arguments differ by
    nothing but which slot they read, the walk takes them as written, and a swap of the two may go unseen.
    """
    flow = data_flow(program)
    order = sorted(live_statements(program, flow)[0])
    tokens: dict[Reference, bytes] = {h.name: _constant(h.value) for h in program.hyperparameters}
    kinds: dict[str, Kind] = {}
    for parameter in program.parameters:
        if parameter.slot:
            kinds[parameter.name] = parameter.kind
        else:
            tokens[parameter.name] = _entry("input", parameter.name)
    anonymous: dict[Reference, bytes] | None = None
    if len(kinds) > 1 and _written_order_matters(program, flow, order):
        unnumbered: dict[Reference, bytes] = {name: _entry("slot", str(kind)) for name, kind in kinds.items()}
        anonymous = _extended(tokens | unnumbered, program, flow, order)
    numbered = _slot_order(program, flow, anonymous)
    for number, name in enumerate(numbered):
        tokens[name] = _entry(f"slot{number}", str(kinds[name]))
    _extended(tokens, program, flow, order)
    parts = [_token(flow.update, tokens), *[_token(flow.next_slots[name], tokens) for name in numbered]]
    return _hash(b"protected" if program.protected else b"plain", *parts).hex()


@lru_cache(maxsize=4096)
def _entry(role: str, name: str) -> bytes:
    """Name what a program starts from. All tokens are of one length, so no two lists of them join to the same bytes."""
    return (role + name).encode().ljust(_DIGEST_SIZE, b"\0")


def _token(reference: Reference, tokens: dict[Reference, bytes]) -> bytes:
    return _constant(reference) if isinstance(reference, float) else tokens[reference]


def _extended(
    tokens: dict[Reference, bytes], program: Program, flow: DataFlow, order: list[int]
) -> dict[Reference, bytes]:
    """Add the tokens of the statements to those of what a program starts from, in place."""
    statements, arguments = program.statements, flow.arguments
    for index in order:
        op = statements[index].op
        parts = [_constant(r) if r.__class__ is float else tokens[r] for r in arguments[index]]
        if op in _COMMUTATIVE:
            parts.sort()
        if op == "identity":
            tokens[index] = parts[0]
        else:
            tokens[index] = blake2b(_NAMES[op] + b"".join(parts), digest_size=_DIGEST_SIZE).digest()
    return tokens


def _written_order_matters(program: Program, flow: DataFlow, order: list[int]) -> bool:
    """Say whether a commutative op has several arguments that read slots, so that their order numbers the slots."""
    statements, arguments = program.statements, flow.arguments
    readers: set[Reference] = set(flow.next_slots)
    for index in order:
        # No constant is among the readers, and none equals the index of a statement: floats are told apart by type.
        reading = [r for r in arguments[index] if r.__class__ is not float and r in readers]
        if reading:
            readers.add(index)
            if len(reading) > 1 and statements[index].op in _COMMUTATIVE:
                return True
    return False


def _slot_order(program: Program, flow: DataFlow, tokens: dict[Reference, bytes] | None) -> list[str]:
    """Return the names of the live slots as a walk from the update meets them.

    With tokens, the walk takes the arguments of a commutative op in the order of theirs; without, as written.
    """
    next_slots, statements = flow.next_slots, program.statements
    found: dict[str, None] = {}
    seen: set[int] = set()
    queue = [flow.update]
    while queue:
        pending = [queue.pop(0)]
        while pending:
            reference = pending.pop()
            if reference.__class__ is int:
                if reference not in seen:
                    seen.add(reference)
                    arguments = flow.arguments[reference]
                    if tokens is not None and statements[reference].op in _COMMUTATIVE:
                        arguments = tuple(sorted(arguments, key=lambda argument: _token(argument, tokens)))
                    pending += arguments[::-1]
            elif reference in next_slots and reference not in found:
                found[reference] = None
                queue.append(next_slots[reference])
    return list(found)


_pack_double = struct.Struct("<8sd").pack


def _constant(value: float) -> bytes:
    return _pack_double(b"constant", value)


class ProbeStatus(StrEnum):
    """What a few steps on fixed numbers show about a program."""

    OK = "ok"
    DEAD = "dead"
    """Every update is zero."""
    UNBOUNDED = "unbounded"
    """An update is NaN, infinite or beyond `UPDATE_BOUND`."""
    NO_DESCENT = "no descent"
    """It lowers neither of two simple losses at any learning rate (`evolion.primitives.descent`); `probe` does not
    look."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of `probe`: the behavioural key and what the updates show."""

    key: str
    status: ProbeStatus


UPDATE_BOUND = 1e12
"""An update beyond this, for inputs of the size that they have in training, ends any training."""

_DROPPED_BITS = 33
"""Of the 53 binary digits of a number 20 count."""
_COARSE_BITS, _COARSE_RANGE = 12, 36


def probe(program: Program) -> Probe:
    """Run a few steps of a program on fixed numbers and make a digest of the rounded updates.

    Last bits of a platform's arithmetic do not count, and programs that differ by rounding alone share a key. Wherever
    one rounds, a number may lie so near the boundary between two results that the last bits decide after all. With a
    relative error d of each number, 20 binary digits and n = 6144 numbers, that is the case for a share of n · 0.72 ·
    2^20 · d of all programs: 5 in a million for d = 1e-15.

    Matrix decompositions have errors relative to the whole matrix, about 1e-10 and up to 1e-7 for directions that are
    ill determined. The updates of a program with one that is not dead code are rounded to multiples of 2^-12 of the
    largest entry of their parameter tensor. With an error d relative to that entry and n = 990 numbers, the share is
    at most n · 2^12 · d: 4 in ten thousand for d = 1e-10. Differences that are smaller than that rounding everywhere
    go unseen. Programs that divide by what cancellation leaves have larger errors: measured with other kernels and
    instructions, 1 % of mutated programs without a decomposition and 2.4 % of those with one change their key.
    """
    decomposed = has_decomposition(program)
    updates = probe_updates(program, TAME if decomposed else PLAIN)
    size = float(np.abs(updates).max())
    if not size <= UPDATE_BOUND:  # NaN included
        status = ProbeStatus.UNBOUNDED
    else:
        status = ProbeStatus.OK if size > 0.0 else ProbeStatus.DEAD
    return Probe(_hash(_coarsely_rounded(updates) if decomposed else _rounded(updates)).hex(), status)


def _rounded(values: NDArray[np.float64]) -> bytes:
    """Round the mantissa half away from zero, on the bits of the numbers; what is below 2e-314 becomes zero."""
    bits = np.ascontiguousarray(values, "<f8").view("<i8")
    bits = (bits + (1 << (_DROPPED_BITS - 1))) >> _DROPPED_BITS << _DROPPED_BITS
    rounded = bits.view("<f8")
    # One pattern for every NaN and for both zeros; the bits below are zero in all of them.
    canonical = np.where(np.isnan(values), np.nan, rounded + 0.0).astype("<f8")
    return bytes((canonical.view("<u8") >> np.uint64(32)).astype("<u4"))


def _coarsely_rounded(values: NDArray[np.float64]) -> bytes:
    """Round to multiples of 2^-12 of the power of two above the largest entry of the parameter tensor at that step.

    Tensors whose entries are all below 2^-36 of the largest at the step are rounded as if they reached that far, so
    that what should be zero is.
    """
    with np.errstate(all="ignore"):
        sizes = np.where(np.isfinite(values), np.abs(values), 0.0)
        largest = np.maximum.reduceat(sizes, TAME.layout.starts, axis=1)
        largest = np.maximum(largest, np.ldexp(largest.max(axis=1, keepdims=True), -_COARSE_RANGE))
        exponents = np.frexp(largest)[1].astype("<i4")
        rounded = np.rint(np.ldexp(values, _COARSE_BITS - np.repeat(exponents, TAME.layout.sizes, axis=1)))
    canonical = np.where(np.isnan(rounded), np.nan, rounded + 0.0).astype("<f8")
    return bytes(canonical.tobytes() + exponents.tobytes())


def behavioural_key(program: Program, *, up_to_lr: bool = False) -> str:
    """Return a digest of what the program does, as 32 hexadecimal digits.

    With `up_to_lr`, programs whose updates differ by one positive constant factor share a key.
    """
    if not up_to_lr:
        return probe(program).key
    decomposed = has_decomposition(program)
    updates = probe_updates(program, TAME if decomposed else PLAIN)
    size = float(np.abs(updates).max())
    if 0.0 < size < np.inf:
        updates = updates / size
        updates = updates / np.sqrt(np.mean(np.square(updates)))
    return _hash(b"up to lr", _coarsely_rounded(updates) if decomposed else _rounded(updates)).hex()
