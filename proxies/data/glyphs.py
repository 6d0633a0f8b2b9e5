"""`glyphs:?size=16`: letters and digits in the text faces that matplotlib brings, turned, sheared, noisy, without end.

62 classes: 0 to 9, A to Z, a to z. Each character of each face is drawn once at a high resolution (a master); an
example is a master under a small random affine map, read with bilinear interpolation, with noise. All arithmetic on the
masters is in whole numbers, so that equal masters give equal examples on every machine. Faces are held out: training
sees 15, validation and test have three each of their own (`FACES`), of every family one.

The licences of the fonts (DejaVu: Bitstream Vera; STIX; Computer Modern: Bakoma) allow images of text.
"""

import hashlib
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.source import SPLITS, DataError, DataMissing, Field, GeneratedSource, Info, Source, Split
from evolion.proxies.data.streams import integers, uniform
from evolion.proxies.data.uri import Uri

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
FACES: Mapping[Split, tuple[str, ...]] = {
    "train": (
        "DejaVuSans",
        "DejaVuSans-Bold",
        "DejaVuSans-BoldOblique",
        "DejaVuSans-Oblique",
        "DejaVuSansMono-Bold",
        "DejaVuSansMono-BoldOblique",
        "DejaVuSansMono",
        "DejaVuSerif-Bold",
        "DejaVuSerif-BoldItalic",
        "DejaVuSerif",
        "STIXGeneral",
        "STIXGeneralBolIta",
        "cmb10",
        "cmti10",
        "cmtt10",
    ),
    "validation": ("DejaVuSerif-Italic", "STIXGeneralBol", "cmss10"),
    "test": ("DejaVuSansMono-Oblique", "STIXGeneralItalic", "cmr10"),
}

_STREAM = 19
_CANVAS = 128
"""Pixels of the side of the canvas that a character is drawn on; a face's em is `_EM` of them."""
_EM, _BASELINE = 100, 94
_OVERSAMPLING = 2
_ONE = 256
"""One, in the whole numbers that positions are given in."""
_TURN, _SCALE, _SHEAR, _SHIFT = 0.25, 0.2, 0.25, 0.1
_NOISE = 24


def open_uri(uri: Uri) -> Source:
    """Images (inputs, uint8 of shape (size, size, 1)) and characters (targets, int32), without end.

    Options: `size`, the side of an image in pixels, 8, 16, 32 or 64.

    Raises:
        DataMissing: If matplotlib has come without its fonts.
        DataError: For another size.

    """
    size = uri.integer("size", 16, 8, 64)
    if _CANVAS % (_OVERSAMPLING * size):
        raise DataError(f"{uri.text}: size is {size}: choose 8, 16, 32 or 64")
    import matplotlib

    masters = {split: masters_of(split, size) for split in SPLITS}
    recipe = f"glyphs 1 {size} {_TURN} {_SCALE} {_SHEAR} {_SHIFT} {_NOISE}".encode()
    drawn = b"".join(masters[split].tobytes() for split in SPLITS)
    info = Info(
        fields={"inputs": Field("uint8", (size, size, 1)), "targets": Field("int32", (), len(CHARACTERS))},
        examples=dict.fromkeys(SPLITS),
        digest=hashlib.sha256(recipe + hashlib.sha256(drawn).digest()).hexdigest(),
        note=f"drawn from the fonts of matplotlib {matplotlib.__version__}; another build of FreeType may draw other "
        "pixels, which the digest tells",
    )
    return GlyphSource(
        info,
        {split: GeneratedSource(info, _STREAM, partial(generate, masters[split], size)) for split in SPLITS},
    )


