"""The commands `evolion data add`, `ls` and `verify`."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached_sets import FAILURES, content, cut, flip, written

from evolion.cli import run
from evolion.proxies.data.uri import open_source


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a set, and a cache in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVOLION_DATA", str(tmp_path / "cache"))
    written(tmp_path / "set.npz")
    written(tmp_path / "other.npz", seed=1)
    open_source.cache_clear()
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert run(["data", *arguments]) == status
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["data", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("evolion: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_set_is_added_listed_and_verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a user does, in order, and what is said."""
    assert "evolion data add NAME URI" in printed(capsys, "ls")
    added = printed(capsys, "add", "mine", "npz:set.npz")
    assert added.startswith("data:mine  ")
    assert str(folder / "cache" / "mine-") in added
    table = printed(capsys, "ls").splitlines()
    assert table[0].split() == ["name", "train/validation/test", "size", "digest", "fields", "from"]
    assert table[1].split()[0] == "mine"
    assert "inputs uint8[6, 5, 1], targets int32" in table[1]
    assert printed(capsys, "verify") == printed(capsys, "verify", "mine") == "mine: sound\n"


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command prints one value that a program can read."""
    assert json.loads(printed(capsys, "ls", "--json")) == []
    added = json.loads(printed(capsys, "add", "mine", "npz:set.npz", "--json"))
    assert json.loads(printed(capsys, "ls", "--json")) == [added]
    assert sum(added["examples"].values()) == 300
    assert added["fields"]["targets"] == {"dtype": "int32", "shape": [], "classes": 7}
    assert json.loads(printed(capsys, "verify", "--json")) == [{"name": "mine", "problem": None}]


def test_replacing_needs_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    """The error is the command that does it."""
    printed(capsys, "add", "mine", "npz:set.npz")
    assert "evolion data add mine 'npz:other.npz' --replace" in complaint(capsys, "add", "mine", "npz:other.npz")
    printed(capsys, "add", "mine", "npz:other.npz", "--replace")
    assert "npz:other.npz" in printed(capsys, "ls")


@pytest.mark.parametrize("damage", [cut, flip])
def test_damage_is_a_failure(damage: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`verify` names the file, ends with status 1, and still checks the others; the named command mends it."""
    for name in ("a", "b", "c"):
        printed(capsys, "add", name, "npz:set.npz")
    path = next(folder.glob("cache/b-*/test.inputs.npy"))
    damage(path)
    lines = printed(capsys, "verify", status=1).splitlines()
    assert [lines[0], lines[2]] == ["a: sound", "c: sound"]
    assert lines[1].startswith(f"b: {path}: it is damaged")
    said = json.loads(printed(capsys, "verify", "b", "--json", status=1))
    assert str(path) in said[0]["problem"]
    printed(capsys, "add", "b", "npz:set.npz", "--replace")
    printed(capsys, "verify")


def test_an_unknown_name_is_said_first(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that was mistyped is found before gigabytes are read."""
    printed(capsys, "add", "mine", "npz:set.npz")
    assert "did you mean 'mine'" in complaint(capsys, "verify", "mine", "mind")


def test_a_broken_manifest_is_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One damaged set does not hide the others."""
    for name in ("a", "b"):
        printed(capsys, "add", name, "npz:set.npz")
    path = next(folder.glob("cache/a-*/manifest.json"))
    path.write_text("{")
    listed = printed(capsys, "ls")
    assert f"a: {path}: it is damaged" in listed
    assert "\nb  " in listed
    assert json.loads(printed(capsys, "ls", "--json"))[0]["problem"].startswith(str(path))
    printed(capsys, "verify", status=1)


BAD = {
    "no command": ([], "add, ls, verify"),
    "unknown command": (["remove"], "remove"),
    "no URI": (["add", "mine"], "URI"),
    "no scheme": (["add", "mine", "set.npz"], "write scheme:path"),
    "unknown scheme": (["add", "mine", "npy:set.npz"], "did you mean 'npz'"),
    "unknown option": (["add", "mine", "npz:set.npz?z=1"], "no option 'z'"),
    "missing file": (["add", "mine", "npz:none.npz"], "none.npz: no such file"),
    "bad name": (["add", "a/b", "npz:set.npz"], "cannot name a data set"),
    "endless": (["add", "mine", "zipf-bigram:"], "never runs out"),
    "cached": (["add", "mine", "data:mine"], "in the cache already"),
    "not there": (["verify", "mine"], "add it: evolion data add mine URI"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_line(
    arguments: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, what to mend, and no file made."""
    before = content(folder)
    assert words in complaint(capsys, *arguments)
    assert content(folder) == before


@pytest.mark.parametrize("name", FAILURES)
def test_a_disk_that_takes_nothing_is_one_clear_line(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full or read-only disk is named with the variable that chooses another."""
    written(folder / "large.npz", examples=5000)
    before = content(folder)
    with FAILURES[name][0]():
        status = run(["data", "add", "mine", "npz:large.npz"])
    assert status == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"evolion: error: {folder / 'cache'}: ")
    assert "EVOLION_DATA" in error
    assert content(folder) == before


def test_ctrl_c_stops_cleanly(folder: Path) -> None:
    """An interrupted conversion is one line, status 1, and leaves nothing behind."""
    waiting = (
        "import sys, time; from evolion.proxies.data import array_folder\n"
        "array_folder.os.fsync = lambda number: (print('now', flush=True), time.sleep(60))\n"
        "from evolion.cli import main; main(['data', 'add', 'mine', 'npz:set.npz'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", waiting], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert error.strip() == "evolion: interrupted"
    assert list((folder / "cache").iterdir()) == []


def test_the_command_is_light() -> None:
    """Converting data starts neither jax nor a worker."""
    code = (
        "import sys; from evolion.cli import run; run(['data', 'add', 'mine', 'npz:set.npz'])\n"
        "print(*({'jax', 'flax', 'optax', 'ray', 'torch', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[1:] == [""]
    assert np.load(next(Path("cache").glob("mine-*/test.targets.npy"))).dtype == np.int32
