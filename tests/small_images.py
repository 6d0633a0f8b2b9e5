"""Small encoded images, and what a source of them holds."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evolion.proxies.data.source import SPLITS, Source, Split


def pixels_of(number: int, shape: tuple[int, ...] = (6, 6, 3)) -> NDArray[np.uint8]:
    """Pixels that differ from those of every other number below 65,536."""
    pixels = np.full(shape, number % 7, np.uint8)
    pixels.flat[:2] = number % 256, number // 256
    return pixels


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def everything(source: Source) -> dict[Split, dict[str, NDArray[Any]]]:
    counts: Mapping[Split, int | None] = source.info.examples
    return {split: source.gather(split, np.arange(counts[split] or 0)) for split in SPLITS}


def contents(source: Source) -> dict[Split, set[tuple[bytes, bytes]]]:
    """The examples of each split, whatever their order."""
    return {
        split: {(x.tobytes(), y.tobytes()) for x, y in zip(batch["inputs"], batch["targets"], strict=True)}
        for split, batch in everything(source).items()
    }
