"""The interpreter as a Pallas kernel: every lane runs its own program on its own tile of entries.

An instance of the kernel loads a tile of the rows that its program reads, keeps the tile of every row, scratch rows
included, on chip as values, loops over the elementwise instructions of one pass, and stores the rows that changed. So
memory sees each row once, however long the program. What depends on the instruction are branches on numbers that are
equal for a whole instance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu, triton

from evolion.evaluators.flat_ops import meaning_of
from evolion.evaluators.opcodes import FIRST_OPCODE, OPCODES, Opcode
from evolion.primitives.layout import Layout
from evolion.primitives.op import Elementwise
from evolion.primitives.ops import OPS

__all__ = ["RANGES", "TARGETS", "KernelTarget", "in_kernel", "names_of", "run_pass", "takes"]

RANGES = 4
"""What the kernel is told of a lane: first instruction, the one after the last, bits of rows to load and to store."""


@dataclass(frozen=True, slots=True)
class KernelTarget:
    """What a kernel is built for.

    Attributes:
        platform: "gpu", "tpu", or "interpret" for ordinary JAX on any device.
        tile: The shape of the tile of a row that one instance computes.

    """

    platform: str
    tile: tuple[int, ...]

    @property
    def entries(self) -> int:
        """The number of entries of a tile."""
        return math.prod(self.tile)


_FEW_ROWS = 16
"""So many rows of a tile of the GPU stay in the registers of two warps; more need four, compiled for an H100."""

_MOST_ROWS = 30
"""The rows to load and to store are bits of a number of 32."""

TARGETS = {
    "gpu": KernelTarget("gpu", (512,)),
    "tpu": KernelTarget("tpu", (8, 128)),
    "interpret": KernelTarget("interpret", (512,)),
}
"""The kernels by platform. Compiled for an H100, the GPU's keeps all rows in registers, without spills."""


