"""CIFAR's Python batches, which are pickles."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolion.proxies.data.cifar import read_batch
from evolion.proxies.data.source import DataError, DataMissing, Source
from evolion.proxies.data.uri import open_source


def batch(count: int, *, seed: int = 0, keys: tuple[tuple[bytes, int], ...] = ((b"labels", 10),)) -> dict[bytes, Any]:
    data = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {b"data": data, b"batch_label": b"x"} | {key: [i % classes for i in range(count)] for key, classes in keys}


def write_cifar10(folder: Path) -> None:
    for number in range(1, 6):
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(batch(40, seed=number), protocol=2))
    (folder / "test_batch").write_bytes(pickle.dumps(batch(30, seed=9), protocol=2))


def opened(folder: Path, options: str = "") -> Source:
    open_source.cache_clear()
    return open_source(f"cifar-py:{folder}{options}")


def test_cifar_10_is_read(tmp_path: Path) -> None:
    """Five batches to train on; the planes of the file become channels."""
    write_cifar10(tmp_path)
    source = opened(tmp_path)
    assert (source.info.examples["train"] or 0) + (source.info.examples["validation"] or 0) == 200
    assert source.info.examples["test"] == 30
    images, labels = read_batch(tmp_path / "test_batch", b"labels", 10)
    rows = batch(30, seed=9)[b"data"]
    assert images[7, 2, 5].tolist() == rows[7].reshape(3, 32, 32)[:, 2, 5].tolist()
    assert labels.tolist() == [i % 10 for i in range(30)]


def test_a_file_of_python_2_is_read(tmp_path: Path) -> None:
    """The published files were written by Python 2: byte strings without encoding, numpy.core."""
    pixels = np.arange(3072, dtype=np.uint8).tobytes()
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85"
        b"U\x01b\x87R(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T" + len(pixels).to_bytes(4, "little") + pixels + b"tbU\x06labels]K\x03au."
    )
    (tmp_path / "b").write_bytes(content)
    images, labels = read_batch(tmp_path / "b", b"labels", 10)
    assert labels.tolist() == [3]
    assert images[0, 1, 2].tolist() == [34, 34, 34]


@pytest.mark.parametrize(("options", "classes"), [("", 100), ("?labels=fine", 100), ("?labels=coarse", 20)])
def test_cifar_100_is_read(options: str, classes: int, tmp_path: Path) -> None:
    """Fine or coarse labels, as asked for."""
    keys = ((b"fine_labels", 100), (b"coarse_labels", 20))
    for name, count in (("train", 150), ("test", 20)):
        (tmp_path / name).write_bytes(pickle.dumps(batch(count, keys=keys), protocol=2))
    source = opened(tmp_path, options)
    assert source.info.fields["targets"].classes == classes
    assert int(source.gather("train", np.arange(100))["targets"].max()) > classes - 20


class Hostile:
    """Runs a function of its choice when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_runs_nothing(protocol: int, tmp_path: Path) -> None:
    """A file that somebody put there cannot act: the function it names is named in the error and not called."""
    write_cifar10(tmp_path)
    mark = tmp_path / "mark"
    path = tmp_path / "data_batch_2"
    for function, arguments, name in (
        (os.mkdir, (str(mark),), r"posix\.mkdir"),
        (print, ("x",), r"builtin(s|__)\.print"),
        (np.save, (str(mark), 1), r"numpy\.save"),
        (getattr, (1, "x"), r"builtin(s|__)\.getattr"),
    ):
        path.write_bytes(pickle.dumps({b"extra": Hostile(function, *arguments)} | batch(3), protocol))
        with pytest.raises(DataError, match=name) as caught:
            opened(tmp_path)
        assert str(path) in str(caught.value)
    assert not mark.exists()


def test_dotted_names_are_names(tmp_path: Path) -> None:
    """Protocol 4 lets a pickle walk through attributes; what it walks to is looked up as a whole."""
    (tmp_path / "b").write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x15ndarray.__class__.mro\x93.")
    with pytest.raises(DataError, match=r"numpy\.ndarray\.__class__\.mro"):
        read_batch(tmp_path / "b", b"labels", 10)


BROKEN: dict[str, tuple[Any, str]] = {
    "empty": (b"", "damaged or no batch|too early"),
    "no pickle": (b"not a pickle at all", "damaged or no batch"),
    "truncated": (pickle.dumps(batch(20), protocol=2)[:-5000], "damaged or no batch|too early"),
    "a list": ([1, 2], "no array 'data' or no list 'labels'"),
    "no labels": ({b"data": batch(2)[b"data"]}, "no array 'data' or no list 'labels'"),
    "words for labels": (batch(2) | {b"labels": ["cat", "dog"]}, "the label of example 0 is 'cat', outside 0 to 9"),
    "a label too large": (batch(3) | {b"labels": [0, 10, 1]}, "the label of example 1 is 10, outside 0 to 9"),
    "a negative label": (batch(3) | {b"labels": [0, 1, -1]}, "the label of example 2 is -1"),
    "fewer labels": (batch(3) | {b"labels": [0, 1]}, "3 images and 2 labels"),
    "no labels in it": (batch(3) | {b"labels": []}, "3 images and 0 labels"),
    "other width": (batch(3) | {b"data": np.zeros((3, 3071), np.uint8)}, "no array of bytes with 3072 columns"),
    "other type": (batch(3) | {b"data": np.zeros((3, 3072), np.float32)}, "no array of bytes"),
    "objects": (batch(3) | {b"data": np.full((3, 3072), None)}, "no array of bytes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_batches_are_named(name: str, tmp_path: Path) -> None:
    """What is wrong with a batch is one line that names its file."""
    write_cifar10(tmp_path)
    content, complaint = BROKEN[name]
    path = tmp_path / "data_batch_3"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match=complaint) as caught:
        opened(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_batches_are_missing_data(tmp_path: Path) -> None:
    """A folder without one of its files is named with that file."""
    with pytest.raises(DataMissing, match="nowhere: no such file or folder"):
        opened(tmp_path / "nowhere")
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_4").unlink()
    with pytest.raises(DataMissing, match="data_batch_4: no such file"):
        opened(tmp_path)
    with pytest.raises(DataError, match="choose fine or coarse"):
        opened(tmp_path, "?labels=middle")


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    """Whatever a file holds, it is reported."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "f")
        path.write_bytes(content)
        with pytest.raises(DataError):
            read_batch(path, b"labels", 10)
