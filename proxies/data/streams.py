"""Random numbers that never change, and the batch orders made of them. NumPy and SciPy only.

Everything comes from the raw 64-bit stream of PCG64, which NumPy promises never to change (NEP 19), so that data,
orders and digests are equal in every process, on every machine and with every NumPy.
"""

import numpy as np
from numpy.typing import NDArray

SEED_LIMIT = 2**32
_ORDER_STREAM = 1


def raw_stream(*place: int) -> np.random.PCG64:
    """The generator at a place: a stream of its own for each tuple of numbers, such as (stream, seed, block).

    Raises ValueError for a number outside 0 … 2**32 - 1.
    """
    for number in place:
        if not 0 <= number < SEED_LIMIT:
            raise ValueError(f"seed is {number}: a seed is an integer from 0 to {SEED_LIMIT - 1}")
    return np.random.PCG64(np.random.SeedSequence(list(place)))


def uniform(bits: np.random.PCG64, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Numbers in the open interval (0, 1), multiples of 2**-53 less a half; shape `shape`."""
    return ((bits.random_raw(shape) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normal(bits: np.random.PCG64, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Standard normal numbers by inversion; shape `shape`. The last bits may differ between machines: see `rounded`."""
    from scipy.special import ndtri

    return np.asarray(ndtri(uniform(bits, shape)))


def integers(bits: np.random.PCG64, limit: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Integers from 0 to `limit` - 1, for limits below 2**32; shape `shape`."""
    drawn = bits.random_raw(shape) >> np.uint64(32)
    return ((drawn * np.uint64(limit)) >> np.uint64(32)).astype(np.int64)


def rounded(values: NDArray[np.floating], step: float = 2.0**-12) -> NDArray[np.float32]:
    """Values as multiples of `step`, float32: what a machine's own exp or sin does to the last bits is gone."""
    return np.asarray(np.rint(values / step) * step, np.float32)


def batch_order(examples: int, batch_size: int, steps: int, seed: int) -> NDArray[np.int32]:
    """Which examples make up each batch: indices below `examples`, int32, shape (steps, batch_size).

    Each epoch is a fresh shuffle without replacement; a batch may span two epochs. A longer order starts with the
    shorter.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: training needs at least one step")
    bits = raw_stream(_ORDER_STREAM, seed)
    epochs = -(-steps * batch_size // examples)
    shuffles = [np.argsort(bits.random_raw(examples), kind="stable") for _ in range(epochs)]
    return np.concatenate(shuffles)[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)
