"""Programs as arrays: rows numbered anew, super-steps that keep each program's order, what the kernel is told."""

from __future__ import annotations

import numpy as np
import pytest
from encoded_programs import HAND_MADE
from hypothesis import given
from hypothesis import strategies as st

from evolion.discovered.library import known
from evolion.evaluators.batch.kernel import in_kernel
from evolion.evaluators.batch.programs import (
    CAPACITIES,
    PASSES,
    Capacity,
    LaneProgram,
    arrange,
    capacity_of,
    lane_program,
)
from evolion.evaluators.batch.supersteps import merge
from evolion.evaluators.encoding import CODE_WIDTH, INSTRUCTIONS, CapacityError, encode
from evolion.evaluators.opcodes import is_whole
from evolion.primitives.parser import parse


def programs() -> dict[str, LaneProgram]:
    found = {}
    for name, program in {**known(), **{name: parse(text) for name, text in HAND_MADE.items()}}.items():
        try:
            found[name] = lane_program(encode(program))
        except CapacityError:
            continue
    return found


PROGRAMS = programs()


@given(st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=1, max_size=9), st.integers(1, 5))
def test_super_steps_keep_the_order_of_every_lane(lanes: list[list[int]], slots: int) -> None:
    """A lane's instructions are all run, once each and in their order, whatever the others do."""
    code = np.zeros((len(lanes), INSTRUCTIONS, CODE_WIDTH), np.int32)
    ends = np.array([len(lane) for lane in lanes])
    for number, lane in enumerate(lanes):
        code[number, : len(lane), 0] = lane
        code[number, : len(lane), 1] = np.arange(len(lane))
    halves = ends // 2
    segments = [np.stack([0 * ends, halves], axis=1), np.stack([halves, ends], axis=1)]
    steps = merge(code, segments, slots)
    done: list[list[tuple[int, int]]] = [[] for _ in lanes]
    for step in range(steps.bounds[-1]):
        served = steps.lanes[step]
        assert len({*served.tolist()} - {len(lanes)}) == np.sum(served < len(lanes))
        for slot, lane in enumerate(served):
            if lane < len(lanes):
                done[lane].append((int(steps.opcodes[step]), int(steps.operands[step, slot, 0])))
        if step + 1 == steps.bounds[0]:
            assert [len(lane) for lane in done] == halves.tolist()
    assert done == [[(opcode, place) for place, opcode in enumerate(lane)] for lane in lanes]


def test_most_programs_fit_the_smallest_capacity_and_all_fit_the_largest() -> None:
    """Children of Adam share one loop; what the interpreter takes, some loop for batches takes as well."""
    places = {name: CAPACITIES.index(capacity_of(program, CAPACITIES)) for name, program in PROGRAMS.items()}
    assert {"sgd", "momentum", "adam", "adamw", "lion", "nesterov"} <= {name for name in places if places[name] == 0}
    assert len(PROGRAMS) > 100


def test_a_program_without_room_is_refused() -> None:
    """What no loop can take is told so, and is compiled instead."""
    with pytest.raises(CapacityError, match="no loop for batches"):
        capacity_of(PROGRAMS["adam"], (Capacity(2, 0, 1, ()),))


@pytest.mark.parametrize("capacity", CAPACITIES[1:])
def test_the_kernel_is_told_which_rows_a_pass_reads_and_writes(capacity: Capacity) -> None:
    """A row that is not loaded reads as zero and one that is not stored is lost: the bits are those of the code."""
    fitting = [p for p in PROGRAMS.values() if p.rows <= min(capacity.rows, 30)]
    batch = arrange(fitting, len(fitting) + 1, capacity, 8, kernel=True)
    assert batch.used.tolist() == [True] * len(fitting) + [False]
    for lane, program in enumerate(fitting):
        position = 0
        for number in range(int(batch.passes)):
            start, stop, loads, stores = batch.ranges[number, lane].tolist()
            assert (start, stop) == (position, program.passes[number, 0])
            instructions = batch.code[lane, start:stop]
            read = {row for row in np.ravel(instructions[:, 2:]).tolist() if 0 <= row < capacity.rows}
            written = {row for row in instructions[:, 1].tolist() if row < capacity.rows}
            assert loads == sum(1 << row for row in read)
            assert stores == sum(1 << row for row in written)
            assert all(in_kernel(opcode) for opcode in instructions[:, 0].tolist())
            position = int(program.passes[number, 1])
            assert all(is_whole(opcode) for opcode in batch.code[lane, stop:position, 0].tolist())
        assert not batch.code[lane, position:].any()
    assert not batch.ranges[:, -1].any()
    assert not batch.ranges[batch.passes :].any()
    assert max(program.passes.shape[0] for program in fitting) == PASSES >= batch.passes
