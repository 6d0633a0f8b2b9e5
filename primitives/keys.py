"""Keys: digests that say which programs are the same.

The structural key is over data flow: names, dead code, the order of commutative arguments and of slots do not count.
The behavioural key is over what the NumPy interpreter does on fixed numbers: programs that compute the same updates by
other statements share it. Both are equal in every process and on every machine.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from evolion.primitives.dataflow import DataFlow, Reference, data_flow, live_statements
from evolion.primitives.layout import Layout
from evolion.primitives.numpy_interpreter import Value, initial_slots, stepper
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program

__all__ = ["Probe", "ProbeStatus", "behavioural_key", "probe", "structural_key"]

_DIGEST_SIZE = 16


def _hash(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=_DIGEST_SIZE).digest()


def structural_key(program: Program) -> str:
    """Return a digest of the data flow that reaches an update, as 32 hexadecimal digits.

    Equal keys mean equal programs but for names, dead code, the order of commutative arguments and of slots. Slots are
    numbered in the order in which a walk from the update meets them; where two commutative arguments differ by
    nothing but which slot they read, the walk takes them as written, and a swap of the two may go unseen.
    """
    flow = data_flow(program)
    statements, _ = live_statements(program, flow)
    order = sorted(statements)
    fixed = {h.name: _constant(h.value) for h in program.hyperparameters}
    fixed |= {name: _entry("input" + name) for name in program.inputs}
    kinds = {slot.name: str(slot.kind) for slot in program.slots}
    anonymous: dict[Reference, bytes] | None = None
    if _written_order_matters(program, flow, order):
        unnumbered = {name: _entry("slot" + kind) for name, kind in kinds.items()}
        anonymous = _tokens(program, flow, order, {**fixed, **unnumbered})
    numbered = _slot_order(program, flow, anonymous)
    slots = {name: _entry(f"slot{number}{kinds[name]}") for number, name in enumerate(numbered)}
    tokens = _tokens(program, flow, order, {**fixed, **slots})
    parts = [_token(flow.update, tokens), *(_token(flow.next_slots[name], tokens) for name in numbered)]
    return _hash(b"protected" if program.protected else b"plain", *parts).hex()


def _entry(name: str) -> bytes:
    """Name what a program starts from. All tokens are of one length, so no two lists of them join to the same bytes."""
    return name.encode().ljust(_DIGEST_SIZE, b"\0")


def _token(reference: Reference, tokens: dict[Reference, bytes]) -> bytes:
    return _constant(reference) if isinstance(reference, float) else tokens[reference]


def _tokens(program: Program, flow: DataFlow, order: list[int], entry: dict[str, bytes]) -> dict[Reference, bytes]:
    tokens: dict[Reference, bytes] = dict(entry.items())
    for index in order:
        op = program.statements[index].op
        parts = [
            _constant(reference) if isinstance(reference, float) else tokens[reference]
            for reference in flow.arguments[index]
        ]
        if OPS[op].commutative:
            parts.sort()
        tokens[index] = parts[0] if op == "identity" else _hash(op.encode(), *parts)
    return tokens


def _written_order_matters(program: Program, flow: DataFlow, order: list[int]) -> bool:
    """Say whether a commutative op has several arguments that read slots, so that their order numbers the slots."""
    readers: set[Reference] = set(flow.next_slots)
    for index in order:
        reading = [r for r in flow.arguments[index] if not isinstance(r, float) and r in readers]
        if reading:
            readers.add(index)
            if len(reading) > 1 and OPS[program.statements[index].op].commutative:
                return True
    return False


def _slot_order(program: Program, flow: DataFlow, tokens: dict[Reference, bytes] | None) -> list[str]:
    """Return the names of the live slots as a walk from the update meets them.

    With tokens, the walk takes the arguments of a commutative op in the order of theirs; without, as written.
    """
    found: dict[str, None] = {}
    seen: set[int] = set()
    queue = [flow.update]
    while queue:
        pending = [queue.pop(0)]
        while pending:
            reference = pending.pop()
            if isinstance(reference, int):
                if reference not in seen:
                    seen.add(reference)
                    arguments = flow.arguments[reference]
                    if tokens is not None and OPS[program.statements[reference].op].commutative:
                        arguments = tuple(sorted(arguments, key=lambda argument: _token(argument, tokens)))
                    pending += reversed(arguments)
            elif isinstance(reference, str) and reference in flow.next_slots and reference not in found:
                found[reference] = None
                queue.append(flow.next_slots[reference])
    return list(found)


def _constant(value: float) -> bytes:
    return b"constant" + struct.pack("<d", value)


class ProbeStatus(StrEnum):
    """What a few steps on fixed numbers show about a program."""

    OK = "ok"
    DEAD = "dead"
    """Every update is zero."""
    UNBOUNDED = "unbounded"
    """An update is NaN, infinite or beyond `UPDATE_BOUND`."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of `probe`: the behavioural key and what the updates show."""

    key: str
    status: ProbeStatus


