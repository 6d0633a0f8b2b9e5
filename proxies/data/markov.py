"""`markov-chains:?states=8&context=32`: each example a sequence from a Markov chain of its own.

The rows of every chain are drawn from a Dirichlet law (all parameters 0.3), so that nothing can be learnt about a chain
but from the sequence itself: a model has to count, which transformers learn suddenly, as statistical induction heads
(Edelman et al., arXiv:2402.11004). The best prediction is known: the posterior mean, (count of what followed the
present state + 0.3) over its sum.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.source import SPLITS, Field, GeneratedSource, Info, Source
from evolion.proxies.data.streams import integers, raw_stream, uniform
from evolion.proxies.data.uri import Uri

CONCENTRATION = 0.3
_STREAM = 10

FLOORS: Mapping[tuple[int, int], tuple[float, float]] = {(8, 32): (1.75638, 0.00032)}
"""By (states, context): the least expected loss, the mean of `bayes_losses` over 2**19 sequences (stream 10, place
1000), with its standard error."""


def open_uri(uri: Uri) -> Source:
    """States (inputs) and the states that follow them (targets), int32 of shape (context,), without end."""
    states = uri.integer("states", 8, 2, 64)
    context = uri.integer("context", 32, 1, 4096)
    field = Field("int32", (context,), states)
    floor, error = FLOORS.get((states, context), (None, None))
    known = "" if floor is None else f"; the standard error of the floor is {error:g}"
    return GeneratedSource(
        Info(
            fields={"inputs": field, "targets": field},
            examples=dict.fromkeys(SPLITS),
            digest=hashlib.sha256(f"markov-chains 1 {states} {context}".encode()).hexdigest(),
            floor=floor,
            note=f"generated{known}",
        ),
        _STREAM,
        _generator(states, context),
    )


def chains(bits: np.random.PCG64, count: int, states: int) -> NDArray[np.int64]:
    """Transition probabilities of `count` chains over 2**32, int64 (count, states, states): cumulative along rows."""
    from scipy.special import gammaincinv

    drawn = gammaincinv(CONCENTRATION, uniform(bits, (count, states, states)))
    shares = np.cumsum(drawn, axis=-1)
    # Whole numbers: what the last bits of a machine's special functions are decides no state, but once in 2**20 draws.
    return np.asarray(np.rint(shares / shares[..., -1:] * 2**20) * 2**12, np.int64)


def sample(bits: np.random.PCG64, count: int, states: int, length: int) -> NDArray[np.int32]:
    """Sequences, each of a chain of its own and from a uniform first state on; int32 (count, length)."""
    table = chains(bits, count, states)
    tokens = [integers(bits, states, (count,))]
    draws = (bits.random_raw((length - 1, count)) >> np.uint64(32)).astype(np.int64)
    everyone = np.arange(count)
    for draw in draws:
        tokens.append((table[everyone, tokens[-1]] <= draw[:, None]).sum(axis=1))
    return np.stack(tokens, axis=1).astype(np.int32)


def bayes_losses(tokens: NDArray[np.int32], states: int) -> NDArray[np.float64]:
    """Minus the log of the posterior mean of what followed each state, nats; (count, length - 1) of (count, length)."""
    count, length = tokens.shape
    seen = np.zeros((count, states, states))
    losses = np.empty((count, length - 1))
    everyone = np.arange(count)
    for place in range(length - 1):
        now, after = tokens[:, place], tokens[:, place + 1]
        row = seen[everyone, now]
        chance = (row[everyone, after] + CONCENTRATION) / (row.sum(axis=1) + states * CONCENTRATION)
        losses[:, place] = -np.log(chance)
        seen[everyone, now, after] += 1
    return losses


def estimate_floor(states: int, context: int, blocks: int = 128) -> tuple[float, float]:
    """The mean of `bayes_losses` over blocks of 4,096 sequences and its standard error: what `FLOORS` holds."""
    means = []
    for block in range(blocks):
        tokens = sample(raw_stream(_STREAM, 1000, block), 4096, states, context + 1)
        means.append(bayes_losses(tokens, states).mean())
    return float(np.mean(means)), float(np.std(means, ddof=1) / blocks**0.5)


def _generator(states: int, context: int) -> Callable[[np.random.PCG64, int], Mapping[str, NDArray[Any]]]:
    def generate(bits: np.random.PCG64, count: int) -> Mapping[str, NDArray[Any]]:
        tokens = sample(bits, count, states, context + 1)
        return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:]}

    return generate
