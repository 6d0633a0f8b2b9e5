"""What a batch runs on: the kernel for a device, and how many lanes fit into its memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax

from evolion.evaluators.batch.kernel import TARGETS, KernelTarget
from evolion.evaluators.batch.programs import CAPACITIES, Capacity
from evolion.evaluators.environment import numerics_tag
from evolion.evaluators.gradient import gradient_equations
from evolion.evaluators.loop import flat_task

__all__ = ["LANES", "Device", "device", "lanes_of"]

LANES = (16, 64, 256, 1024, 4096)
"""The numbers of lanes of one seed that a loop may be compiled for."""

_HOST_MEMORY = 1 << 30
_SHARE = 0.4
"""Of the memory of an accelerator: two batches may be on it at a time."""
_NUMBER = 4
"""Bytes of a float32."""


@dataclass(frozen=True, slots=True)
class Device:
    """What a batch runs on.

    Attributes:
        target: The kernel, or None to run updates as super-steps of plain XLA.
        lanes: The most lanes of one seed, one of `LANES`. Every batch is padded to it where memory allows, so that a
            score does not hang on what else was pending.
        slots: The most lanes that one super-step serves.
        memory: The bytes that a batch may take.
        capacities: What its loops have room for.

    """

    target: KernelTarget | None
    lanes: int
    slots: int
    memory: int
    capacities: tuple[Capacity, ...] = CAPACITIES

    def numerics(self) -> str:
        """Return the tag of what computes here, see `environment.numerics_tag`."""
        path = f"kernel for {self.target.platform}" if self.target else "super-steps"
        # Memory decides how many lanes a batch has, and their number decides last bits.
        return numerics_tag(f"batch of {self.lanes} lanes in {self.memory} bytes, {path}, products in float32")


def device(lanes: int | None = None, memory: int | None = None) -> Device:
    """Return what jax's first device is used as: the kernel on an NVIDIA GPU or a TPU, super-steps elsewhere.

    Args:
        lanes: The most lanes of one seed, one of `LANES`; 1024 on an accelerator and 16 on a CPU unless given.
        memory: The bytes that a batch may take; a share of the device's unless given, a gibibyte on a CPU.

    Raises:
        ValueError: For a number of lanes that there are no loops for, or no memory.

    """
    first = jax.devices()[0]
    if lanes is not None and lanes not in LANES:
        raise ValueError(f"lanes must be one of {', '.join(map(str, LANES))}, not {lanes}")
    if memory is not None and memory < 1:
        raise ValueError(f"memory must be a positive number of bytes, not {memory}")
    if first.platform == "cpu":
        return Device(None, lanes or 16, 8, memory or _HOST_MEMORY)
    statistics = first.memory_stats() or {}
    available = int(_SHARE * statistics.get("bytes_limit", 8 * _HOST_MEMORY))
    return Device(_target(first), lanes or 1024, 64, memory or available)


def _target(first: jax.Device) -> KernelTarget | None:
    # The GPU's kernel holds a line of NVIDIA's assembly.
    if first.platform == "gpu" and "cuda" not in first.client.platform_version.lower():
        return None
    return TARGETS.get(first.platform)


def lanes_of(used: Device, task: str, seeds: int, capacity: Capacity) -> int:
    """Return how many lanes of one seed a batch of a task has: what fits into memory, at least the smallest number."""
    width = flat_task(task).layout.entries
    # Besides the file there are the gradient, its parts before they are joined, and a copy of the weights in tensors.
    rows = capacity.rows + capacity.scratch + 4
    lane = _NUMBER * width * rows + gradient_bytes(task)
    fitting = [lanes for lanes in LANES if lanes <= used.lanes and lanes * seeds * lane <= used.memory]
    return max(fitting, default=LANES[0])


@lru_cache(maxsize=16)
def gradient_bytes(task: str) -> int:
    """Return the bytes of every intermediate value of one gradient of a task: more than is alive at a time."""
    made: Iterator[Any] = (var.aval for equation in gradient_equations(task) for var in equation.outvars)
    return sum(_NUMBER * math.prod(value.shape) for value in made)
