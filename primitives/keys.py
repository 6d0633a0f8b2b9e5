"""Keys: digests that say which programs are the same.

The structural key is over data flow: names, dead code, the order of commutative arguments and of slots do not count.
The behavioural key is over what the NumPy interpreter does on fixed numbers: programs that compute the same updates by
other statements share it. Both are equal in every process and on every machine.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from evolion.primitives.dataflow import DataFlow, Reference, data_flow
from evolion.primitives.ops import OPS
from evolion.primitives.probing import PLAIN, TAME, has_decomposition, probe_updates
from evolion.primitives.program import Program

__all__ = ["Probe", "ProbeStatus", "behavioural_key", "probe", "structural_key"]

_DIGEST_SIZE = 16
_NAMES: dict[str, bytes] = {name: name.encode() for name in OPS}
_COMMUTATIVE = frozenset(name for name, op in OPS.items() if op.commutative)


def _hash(*parts: bytes) -> bytes:
    return blake2b(b"".join(parts), digest_size=_DIGEST_SIZE).digest()


def structural_key(program: Program, flow: DataFlow | None = None) -> str:
    """Return a digest of the data flow that reaches an update, as 32 hexadecimal digits.

    Equal keys mean equal programs but for names, dead code, the order of commutative arguments and of slots. Slots are
    numbered in the order in which a walk from the update meets them; where two commutative arguments differ by
    nothing but which slot they read, the walk takes them as written, and a swap of the two may go unseen. Pass the data
    flow where it is known.
    """
    flow = flow or data_flow(program)
    tokens: dict[Reference, bytes] = {h.name: _constant(h.value) for h in program.hyperparameters}
    for parameter in program.parameters:
        tokens[parameter.name] = b"" if parameter.slot else _entry("input", parameter.name)
    readers = _add_tokens(tokens, program, flow, range(len(program.statements)))
    numbered = _slot_order(program, flow, tokens, readers)
    kinds = {slot.name: str(slot.kind) for slot in program.parameters if slot.slot}
    # What reads a slot that no update depends on is no part of the key, but has to have some token.
    tokens |= {name: _entry("slot", kind) for name, kind in kinds.items()}
    tokens |= {name: _entry(f"slot{number}", kinds[name]) for number, name in enumerate(numbered)}
    _add_tokens(tokens, program, flow, readers)
    parts = [_token(flow.update, tokens), *[_token(flow.next_slots[name], tokens) for name in numbered]]
    return _hash(b"protected" if program.protected else b"plain", *parts).hex()


@lru_cache(maxsize=4096)
def _entry(role: str, name: str) -> bytes:
    """Name what a program starts from. All tokens are of one length, so no two lists of them join to the same bytes."""
    return (role + name).encode().ljust(_DIGEST_SIZE, b"\0")


def _token(reference: Reference, tokens: Mapping[Reference, bytes]) -> bytes:
    return _constant(reference) if isinstance(reference, float) else tokens[reference]


def _add_tokens(tokens: dict[Reference, bytes], program: Program, flow: DataFlow, order: Iterable[int]) -> list[int]:
    """Add the tokens of statements to those of what a program starts from, in place.

    A slot that is not numbered yet has an empty token. So has then what reads it, at first or second hand; these
    statements are returned, in order.
    """
    statements, arguments = program.statements, flow.arguments
    readers = []
    for index in order:
        op = statements[index].op
        parts = [_constant(r) if r.__class__ is float else tokens[r] for r in arguments[index]]
        if b"" in parts:
            tokens[index] = b""
            readers.append(index)
            continue
        if op in _COMMUTATIVE:
            parts.sort()
        tokens[index] = parts[0] if op == "identity" else _operation(op, *parts)
    return readers


@lru_cache(maxsize=16_384)
def _operation(op: str, *parts: bytes) -> bytes:
    """Return the token of an operation on what has these; most statements of a child are those of its parent."""
    return blake2b(_NAMES[op] + b"".join(parts), digest_size=_DIGEST_SIZE).digest()


def _slot_order(program: Program, flow: DataFlow, tokens: Mapping[Reference, bytes], readers: list[int]) -> list[str]:
    """Return the names of the live slots as a walk from the update meets them.

    Where several arguments of a commutative op read slots, the walk takes them in the order of the tokens that they
    would have if all slots of a kind were one.
    """
    next_slots, statements = flow.next_slots, program.statements
    found: dict[str, None] = {}
    anonymous: dict[Reference, bytes] | None = None
    seen: set[int] = set()
    queue: list[Reference] = [flow.update]
    # What reads no slot leads to none, and once all are found their order is known.
    while queue and len(found) < len(next_slots):
        pending = [queue.pop(0)]
        while pending and len(found) < len(next_slots):
            reference = pending.pop()
            if isinstance(reference, float) or tokens[reference]:
                continue
            if isinstance(reference, str):
                if reference not in found:
                    found[reference] = None
                    queue.append(next_slots[reference])
            elif reference not in seen:
                seen.add(reference)
                leading = [r for r in flow.arguments[reference] if not isinstance(r, float) and not tokens[r]]
                if len(leading) > 1 and len(next_slots) > 1 and statements[reference].op in _COMMUTATIVE:
                    if anonymous is None:
                        slots = {p.name: _entry("slot", str(p.kind)) for p in program.parameters if p.slot}
                        anonymous = dict(tokens)
                        anonymous.update(slots)
                        _add_tokens(anonymous, program, flow, readers)
                    leading.sort(key=anonymous.__getitem__)
                pending += leading[::-1]
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
