"""The splits of a task: as many examples of its source as a run may need, in memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.cache import materialized
from evolion.proxies.data.source import SPLITS, DataError, Info, Source, Split, StoredSource
from evolion.proxies.data.streams import integers, raw_stream, uniform
from evolion.proxies.spec import TaskSpec

EVALUATION_EXAMPLES = 1024
"""Examples of the validation and of the test split of a source that never runs out."""

LARGEST_EVALUATION = 10_000
HORIZONS = 4
POOL_EXAMPLES = 2**19
POOL_BYTES = 2**28
KEPT_BYTES = 2**22
"""Larger pools are kept in the cache: the processes of a machine make them once and share their memory."""


def pools(source: Source, spec: TaskSpec) -> dict[Split, dict[str, NDArray[Any]]]:
    """The arrays of each split.

    Raises:
        DataError: If a split is empty, or training has less than one batch.

    """
    sizes = {split: _size(source.info, spec, split) for split in SPLITS}
    if sizes["train"] < spec.batch_size or not all(sizes.values()):
        have = ", ".join(f"{split} {size}" for split, size in sizes.items())
        raise DataError(
            f"task {spec.name!r} needs at least a batch of {spec.batch_size} to train on and one example of each other "
            f"split; {spec.data} has: {have}"
        )
    made = {split: _gathered(source, split, size) for split, size in sizes.items()}
    if spec.label_noise:
        made["train"] = with_label_noise(made["train"], spec.label_noise)
    return made


def _size(info: Info, spec: TaskSpec, split: Split) -> int:
    if split != "train":
        available = info.examples[split]
        return EVALUATION_EXAMPLES if available is None else min(available, LARGEST_EVALUATION)
    seen = spec.steps * spec.batch_size
    wanted = min(HORIZONS * seen, max(seen, POOL_EXAMPLES), max(POOL_BYTES // _bytes(info), spec.batch_size))
    available = info.examples[split]
    return wanted if available is None else available


def _bytes(info: Info) -> int:
    """The bytes of one example."""
    return sum(np.dtype(field.dtype).itemsize * int(np.prod(field.shape)) for field in info.fields.values())


def _gathered(source: Source, split: Split, size: int) -> dict[str, NDArray[Any]]:
    def gather() -> dict[str, NDArray[Any]]:
        return source.gather(split, np.arange(size))

    if isinstance(source, StoredSource) and size == source.info.examples[split]:
        return dict(source.arrays[split])
    if size * _bytes(source.info) < KEPT_BYTES:
        return gather()
    return materialized(f"pool of {source.info.digest}: {size} examples of {split}", gather)


_NOISE_STREAM = 5


def with_label_noise(batch: Mapping[str, NDArray[Any]], share: float) -> dict[str, NDArray[Any]]:
    """A batch in which about a share of the examples have the targets of another example."""
    targets = batch["targets"]
    bits = raw_stream(_NOISE_STREAM, 0)
    wrong = uniform(bits, (len(targets),)) < share
    others = integers(bits, len(targets), (len(targets),))
    shape = (-1,) + (1,) * (targets.ndim - 1)
    return {**batch, "targets": np.where(wrong.reshape(shape), targets[others], targets)}
