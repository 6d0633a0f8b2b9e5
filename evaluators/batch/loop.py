"""The training loop of a batch: lanes of one task and horizon that differ in program, learning rate and seed.

Gradients are taken by `jax.vmap` over seeds and, inside, over the lanes of a seed, which share the order of the data:
one batch of examples serves them all, and the first product of a network becomes one matrix product for all lanes. The
update runs in the kernel of `kernel`, or as the super-steps of `supersteps` where there is no kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from evolion.evaluators.batch.kernel import KernelTarget, run_pass
from evolion.evaluators.batch.programs import Batch, Shape
from evolion.evaluators.batch.supersteps import execute, padded
from evolion.evaluators.encoding import GRADIENT, WEIGHTS
from evolion.evaluators.loop import FlatTask, noise_of, tensors_of
from evolion.proxies.curvature import Curvature
from evolion.proxies.data.source import Split
from evolion.proxies.delay import delayed, kept_weights
from evolion.proxies.evaluation import mean_loss
from evolion.proxies.hessian import check_curvature, diagonal, refreshed, step_key

__all__ = ["BatchLoop", "Outcomes", "batch_loop", "compiled_for", "updates"]

_EVALUATED = 16
"""How many lanes are evaluated at a time at the end: a divisor of every number of lanes."""

_HESS = 2


class Outcomes(NamedTuple):
    """What the training runs of a batch leave, see `evaluators.loop.Outcome`.

    Attributes:
        losses: Shape (at least the horizon, seeds, lanes).
        steps: Shape (seeds, lanes).
        final: Shape (seeds, lanes).
        finite: Shape (seeds, lanes).

    """

    losses: Any
    steps: Any
    final: Any
    finite: Any


BatchLoop = Callable[[Batch, NDArray[np.float32], Sequence[int], Split], Outcomes]
"""(programs, scalar table of shape (steps, lanes, columns), seeds, evaluation split) to the outcomes."""


class _Run(NamedTuple):
    """What a run of the loop is given, as arrays."""

    weights: Any
    data: Any
    order: Any
    evaluation: Any
    table: Any
    horizon: Any
    seeds: Any


def batch_loop(
    flat: FlatTask, shape: Shape, target: KernelTarget | None, curvature: Curvature | None = None
) -> BatchLoop:
    """Return the compiled loop of a task for batches of one shape.

    It is compiled once for horizons up to 512, once for up to 4,096, and so on. A lane whose loss is not finite is
    over; the loop ends with the horizon, or when every lane is over. Products of matrices have the full precision of
    float32 on every device, so that devices can be compared.

    Raises:
        ValueError: If the task cannot give the estimate that `curvature` names.

    """
    if curvature is not None:
        check_curvature(flat.task, curvature)
    compiled = jax.jit(_loop(flat, shape, target, curvature).run)

    def train(batch: Batch, table: NDArray[np.float32], seeds: Sequence[int], split: Split) -> Outcomes:
        with jax.default_matmul_precision("highest"):
            outcomes: Outcomes = compiled(batch, _inputs(flat, table, seeds, split))
        return outcomes

    return train


def _inputs(flat: FlatTask, table: NDArray[np.float32], seeds: Sequence[int], split: Split) -> _Run:
    horizon = len(table)
    order = jnp.stack([flat.order(seed, horizon) for seed in seeds])
    whole = np.zeros((order.shape[1], *table.shape[1:]), np.float32)
    whole[:horizon] = table
    return _Run(
        weights=jnp.stack([flat.weights(seed) for seed in seeds]),
        data=flat.batches("train"),
        order=order,
        evaluation=flat.batches(split),
        table=whole,
        horizon=np.int32(horizon),
        seeds=np.array(seeds, np.int32),
    )


class _Loop(NamedTuple):
    """The loop before it is compiled."""

    flat: FlatTask
    structure: Any
    shape: Shape
    target: KernelTarget | None
    curvature: Curvature | None

    @property
    def rows(self) -> int:
        return self.shape.capacity.rows + (0 if self.target else self.shape.capacity.scratch)

    @property
    def width(self) -> int:
        entries, tile = self.flat.layout.entries, self.target.entries if self.target else 1
        return -(-entries // tile) * tile

    def loss(self, weights: Sequence[jax.Array], batch: Any) -> jax.Array:
        return self.flat.task.loss(jax.tree.unflatten(self.structure, weights), batch)

    def gradient(self, weights: jax.Array, batch: Any) -> tuple[jax.Array, jax.Array]:
        # Of the tensors, not of their slices: the gradient of a slice is a vector of zeros around it.
        value, leaves = jax.value_and_grad(self.loss)(tensors_of(weights, self.flat.layout), batch)
        rest = jnp.zeros(self.width - self.flat.layout.entries, jnp.float32)
        return value, jnp.concatenate([*map(jnp.ravel, leaves), rest])

    def run(self, batch: Batch, run: _Run) -> Outcomes:
        used = jnp.broadcast_to(batch.used, (self.shape.seeds, self.shape.lanes))
        file = self._start(batch, run)
        losses = jnp.full((run.order.shape[1], *used.shape), jnp.nan, jnp.float32)
        hess = None if self.curvature is None else jnp.zeros_like(file[WEIGHTS])
        past = kept_weights(file[WEIGHTS], self.flat.task.gradient_delay)

        def unfinished(carry: tuple[Any, ...]) -> jax.Array:
            step, *_, alive = carry
            return jnp.logical_and(step < run.horizon, alive.any())

        def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            step, file, past, hess, losses, steps, alive = carry
            indices = lax.dynamic_index_in_dim(run.order, step, 1, keepdims=False)
            examples = jax.tree.map(lambda leaf: jnp.take(leaf, indices, axis=0, mode="clip"), run.data)
            seen, past = delayed(past, file[WEIGHTS], step)
            values, gradient = _each(self.gradient)(seen, examples)
            if self.curvature is not None:
                hess = self._estimate(hess, file[WEIGHTS], examples, run.seeds, step)
                file = file.at[_HESS].set(hess)
            file = self.update(batch, file, gradient, self._scalars(run, values, step), run.seeds, step)
            losses = lax.dynamic_update_index_in_dim(losses, jnp.where(alive, values, jnp.nan), step, 0)
            return step + 1, file, past, hess, losses, steps + alive, jnp.logical_and(alive, jnp.isfinite(values))

        carry = (jnp.int32(0), file, past, hess, losses, jnp.zeros(used.shape, jnp.int32), used)
        _, file, _, _, losses, steps, alive = lax.while_loop(unfinished, advance, carry)
        weights = file[WEIGHTS][..., : self.flat.layout.entries]
        return Outcomes(losses, steps, self._final(weights, run.evaluation), alive & jnp.isfinite(weights).all(-1))

    def _start(self, batch: Batch, run: _Run) -> jax.Array:
        rows = self.rows
        weights = padded(run.weights, self.width)[:, None]
        file = jnp.zeros((rows, self.shape.seeds, self.shape.lanes, self.width), jnp.float32)
        file = file.at[WEIGHTS].set(jnp.broadcast_to(weights, file.shape[1:]))
        # A lane that does not read them names a row after the last, which is dropped.
        row = jnp.where(batch.initial_weights < 0, rows, batch.initial_weights)
        kept = jnp.broadcast_to(weights, (self.shape.seeds, self.shape.lanes, self.width))
        return file.at[row, :, jnp.arange(self.shape.lanes)].set(kept.swapaxes(0, 1), mode="drop")

    def _scalars(self, run: _Run, values: jax.Array, step: jax.Array) -> jax.Array:
        row = lax.dynamic_index_in_dim(run.table, step, keepdims=False)
        scalars = jnp.broadcast_to(row, (self.shape.seeds, *row.shape))
        return scalars.at[:, :, -1].set(values)

    def update(
        self, batch: Batch, file: jax.Array, gradient: jax.Array, scalars: jax.Array, seeds: jax.Array, step: jax.Array
    ) -> jax.Array:
        layout = self.flat.layout

        def noise() -> jax.Array:
            return jax.vmap(lambda seed: noise_of(seed, step, layout.entries))(seeds)

        if self.target is None:
            file = file.at[GRADIENT].set(gradient)
            return execute(batch.steps, 0, file, scalars, noise, layout, self.shape.capacity.opcodes)
        if not self.shape.capacity.whole:
            return self._in_kernel(batch, 0, file, gradient, scalars)
        file = file.at[GRADIENT].set(gradient)

        def run_both(number: jax.Array, file: jax.Array) -> jax.Array:
            file = self._in_kernel(batch, number, file, gradient, scalars)
            return execute(batch.steps, number, file, scalars, noise, layout, self.shape.capacity.opcodes)

        done: jax.Array = lax.fori_loop(0, batch.passes, run_both, file)
        return done

    def _in_kernel(
        self, batch: Batch, number: Any, file: jax.Array, gradient: jax.Array, scalars: jax.Array
    ) -> jax.Array:
        assert self.target is not None
        lanes = self.shape.seeds * self.shape.lanes
        done = run_pass(
            self.target,
            self.shape.capacity.scratch,
            self.shape.capacity.opcodes,
            self.flat.layout,
            jnp.asarray(batch.code),
            jnp.asarray(batch.ranges)[number],
            scalars.reshape(lanes, -1),
            gradient.reshape(lanes, -1),
            file.reshape(len(file), lanes, -1),
        )
        return done.reshape(file.shape)

    def _estimate(
        self, hess: jax.Array, weights: jax.Array, examples: Any, seeds: jax.Array, step: jax.Array
    ) -> jax.Array:
        curvature, flat = self.curvature, self.flat
        assert curvature is not None

        def of_one(weights: jax.Array, given: tuple[Any, jax.Array]) -> jax.Array:
            examples, seed = given
            entries = weights[: flat.layout.entries]
            estimate = diagonal(flat.task, curvature, flat.unravel, entries, examples, step_key(seed, step))
            return padded(estimate, self.width)

        estimate: jax.Array = refreshed(lambda: _each(of_one)(weights, (examples, seeds)), hess, step, curvature.period)
        return estimate

    def _final(self, weights: jax.Array, evaluation: Any) -> jax.Array:
        layout, at_once = self.flat.layout, self.flat.task.evaluation_batch

        def evaluate(some: jax.Array) -> jax.Array:
            return jax.vmap(lambda one: mean_loss(self.loss, tensors_of(one, layout), evaluation, at_once))(some)

        parts = jnp.reshape(weights, (-1, min(_EVALUATED, self.shape.lanes), weights.shape[-1]))
        return jnp.reshape(lax.map(evaluate, parts), weights.shape[:-1])


def _each(function: Callable[..., Any]) -> Callable[..., Any]:
    """Map a function of a lane's weights and of what the lanes of a seed share over lanes and seeds."""
    return jax.vmap(jax.vmap(function, in_axes=(0, None)))