UPDATE_BOUND = 1e12
"""An update beyond this, for inputs of the size that they have in training, ends any training."""

_STEPS = 6
_LAYOUT = Layout(((12, 10), (9,), (3, 5, 5), (52,)))
_SCALE_BITS = 20
_RATES = (0.0021, 0.87, 0.013, 0.0009, 0.11, 0.34)
_TIMES, _HORIZON = (1, 2, 3, 5, 60, 700), 1000


@cache
def _probe_inputs() -> tuple[dict[str, Value], ...]:
    """Make the fixed numbers from SHAKE-256, which no library version or platform can change.

    They must reach at least as far as those of training do: what a bound such as `clip(lr * g, 1)` or `max(w, -1.1)`
    never touches here would share the key, and so the score, of the program without it. Learning rates go from 1e-3 to
    just below 1, weights over seven binary orders of magnitude up to 8, the step to 700.

    Gradients span 24 binary orders of magnitude with a persistent part in each coordinate, so that epsilons, decay
    rates and sign flips all show; one in eight coordinates has gradient zero throughout, as unused weights do, and one
    in eight at every other step.
    """
    entries = _LAYOUT.entries
    columns = 3 * _STEPS + 6
    stream = hashlib.shake_256(b"evolion probe").digest(8 * columns * entries)
    uniform = (np.frombuffer(stream, "<u8") >> np.uint64(11)).astype(np.float64) / 2.0**53
    table = uniform.reshape(columns, entries)
    signed = 2.0 * table - 1.0
    coordinate = np.arange(entries)
    drift = np.ldexp(signed[-1], -np.floor(24.0 * table[-2]).astype(int) + 2)
    rare = coordinate % 8
    w0 = np.ldexp(signed[-3], np.floor(7.0 * table[-4]).astype(int) - 3)
    w = w0
    steps = []
    for step, (lr, t) in enumerate(zip(_RATES, _TIMES, strict=True)):
        spread = np.ldexp(1.0, np.floor(6.0 * table[3 * step]).astype(int) - 3)
        g = drift * (0.25 + signed[3 * step + 1] * spread)
        g = np.where((rare == 0) | ((rare == 1) & (step % 2 == 0)), 0.0, g)
        drawn = signed[3 * step + 2]
        w = w - 0.0625 * drawn
        steps.append(
            {
                "w": w,
                "g": g,
                "w0": w0,
                "hess": np.abs(np.roll(g, 1)) + 0.0625 * np.roll(g, 2),
                "noise": 4.0 * drawn * drawn * drawn,
                "lr": np.float64(lr),
                "t": np.float64(t),
                "horizon": np.float64(_HORIZON),
                "loss": np.float64(5.3 / 3.0**step),
            }
        )
    return tuple(steps)


def probe(program: Program) -> Probe:
    """Run six steps of a program on fixed numbers, in well under a millisecond.

    The weights follow a given path instead of the program's own updates, so the key says what the program makes of its
    inputs. Updates are rounded to 20 bits of mantissa before they are hashed: last bits of a platform's arithmetic do
    not count, and programs that differ by rounding alone share a key.
    """
    updates = _probe_updates(program)
    size = float(np.abs(updates).max())
    if not size <= UPDATE_BOUND:  # NaN included
        status = ProbeStatus.UNBOUNDED
    else:
        status = ProbeStatus.OK if size > 0.0 else ProbeStatus.DEAD
    return Probe(_hash(_rounded(updates)).hex(), status)


def _probe_updates(program: Program) -> NDArray[np.float64]:
    step = stepper(program, _LAYOUT)
    values: dict[str, Value] = {h.name: np.float64(h.value) for h in program.hyperparameters}
    slots = initial_slots(program, _LAYOUT)
    updates = np.empty((_STEPS, _LAYOUT.entries))
    with np.errstate(all="ignore"):
        for index, inputs in enumerate(_probe_inputs()):
            updates[index], slots = step(inputs | values | slots)
    return updates


def _rounded(values: NDArray[np.float64]) -> bytes:
    mantissa, exponent = np.frexp(values)
    with np.errstate(over="ignore"):
        rounded = np.ldexp(np.rint(mantissa * 2.0**_SCALE_BITS), exponent)
    # One pattern for every NaN and for both zeros.
    return np.where(np.isnan(rounded), np.nan, rounded + 0.0).astype("<f8").tobytes()


def behavioural_key(program: Program, *, up_to_lr: bool = False) -> str:
    """Return a digest of what the program does, as 32 hexadecimal digits.

    With `up_to_lr`, programs whose updates differ by one positive constant factor share a key.
    """
    if not up_to_lr:
        return probe(program).key
    updates = _probe_updates(program)
    size = float(np.abs(updates).max())
    if 0.0 < size < np.inf:
        updates = updates / size
        updates = updates / np.sqrt(np.mean(np.square(updates)))
    return _hash(b"up to lr", _rounded(updates)).hex()
