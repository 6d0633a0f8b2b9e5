"""Tar files of images and labels."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from small_images import contents, encoded, everything, pixels_of

from evolion.proxies.data.source import DataError, DataMissing, Source
from evolion.proxies.data.uri import open_source, parse_uri
from evolion.proxies.data.webdataset import open_uri

Members = Sequence[tuple[str, bytes]]


def opened(text: str) -> Source:
    uri = parse_uri(text)
    source = open_uri(uri)
    uri.finish()
    return source


def tar(path: Path, members: Members) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@cache
def example(number: int) -> Members:
    label = number % 3
    return [
        (f"set/{number:05d}.png", encoded(pixels_of(number))),
        (f"set/{number:05d}.cls", f"{label}\n".encode()),
        (f"set/{number:05d}.json", json.dumps({"label": label, "deep": {"er": label}}).encode()),
    ]


def members(numbers: Sequence[int]) -> Members:
    return [member for number in numbers for member in example(number)]


def test_images_and_labels_of_all_files(tmp_path: Path) -> None:
    """A range of tar files holds every example once, its image beside its label."""
    for place in range(3):
        tar(tmp_path / f"d-{place:04d}.tar", members(range(40 * place, 40 * place + 40)))
    source = open_source(f"wds:{tmp_path}/d-{{0000..0002}}.tar?x=jpg;png&y=cls")
    parts = contents(source)
    assert set().union(*parts.values()) == {
        (pixels_of(number).tobytes(), np.int32(number % 3).tobytes()) for number in range(120)
    }
    assert source.info.fields["targets"].classes == 3
    batch = everything(source)["train"]
    order = np.arange(len(batch["targets"]))[::-1]
    assert np.array_equal(source.gather("train", order)["inputs"], batch["inputs"][order])


def test_labels_in_json_are_the_same_data(tmp_path: Path) -> None:
    """`json.label` and `json.deep.er` read the values that .cls states."""
    tar(tmp_path / "d.tar", members(range(100)))
    digests = {opened(f"wds:{tmp_path}/d.tar?y={y}").info.digest for y in ("cls", "json.label", "json.deep.er")}
    assert len(digests) == 1


def test_splits_follow_content_alone(tmp_path: Path) -> None:
    """The order of examples, and the files they lie in, move none to another split."""
    tar(tmp_path / "a.tar", members(range(100)))
    tar(tmp_path / "b-0.tar", members(range(99, 49, -1)))
    tar(tmp_path / "b-1.tar", members(range(50)))
    assert contents(opened(f"wds:{tmp_path}/a.tar")) == contents(opened(f"wds:{tmp_path}/b-*.tar"))


def test_files_named_after_splits_stay_apart(tmp_path: Path) -> None:
    """`…-train-…` and `…-val-…` are what their names say."""
    tar(tmp_path / "im-train-0.tar", members(range(50)))
    tar(tmp_path / "im-val-0.tar", members(range(50, 90)))
    source = opened(f"wds:{tmp_path}/im-{{train,val}}-0.tar")
    assert source.info.examples["train"] == 50
    assert (source.info.examples["validation"] or 0) + (source.info.examples["test"] or 0) == 40


def test_other_members_are_passed_over(tmp_path: Path) -> None:
    """Folders, links and hidden files are no examples, and nothing is written beside the archive."""
    with tarfile.open(tmp_path / "d.tar", "w") as archive:
        for name, kind in (("set", tarfile.DIRTYPE), ("../../evil.png", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for name, content in [("set/._0.png", b"junk"), *members(range(100))]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert sum(count or 0 for count in opened(f"wds:{tmp_path}/d.tar").info.examples.values()) == 100
    assert [path.name for path in tmp_path.iterdir()] == ["d.tar"]


def _replaced(suffix: str, content: bytes) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        tar(path, [(name, content if name.endswith(f"00007.{suffix}") else old) for name, old in members(range(100))])

    return spoil


def _without(suffix: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        tar(path, [(name, old) for name, old in members(range(100)) if not name.endswith(f"00007.{suffix}")])

    return spoil


def _cut(keep: Callable[[int], int]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        content = tar(path, members(range(100))).read_bytes()
        path.write_bytes(content[: keep(len(content))])

    return spoil


def _damaged_header(path: Path) -> None:
    content = bytearray(tar(path, members(range(100))).read_bytes())
    place = content.index(b"set/00050.png")
    content[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)


def _gzipped(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x"))


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda path: path.write_bytes(b""), "", r"d\.tar: it is no tar file, or a damaged one \(empty file\)"),
        (lambda path: path.write_bytes(b"x" * 2000), "", r"d\.tar: it is no tar file, or a damaged one"),
        (_gzipped, "", r"d\.tar: it is no tar file.*decompress a compressed one"),
        (lambda path: tar(path, []), "", r"d\.tar: it holds no images"),
        (_cut(lambda size: size // 2 // 512 * 512), "", r"d\.tar: it "),
        (_cut(lambda size: size // 2 // 512 * 512 + 100), "", r"d\.tar: it "),
        (_cut(lambda size: 512 * 2), "", r"d\.tar: it is damaged or ends too early, at byte 1024"),
        (_damaged_header, "", r"d\.tar: it is damaged or ends too early, at byte \d+; copy or download"),
        (_without("cls"), "", r"d\.tar: set/00007 has no label cls, only json, png; say y=SUFFIX"),
        (_without("png"), "", r"d\.tar: set/00007 has no image jpg or .*, only cls, json; say x=SUFFIX"),
        (_replaced("cls", b"cat"), "", r"d\.tar: set/00007: its label is b'cat', not a whole number"),
        (_replaced("cls", b"-1"), "", r"d\.tar: the label of example 7 is -1, outside 0 to"),
        (_replaced("cls", b"90"), "", r"d\.tar: labels go up to 90 .* classes=N"),
        (_replaced("cls", b"5"), "classes=3", r"d\.tar: the label of example 7 is 5, outside 0 to 2"),
        (_replaced("json", b"{"), "y=json.label", r"set/00007: its JSON cannot be parsed"),
        (_replaced("json", b'{"a": 1}'), "y=json.label", r"set/00007: its JSON has no 'label' \(it has: a\)"),
        (_replaced("json", b'{"label": 1.5}'), "y=json.label", r"set/00007: its label is 1.5, not a whole number"),
        (_replaced("png", b"no"), "", r"d\.tar: set/00007\.png: it is no image that Pillow knows"),
        (lambda path: tar(path, [*example(0), example(0)[0]]), "", r"d\.tar: it holds set/00000\.png twice"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, spoil: Callable[[Path], None], options: str, message: str) -> None:
    """Each thing that may be wrong with a tar file is one error with the file, the example and the mend."""
    spoil(tmp_path / "d.tar")
    with pytest.raises(DataError, match=message):
        opened(f"wds:{tmp_path}/d.tar{'?' if options else ''}{options}")


def test_an_absent_file_of_a_range_is_named(tmp_path: Path) -> None:
    """A range with a gap is not read as a smaller set."""
    tar(tmp_path / "d-0.tar", members(range(9)))
    with pytest.raises(DataMissing, match=r"d-1\.tar: no such file"):
        opened(f"wds:{tmp_path}/d-{{0..1}}.tar")
    with pytest.raises(DataError, match=r"the range \{1\.\.0\} is empty"):
        opened(f"wds:{tmp_path}/d-{{1..0}}.tar")
