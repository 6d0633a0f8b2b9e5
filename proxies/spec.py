"""A task as data: everything that decides what is trained, on what, for how long. Loads neither jax nor data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Purpose", "Size", "TaskSpec"]

Size = int | float | str | bool | tuple[int, ...]

Purpose = Literal["ranking", "diagnostic", "smoke"]
"""What a task may be used for. `ranking`: optimizers are ordered by it, as it keeps the agreed facts and its seeds
agree. `diagnostic`: it shows how an optimizer behaves, but its order is not to be believed. `smoke`: it runs."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as data.

    Attributes:
        name: What the catalogue calls it; with modifiers after a colon where it has been modified.
        family: The kind of model, on which means over families rest: "transformer", "convolution", "recurrent", …
        summary: One line: model and data.
        model: The Flax module, as "module.Class" of `evolion.proxies.models`.
        sizes: What the module is made with. `width` and `depth`, where there are such, are the scale knobs;
            `activation` and `norm` are what held-out variants change.
        data: The URI of its data (`evolion.proxies.data.uri`).
        objective: The loss, a key of `evolion.proxies.objectives.OBJECTIVES`.
        steps: The default horizon.
        batch_size: Training examples per step.
        learning_rates: A grid of peak rates that suits AdamW under `schedules.warmup_cosine`, in rising order.
        start: The loss of a model that knows nothing, which the loss at the start is near: log(classes), the variance
            of the targets.
        metric: What the loss is, with its unit: "cross-entropy, nats".
        purpose: What it may be used for.
        rungs: The scale knobs of its ladder: by rung ("10x", "100x"), the factor of each knob.
        embedding_scale: Standard deviation of initial embeddings.
        init_scale: Factor of all initial kernels and embeddings.
        label_noise: The share of training examples that get the targets of another example.
        reparameterized: Whether each parameter tensor is stored in units of its own, between 1/10 and 10.
        gradient_dtype: What gradients are rounded to before an optimizer sees them: "float32" or "bfloat16".
        gradient_delay: How many steps old the weights are that a gradient is taken at.

    """

    name: str
    family: str
    summary: str
    model: str
    sizes: Mapping[str, Size]
    data: str
    objective: str
    steps: int
    batch_size: int
    learning_rates: tuple[float, ...]
    start: float
    metric: str
    purpose: Purpose = "diagnostic"
    rungs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    embedding_scale: float = 1.0
    init_scale: float = 1.0
    label_noise: float = 0.0
    reparameterized: bool = False
    gradient_dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_delay: int = 0

    def recipe(self) -> str:
        """Everything that decides the losses of a run of given length, as JSON with sorted keys.

        The horizon is not part of it, which a run may choose, nor what is only said about the task.
        """
        said = {"name", "family", "summary", "learning_rates", "start", "metric", "purpose", "rungs", "steps"}
        kept: dict[str, Any] = {key: value for key, value in asdict(self).items() if key not in said}
        return json.dumps(kept, sort_keys=True)
