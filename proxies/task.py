"""Tasks: something to train, with its data, that takes any optax transform and knows no program."""

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from typing import Any, Protocol, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.arrays import digest, freeze
from evolion.proxies.data.pools import pools
from evolion.proxies.data.provided import fingerprint, provided, require_expected
from evolion.proxies.data.source import SPLITS, DataError, Info, Source, Split
from evolion.proxies.data.streams import batch_order
from evolion.proxies.data.uri import open_source
from evolion.proxies.initialization import initialize, parameter_count
from evolion.proxies.objectives import OBJECTIVES, Objective
from evolion.proxies.spec import TaskSpec
from evolion.proxies.variation import rounded_gradient, stored_units

Params = Any
Batch = Mapping[str, Any]

EVALUATION_BATCH = 1024
LARGE = 1_000_000


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
    def evaluation_batch(self) -> int:
        """How many examples of a split are scored at a time, at most."""
        ...

    @property
    def gradient_delay(self) -> int:
        """How many steps old the weights are that a gradient is taken at; 0 but for a held-out variant."""
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


class ModelTask:
    """The task of a specification: a Flax model, a source of data, an objective.

    `source` and `model` stand in for those that the specification names, for data and modules of one's own.

    Its data is made at the first use. A task whose source never runs out has examples for four times its default
    horizon, so that a run up to there sees each of them once; fewer, but enough for the default horizon, where they
    would be more than 524,288, and at most a quarter gigabyte of them.

    Raises:
        DataError: At the first use of the data, if it cannot be read; DataMissing if it is not on this machine.

    """

    def __init__(self, spec: TaskSpec, *, source: Source | None = None, model: nn.Module | None = None) -> None:
        self.spec = spec
        self._own_data = source is not None
        if source is not None:
            self.source = source
        if model is not None:
            self.model = model
        self.name, self.summary = spec.name, spec.summary
        self.steps, self.batch_size = spec.steps, spec.batch_size
        self.learning_rates, self.gradient_delay = spec.learning_rates, spec.gradient_delay

    @cached_property
    def source(self) -> Source:
        """Where the data comes from."""
        return open_source(self.spec.data)

    @property
    def info(self) -> Info:
        """What the source holds."""
        return self.source.info

    @property
    def floor(self) -> float | None:
        """The least expected loss that any model can reach, where that is known."""
        return self.info.floor

    @cached_property
    def objective(self) -> Objective:
        """The loss."""
        return OBJECTIVES[self.spec.objective]

    @cached_property
    def model(self) -> nn.Module:
        """The Flax module."""
        module, _, name = self.spec.model.partition(".")
        build = getattr(import_module(f"evolion.proxies.models.{module}"), name)
        made: nn.Module = build(**self.spec.sizes)
        return made

    @cached_property
    def _splits(self) -> Mapping[Split, Batch]:
        given = None if self._own_data else provided(self.spec)
        if given is not None:
            return cast(Mapping[Split, Batch], freeze(given))
        try:
            made: Mapping[Split, Batch] = freeze(pools(self.source, self.spec))
        except ImportError as error:
            raise DataError(f"{self.spec.data} needs a package that is not on this machine: {error}") from error
        if not self._own_data:
            require_expected(self.spec, lambda: fingerprint(made, self.info.digest))
        return made

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that decides losses: the recipe and every number of the data."""
        return digest(self.spec.recipe(), self._splits)

    @cached_property
    def parameters(self) -> int:
        """The number of parameters."""
        return parameter_count(self.model, self._example())

    @cached_property
    def evaluation_batch(self) -> int:
        """As many examples as suit a small model; for a large one no more than a batch, which bounds the memory."""
        return EVALUATION_BATCH if self.parameters < LARGE else self.batch_size

    @cached_property
    def _units(self) -> tuple[np.float32, ...] | None:
        return stored_units(self._initial(0)) if self.spec.reparameterized else None

    def _initial(self, seed: int) -> Params:
        return initialize(self.model, self._example(), seed, self.spec.init_scale, self.spec.embedding_scale)

    def _example(self) -> NDArray[Any]:
        """One example as the model sees it, but for its values."""
        example: NDArray[Any] = self._splits["train"]["inputs"][:1]
        return example.astype(np.float32) if example.dtype == np.uint8 else example

    def init(self, seed: int) -> Params:
        """Initial parameters, by the rule of `initialization.initialize`."""
        params = self._initial(seed)
        if self._units is None:
            return params
        leaves, tree = jax.tree.flatten(params)
        return jax.tree.unflatten(tree, [leaf / unit for leaf, unit in zip(leaves, self._units, strict=True)])

    def data(self, split: Split) -> Batch:
        """A whole split. Raises ValueError for a name that is no split."""
        if split not in SPLITS:
            raise ValueError(f"task {self.name!r} has no split {split!r}: choose one of {', '.join(SPLITS)}")
        return self._splits[split]

    def order(self, seed: int, steps: int) -> NDArray[np.int32]:
        """Shuffled epochs without replacement, by the rule of `streams.batch_order`."""
        return batch_order(len(self._splits["train"]["inputs"]), self.batch_size, steps, seed)

    def _outputs(self, params: Params, inputs: jax.Array) -> jax.Array:
        if self.spec.gradient_dtype != "float32":
            params = jax.tree.map(rounded_gradient, params)
        if self._units is not None:
            leaves, tree = jax.tree.flatten(params)
            params = jax.tree.unflatten(tree, [leaf * unit for leaf, unit in zip(leaves, self._units, strict=True)])
        if inputs.dtype == jnp.uint8:
            inputs = inputs.astype(jnp.float32) / 127.5 - 1
        outputs: Any = self.model.apply({"params": params}, inputs)
        return jnp.asarray(outputs)

    @property
    def logits(self) -> Any:
        """A function of (parameters, batch) to logits (…, classes) for targets (…); None if the task has no labels."""
        if not self.objective.labels:
            return None
        return lambda params, batch: self._outputs(params, batch["inputs"])

    def loss(self, params: Params, batch: Batch) -> jax.Array:
        """Mean loss over a batch."""
        return self.objective.loss(lambda inputs: self._outputs(params, inputs), batch)
