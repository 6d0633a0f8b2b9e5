"""`collocation:?frequencies=1-2-4`: points of the unit interval and the right-hand side of -u'' = f there.

f is a sum of sines of the given frequencies with equal amplitudes and mean square 1; the solution with u(0) = u(1) = 0
is `solution`. The frequencies' shares of u fall as the square of the frequency while f weighs them alike, which is why
networks trained on residuals are ill-conditioned (Krishnapriyan et al., arXiv:2109.01050).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.source import SPLITS, DataError, Field, GeneratedSource, Info, Source, Split
from evolion.proxies.data.streams import integers, rounded
from evolion.proxies.data.uri import Uri

_STREAM = 17


def open_uri(uri: Uri) -> Source:
    """Points x (inputs, float32, shape (1,)) and f(x) (targets, float32, shape (1,)), without end."""
    frequencies = _frequencies(uri.text, uri.text_option("frequencies", "1-2-4"))
    field = Field("float32", (1,))
    info = Info(
        fields={"inputs": field, "targets": field},
        examples=dict.fromkeys(SPLITS),
        digest=hashlib.sha256(f"collocation 1 {frequencies}".encode()).hexdigest(),
        floor=0.0,
        note="generated",
    )
    return _Collocation(info, {split: _points(info, SPLITS.index(split), frequencies) for split in SPLITS})


def _frequencies(uri: str, text: str) -> tuple[int, ...]:
    parts = text.split("-")
    if not all(part.isascii() and part.isdigit() and 0 < int(part[:6]) <= 1000 for part in parts):
        raise DataError(f"{uri}: frequencies is {text!r}, not whole numbers from 1 to 1000 with hyphens between them")
    if len({*parts}) < len(parts):
        raise DataError(f"{uri}: frequencies is {text!r}, which names one twice")
    return tuple(int(part) for part in parts)


def source_term(x: NDArray[np.float64], frequencies: tuple[int, ...]) -> NDArray[np.float64]:
    """f(x), of the shape of x: mean square 1 over the unit interval."""
    waves = sum(np.sin(k * np.pi * x) for k in frequencies)
    return np.asarray(np.sqrt(2 / len(frequencies)) * waves)


def solution(x: NDArray[np.float64], frequencies: tuple[int, ...]) -> NDArray[np.float64]:
    """u(x) with -u'' = f and u(0) = u(1) = 0, of the shape of x."""
    waves = sum(np.sin(k * np.pi * x) / (k * np.pi) ** 2 for k in frequencies)
    return np.asarray(np.sqrt(2 / len(frequencies)) * waves)


@dataclass(frozen=True, slots=True, eq=False)
class _Collocation:
    info: Info
    parts: Mapping[Split, GeneratedSource]

    def gather(self, split: Split, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The examples of these numbers."""
        return self.parts[split].gather(split, indices)


def _points(info: Info, split: int, frequencies: tuple[int, ...]) -> GeneratedSource:
    def generate(bits: np.random.PCG64, count: int) -> Mapping[str, NDArray[Any]]:
        # On one line chance would put points of two splits in the same place: the last two of 23 bits tell them apart.
        places = 4 * integers(bits, 2**21, (count, 1)) + split
        x = np.asarray(places * 2.0**-23, np.float64)
        return {"inputs": x.astype(np.float32), "targets": rounded(source_term(x, frequencies), 2.0**-14)}

    return GeneratedSource(info, _STREAM, generate)
