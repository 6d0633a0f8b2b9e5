"""The kernel: against super-steps in plain XLA, and lowered for devices that are not there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolion.evaluators.batch.kernel import TARGETS, KernelTarget, in_kernel, run_pass, takes
from evolion.evaluators.batch.programs import CAPACITIES, PASSES, Capacity, arrange, lane_program
from evolion.evaluators.batch.supersteps import execute, merge
from evolion.evaluators.encoding import CODE_WIDTH, GRADIENT, INSTRUCTIONS, SCRATCH, encode
from evolion.evaluators.opcodes import FIRST_OPCODE, OPCODES
from evolion.primitives.layout import Layout
from evolion.primitives.parser import parse

LAYOUT = Layout(((20, 30), (300,)))
ELEMENTWISE = [number for number in range(FIRST_OPCODE + len(OPCODES)) if in_kernel(number)]
PROGRAMS = (
    "def train(g, lr):\n    return lr * g\n",
    "def train(w, g, m, v, lr, *, b1=0.9):\n    m = interp(g, m, b1)\n    v = interp(square(g), v, 0.99)\n"
    "    x = m * lr + 0.01 * w\n    return x / (sqrt(v) + 1e-8), m, v\n",
    "def train(w, g, loss):\n    x = g * loss\n    return x * w + w * g\n",
)
PLATFORMS = {"gpu": "cuda", "tpu": "tpu"}


def random(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def run_kernel(target: KernelTarget, opcodes: Sequence[int], scratch: int) -> Any:
    return jax.jit(partial(run_pass, target, scratch, opcodes, LAYOUT))


def test_the_kernel_computes_what_super_steps_do() -> None:
    """One pass of different programs in the lanes of two seeds changes the same rows to the same values."""
    programs = [lane_program(encode(parse(text))) for text in PROGRAMS]
    opcodes = tuple(sorted({0}.union(*(program.opcodes for program in programs))))
    capacity = Capacity(4, 3, 8, opcodes)
    lanes, seeds, width = len(programs) + 1, 2, 1024
    file, gradient = random(4, seeds, lanes, width), random(seeds, lanes, width)
    scalars = random(seeds, lanes, capacity.columns)
    batch = arrange(programs, lanes, capacity, 3, kernel=True)
    ours = run_kernel(TARGETS["interpret"], opcodes, capacity.scratch)(
        batch.code,
        batch.ranges[0],
        scalars.reshape(seeds * lanes, -1),
        gradient.reshape(seeds * lanes, -1),
        file.reshape(4, seeds * lanes, -1),
    ).reshape(file.shape)
    whole = arrange(programs, lanes, capacity, 3, kernel=False)
    start = jnp.concatenate([file, np.zeros_like(file[:3])]).at[GRADIENT].set(gradient)
    theirs = jax.jit(
        lambda steps, file, scalars: execute(steps, 0, file, scalars, lambda: gradient[:, 0], LAYOUT, opcodes)
    )(whole.steps, start, scalars)
    kept = [row for row in range(4) if row != GRADIENT]
    np.testing.assert_allclose(ours[kept,], theirs[kept,], rtol=1e-6, atol=1e-6)
    assert np.array_equal(ours[:, :, -1], file[:, :, -1]), "a lane without a program changes nothing"
    assert not np.array_equal(ours[0, :, :-1], file[0, :, :-1])


def shapes(capacity: Capacity, width: int) -> tuple[Any, ...]:
    program = lane_program(encode(parse(PROGRAMS[0])))
    batch = arrange([program], 4, capacity, 3, kernel=True)
    array = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    return (
        batch.code,
        batch.ranges[0],
        array((8, capacity.columns)),
        array((8, width)),
        array((capacity.rows, 8, width)),
    )


def lowered(target: KernelTarget, opcodes: Sequence[int], capacity: Capacity = CAPACITIES[0]) -> str:
    traced = run_kernel(target, opcodes, capacity.scratch).trace(*shapes(capacity, 4 * target.entries))
    return str(traced.lower(lowering_platforms=(PLATFORMS[target.platform],)).as_text())


def test_what_a_kernel_is_said_to_lack_does_not_lower() -> None:
    """Programs with an op that a backend cannot compile go another way: what it can compile by now goes this one."""
    tiny = Capacity(2, 0, 2, ())
    for name in PLATFORMS:
        missing = [number for number in ELEMENTWISE if not takes(TARGETS[name], 0, (number,))]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("evolion.evaluators.batch.kernel._UNSUPPORTED", {})
            for number in missing:
                with pytest.raises(NotImplementedError, match="Unimplemented primitive"):
                    lowered(TARGETS[name], [number], tiny)


@pytest.mark.parametrize("capacity", CAPACITIES[:-1])
def test_the_whole_kernel_lowers_for_a_gpu(capacity: Capacity) -> None:
    """All instructions in one kernel, for a GPU that is not there: a custom call to Triton."""
    assert "xla.gpu.triton" in lowered(TARGETS["gpu"], capacity.opcodes, capacity)


def test_the_whole_kernel_lowers_for_a_tpu() -> None:
    """All instructions but signs, whose lowering asks for the chip, in one kernel for a TPU that is not there."""
    there = [(number, OPCODES[number - FIRST_OPCODE]) for number in ELEMENTWISE]
    opcodes = [number for number, opcode in there if "sign" not in (opcode.op, opcode.inner)]
    assert "tpu_custom_call" in lowered(TARGETS["tpu"], opcodes)


def test_only_register_files_of_few_rows_have_a_kernel() -> None:
    """The rows that a pass reads are bits of one number."""
    assert takes(TARGETS["gpu"], 30, ELEMENTWISE)
    assert not takes(TARGETS["gpu"], 31, ELEMENTWISE)
    assert CAPACITIES[-2].rows <= 30
    assert CAPACITIES[-2].scratch == SCRATCH
    assert PASSES >= 8


@pytest.mark.slow
def test_every_instruction_computes_what_it_does_in_super_steps() -> None:
    """A lane for each elementwise instruction: the kernel and plain XLA give the same, infinities and NaN included."""
    lanes, width, rows = len(ELEMENTWISE), 512, 6
    code = np.zeros((lanes, INSTRUCTIONS, CODE_WIDTH), np.int32)
    code[:, 0] = [(number, 2, 3, 4, 5) for number in ELEMENTWISE]
    ends = np.tile(np.array([[0, 1]], np.int32), (lanes, 1))
    file = random(rows, lanes, width) * 3
    file[3, :, :4] = [0.0, np.inf, -np.inf, np.nan]
    scalars, ranges = random(lanes, 4), np.tile(np.array([[0, 1, 0b111001, 0b100]], np.int32), (lanes, 1))
    ours = run_kernel(TARGETS["interpret"], ELEMENTWISE, 2)(code, ranges, scalars, file[1], file)
    steps = merge(code, [ends], 8)
    theirs = jax.jit(
        lambda file, scalars: execute(steps, 0, file, scalars, lambda: scalars[:, 0], LAYOUT, ELEMENTWISE)
    )(file[:, None], scalars[None])[:, 0]
    for lane, number in enumerate(ELEMENTWISE):
        name = str(OPCODES[number - FIRST_OPCODE])
        np.testing.assert_allclose(ours[2, lane], theirs[2, lane], rtol=1e-5, atol=1e-6, err_msg=name)
    assert np.array_equal(ours[3], file[3], equal_nan=True)
