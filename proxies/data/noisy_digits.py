"""`noisy-digits:?low=0.1&high=2`: digits with noise of many levels, to be told from the noise.

What diffusion models are trained on (Ho, Jain and Abbeel, arXiv:2006.11239): an image plus sigma times standard normal
noise, with log sigma uniform. To predict the noise weighs each level by 1 / sigma**2 of the error in pixels. The images
of a split are those of `digits`; noise never runs out.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.digits import digits_splits
from evolion.proxies.data.source import SPLITS, DataError, Field, GeneratedSource, Info, Source, Split
from evolion.proxies.data.streams import integers, normal, rounded, uniform
from evolion.proxies.data.uri import Uri

_STREAM = 20
_PIXELS = 64
_DEVIATION = 0.75
"""About the root mean square of the pixels: what keeps noisy images near one at each level."""


def open_uri(uri: Uri) -> Source:
    """Noisy images with their level (inputs, float32, shape (65,)) and the noise (targets, float32, shape (64,)).

    The first 64 inputs are pixels over sqrt(sigma**2 + 0.75**2), the last is log sigma.
    """
    low, high = uri.number("low", 0.1), uri.number("high", 2.0)
    if not 0 < low <= high:
        raise DataError(f"{uri.text}: low is {low:g} and high {high:g}: levels of noise need 0 < low <= high")
    info = Info(
        fields={"inputs": Field("float32", (_PIXELS + 1,)), "targets": Field("float32", (_PIXELS,))},
        examples=dict.fromkeys(SPLITS),
        digest=hashlib.sha256(f"noisy-digits 1 {low!r} {high!r}".encode()).hexdigest(),
        note="scikit-learn's copy of the UCI set of handwritten digits, CC BY 4.0, with generated noise",
    )
    return _NoisyDigits(info, {split: _noisy(info, split, low, high) for split in SPLITS})


@dataclass(frozen=True, slots=True, eq=False)
class _NoisyDigits:
    info: Info
    parts: Mapping[Split, GeneratedSource]

    def gather(self, split: Split, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The examples of these numbers."""
        return self.parts[split].gather(split, indices)


def _noisy(info: Info, split: Split, low: float, high: float) -> GeneratedSource:
    def generate(bits: np.random.PCG64, count: int) -> Mapping[str, NDArray[Any]]:
        images = digits_splits()[split]["inputs"].reshape(-1, _PIXELS).astype(np.float64)
        chosen = images[integers(bits, len(images), (count,))]
        level = np.log(low) + np.log(high / low) * uniform(bits, (count, 1))
        noise, sigma = normal(bits, (count, _PIXELS)), np.exp(level)
        pixels = (chosen + sigma * noise) / np.sqrt(sigma**2 + _DEVIATION**2)
        return {"inputs": rounded(np.concatenate([pixels, level], axis=1)), "targets": rounded(noise)}

    return GeneratedSource(info, _STREAM, generate)
