"""Learning-rate schedules: linear warm-up, then cosine decay to zero (Loshchilov and Hutter, arXiv:1608.03983)."""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

WARMUP = 0.05


@lru_cache(maxsize=64)
def multipliers(steps: int, warmup: float = WARMUP) -> NDArray[np.float32]:
    """What the peak learning rate is multiplied with at each step: float32, shape (steps,), read-only.

    With W = max(1, round(warmup * steps)), step t = 1 … W has t / W and step t > W has
    (1 + cos(pi (t - W) / (steps - W + 1))) / 2, so that step W has the peak and step `steps` + 1 would have exactly 0:
    no step is wasted on a rate of zero.

    Raises ValueError if steps < 1 or warmup is outside [0, 1).
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: a schedule needs at least one step")
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is {warmup}: give the share of the steps, at least 0 and below 1")
    rise = max(1, round(warmup * steps))
    t = np.arange(1, steps + 1)
    decay = (1 + np.cos(np.pi * (t - rise) / (steps - rise + 1))) / 2
    table = np.where(t <= rise, t / rise, decay).astype(np.float32)
    table.flags.writeable = False
    return table


def warmup_cosine(
    peak: float | jax.Array, steps: int, warmup: float = WARMUP
) -> Callable[[int | jax.Array], jax.Array]:
    """An optax schedule: maps the number of updates already done to `peak` times its multiplier, 0 past the horizon."""
    table = np.append(multipliers(steps, warmup), np.float32(0))

    def schedule(count: int | jax.Array) -> jax.Array:
        return jnp.multiply(jnp.float32(peak), jnp.asarray(table)[jnp.minimum(count, steps)])

    return schedule
