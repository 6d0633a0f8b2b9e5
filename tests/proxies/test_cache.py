"""The cache of converted sets: whole or not there, whatever goes wrong."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached_sets import FAILURES, content, cut, flip, written

from evolion.proxies.data import array_folder, cache
from evolion.proxies.data.arrays import digest
from evolion.proxies.data.cache import Entry, add, cache_folder, entries, verify
from evolion.proxies.data.source import SPLITS, DataError, DataMissing, Field, Info, StoredSource
from evolion.proxies.data.uri import SCHEMES, open_source
from evolion.proxies.spec import Size, TaskSpec
from evolion.proxies.task import ModelTask


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EVOLION_DATA", str(folder))
    open_source.cache_clear()
    yield folder
    open_source.cache_clear()


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return written(tmp_path / "set.npz")


def test_a_set_is_kept_as_it_was_read(uri: str, root: Path) -> None:
    """What the cache gives is what the file gave: examples, divisions, fields, digest."""
    original = open_source(uri)
    entry = add("mine", uri)
    kept = open_source("data:mine")
    assert kept.info == original.info
    assert entry.folder == root / f"mine-{original.info.digest[:12]}"
    for split in SPLITS:
        numbers = np.arange(original.info.examples[split] or 0)[::-1]
        ours, theirs = kept.gather(split, numbers), original.gather(split, numbers)
        for name, array in theirs.items():
            assert ours[name].dtype == array.dtype
            assert np.array_equal(ours[name], array)


def test_a_set_is_mapped_and_read_only(uri: str) -> None:
    """A set larger than memory can be used, and nobody can change it by accident."""
    add("mine", uri)
    source = open_source("data:mine")
    assert isinstance(source, StoredSource)
    array = source.arrays["train"]["inputs"]
    assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0


def test_a_missing_set_says_how_it_is_added(uri: str) -> None:
    """The error is the command that mends it, or the name that was meant."""
    with pytest.raises(
        DataMissing, match=r"'mnist' is not on this machine \(in .*cache\); add it: evolion data add mni"
    ):
        open_source("data:mnist")
    add("mnist", uri)
    with pytest.raises(DataMissing, match="did you mean 'mnist'"):
        open_source("data:mnis")


def test_the_same_content_is_added_once(uri: str, tmp_path: Path) -> None:
    """Adding again does nothing, from wherever the same content comes."""
    first = add("mine", uri)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    shutil.copy(tmp_path / "set.npz", tmp_path / "copy.npz")
    assert add("mine", f"npz:{tmp_path}/copy.npz") == add("mine", uri) == first
    assert before == {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}


def test_other_content_needs_a_word(uri: str, tmp_path: Path, root: Path) -> None:
    """A name never changes its meaning unasked; when asked, nothing of the old set stays."""
    first = add("mine", uri)
    add("mine-other", uri)
    opened = open_source("data:mine")
    other = written(tmp_path / "other.npz", seed=1)
    with pytest.raises(DataError, match=r"'mine' is there with other content, read from .*set.npz; .*--replace"):
        add("mine", other)
    assert verify("mine") == first
    second = add("mine", other, replace=True)
    assert (second.uri, second.generation) == (other, 1)
    assert {entry.name for entry in entries()} == {"mine", "mine-other"}
    assert len(list(root.iterdir())) == 2
    assert len(opened.gather("train", np.arange(9))["inputs"]) == 9, "who has it open keeps it"
    assert open_source("data:mine").info.digest == second.info.digest


def test_of_two_generations_the_later_counts(uri: str, tmp_path: Path) -> None:
    """A process that dies while it replaces a set leaves both; it is still one set."""
    first = add("mine", uri)
    shutil.copytree(first.folder, tmp_path / "old")
    second = add("mine", written(tmp_path / "other.npz", seed=1), replace=True)
    shutil.copytree(tmp_path / "old", first.folder)
    assert entries() == (second,)
    assert open_source("data:mine").info.digest == second.info.digest


@pytest.mark.parametrize("same", [True, False])
def test_of_two_adds_at_once_the_first_stays(
    same: bool, uri: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process adds under the name during a long conversion is neither lost nor replaced unasked."""
    other = uri if same else written(tmp_path / "other.npz", seed=1)
    convert = cache._convert

    def slow(*arguments: Any) -> None:
        monkeypatch.setattr(cache, "_convert", convert)
        add("mine", other)
        convert(*arguments)

    monkeypatch.setattr(cache, "_convert", slow)
    if same:
        assert add("mine", uri) == verify("mine")
    else:
        with pytest.raises(DataError, match="is there with other content"):
            add("mine", uri)
    assert verify("mine").uri == other
    assert len(list(root.iterdir())) == 1


