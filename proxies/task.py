"""The Task protocol: something to train, with its data, that takes any optax transform and knows no program."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data import batch_order, digest, freeze
from evolion.proxies.initialization import initialize

Params = Any
Batch = Mapping[str, Any]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Task(Protocol):
    """A model, its data and its loss. Everything is a deterministic function of the arguments, equal in every process.

    A task is hashable, by identity or by value.
    """

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str:
        """What the registry calls it."""
        ...

    @property
    def summary(self) -> str:
        """One line: model and data."""
        ...

    @property
    def steps(self) -> int:
        """The default horizon."""
        ...

    @property
    def batch_size(self) -> int:
        """Training examples per step."""
        ...

    @property
    def floor(self) -> float | None:
        """The least expected loss that any model can reach, where that is known."""
        ...

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """A grid of peak rates that suits AdamW under `schedules.warmup_cosine`, in rising order."""
        ...

    @property
    def digest(self) -> str:
        """A SHA-256 of description and data: differs whenever scores are not comparable."""
        ...

    def init(self, seed: int) -> Params:
        """Initial parameters: a tree of float32 jax arrays."""
        ...

    def data(self, split: Split) -> Batch:
        """A whole split: read-only NumPy arrays with one leading axis of examples; the same object each time."""
        ...

    def order(self, seed: int, steps: int) -> NDArray[np.int32]:
        """The batches of a run as indices into the training split, shape (steps, batch_size)."""
        ...

    def loss(self, params: Params, batch: Batch) -> jax.Array:
        """Mean loss over a batch with the structure of `data` and any size: float32, shape (). Pure and traceable."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ClassificationTask:
    """A task that predicts `targets` (int32, classes) from `inputs` with a Flax model that returns logits.

    `inputs` of shape (examples, …) give logits of shape (examples, classes) for targets of shape (examples,), or
    (examples, positions, classes) for (examples, positions). The loss is the mean cross-entropy in nats.

    `splits` maps each of train, validation and test to such a batch. `recipe` states in words what the data and the
    model are; it enters the digest, so change it whenever the code changes what they mean.
    """

    name: str
    summary: str
    recipe: str
    model: nn.Module
    splits: Mapping[Split, Batch]
    steps: int
    batch_size: int
    learning_rates: tuple[float, ...]
    floor: float | None = None
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        freeze(self.splits)
        description = f"{self.name}\n{self.recipe}\nbatches of {self.batch_size}"
        object.__setattr__(self, "digest", digest(description, self.splits))

    def init(self, seed: int) -> Params:
        """Initial parameters, by the rule of `initialization.initialize`."""
        return initialize(self.model, self.splits["train"]["inputs"][:1], seed)

    def data(self, split: Split) -> Batch:
        """A whole split. Raises ValueError for a name that is no split."""
        if split not in SPLITS:
            raise ValueError(f"task {self.name!r} has no split {split!r}: choose one of {', '.join(SPLITS)}")
        return self.splits[split]

    def order(self, seed: int, steps: int) -> NDArray[np.int32]:
        """Shuffled epochs without replacement, by the rule of `data.batch_order`."""
        return batch_order(len(self.splits["train"]["targets"]), self.batch_size, steps, seed)

    def logits(self, params: Params, batch: Batch) -> jax.Array:
        """What the model says to the inputs of a batch, before the softmax."""
        logits: Any = self.model.apply({"params": params}, batch["inputs"])
        return jnp.asarray(logits)

    def loss(self, params: Params, batch: Batch) -> jax.Array:
        """Mean cross-entropy in nats."""
        return cross_entropy(self.logits(params, batch), batch["targets"])


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean over all leading axes of -log softmax(logits)[target], in nats; logits (…, classes), targets (…)."""
    # A masked sum: the gradient of a gather is a scatter, which XLA runs element by element on CPUs.
    chosen = jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - jnp.sum(logits * chosen, axis=-1))
