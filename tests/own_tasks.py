"""Tasks of a test's own: a model and arrays, as a user would bring them."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from evolion.proxies.data.arrays import digest
from evolion.proxies.data.source import Field, Info, StoredSource
from evolion.proxies.spec import TaskSpec
from evolion.proxies.task import ModelTask


def own_source(splits: Mapping[Any, Mapping[str, Any]]) -> StoredSource:
    fields = {name: Field(str(array.dtype), array.shape[1:]) for name, array in splits["train"].items()}
    examples = {split: len(batch["targets"]) for split, batch in splits.items()}
    return StoredSource(Info(fields, examples, digest("own", splits)), splits)


def own_task(
    model: nn.Module, splits: Mapping[Any, Mapping[str, Any]], *, steps: int, batch_size: int, **more: Any
) -> ModelTask:
    """A classification task named "tiny"."""
    settings: dict[str, Any] = {
        "name": "tiny",
        "family": "own",
        "summary": "a model of a test",
        "model": "",
        "sizes": {},
        "data": "own",
        "objective": "cross-entropy",
        "learning_rates": (0.1,),
        "start": 1.0,
        "metric": "cross-entropy, nats",
    }
    spec = TaskSpec(**(settings | more), steps=steps, batch_size=batch_size)
    return ModelTask(spec, source=own_source(splits), model=model)
