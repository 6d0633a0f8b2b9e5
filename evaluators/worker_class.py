"""Classes of workers: what each worker is given of a machine, and how many fit. Loads neither jax nor ray."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["TPU_CHIPS", "WorkerClass", "check_classes", "fitting"]

TPU_CHIPS = (0, 1, 2, 4, 8)
"""How many chips of a TPU one process may have: what libtpu can divide a host into."""

_OF_ONE_PROCESS = 0.9
"""Of the memory of a GPU's share: the rest goes to the CUDA contexts of the processes that share it."""


@dataclass(frozen=True, slots=True)
class WorkerClass:
    """Workers that are alike, and compute with the same numerics.

    Attributes:
        device: The name by which jobs ask for them; "" is the default class.
        count: How many there are to be; None for as many as fit.
        cpus: Processor cores that each takes, in fractions.
        gpus: GPUs that each takes: a share below one, or whole ones. A share is scheduled, and what jax may take of the
            memory is set by it; nothing separates the processes beyond that.
        tpus: Chips of a TPU that each takes.
        resources: Resources of Ray's that a cluster declares by names of its own, with the amount that each takes.
        platform: What jax computes on (JAX_PLATFORMS); without it cuda with `gpus`, tpu with `tpus`, else cpu.
        batch: How many jobs each trains at a time; None for one by one.

    """

    device: str = ""
    count: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    tpus: int = 0
    resources: Mapping[str, float] = field(default_factory=dict, hash=False)
    platform: str | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        numbers = {"cpus": self.cpus, "gpus": self.gpus, "tpus": self.tpus, **self.resources}
        for name, amount in numbers.items():
            if not 0 <= amount < math.inf:
                raise ValueError(f"{self} cannot take {amount:g} {name}: give a number that is not negative")
        for name, least in {"count": self.count, "batch": self.batch}.items():
            if least is not None and least < 1:
                raise ValueError(f"{name} of {self} must be at least 1, not {least}")
        for name, amount in {"gpus": self.gpus, **self.resources}.items():
            if amount > 1 and amount != int(amount):
                raise ValueError(f"{self} cannot take {amount:g} {name}: a share is below 1, more than one are whole")
        if self.tpus not in TPU_CHIPS:
            known = ", ".join(map(str, TPU_CHIPS[1:]))
            raise ValueError(f"{self} cannot take {self.tpus} chips of a TPU: a process has {known} of them, or none")
        if self.gpus and self.tpus:
            raise ValueError(f"{self} cannot take GPUs and chips of a TPU: jax computes on one of them")
        taken = sorted({"CPU", "GPU", "TPU", "memory", "object_store_memory"} & set(self.resources))
        if taken:
            raise ValueError(f"resources of {self} cannot hold {taken[0]}: cpus, gpus and tpus are keys of their own")
        if not any(numbers.values()):
            raise ValueError(
                f"{self} takes nothing: give cpus, gpus, tpus or resources, so that their number is bounded"
            )

    def __str__(self) -> str:
        """Name it in a message."""
        return f"a worker of class {self.device!r}" if self.device else "a worker"

    @property
    def accelerated(self) -> bool:
        """Whether it takes more of a machine than cores: then there are few such places."""
        return bool(self.gpus or self.tpus or any(self.resources.values()))

    def needs(self) -> dict[str, float]:
        """Return what a worker takes, by Ray's names."""
        needs = {"CPU": float(self.cpus), "GPU": float(self.gpus), "TPU": float(self.tpus), **self.resources}
        return {name: amount for name, amount in needs.items() if amount}

    def settings(self, shared: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that a worker process starts with, from those of the driver's process.

        A worker without an accelerator computes on the CPU whatever the driver does, so that it never reserves memory
        of a GPU that others were given. What the user has said about the memory of GPUs stands.
        """
        kind = "cuda" if self.gpus else "tpu" if self.tpus else "cpu"
        made = {**shared, "JAX_PLATFORMS": self.platform or kind}
        said = {"XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"}
        if 0 < self.gpus < 1 and not said & set(shared):
            made["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{_OF_ONE_PROCESS * self.gpus:.4g}"
        return made


def check_classes(classes: Sequence[WorkerClass]) -> None:
    """Raise ValueError unless there is one class for each device, the default one among them."""
    devices = [one.device for one in classes]
    twice = sorted({device for device in devices if devices.count(device) > 1})
    if twice:
        name = f"device {twice[0]!r}" if twice[0] else "the default device"
        raise ValueError(f"two classes of workers for {name}: scores of a device come from workers that are alike")
    if "" not in devices:
        raise ValueError(
            "no class of workers without a device: it trains the stages that name none, and what follows the search"
        )


def fitting(classes: Iterable[WorkerClass], nodes: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """Return how many workers of each class there are to be, by device: what is asked for, else what fits; at least 1.

    `nodes` are the resources of each machine, by Ray's names. Classes that say how many take their places first, then
    those with accelerators, as the others leave them no core otherwise.
    """
    free = [dict(node) for node in nodes]
    order = sorted(classes, key=lambda one: (one.count is None, not one.accelerated))
    placed = {one.device: _place(one, free) for one in order}
    return {one.device: one.count or max(1, placed[one.device]) for one in order}


def _place(one: WorkerClass, free: Iterable[dict[str, float]]) -> int:
    """Take places machine by machine, as many as are wanted or fit, and return how many."""
    needs, most, placed = one.needs(), one.count, 0
    for node in free:
        # Rounded: ten workers of a tenth are one.
        places = min(math.floor(node.get(name, 0.0) / amount + 1e-6) for name, amount in needs.items())
        places = places if most is None else min(places, most - placed)
        for name, amount in needs.items() if places > 0 else ():
            node[name] = node.get(name, 0.0) - places * amount
        placed += max(0, places)
    return placed
