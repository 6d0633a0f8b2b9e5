from pathlib import Path

import pytest

import evolion
from evolion.discovered.library import OTHER_NAMES, known, load
from evolion.primitives.parser import MAXIMUM_CHARACTERS
from evolion.primitives.program import ProgramError


def test_the_library_is_read_only() -> None:
    """What one caller does cannot change what another gets."""
    with pytest.raises(TypeError):
        known()["sgd"] = known()["lion"]  # type: ignore[index]
    assert known() is known()
    assert list(known()) == sorted(known())


def test_load_takes_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A known name, an absolute path and a relative path give programs; a known name wins over a file."""
    mine = tmp_path / "mine.txt"
    mine.write_text(str(known()["adam"]), encoding="utf-8")
    (tmp_path / "lion").write_text(str(known()["sgd"]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load("lion") is known()["lion"]
    assert load("./lion") == known()["sgd"]
    assert load(str(mine)) == load("mine.txt") == known()["adam"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("adamv", r"no known optimizer and no file is called 'adamv'; did you mean 'adam'"),
        ("zzz", r"'zzz'; `evolion known` lists the known ones"),
        ("no/such.txt", r"there is no file 'no/such\.txt'$"),
        (".", r"'\.' is a folder"),
        ("\0", r"there is no file|no file is called|cannot be read"),
        ("a" * 5000, r"cannot be read: File name too long|no known optimizer"),
    ],
)
def test_an_unknown_spec_says_what_there_is(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt name is answered with the close ones, a path with the plain fact."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        load(spec)
    assert "\n" not in str(caught.value)


def test_a_bad_program_is_reported_with_its_file(tmp_path: Path) -> None:
    """The error names file, line and column."""
    path = tmp_path / "bad.txt"
    path.write_text("def train(g):\n    return sgn(g)\n", encoding="utf-8")
    with pytest.raises(ProgramError, match=r"line 2, column 12: unknown function 'sgn'; did you mean 'sign'.*bad\.txt"):
        load(str(path))


def test_files_that_hold_no_text_are_refused(tmp_path: Path) -> None:
    """Binary files and endless ones give one line, and cost no more than a bound."""
    path = tmp_path / "weights.npz"
    path.write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        load(str(path))
    path.write_text("#" * (2 * MAXIMUM_CHARACTERS), encoding="utf-8")
    with pytest.raises(ProgramError, match=f"at most {MAXIMUM_CHARACTERS}"):
        load(str(path))


def test_an_unreadable_file_is_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing rights are not mistaken for a missing file."""
    path = tmp_path / "locked.txt"
    path.write_text(str(known()["sgd"]), encoding="utf-8")

    def refuse(self: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ValueError, match="cannot be read: Permission denied"):
        load(str(path))


def test_other_names_load_known_programs() -> None:
    """What people also call an optimizer is understood, and hides none of the library's own names."""
    assert OTHER_NAMES
    for other, name in OTHER_NAMES.items():
        assert other not in known()
        assert load(other) is known()[name]
        assert evolion.load(other) is known()[name]