def _loop(flat: FlatTask, shape: Shape, target: KernelTarget | None, curvature: Curvature | None) -> _Loop:
    return _Loop(flat, jax.tree.structure(flat.unravel(flat.weights(0))), shape, target, curvature)


def compiled_for(
    device: jax.Device, flat: FlatTask, shape: Shape, target: KernelTarget | None, batch: Batch, steps: int
) -> Any:
    """Compile the loop for a device that may be a mere description, and return what jax makes of it."""
    table = np.zeros((steps, shape.lanes, shape.capacity.columns), np.float32)
    sharding = jax.sharding.SingleDeviceSharding(device)

    def described(value: Any) -> Any:
        return jax.ShapeDtypeStruct(np.shape(value), value.dtype, sharding=sharding)  # type: ignore[no-untyped-call]

    given = jax.tree.map(described, (batch, _inputs(flat, table, range(shape.seeds), "validation")))
    with jax.default_matmul_precision("highest"):
        return jax.jit(_loop(flat, shape, target, None).run).lower(*given).compile()


def updates(
    flat: FlatTask, shape: Shape, target: KernelTarget | None, batch: Batch, steps: int
) -> tuple[Callable[..., jax.Array], tuple[Any, ...]]:
    """Return a compiled function that does nothing but `steps` updates, and its arguments: for measurement."""
    loop = _loop(flat, shape, target, None)
    file = jnp.zeros((loop.rows, shape.seeds, shape.lanes, loop.width), jnp.float32)
    gradient = jnp.ones(file.shape[1:], jnp.float32)
    scalars = jnp.full((shape.seeds, shape.lanes, shape.capacity.columns), 0.5, jnp.float32)

    @jax.jit
    def run(batch: Batch, file: jax.Array, gradient: jax.Array, scalars: jax.Array) -> jax.Array:
        def advance(step: jax.Array, file: jax.Array) -> jax.Array:
            return loop.update(batch, file, gradient, scalars, jnp.zeros(shape.seeds, jnp.int32), step)

        done: jax.Array = lax.fori_loop(0, steps, advance, file)
        return done

    return run, (jax.device_put(batch), file, gradient, scalars)
