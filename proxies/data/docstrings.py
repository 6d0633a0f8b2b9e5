"""`docstrings:?context=32`: English text that is on every machine, the docstrings of installed packages.

Modules, classes and functions of the packages that Evolion depends on, read from their sources without importing them.
What it says depends on the versions of these packages: `Info.note` names them, `Info.digest` is of the text, and losses
under different digests are not comparable.
"""

import ast
import hashlib
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.cache import materialized
from evolion.proxies.data.source import SPLITS, DataMissing, Source, Split
from evolion.proxies.data.text_windows import windows
from evolion.proxies.data.uri import Uri

ALPHABET = 97
"""Tokens: 0 is a new line, 1 to 95 are the printable ASCII characters from space to ~, 96 is any other character."""

SHORTEST = 200
HELD_OUT_TOKENS = 2**17

_DISTRIBUTIONS = {
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "jax": "jax",
    "flax": "flax",
    "optax": "optax",
    "matplotlib": "matplotlib",
}
_NO_DOCUMENTATION = {"test", "tests", "testing", "_testing", "__pycache__"}


def open_uri(uri: Uri) -> Source:
    """Tokens (inputs) and the tokens that follow them (targets), int32 of shape (context,).

    Raises:
        DataMissing: If none of the packages is installed with its sources.

    """
    context = uri.integer("context", 32, 1, 4096)
    versions = installed_versions()
    if not versions:
        raise DataMissing(f"{uri.text}: none of {', '.join(_DISTRIBUTIONS)} is installed with its sources: install one")
    note = "docstrings of " + ", ".join(f"{name} {number}" for name, number in versions)
    tokens = {split: [text] for split, text in splits_of(versions).items()}
    return windows(tokens, context, name=uri.text, vocabulary=ALPHABET, note=note)


def installed_versions() -> tuple[tuple[str, str], ...]:
    """The packages that are read, with their versions; those that are not installed are left out."""
    found = []
    for package, distribution in _DISTRIBUTIONS.items():
        try:
            number = version(distribution)
        except PackageNotFoundError:
            continue
        if _folders(package):
            found.append((package, number))
    return tuple(found)


def _folders(package: str) -> list[Path]:
    # The spec of a top-level package is found without running any of it.
    spec = find_spec(package)
    return [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []


@lru_cache(maxsize=1)
def splits_of(versions: tuple[tuple[str, str], ...]) -> Mapping[Split, NDArray[np.uint8]]:
    """The text of each split as tokens (uint8), from the packages of these versions; kept on disk, as it takes 20 s.

    Docstrings are ordered by the SHA-256 of their text: validation takes the first that make up 131,072 tokens, test
    the next, and training the rest. Two docstrings may share paragraphs, as they do in these packages, and be in
    different splits.
    """

    def build() -> dict[str, NDArray[np.uint8]]:
        parts = divided({text for package, _ in versions for text in package_docstrings(package)})
        return {split: parts[split] for split in SPLITS}

    key = f"docstrings 1 {sys.version_info[0]}.{sys.version_info[1]} {versions}"
    kept = materialized(key, build)
    return {split: kept[split] for split in SPLITS}


def divided(documents: Collection[str]) -> dict[Split, NDArray[np.uint8]]:
    """The tokens of each split of different documents, which an empty line keeps apart."""
    rest = sorted(documents, key=_key)
    parts: dict[Split, NDArray[np.uint8]] = {}
    for split in ("validation", "test"):
        ends = np.cumsum([len(text) for text in rest])
        count = int(np.searchsorted(ends, min(HELD_OUT_TOKENS, ends[-1] // 4))) + 1 if rest else 0
        parts[split] = encode("\n\n".join(rest[:count]))
        rest = rest[count:]
    return {"train": encode("\n\n".join(rest)), **parts}


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def encode(text: str) -> NDArray[np.uint8]:
    """Characters as tokens of the alphabet, uint8."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    tokens = np.where((codes >= 32) & (codes < 127), codes - 31, ALPHABET - 1)
    return np.where(codes == 10, 0, tokens).astype(np.uint8)


def decode(tokens: NDArray[Any]) -> str:
    """The text of tokens; characters that the alphabet does not have are shown as \N{REPLACEMENT CHARACTER}."""
    symbols = "\n" + "".join(map(chr, range(32, 127))) + "\N{REPLACEMENT CHARACTER}"
    return "".join(symbols[int(token)] for token in tokens)


def package_docstrings(package: str) -> Iterator[str]:
    """Those of an installed package but for its tests, from its sources."""
    for folder in _folders(package):
        for path in sorted(folder.rglob("*.py")):
            inner = path.relative_to(folder)
            if _NO_DOCUMENTATION.isdisjoint(inner.parts) and not inner.name.startswith(("test_", "conftest")):
                yield from docstrings_of(path.read_bytes())


def docstrings_of(source: bytes) -> Iterator[str]:
    """The docstrings of more than 200 characters in a module's source; of one that does not parse, none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of other people's escapes.
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text is not None and len(text) > SHORTEST:
                yield text
