"""What a run is given of a machine or cluster. It determines nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from evolion.config_types import STRICT, Count, Device, Text, Weight
from evolion.evaluators.worker_class import WorkerClass

__all__ = ["WorkersConfig"]


@dataclass(frozen=True, slots=True, config=STRICT)
class WorkersConfig:
    """A class of workers: what each of them is given of a machine or cluster.

    Attributes:
        device: The name by which stages ask for it; "" is the class of those that name none.
        count: Workers of this class; without it as many as fit.
        cpus: Processor cores for each, in fractions.
        gpus: GPUs for each: a share below one, or whole ones.
        tpus: Chips of a TPU for each: 1, 2, 4 or 8.
        resources: Amounts for each of resources that a Ray cluster declares by names of its own.
        platform: What jax computes on: cpu, cuda, rocm, tpu; without it what `gpus` and `tpus` say.
        batch: Candidates that each trains at a time, for accelerators; without it one by one.

    """

    device: Device = ""
    count: Count | None = None
    cpus: Weight = 1.0
    gpus: Weight = 0.0
    tpus: Annotated[int, Field(strict=True, ge=0)] = 0
    resources: Mapping[str, Weight] = field(default_factory=dict, hash=False)
    platform: Text | None = None
    batch: Count | None = None

    def __post_init__(self) -> None:
        self.worker_class()

    def worker_class(self) -> WorkerClass:
        """Return it as evaluators take it."""
        return WorkerClass(**asdict(self))