@pytest.mark.parametrize("name", ["", ".", "../x", "a b", "a/b", "-x", ".x", "x" * 65, "ü", "a\n"])
def test_names_are_plain(name: str, uri: str) -> None:
    """A name cannot lead out of the cache."""
    with pytest.raises(DataError, match="cannot name a data set"):
        add(name, uri)


def test_some_data_needs_no_cache(uri: str) -> None:
    """Data without end and what is cached already are refused with what to do instead."""
    add("mine", uri)
    with pytest.raises(DataError, match="never runs out"):
        add("zipf", "zipf-bigram:")
    with pytest.raises(DataError, match="in the cache already"):
        add("copy", "data:mine")


def own_source(info: Info, arrays: Any, log: list[int] | None = None, fail: Callable[[int], None] | None = None) -> Any:
    class Logged:
        def __init__(self) -> None:
            self.info = info

        def gather(self, split: Any, indices: Any) -> Any:
            if fail:
                fail(int(indices[0]))
            if log is not None:
                log.append(len(indices))
            return {name: array[indices] for name, array in arrays[split].items()}

    return Logged()


def large(monkeypatch: pytest.MonkeyPatch, fail: Callable[[int], None] | None = None, **changed: Any) -> list[int]:
    """Makes every URI one of 20,000 examples whose gathers are logged."""
    sizes = {"train": 18_000, "validation": 1000, "test": 1000}
    arrays = {
        s: {"inputs": np.arange(n)[:, None] * np.ones(3, np.float32), "targets": np.zeros(n, np.int32)}
        for s, n in sizes.items()
    }
    arrays["train"] |= changed
    for part in arrays.values():
        part["inputs"] = part["inputs"].astype(np.float32)
    info = Info({"inputs": Field("float32", (3,)), "targets": Field("int32", (), 5)}, sizes, digest("", arrays))
    log: list[int] = []
    source = own_source(info, arrays, log, fail)
    opener = open_source.__wrapped__

    def opened(text: str) -> Any:
        return opener(text) if text.startswith("data:") else source

    opened.cache_clear = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setattr(cache, "open_source", opened)
    return log