@dataclass(frozen=True, slots=True, eq=False)
class GlyphSource:
    """Glyphs, each split with masters of its own."""

    info: Info
    splits: Mapping[Split, GeneratedSource]

    def gather(self, split: Split, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The examples of these numbers, of which all from 0 exist."""
        return self.splits[split].gather(split, indices)


@lru_cache(maxsize=12)
def masters_of(split: Split, size: int) -> NDArray[np.uint8]:
    """The masters of a split: (faces, characters, side, side) with side = 2 * size + 1, 0 for paper and 255 for ink.

    Each pixel is the mean over as large a square as a pixel of an example covers; there are twice as many a side.

    Raises DataMissing for a face that is not there.
    """
    step = _CANVAS // (_OVERSAMPLING * size)
    drawn = np.stack([_face(name) for name in FACES[split]]).astype(np.int64)
    drawn = np.pad(drawn, ((0, 0), (0, 0), (step, step), (step, step)))
    count = _OVERSAMPLING * size + 2
    cells = drawn.reshape(*drawn.shape[:2], count, step, count, step).sum(axis=(3, 5))
    squares = cells[..., :-1, :-1] + cells[..., 1:, :-1] + cells[..., :-1, 1:] + cells[..., 1:, 1:]
    return np.asarray(squares // (4 * step * step), np.uint8)


@lru_cache(maxsize=32)
def _face(name: str) -> NDArray[np.uint8]:
    """Each character of a face on a canvas of its own, baselines level, ink in the middle from left to right."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    try:
        font = ImageFont.truetype(str(path), _EM, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise DataMissing(f"glyphs: no font at {path} ({error}): reinstall matplotlib with its fonts") from None
    canvases = []
    for character in CHARACTERS:
        canvas = Image.new("L", (_CANVAS, _CANVAS))
        left, _, right, _ = font.getbbox(character, anchor="ls")
        ImageDraw.Draw(canvas).text(
            ((_CANVAS - round(left + right)) // 2, _BASELINE), character, fill=255, font=font, anchor="ls"
        )
        canvases.append(np.asarray(canvas, np.uint8))
    return np.stack(canvases)


def generate(masters: NDArray[np.uint8], size: int, bits: np.random.PCG64, count: int) -> Mapping[str, NDArray[Any]]:
    """So many examples from these masters."""
    faces, characters, side, _ = masters.shape
    targets = integers(bits, characters, (count,))
    which = integers(bits, faces, (count,)) * characters + targets
    rows, columns = _places(bits, size, count)
    # One pixel of paper around a master takes the places outside of it.
    paper = np.pad(masters, ((0, 0), (0, 0), (1, 1), (1, 1))).reshape(-1)
    wide = side + 2
    row, column = np.clip(rows >> 8, -1, side - 1), np.clip(columns >> 8, -1, side - 1)
    down, right = rows & (_ONE - 1), columns & (_ONE - 1)
    corner = which.astype(np.int32)[:, None, None] * (wide * wide) + (row + 1) * wide + (column + 1)

    def read(offset: int) -> NDArray[np.int32]:
        return np.asarray(paper[corner + offset], np.int32)

    above = read(0) * (_ONE - right) + read(1) * right
    below = read(wide) * (_ONE - right) + read(wide + 1) * right
    ink = (above * (_ONE - down) + below * down) >> 16
    images = np.clip(ink + _noise(bits, ink.shape), 0, 255).astype(np.uint8)
    return {"inputs": images[..., None], "targets": targets.astype(np.int32)}


def _places(bits: np.random.PCG64, size: int, count: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Where each pixel lies on a master: rows and columns in units of 1/256 of its pixels, (count, size, size)."""
    turn, scale, shear, stretch, down, right = 2 * uniform(bits, (6, count)) - 1
    angle, scale, shear = _TURN * turn, _OVERSAMPLING * np.exp(_SCALE * scale), _SHEAR * shear
    stretch = np.exp(_SCALE / 2 * stretch)
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    matrix = np.array([[cosine * stretch, sine], [shear * cosine - sine, cosine + shear * sine]])
    # Whole numbers from here on; half pixels, so that the middle of an image is the middle of its master.
    whole = np.rint(matrix * (_ONE // 2)).astype(np.int32)
    middle = _ONE * _OVERSAMPLING * size // 2
    shift = np.rint(np.stack([down, right]) * (_SHIFT * middle * 2)).astype(np.int32) + middle
    along = np.arange(1 - size, size, 2, dtype=np.int32)
    rows, columns = (
        (whole[i, 0, :, None] * along + shift[i, :, None])[:, :, None] + (whole[i, 1, :, None] * along)[:, None, :]
        for i in (0, 1)
    )
    return rows, columns


def _noise(bits: np.random.PCG64, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Nearly normal whole numbers of deviation `_NOISE`: sums of the four bytes of a random word."""
    words = bits.random_raw(-(-int(np.prod(shape)) // 2)).astype("<u8")
    total = words.view(np.uint8).reshape(-1, 4).sum(axis=1, dtype=np.int32)[: int(np.prod(shape))]
    # The deviation of such a sum is 147.8, its mean 510.
    return np.asarray(((total - 510) * round(_NOISE * 65536 / 147.8)) >> 16, np.int32).reshape(shape)
