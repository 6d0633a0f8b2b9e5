"""`teacher:?inputs=32&power=1&width=64&noise=0`: a regression problem with a spectrum and a teacher that are known.

Coordinate i of the inputs is normal with variance i**-power, so that directions matter unequally, by a power law, as
they do in natural data; targets are the outputs of a fixed network of two tanh layers, standardized. With such inputs
losses fall as powers of steps and width (Maloney, Roberts and Sully, arXiv:2210.16859).
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.source import SPLITS, Field, GeneratedSource, Info, Source
from evolion.proxies.data.streams import normal, raw_stream, rounded
from evolion.proxies.data.uri import Uri

_STREAM = 13
_WEIGHTS, _SCALE = 1000, 1001
_GAIN = 2.0
_SCALE_EXAMPLES = 32_768


def open_uri(uri: Uri) -> Source:
    """Inputs (float32, shape (inputs,)) and targets (float32, shape (1,)), without end.

    `noise` is the standard deviation of what is added to the targets, whose own is 1; its square is the floor.
    """
    inputs, width = uri.integer("inputs", 32, 1, 4096), uri.integer("width", 64, 1, 4096)
    power, noise = uri.number("power", 1.0), abs(uri.number("noise", 0.0))
    teacher = teacher_of(inputs, width, power)
    info = Info(
        fields={"inputs": Field("float32", (inputs,)), "targets": Field("float32", (1,))},
        examples=dict.fromkeys(SPLITS),
        digest=hashlib.sha256(f"teacher 1 {inputs} {width} {power!r} {noise!r}".encode()).hexdigest(),
        floor=noise**2,
        note="generated",
    )
    return GeneratedSource(info, _STREAM, _generator(teacher, noise))


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """The inputs' law and the network.

    Attributes:
        deviations: Standard deviation of each input, shape (inputs,).
        kernels: Of the three layers: (inputs, width), (width, width), (width, 1).
        mean: The mean of the network's outputs over its inputs.
        deviation: Their standard deviation.

    """

    deviations: NDArray[np.float64]
    kernels: tuple[NDArray[np.float64], ...]
    mean: float = 0.0
    deviation: float = 1.0

    def __call__(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Standardized outputs (examples, 1) of inputs (examples, inputs)."""
        first, second, last = self.kernels
        outputs = np.tanh(np.tanh(inputs.astype(np.float64) @ first) @ second) @ last
        return np.asarray((outputs - self.mean) / self.deviation)

    def inputs(self, bits: np.random.PCG64, count: int) -> NDArray[np.float32]:
        """So many inputs, (count, inputs)."""
        return rounded(normal(bits, (count, len(self.deviations))) * self.deviations, 2.0**-14)


@lru_cache(maxsize=4)
def teacher_of(inputs: int, width: int, power: float) -> Teacher:
    """The teacher of so many inputs. Pre-activations have a standard deviation of about two: it is far from linear."""
    deviations = np.arange(1.0, inputs + 1) ** (-power / 2)
    bits = raw_stream(_STREAM, _WEIGHTS)
    first = normal(bits, (inputs, width)) * (_GAIN / np.sqrt(np.sum(deviations**2)))
    second = normal(bits, (width, width)) * (_GAIN / np.sqrt(width))
    plain = Teacher(deviations, (first, second, normal(bits, (width, 1)) / np.sqrt(width)))
    outputs = plain(plain.inputs(raw_stream(_STREAM, _SCALE), _SCALE_EXAMPLES))
    # Rounded: what follows from them must not depend on a machine's last bits.
    return Teacher(deviations, plain.kernels, round(float(outputs.mean()), 6), round(float(outputs.std()), 6))


def _generator(teacher: Teacher, noise: float) -> Callable[[np.random.PCG64, int], Mapping[str, NDArray[Any]]]:
    def generate(bits: np.random.PCG64, count: int) -> Mapping[str, NDArray[Any]]:
        inputs = teacher.inputs(bits, count)
        targets = teacher(inputs)
        if noise:
            targets = targets + noise * normal(bits, targets.shape)
        return {"inputs": inputs, "targets": rounded(targets)}

    return generate