def test_conversion_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set is never in memory as a whole while it is converted: some thousands of examples at a time."""
    log = large(monkeypatch)
    entry = add("big", "npz:x")
    assert sum(log) == 20_000
    assert max(log) <= 4096
    assert open_source("data:big").gather("train", np.array([17_999]))["inputs"].tolist() == [[17_999] * 3]
    assert verify("big") == entry


def test_what_a_source_gives_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A label out of range deep inside a large set is found while it is converted, with its place."""
    labels = np.zeros(18_000, np.int32)
    labels[9000] = 5
    large(monkeypatch, targets=labels)
    with pytest.raises(
        DataError, match=r"targets of train from example 8192: the label of example 808 is 5, outside 0 to 4"
    ):
        add("big", "npz:x")
    large(monkeypatch, targets=np.zeros(18_000, np.int64))
    with pytest.raises(DataError, match=r"int64 \(\) instead of int32 \(\)"):
        add("big", "npz:x")
    assert entries() == ()


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("replace", [False, True])
def test_a_failed_add_leaves_the_cache_as_it_was(
    name: str, replace: bool, root: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full or read-only disk there is one line that names folder and mend, and no half-written set."""
    add("big" if replace else "small", uri)
    before = content(root)
    large(monkeypatch)
    failure, complaint = FAILURES[name]
    with failure(), pytest.raises(DataError) as caught:
        add("big", "npz:x", replace=replace)
    assert str(caught.value) == (
        f"{root}: the cache of data cannot be written there: {str(caught.value).partition('there: ')[2]}"
    )
    assert complaint in str(caught.value)
    assert "set EVOLION_DATA to another folder" in str(caught.value)
    assert content(root) == before
    add("big", "npz:x", replace=replace)
    assert open_source("data:big").info.examples["train"] == 18_000


def test_too_little_room_is_said_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits an hour for a conversion that cannot end well."""
    log = large(monkeypatch)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(DataError, match=r"cache: the set takes 0 MB and 0 MB are free; make room, or set EVOLION_DATA"):
        add("big", "npz:x")
    assert not log
    assert content(root) == {}


@pytest.mark.parametrize("below", ["", "inner"])
def test_a_file_in_place_of_the_cache(below: str, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """EVOLION_DATA may name what is no folder."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("EVOLION_DATA", str(tmp_path / "file" / below))
    with pytest.raises(DataError, match=r"file.*EVOLION_DATA"):
        add("mine", uri)


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError, MemoryError])
def test_an_interrupted_add_leaves_nothing(
    error: type[BaseException], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does one that is stopped, or whose source breaks half-way."""

    def fail(start: int) -> None:
        if start > 8000:
            raise error("half-way")

    large(monkeypatch, fail)
    with pytest.raises(error):
        add("big", "npz:x")
    assert list(root.iterdir()) == []


def test_a_killed_add_leaves_nothing_that_counts(root: Path, uri: str) -> None:
    """After kill -9 the set is not there, and the next add cleans up, but never under a writer that lives."""
    killed = (
        "import os, signal; from evolion.proxies.data import cache, array_folder\n"
        "array_folder.os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"cache.add('mine', {uri!r})"
    )
    done = subprocess.run([sys.executable, "-c", killed], check=False, capture_output=True)
    assert done.returncode == -9
    assert len(list(root.iterdir())) == 1
    assert entries() == ()
    with array_folder.draft(root) as alive:
        entry = add("mine", uri)
        assert set(root.iterdir()) == {alive, entry.folder}
    assert list(root.iterdir()) == [entry.folder]


DAMAGES: dict[str, tuple[str, Callable[[Path], None], bool]] = {
    "truncated": ("train.inputs.npy", cut, True),
    "longer": ("train.inputs.npy", lambda path: path.write_bytes(path.read_bytes() + b"x"), True),
    "deleted": ("test.targets.npy", Path.unlink, True),
    "a pixel": ("validation.inputs.npy", flip, False),
    "a label": ("test.targets.npy", flip, False),
    "a broken header": ("train.inputs.npy", lambda path: path.write_bytes(b"x" * path.stat().st_size), True),
    "no manifest": ("manifest.json", Path.unlink, True),
    "empty manifest": ("manifest.json", lambda path: path.write_text(""), True),
    "half a manifest": ("manifest.json", lambda path: path.write_bytes(path.read_bytes()[:200]), True),
    "a list": ("manifest.json", lambda path: path.write_text("[]"), True),
    "binary": ("manifest.json", lambda path: path.write_bytes(b"\xff\xfe\0"), True),
    "of another": ("manifest.json", lambda path: path.write_text(path.read_text().replace("mine", "yours")), True),
    "of the future": (
        "manifest.json",
        lambda path: path.write_text(path.read_text().replace('t": 1', 't": 2', 1)),
        True,
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_mended(name: str, uri: str) -> None:
    """`verify` names the file that is damaged; opening finds it where sizes show it; the named command mends it."""
    entry = add("mine", uri)
    file, damage, shows = DAMAGES[name]
    damage(entry.folder / file)
    open_source.cache_clear()
    with pytest.raises(DataError) as caught:
        verify("mine")
    assert str(caught.value).startswith(f"{entry.folder / file}: ")
    assert "evolion data add mine" in str(caught.value)
    assert str(caught.value).endswith("--replace")
    if shows:
        with pytest.raises(DataError, match=file):
            open_source("data:mine")
    else:
        open_source("data:mine")
    assert verify(add("mine", uri, replace=not shows).name).info == entry.info


def test_every_file_is_verified(uri: str) -> None:
    """No array of a set escapes the check."""
    for number in range(6):
        entry = add("mine", uri, replace=True)
        path = sorted(entry.folder.glob("*.npy"))[number]
        flip(path)
        with pytest.raises(DataError, match=path.name):
            verify("mine")


def test_fields_of_the_manifest_are_checked(uri: str) -> None:
    """A manifest that disagrees with its arrays is damage, not other data."""
    entry = add("mine", uri)
    path = entry.folder / "manifest.json"
    said = json.loads(path.read_text())
    said["examples"]["train"] -= 1
    path.write_text(json.dumps(said))
    with pytest.raises(DataError, match=r"train\.inputs\.npy: it is damaged: uint8"):
        open_source("data:mine")


def test_other_things_in_the_folder_are_ignored(uri: str, root: Path) -> None:
    """A user's own files beside the sets do no harm."""
    add("mine", uri)
    (root / "notes.txt").write_text("x")
    (root / "other-folder").mkdir()
    assert [entry.name for entry in entries()] == ["mine"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"EVOLION_DATA": "/a/b", "XDG_CACHE_HOME": "/c"}, "/a/b"),
        ({"EVOLION_DATA": "", "XDG_CACHE_HOME": "/c"}, "/c/evolion/data"),
        ({"EVOLION_DATA": "~/d"}, "/home/me/d"),
        ({"XDG_CACHE_HOME": "not/absolute"}, "/home/me/.cache/evolion/data"),
        ({}, "/home/me/.cache/evolion/data"),
    ],
)
def test_where_the_cache_is(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """EVOLION_DATA first, then the folders of the desktop's standard."""
    for name in ("EVOLION_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (variables | {"HOME": "/home/me"}).items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_a_set_becomes_a_task(uri: str) -> None:
    """A user's set is one URI in a specification; its pixels stay bytes until the model sees them."""
    add("mine", uri)
    sizes: dict[str, Size] = {"width": 8, "depth": 1, "outputs": 7, "activation": "relu"}
    text = ("mine-mlp", "perceptron", "a perceptron on a user's set", "perceptron.Perceptron", sizes, "data:mine")
    spec = TaskSpec(*text, "cross-entropy", 4, 16, (0.01,), math.log(7), "cross-entropy, nats")
    task = ModelTask(spec)
    assert task.data("train")["inputs"].dtype == np.uint8
    assert float(task.loss(task.init(0), task.data("validation"))) == pytest.approx(math.log(7), rel=0.5)
    with pytest.raises(DataMissing, match="add it: evolion data add other URI"):
        ModelTask(dataclasses.replace(spec, data="data:other")).data("train")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_is_documented(scheme: str) -> None:
    """A user finds in docs/data.md how each kind of data is named."""
    text = Path(__file__).parents[2].joinpath("docs", "data.md").read_text(encoding="utf-8")
    assert f"`{scheme}:" in text


def test_an_entry_without_problem_says_how_to_mend_it() -> None:
    """The advice can be pasted into a shell."""
    assert Entry("a", Path("b"), uri="idx:/d/x y").mend == "add it again: evolion data add a 'idx:/d/x y' --replace"
