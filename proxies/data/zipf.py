"""`zipf-bigram:?vocabulary=128&context=16`: a generated language whose entropy is known.

A Markov chain over tokens: each row mixes, half and half, the Zipf law 1 / k that all rows share with a law k^-1.5 over
tokens permuted by row. Unigram frequencies are heavy-tailed and successors sparse, as in text, which is what sets
adaptive methods apart from gradient descent (Kunstner et al., arXiv:2402.19449). No model gets below the entropy rate
of the chain, the floor.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.source import SPLITS, Field, GeneratedSource, Info, Source
from evolion.proxies.data.streams import raw_stream
from evolion.proxies.data.uri import Uri

_LANGUAGE_STREAM, _SAMPLE_STREAM = 2, 3
_UNIT = 2**32


def open_uri(uri: Uri) -> Source:
    """Tokens (inputs) and the tokens that follow them (targets), int32 of shape (context,), without end."""
    language = language_of(uri.integer("vocabulary", 128, 2, 65536))
    context = uri.integer("context", 16, 1, 65536)
    field = Field("int32", (context,), language.vocabulary)
    return GeneratedSource(
        Info(
            fields={"inputs": field, "targets": field},
            examples=dict.fromkeys(SPLITS),
            digest=hashlib.sha256(f"zipf-bigram 1 {language.vocabulary} {context}".encode()).hexdigest(),
            floor=language.entropy_rate(),
            note="generated",
        ),
        _SAMPLE_STREAM,
        _generator(language, context),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Language:
    """The chain.

    Attributes:
        transitions: Row i over 2**32 holds the probabilities of what follows token i; int64 (vocabulary, vocabulary),
            rows sum to 2**32. Whole numbers, so that sampling is exact and the same on every machine.
        stationary: The stationary distribution in the same units; int64 (vocabulary,), sums to 2**32.

    """

    transitions: NDArray[np.int64]
    stationary: NDArray[np.int64]

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return len(self.stationary)

    def entropy_rate(self) -> float:
        """Mean entropy of the next token given the present one, in nats: the least loss that any model can reach."""
        chain, state = self.transitions / _UNIT, self.stationary / _UNIT
        return float(-state @ (chain * np.log(chain)).sum(axis=1))

    def unigram_entropy(self) -> float:
        """Entropy of a token in nats: the loss of the best model that ignores the context."""
        state = self.stationary / _UNIT
        return float(-state @ np.log(state))

    def sample(self, bits: np.random.PCG64, sequences: int, length: int) -> NDArray[np.int32]:
        """Sequences, each started from the stationary distribution; int32, shape (sequences, length)."""
        count = self.vocabulary
        # One sorted table for all rows: row i occupies i * 2**32 + (0 … 2**32).
        table = (np.cumsum(self.transitions, axis=1) + np.arange(count)[:, None] * _UNIT).ravel()
        draws = (bits.random_raw((length, sequences)) >> np.uint64(32)).astype(np.int64)
        tokens = [np.searchsorted(np.cumsum(self.stationary), draws[0], side="right")]
        for draw in draws[1:]:
            position = np.searchsorted(table, tokens[-1] * _UNIT + draw, side="right")
            tokens.append(position - tokens[-1] * count)
        return np.stack(tokens, axis=1).astype(np.int32)


@lru_cache(maxsize=4)
def language_of(vocabulary: int) -> Language:
    """The language of so many tokens."""
    ranks = np.arange(1, vocabulary + 1)
    shared, sparse = 1 / ranks, 1 / (ranks * np.sqrt(ranks))
    shared, sparse = shared / math.fsum(shared), sparse / math.fsum(sparse)
    draws = raw_stream(_LANGUAGE_STREAM, 0).random_raw((vocabulary, vocabulary))
    rows = (shared + sparse[np.argsort(draws, axis=1, kind="stable")]) / 2
    transitions = _whole(rows)
    chain, state = transitions / _UNIT, np.full(vocabulary, 1 / vocabulary)
    # All rows share half of their mass, so each step at least halves the distance: 64 steps reach machine precision.
    for _ in range(64):
        state = state @ chain
    return Language(transitions, _whole(state))


def _whole(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rounds to units of 2**-32; the first token takes up the remainder."""
    counts = np.rint(probabilities * _UNIT).astype(np.int64)
    counts[..., 0] += _UNIT - counts.sum(axis=-1)
    return counts


def _generator(language: Language, context: int) -> Callable[[np.random.PCG64, int], Mapping[str, NDArray[Any]]]:
    def generate(bits: np.random.PCG64, count: int) -> Mapping[str, NDArray[Any]]:
        tokens = language.sample(bits, count, context + 1)
        return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:]}

    return generate
