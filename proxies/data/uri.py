"""Data by URI: `scheme:path?option=value&option=value`, such as `zipf-bigram:?vocabulary=128` or `idx:/data/mnist`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote

from evolion.proxies.data.source import DataError, Source

SCHEMES: Mapping[str, str] = {
    # generated
    "zipf-bigram": "zipf",
    "markov-chains": "markov",
    "recall": "recall",
    "mnist1d": "mnist1d",
    "teacher": "teacher",
    "quadratic": "quadratic",
    "linear-regression": "linear_regression",
    "block-model": "block_model",
    "collocation": "collocation",
    # brought by packages
    "digits": "digits",
    "noisy-digits": "noisy_digits",
    "image-patches": "sample_images",
    "image-field": "sample_images",
    "glyphs": "glyphs",
    "docstrings": "docstrings",
    # on a user's disk
    "data": "cache",
    "npz": "npz",
    "idx": "idx",
    "cifar-py": "cifar",
    "parquet": "arrow",
    "arrow": "arrow",
    "wds": "webdataset",
    "dir": "image_folder",
    "jsonl": "jsonl",
    "bin": "token_bin",
}
"""The module of `evolion.proxies.data` that opens each scheme: its function `open_uri`."""


@dataclass(frozen=True, slots=True)
class Uri:
    """A parsed URI. Options are text; `integer`, `number` and `text` read them, and `finish` refuses what is left.

    Attributes:
        text: As it was given.
        scheme: What kind of data.
        path: Where it is; empty for data that is nowhere.
        options: By name.

    """

    text: str
    scheme: str
    path: str
    options: Mapping[str, str]
    _read: set[str] = field(default_factory=set, compare=False, repr=False)

    def text_option(self, name: str, default: str) -> str:
        """An option as it stands."""
        self._read.add(name)
        return self.options.get(name, default)

    def integer(self, name: str, default: int, low: int = 1, high: int = 2**31) -> int:
        """An option as a whole number from `low` to `high`. Raises DataError for anything else."""
        given = self.text_option(name, str(default))
        if not (given.isascii() and given.isdigit() and len(given) < 12 and low <= int(given) <= high):
            raise DataError(f"{self.text}: {name} is {given!r}, not a whole number from {low} to {high}")
        return int(given)

    def number(self, name: str, default: float) -> float:
        """An option as a finite number. Raises DataError for anything else."""
        given = self.text_option(name, repr(default))
        try:
            value = float(given)
        except ValueError:
            value = float("nan")
        if not abs(value) < float("inf"):
            raise DataError(f"{self.text}: {name} is {given!r}, not a finite number")
        return value

    def finish(self) -> None:
        """Raise DataError, naming those there are, for options that nothing has read."""
        unknown = sorted(set(self.options) - self._read)
        if unknown:
            known = ", ".join(sorted(self._read)) or "none"
            raise DataError(f"{self.text}: {self.scheme} has no option {unknown[0]!r} (it has: {known})")


def parse_uri(text: str) -> Uri:
    """Parse a URI.

    Raises:
        DataError: For an unknown scheme, naming the nearest, an option without a value, or one given twice.

    """
    head, _, query = text.partition("?")
    scheme, colon, path = head.partition(":")
    if not colon:
        raise DataError(f"{text!r} is no URI of data: write scheme:path, such as npz:/data/mnist.npz")
    if scheme not in SCHEMES:
        near = get_close_matches(scheme, SCHEMES, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{text}: unknown scheme {scheme!r}{hint} (known: {', '.join(sorted(SCHEMES))})")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise DataError(f"{text}: write options as ?name=value&name=value") from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise DataError(f"{text}: an option is given twice")
    return Uri(text, scheme, unquote(path), MappingProxyType(options))


@lru_cache(maxsize=32)
def open_source(text: str) -> Source:
    """The source of a URI.

    Raises:
        DataMissing: If the data is not on this machine.
        DataError: If the URI or the data cannot be used.

    """
    uri = parse_uri(text)
    module: Any = import_module(f"evolion.proxies.data.{SCHEMES[uri.scheme]}")
    source: Source = module.open_uri(uri)
    uri.finish()
    return source
