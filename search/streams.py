"""The random numbers of a candidate."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

__all__ = ["stream"]

_SIZE = 32  # bytes: the state and the increment of PCG64


class _Digest(ISeedSequence):
    """What seeds a bit generator, ready: `np.random.SeedSequence` takes three times as long to mix it."""

    __slots__ = ("_words",)

    def __init__(self, text: str) -> None:
        self._words = np.frombuffer(blake2b(text.encode(), digest_size=_SIZE).digest(), "<u8")

    def generate_state(self, n_words: int, dtype: object = np.uint64) -> NDArray[np.uint64]:
        """Return the digest, in as many words as PCG64 asks for."""
        assert (n_words, dtype) == (len(self._words), np.uint64)
        return self._words


def stream(seed: int, number: int) -> np.random.Generator:
    """Return the generator of a candidate: a new one at each call, that hangs on the seed and the number alone."""
    # The stub of PCG64 does not know of `ISeedSequence`, which its documentation names.
    return np.random.Generator(np.random.PCG64(_Digest(f"{seed} {number}")))  # type: ignore[arg-type]
