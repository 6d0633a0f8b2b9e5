"""`zipf-lm`: a tiny transformer on a generated language whose entropy is known.

The language is a Markov chain over 128 tokens: each row mixes, half and half, the Zipf law 1 / k that all rows share
with a law k^-1.5 over tokens permuted by row. Unigram frequencies are heavy-tailed and successors sparse, as in text,
which is what sets adaptive methods apart from gradient descent (Kunstner et al., arXiv:2402.19449). Data never runs out
at the default horizon, so the loss measures optimization alone, and no model gets below the entropy rate of the chain,
`Task.floor`.
"""

import math
from functools import lru_cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data import raw_stream
from evolion.proxies.task import Batch, ClassificationTask, Split

VOCABULARY = 128
CONTEXT = 16
SIZES: dict[Split, int] = {"train": 32768, "validation": 512, "test": 512}
_LANGUAGE_STREAM, _SAMPLE_STREAM = 2, 3
_UNIT = 2**32
_STREAMS: dict[Split, int] = {"train": 0, "validation": 1, "test": 2}


@lru_cache(maxsize=1)
def transition_counts() -> NDArray[np.int64]:
    """The chain: row i over 2**32 holds the probabilities of what follows token i; shape (128, 128), rows sum to 2**32.

    Whole numbers, so that sampling is exact and the same on every machine.
    """
    ranks = np.arange(1, VOCABULARY + 1)
    shared, sparse = 1 / ranks, 1 / (ranks * np.sqrt(ranks))
    shared, sparse = shared / math.fsum(shared), sparse / math.fsum(sparse)
    draws = raw_stream(_LANGUAGE_STREAM, 0).random_raw((VOCABULARY, VOCABULARY))
    rows = (shared + sparse[np.argsort(draws, axis=1, kind="stable")]) / 2
    return _whole(rows)


@lru_cache(maxsize=1)
def stationary_counts() -> NDArray[np.int64]:
    """The stationary distribution of the chain in units of 2**-32; shape (128,), sums to 2**32."""
    chain = transition_counts() / _UNIT
    state = np.full(VOCABULARY, 1 / VOCABULARY)
    # All rows share half of their mass, so each step at least halves the distance: 64 steps reach machine precision.
    for _ in range(64):
        state = state @ chain
    return _whole(state)


def _whole(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rounds to units of 2**-32; the first token takes up the remainder."""
    counts = np.rint(probabilities * _UNIT).astype(np.int64)
    counts[..., 0] += _UNIT - counts.sum(axis=-1)
    return counts


def entropy_rate() -> float:
    """Mean entropy of the next token given the present one, in nats: the least loss that any model can reach."""
    chain, state = transition_counts() / _UNIT, stationary_counts() / _UNIT
    return float(-state @ (chain * np.log(chain)).sum(axis=1))


def unigram_entropy() -> float:
    """Entropy of a token in nats: the loss of the best model that ignores the context."""
    state = stationary_counts() / _UNIT
    return float(-state @ np.log(state))


def sample(sequences: int, length: int, seed: int) -> NDArray[np.int32]:
    """Sequences of the language, each started from the stationary distribution; int32, shape (sequences, length)."""
    bits = raw_stream(_SAMPLE_STREAM, seed)
    # One sorted table for all rows: row i occupies i * 2**32 + (0 … 2**32).
    table = (np.cumsum(transition_counts(), axis=1) + np.arange(VOCABULARY)[:, None] * _UNIT).ravel()
    draws = (bits.random_raw((length, sequences)) >> np.uint64(32)).astype(np.int64)
    tokens = [np.searchsorted(np.cumsum(stationary_counts()), draws[0], side="right")]
    for draw in draws[1:]:
        position = np.searchsorted(table, tokens[-1] * _UNIT + draw, side="right")
        tokens.append(position - tokens[-1] * VOCABULARY)
    return np.stack(tokens, axis=1).astype(np.int32)


def zipf_splits() -> dict[Split, Batch]:
    """Tokens (inputs) and the tokens that follow them (targets), int32 of shape (sequences, 16), for each split."""
    splits: dict[Split, Batch] = {}
    for split, sequences in SIZES.items():
        tokens = sample(sequences, CONTEXT + 1, _STREAMS[split])
        splits[split] = {"inputs": tokens[:, :-1].copy(), "targets": tokens[:, 1:].copy()}
    return splits


class Transformer(nn.Module):
    """A decoder-only transformer with pre-normalization and learned positions; no biases."""

    vocabulary: int
    context: int
    width: int
    heads: int
    hidden: int
    layers: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits (sequences, positions, vocabulary) of tokens (sequences, positions); positions up to `context`."""
        normal = nn.initializers.normal(1.0)
        embedding = self.param("token_embedding", normal, (self.vocabulary, self.width))
        positions = self.param("position_embedding", normal, (self.context, self.width))
        # A product with one-hot rows: the gradient of a look-up is a scatter, slow on CPUs.
        x = jax.nn.one_hot(tokens, self.vocabulary, dtype=embedding.dtype) @ embedding
        x = x + positions[None, : tokens.shape[1]]
        for _ in range(self.layers):
            x = x + self._attention(nn.LayerNorm(use_bias=False)(x))
            y = nn.Dense(self.hidden, use_bias=False)(nn.LayerNorm(use_bias=False)(x))
            x = x + nn.Dense(self.width, use_bias=False)(nn.relu(y))
        return nn.Dense(self.vocabulary, use_bias=False)(nn.LayerNorm(use_bias=False)(x))

    def _attention(self, x: jax.Array) -> jax.Array:
        size = self.width // self.heads
        projected = nn.Dense(3 * self.width, use_bias=False)(x)
        query, key, value = jnp.split(projected.reshape(*x.shape[:2], 3 * self.heads, size), 3, axis=2)
        logits = jnp.einsum("bthd,bshd->bhts", query, key) / math.sqrt(size)
        past = np.tri(x.shape[1], dtype=np.bool_)[None, None]
        weights = nn.softmax(jnp.where(past, logits, -1e9))
        mixed = jnp.einsum("bhts,bshd->bthd", weights, value).reshape(x.shape)
        return nn.Dense(self.width, use_bias=False)(mixed)


def zipf_lm() -> ClassificationTask:
    """One transformer layer of width 32 on the Zipf-bigram language: 16,992 parameters, a third of a second."""
    return ClassificationTask(
        name="zipf-lm",
        summary="one-layer transformer of width 32 on a generated Zipf-bigram language of 128 tokens",
        recipe=(
            "transformer: 1 layer, width 32, 2 heads, hidden 64, ReLU, pre-norm; "
            "Zipf-bigram chain of 128 tokens, 16 positions"
        ),
        model=Transformer(VOCABULARY, CONTEXT, width=32, heads=2, hidden=64, layers=1),
        splits=zipf_splits(),
        steps=400,
        batch_size=16,
        learning_rates=(1e-2, 3e-2, 1e-1),
        floor=entropy_rate(),
    )
