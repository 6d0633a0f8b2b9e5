"""Images that lie encoded (PNG, JPEG) in files: one array of equal images, decoded when they are gathered."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.file_splits import divide
from evolion.proxies.data.source import DataError, Field, Info, Source, Split
from evolion.proxies.data.splitting import check_divided, check_labels, class_count, record_digest
from evolion.proxies.data.uri import Uri

_GREY = frozenset({"1", "L", "LA"})
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """What a URI asks for; 0 means: as the files say.

    Attributes:
        size: Height and width to bring the images to, pixels: the middle square, resized.
        channels: 1 for grey, 3 for red, green and blue.
        classes: The number of classes.

    """

    size: int = 0
    channels: int = 0
    classes: int = 0


def image_options(uri: Uri) -> ImageOptions:
    """Read the options `size`, `channels` and `classes`. Raises DataError for a value that none of them has."""
    channels = uri.integer("channels", 0, 0, 3)
    if channels == 2:
        raise DataError(f"{uri.text}: channels is 2; write 1 for grey or 3 for colour")
    return ImageOptions(uri.integer("size", 0, 0, 8192), channels, uri.integer("classes", 0, 0))


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled image.

    Attributes:
        where: What errors call it: its file, and its place in the file.
        file: The file that it lies in, for errors about labels.
        image: The encoded image.
        label: Its class.
        split: The split it is published in.

    """

    where: str
    file: str
    image: bytes
    label: int
    split: Split


Read = Callable[[NDArray[np.int64]], Sequence[tuple[str, bytes]]]
"""Numbers of records to where each is and its encoded image, in the same order."""


def image_source(name: str, records: Iterable[Record], read: Read, options: ImageOptions, note: str = "") -> Source:
    """Images (inputs: uint8, (size, size, channels)) and labels (targets: int32, ()), decoded when they are gathered.

    The records are gone through once: their digests divide them and make the digest of the source.

    Args:
        name: The file, folder or pattern that errors speak of.
        records: All of them, in order.
        read: Gives the images again.
        options: What the URI asks for.
        note: Where the images come from, their licence.

    Raises:
        DataError: If there are no images, one is none, they differ in size and no size is asked for, a label is out
            of range, or there are too few to divide.

    """
    digests, named, labels = [], [], []
    kinds: dict[tuple[int, int, bool], str] = {}
    files: dict[str, int] = {}
    for number, record in enumerate(records):
        kinds.setdefault(_kind(record.image, record.where), record.where)
        digests.append(record_digest([record.image, str(record.label).encode()]))
        named.append(record.split)
        labels.append(record.label)
        files.setdefault(record.file, number)
    if not digests:
        raise DataError(f"{name}: it holds no images")
    layout = _layout(name, kinds, options)
    targets = np.array(labels, np.int64)
    classes = _checked_classes(name, targets, files, options.classes)
    places = divide(name, digests, named)
    check_divided(name, {split: len(numbers) for split, numbers in places.items()})
    sha = hashlib.sha256(f"images {layout} {classes}".encode())
    for split, numbers in places.items():
        sha.update(split.encode() + b"".join(digests[number] for number in numbers.tolist()))
    return _Images(
        Info(
            fields={"inputs": Field("uint8", layout), "targets": Field("int32", (), classes)},
            examples={split: len(numbers) for split, numbers in places.items()},
            digest=sha.hexdigest(),
            note=note,
        ),
        places,
        targets.astype(np.int32),
        read,
    )


def _checked_classes(name: str, labels: NDArray[np.int64], files: Mapping[str, int], classes: int) -> int:
    """The number of classes, given or counted; `files` are the first record of each, so that errors can name it."""
    ends = [*list(files.values())[1:], len(labels)]
    for file, start, end in zip(files, files.values(), ends, strict=True):
        check_labels(file, labels[start:end], classes or 2**31 - 1)
    return classes or class_count(name, labels)


@dataclass(frozen=True, slots=True, eq=False)
class _Images:
    info: Info
    places: Mapping[Split, NDArray[np.int64]]
    labels: NDArray[np.int32]
    read: Read

    def gather(self, split: Split, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The examples of these numbers."""
        indices = np.asarray(indices, np.int64)
        count = self.info.examples[split] or 0
        if indices.size and not 0 <= indices.min() <= indices.max() < count:
            wrong = indices.min() if indices.min() < 0 else indices.max()
            raise IndexError(f"split {split!r} has the examples 0 to {count - 1}, asked for {wrong}")
        numbers = self.places[split][indices]
        height, width, channels = self.info.fields["inputs"].shape
        images = np.empty((len(numbers), height, width, channels), np.uint8)
        # In the order of the files, so that a part of a file is read once.
        order = np.argsort(numbers, kind="stable")
        for start in range(0, len(order), _AT_ONCE):
            places = order[start : start + _AT_ONCE]
            for place, (where, image) in zip(places, self.read(numbers[places]), strict=True):
                images[place] = decode(image, where, (height, width, channels))
        return {"inputs": images, "targets": self.labels[numbers]}


def decode(image: bytes, where: str, layout: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Pixels of an encoded image, uint8 of `layout` (height, width, channels).

    An image of another size is cut to the middle part of that shape and resized (bilinear).

    Raises:
        DataError: If it is damaged; names `where`.

    """
    from PIL import Image, ImageOps

    height, width, channels = layout
    try:
        with Image.open(BytesIO(image)) as opened:
            pixels: Image.Image = opened
            if "transparency" in opened.info:
                pixels = pixels.convert("RGBA")
            pixels = pixels.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: the image is damaged ({error}); copy or download it again") from None
    if pixels.size != (width, height):
        pixels = ImageOps.fit(pixels, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(pixels, np.uint8).reshape(layout)


def _kind(image: bytes, where: str) -> tuple[int, int, bool]:
    """Height, width and whether it is grey, by the head of the file alone."""
    from PIL import Image

    try:
        with Image.open(BytesIO(image)) as opened:
            width, height, mode = opened.width, opened.height, opened.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        what = "it is empty" if not image else "it is no image that Pillow knows"
        raise DataError(f"{where}: {what}; remove or replace it") from None
    if mode[0] in "IF":
        raise DataError(f"{where}: its pixels have over 8 bits (mode {mode}); convert it to 8 bits")
    return height, width, mode in _GREY


def _layout(name: str, kinds: Mapping[tuple[int, int, bool], str], options: ImageOptions) -> tuple[int, int, int]:
    """(height, width, channels) of all images, of which `kinds` has one of each kind."""
    channels = options.channels or (1 if all(grey for _, _, grey in kinds) else 3)
    sizes = {(height, width): where for (height, width, _), where in kinds.items()}
    if options.size:
        return options.size, options.size, channels
    if len(sizes) > 1:
        (first, one), (second, other) = list(sizes.items())[:2]
        raise DataError(
            f"{name}: the images differ in size: {one} has {first[0]}x{first[1]} pixels, {other} "
            f"{second[0]}x{second[1]}; say which size they shall have: size=32"
        )
    ((height, width),) = sizes
    return height, width, channels
