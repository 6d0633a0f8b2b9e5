"""Images and labels in the format of MNIST."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolion.proxies.data.idx import read_idx
from evolion.proxies.data.source import SPLITS, DataError, DataMissing, Source
from evolion.proxies.data.uri import open_source

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, train: int = 400, test: int = 60, end: str = "") -> None:
    bits = np.random.default_rng(0)
    for stem, count in (("train", train), ("t10k", test)):
        for what, array in (
            ("images-idx3-ubyte", bits.integers(0, 256, (count, 5, 4))),
            ("labels-idx1-ubyte", np.arange(count) % 10),
        ):
            content = idx(array)
            (folder / f"{stem}-{what}{end}").write_bytes(gzip.compress(content) if end else content)


def opened(folder: Path, options: str = "") -> Source:
    open_source.cache_clear()
    return open_source(f"idx:{folder}{options}")


@pytest.mark.parametrize("end", ["", ".gz"])
def test_mnist_is_read(tmp_path: Path, end: str) -> None:
    """The published layout, compressed or not: pixels as they are, the test set as it was given."""
    write_mnist(tmp_path, end=end)
    source = opened(tmp_path)
    examples = source.info.examples
    assert examples["test"] == 60
    assert sum(examples[split] or 0 for split in SPLITS) == 460
    assert 20 < (examples["validation"] or 0) < 70
    assert source.info.fields["targets"].classes == 10
    image = source.gather("train", np.arange(3))["inputs"]
    assert (image.dtype, image.shape) == (np.uint8, (3, 5, 4, 1))


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    """Folder and compression do not change what scores are compared by; a pixel does."""
    digests = []
    for name, end in (("a", ""), ("b", ".gz"), ("c", "")):
        folder = tmp_path / name
        folder.mkdir()
        write_mnist(folder, end=end)
        if name == "c":
            content = bytearray((folder / IMAGES).read_bytes())
            content[-1] ^= 1
            (folder / IMAGES).write_bytes(content)
        digests.append(opened(folder).info.digest)
    assert digests[0] == digests[1] != digests[2]


def test_without_a_test_set_the_training_set_is_divided(tmp_path: Path) -> None:
    """`test=none` takes a tenth for each of the other splits."""
    write_mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataMissing, match=r"t10k-images-idx3-ubyte: no such file.*test=none"):
        opened(tmp_path)
    assert sum(count or 0 for count in opened(tmp_path, "?test=none").info.examples.values()) == 400


BROKEN: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "empty": (IMAGES, lambda old: b"", "ends too early"),
    "only a header": (IMAGES, lambda old: old[:10], "ends too early"),
    "truncated": (IMAGES, lambda old: old[:-7], r"ends too early: .* 400 x 5 x 4 = 8,000 bytes, there are 7993"),
    "trailing bytes": (IMAGES, lambda old: old + b"x", "goes on after its end"),
    "labels for images": (IMAGES, lambda old: idx(np.zeros(400)), "starts with 00000801, not 00000803"),
    "another type": (IMAGES, lambda old: b"\0\0\x0d\x03" + old[4:], "00000d03"),
    "no idx at all": (LABELS, lambda old: b"\x89PNG" + old, "starts with 89504e47"),
    "no examples": (IMAGES, lambda old: idx(np.zeros((0, 5, 4))), "it is empty: its header says 0 x 5 x 4"),
    "a huge header": (IMAGES, lambda old: b"\0\0\x08\x03" + b"\xff" * 12 + b"abc", "ends too early"),
    "fewer labels": (LABELS, lambda old: idx(np.arange(399) % 10), "unequal numbers of examples: 400 inputs, 399"),
    "a wrong label": (LABELS, lambda old: old[:20] + b"\xc8" + old[21:], r"labels go up to 200 \(example 12\)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(name: str, tmp_path: Path) -> None:
    """What is wrong with a file is one line that names it."""
    write_mnist(tmp_path)
    file, change, complaint = BROKEN[name]
    path = tmp_path / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=complaint) as caught:
        opened(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [lambda old: old[:-9], lambda old: old[:30] + b"#" + old[31:], lambda old: b"ab"])
def test_broken_compression_is_named(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """So is a download that stopped half-way."""
    write_mnist(tmp_path, end=".gz")
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=f"{path}.*again"):
        opened(tmp_path)


def test_stated_classes_bound_the_labels(tmp_path: Path) -> None:
    """A label outside the stated classes is reported with its place and value."""
    write_mnist(tmp_path)
    with pytest.raises(DataError, match=r"the label of example 7 is 7, outside 0 to 6 \(120 of 400 are\)"):
        opened(tmp_path, "?classes=7")
    assert opened(tmp_path, "?classes=12").info.fields["targets"].classes == 12


def test_a_missing_folder_is_missing_data(tmp_path: Path) -> None:
    """A task whose data is not there is left out, which needs to be told from damage."""
    with pytest.raises(DataMissing, match=r"nowhere: no such file or folder; name the folder"):
        opened(tmp_path / "nowhere")
    with pytest.raises(DataMissing, match=f"{IMAGES}: no such file, nor {IMAGES}.gz"):
        opened(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataMissing, match="file: no such file or folder"):
        opened(tmp_path / "file")


@given(st.binary(max_size=40), st.booleans())
def test_no_bytes_raise_anything_else(content: bytes, compressed: bool) -> None:
    """Whatever a file holds, it is reported, and never read as what it is not."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "f.gz" if compressed else "f")
        path.write_bytes(b"\0\0\x08\1\xff" + content)
        with pytest.raises(DataError, match=path.name):
            read_idx(path, 1)