_UNSUPPORTED = {
    "tpu": frozenset(
        ("arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "cbrt", "cosh", "expm1", "sinh"),
    )
}
"""Ops that a backend of jax 0.10 cannot compile; a test tries each of them."""


def takes(target: KernelTarget, rows: int, opcodes: Iterable[int]) -> bool:
    """Whether there is a kernel for register files of this many rows and programs of these instructions."""
    missing = _UNSUPPORTED.get(target.platform, frozenset())
    return rows <= _MOST_ROWS and not any(missing & {*names_of(number)} for number in opcodes)


def names_of(number: int) -> tuple[str, ...]:
    """Return the names of the ops of an instruction."""
    if number < FIRST_OPCODE:
        return ()
    opcode = OPCODES[number - FIRST_OPCODE]
    return (opcode.op, *([opcode.inner] if opcode.inner else []))


def in_kernel(number: int) -> bool:
    """Whether an instruction works entry by entry, which is what the kernel can do."""
    return number >= FIRST_OPCODE and all(isinstance(OPS[name].meaning, Elementwise) for name in names_of(number))


def run_pass(
    target: KernelTarget,
    scratch: int,
    opcodes: Sequence[int],
    layout: Layout,
    code: jax.Array,
    ranges: jax.Array,
    scalars: jax.Array,
    gradient: jax.Array,
    file: jax.Array,
) -> jax.Array:
    """Run the elementwise instructions of one pass in every lane and return the register file.

    Args:
        target: What to build the kernel for.
        scratch: The number of rows that live within the pass alone, numbered after those of the file.
        opcodes: The numbers of the instructions that there may be, in ascending order; what is not elementwise is left
            out.
        layout: Where the parameters lie.
        code: Instructions, int32 of shape (programs, INSTRUCTIONS, CODE_WIDTH); lane i runs program i % programs.
        ranges: See `RANGES`, int32 of shape (programs, 4).
        scalars: The scalars of this step, shape (lanes, columns).
        gradient: What row 1 holds, shape (lanes, width), the width a multiple of the tile.
        file: The register file, shape (rows, lanes, width). Its row 1 is not used.

    """
    rows, lanes, width = file.shape
    split = (width // target.entries, *target.tile)
    done = _call(target, scratch, _cases(target, opcodes, layout), code.shape, scalars.shape[1], rows, lanes, split)(
        code,
        ranges[:, None],
        scalars[:, None],
        gradient.reshape(lanes, *split),
        file.reshape(rows, lanes, *split),
    )
    return jnp.reshape(done, file.shape)


T = TypeVar("T")
Case = tuple[int, Callable[..., jax.Array]]


def _cases(target: KernelTarget, opcodes: Sequence[int], layout: Layout) -> list[Case]:
    there = [number for number in opcodes if in_kernel(number) and takes(target, 0, (number,))]
    return [(number, _of_three(OPCODES[number - FIRST_OPCODE], layout)) for number in there]


def _of_three(opcode: Opcode, layout: Layout) -> Callable[..., jax.Array]:
    meaning = meaning_of(opcode, layout)
    return lambda *values: jnp.broadcast_to(meaning(*values[: opcode.arity]), values[0].shape)


def _call(
    target: KernelTarget,
    scratch: int,
    cases: Sequence[Case],
    code: tuple[int, ...],
    columns: int,
    rows: int,
    lanes: int,
    split: tuple[int, ...],
) -> Callable[..., jax.Array]:
    """Return the kernel over all lanes and tiles; `code` is the shape of the code, `split` how a row is cut."""
    programs, rest = code[0], (0,) * len(target.tile)
    space = tpu.SMEM if target.platform == "tpu" else None
    of_file = pl.BlockSpec((rows, None, None, *target.tile), lambda lane, tile: (0, lane, tile, *rest))
    warps = 2 if rows + scratch <= _FEW_ROWS else 4
    parameters = triton.CompilerParams(num_warps=warps, num_stages=1) if target.platform == "gpu" else None
    call: Callable[..., jax.Array] = pl.pallas_call(
        partial(_kernel, target, scratch, cases),
        out_shape=_float32((rows, lanes, *split)),
        grid=(lanes, split[0]),
        in_specs=[
            pl.BlockSpec((1, *code[1:]), lambda lane, _: (lane % programs, 0, 0), memory_space=space),
            pl.BlockSpec((1, 1, RANGES), lambda lane, _: (lane % programs, 0, 0), memory_space=space),
            pl.BlockSpec((1, 1, columns), lambda lane, _: (lane, 0, 0), memory_space=space),
            pl.BlockSpec((None, None, *target.tile), lambda lane, tile: (lane, tile, *rest)),
            of_file,
        ],
        out_specs=of_file,
        input_output_aliases={4: 0},
        interpret=target.platform == "interpret",
        compiler_params=parameters,
        name="interpret_programs",
    )
    return call


def _float32(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)  # type: ignore[no-untyped-call]


def _kernel(
    target: KernelTarget,
    scratch: int,
    cases: Sequence[Case],
    code: Any,
    ranges: Any,
    scalars: Any,
    gradient: Any,
    before: Any,
    after: Any,
) -> None:
    # A block of the GPU's is a window on memory, so rows can be left where they are; the TPU's is a copy both ways.
    sparse = target.platform != "tpu"
    zero = jnp.zeros(target.tile, jnp.float32)
    start, stop, loads, stores = (ranges[0, 0, i] for i in range(RANGES))

    def load(row: int) -> jax.Array:
        def read() -> jax.Array:
            return gradient[...] if row == 1 else before[row]  # type: ignore[no-any-return]

        value: jax.Array = lax.cond((loads >> row) & 1 == 1, read, lambda: zero) if sparse else read()
        return value

    def execute(position: jax.Array, file: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        def value(argument: jax.Array) -> jax.Array:
            read: jax.Array = lax.cond(
                argument < 0,
                lambda: jnp.full(target.tile, scalars[0, 0, jnp.maximum(-1 - argument, 0)]),
                lambda: _select(argument, [(row, partial(_copy, target, held, row)) for row, held in enumerate(file)]),
            )
            return read

        opcode, written = code[0, position, 0], code[0, position, 1]
        values = [value(code[0, position, 2 + i]) for i in range(code.shape[2] - 2)]
        result = _select(opcode, [(number, partial(meaning, *values)) for number, meaning in cases])

        def put(row: int) -> tuple[jax.Array, ...]:
            return (*file[:row], _copy(target, result, row), *file[row + 1 :])

        return _select(written, [(row, partial(put, row)) for row in range(len(file))])

    rows = after.shape[0]
    file = (*map(load, range(rows)), *[zero] * scratch)
    file = lax.fori_loop(start, stop, execute, file)
    for row in range(rows):
        _store(after, row, file[row], (stores >> row) & 1 == 1 if sparse else None)


def _store(after: Any, row: int, value: jax.Array, wanted: jax.Array | None) -> None:
    def write() -> None:
        after[row] = value

    if wanted is None:
        write()
    else:
        pl.when(wanted)(write)


def _select(index: jax.Array, cases: Sequence[tuple[int, Callable[[], T]]]) -> T:
    """Call the case of a number, found by halving: a switch of the backends tries one after the other."""
    if len(cases) == 1:
        return cases[0][1]()
    half = len(cases) // 2
    result: T = lax.cond(
        index < cases[half][0], lambda: _select(index, cases[:half]), lambda: _select(index, cases[half:])
    )
    return result


def _copy(target: KernelTarget, value: jax.Array, row: int) -> jax.Array:
    """Return the value itself.

    On the GPU by an instruction that no compiler moves or merges, as each names its row: else a choice of rows becomes
    as many selects as there are rows, for every entry, in place of one jump for all.
    """
    if target.platform != "gpu":
        return value
    (copied,) = triton.elementwise_inline_asm(
        f"mov.b32 $0, $1; // row {row}",
        args=[value],
        constraints="=r,r",
        pack=1,
        result_shape_dtypes=[_float32(value.shape)],
    )
    return copied
