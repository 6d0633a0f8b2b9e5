"""Configurations to and from TOML, with overrides; every error is one line that names the key."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evolion.config import RetestConfig, RunConfig, SearchConfig
from evolion.errors import ConfigError, close_matches

__all__ = ["from_toml", "read_config", "to_toml", "with_overrides"]


def read_config(path: Path | str | None = None, overrides: Iterable[str] = (), *, seed: int | None = None) -> RunConfig:
    """Return the configuration of a TOML file (without one, the defaults) with `KEY=VALUE` overrides.

    A key is dotted, with positions in lists (`stages.1.steps`), a value is TOML; a bare word is taken as a string.

    Raises:
        ConfigError: One line that names the file or the override and the key.

    """
    where, text = "the defaults", ""
    if path is not None:
        where = str(path)
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot read {where}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{where} is not a text file") from None
    config = from_toml(text, where=where)
    overrides = list(overrides)
    if not overrides and seed is None:
        return config
    if overrides:
        config = with_overrides(config, overrides)
    return config if seed is None else _validated(_tree(config) | {"seed": seed}, "--seed")


def with_overrides(config: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """Return a configuration with `KEY=VALUE` overrides, see `read_config`.

    Raises:
        ConfigError: One line that names the override and the key.

    """
    tree = _tree(config)
    for override in overrides:
        _override(tree, override)
    return _validated(tree, "--set")


def from_toml(text: str, *, where: str = "the configuration") -> RunConfig:
    """Read a configuration; a table `environment`, which a run's `config.toml` has, is a record and is left out.

    Raises:
        ConfigError: If the text is not TOML or not a valid configuration; the message starts with `where`.

    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}") from None
    tree.pop("environment", None)
    return _validated(tree, where)


def to_toml(config: RunConfig, environment: Mapping[str, str] | None = None) -> str:
    """Write a configuration, and with it versions and device class of the run, as TOML; `from_toml` reads it back."""
    import tomli_w

    tree = _tree(config) | ({"environment": dict(environment)} if environment is not None else {})
    return tomli_w.dumps(tree, multiline_strings=True)


def _tree(value: Any) -> Any:
    """Return plain dictionaries and lists without None, which TOML lacks and which is every optional key's default."""
    if isinstance(value, (tuple, list)):
        return [_tree(item) for item in value]
    if isinstance(value, (str, int, float)):
        return value
    fields = value if isinstance(value, dict) else asdict(value)
    return {name: _tree(item) for name, item in fields.items() if item is not None}


@cache
def _adapter() -> TypeAdapter[RunConfig]:
    return TypeAdapter(RunConfig)


def _validated(tree: Any, where: str) -> RunConfig:
    try:
        return _adapter().validate_python(tree)
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        more = f" (and {len(others)} more)" if others else ""
        raise ConfigError(f"{where}: {_explained(dict(first))}{more}") from None


def _explained(error: dict[str, Any]) -> str:
    path = ".".join(map(str, error["loc"]))
    if error["type"] == "unexpected_keyword_argument":
        known = _keys_beside(error["loc"])
        near = close_matches(str(error["loc"][-1]), known) or f" (keys here: {', '.join(known)})"
        return f"unknown key {path!r}{near}"
    if error["type"] in ("missing", "missing_argument"):
        return f"key {path!r} is missing"
    reason = str(error["msg"]).removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:].replace("tuple", "list")
    given = error["input"]
    shown = f", got {given!r}" if isinstance(given, (str, int, float)) and error["type"] != "value_error" else ""
    return f"{path}: {reason}{shown}" if path else reason + shown


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the table around `location` may have, found along the field types' examples."""
    table: Any = RunConfig()
    for part in location[:-1]:
        if isinstance(part, int):
            table = table[0]
        elif isinstance(table, (RunConfig, SearchConfig, RetestConfig)):
            table = getattr(table, part)
    return list(type(table).__dataclass_fields__)


def _override(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    path = name.strip().split(".")
    if not equals or not all(path):
        raise ConfigError(f"--set {override!r} is not of the form KEY=VALUE, such as search.budget=500")
    value = _toml_value(override, text.strip())
    table: Any = tree
    for depth, part in enumerate(path):
        above = ".".join(path[:depth])
        key: Any = part
        if isinstance(table, list):
            if not part.isdigit() or int(part) >= len(table):
                raise ConfigError(f"--set {override!r}: {above} has the positions 0 to {len(table) - 1}, not {part!r}")
            key = int(part)
        elif not isinstance(table, dict):
            raise ConfigError(f"--set {override!r}: {above} is a value, not a table of keys")
        if depth == len(path) - 1:
            table[key] = value
        else:
            table = table[key] if isinstance(table, list) else table.setdefault(key, {})


def _toml_value(override: str, text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        if text and text[0].isalpha() and text.replace("-", "").replace("_", "").isalnum():
            return text
        raise ConfigError(f"--set {override!r}: {text!r} is not a TOML value; strings need quotes") from None
    if set(parsed) != {"value"}:
        raise ConfigError(f"--set {override!r}: give one value")
    return parsed["value"]
