"""The library of known optimizers, and programs from where a user keeps them."""

from __future__ import annotations

import difflib
import importlib.resources
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from evolion.primitives.parser import MAXIMUM_CHARACTERS, parse
from evolion.primitives.program import Program, ProgramError

__all__ = ["OTHER_NAMES", "known", "load"]

OTHER_NAMES = MappingProxyType({"sgdm": "sgdw"})
"""What people also call a known program. With momentum alone nothing decays weights, which comparisons tune."""

_SUFFIX = ".txt"


@cache
def known() -> Mapping[str, Program]:
    """Return the reference programs by name, in alphabetical order, as a read-only mapping.

    They are read at the first call. Each states its source, its form where implementations disagree, and recommended
    hyperparameters in its docstring.
    """
    folder = importlib.resources.files("evolion.discovered") / "known"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(_SUFFIX)), key=lambda entry: entry.name)
    return MappingProxyType(
        {entry.name.removesuffix(_SUFFIX): parse(entry.read_text(encoding="utf-8")) for entry in files}
    )


def load(spec: str) -> Program:
    """Return the program that `spec` names: a known name, or the path of a program text.

    A known name wins over a file of the same name; write `./name` for the file. Run folders ("RUN_DIR[:ID]") belong to
    the face: `evolion.load` turns them into a program text before it comes here.

    Raises:
        ProgramError: If the file is not a valid program; with its line and column.
        ValueError: If there is no such program or file, or the file cannot be read as text.

    """
    programs = known()
    if OTHER_NAMES.get(spec, spec) in programs:
        return programs[OTHER_NAMES.get(spec, spec)]
    path = Path(spec)
    try:
        if path.is_dir():
            raise ValueError(f"{spec!r} is a folder; give the path of a program text, or a run folder to evolion.load")
        if not path.is_file():
            raise ValueError(_unknown(spec))
        with path.open(encoding="utf-8") as file:
            text = file.read(MAXIMUM_CHARACTERS + 1)
    except UnicodeDecodeError:
        raise ValueError(f"{spec!r} is not a program text: it is not UTF-8") from None
    except OSError as error:
        raise ValueError(f"{spec!r} cannot be read: {error.strerror}") from None
    try:
        return parse(text)
    except ProgramError as error:
        raise ProgramError(f"{error.reason} (in {spec})", line=error.line, column=error.column) from None


def _unknown(spec: str) -> str:
    names = known()
    looks_like_path = "/" in spec or "\\" in spec or spec.endswith((_SUFFIX, ".py"))
    if looks_like_path:
        return f"there is no file {spec!r}"
    close = difflib.get_close_matches(spec, names, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "`evolion known` lists the known ones"
    return f"no known optimizer and no file is called {spec!r}; {hint}"
