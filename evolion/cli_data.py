"""The commands `evolion data …`: sets on disk become sets of the cache, under names of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from evolion.cli_text import JSON, aligned, size_text
from evolion.errors import InputError

if TYPE_CHECKING:
    from evolion.proxies.data.cache import Entry

__all__ = ["data"]


@click.group(invoke_without_command=True)
@click.pass_context
def data(context: click.Context) -> None:
    """Keep data sets in the cache of this machine: add, ls, verify.

    The cache is the folder that the environment variable EVOLION_DATA names, else evolion/data in $XDG_CACHE_HOME or
    ~/.cache. Tasks name what is in it as data:NAME. Each command takes --json.
    """
    if context.invoked_subcommand is None:
        raise click.UsageError("a command is missing: choose one of add, ls, verify (see evolion data --help)")


@data.command()
@click.argument("name")
@click.argument("uri")
@click.option("--replace", is_flag=True, help="Also where NAME stands for something else already.")
@JSON
def add(name: str, uri: str, replace: bool, as_json: bool) -> None:
    """Convert the data of a URI, such as idx:/data/mnist, into the cache, as NAME.

    If it is there already with the same content, nothing is done.
    """
    from evolion.proxies.data.cache import add

    with _input_errors():
        entry = add(name, uri, replace=replace)
    if as_json:
        print(json.dumps(_described(entry)))
        return
    print(f"data:{name}  {_counts(entry)} examples, {size_text(entry.bytes)}, in {entry.folder}")


@data.command(name="ls")
@JSON
def list_entries(as_json: bool) -> None:
    """List the data sets in the cache."""
    from evolion.proxies.data.cache import cache_folder, entries

    with _input_errors():
        folder, found = cache_folder(), entries()
    if as_json:
        print(json.dumps([_described(entry) for entry in found]))
        return
    if not found:
        print(f"no data sets in {folder}; add one: evolion data add NAME URI")
        return
    rows = [("name", "train/validation/test", "size", "digest", "fields", "from")]
    rows += [
        (entry.name, _counts(entry), size_text(entry.bytes), entry.info.digest[:12], _fields(entry), entry.uri)
        for entry in found
        if not entry.problem
    ]
    lines = aligned(rows) if len(rows) > 1 else []
    print("\n".join([*lines, *(f"{entry.name}: {entry.problem}" for entry in found if entry.problem)]))


@data.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@JSON
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Read every byte of data sets, all of them without NAME, and say which files are damaged.

    Exit status 1 if one is.
    """
    from evolion.proxies.data import cache
    from evolion.proxies.data.source import DataError

    with _input_errors():
        known = tuple(entry.name for entry in cache.entries())
        for name in set(names) - set(known):
            cache.verify(name)  # says that it is not there, before time goes into the others
    problems: dict[str, str] = {}
    for name in dict.fromkeys(names or known):
        try:
            problems[name] = cache.verify(name).problem
        except DataError as error:
            problems[name] = str(error)
        if not as_json:
            print(f"{name}: {problems[name] or 'sound'}", flush=True)
    if as_json:
        print(json.dumps([{"name": name, "problem": problem or None} for name, problem in problems.items()]))
    if any(problems.values()):
        raise click.exceptions.Exit(1)


@contextmanager
def _input_errors() -> Iterator[None]:
    """Data that cannot be used is something that the caller gave."""
    from evolion.proxies.data.source import DataError

    try:
        yield
    except DataError as error:
        raise InputError(str(error)) from None


def _described(entry: Entry) -> dict[str, Any]:
    info = entry.info
    return {
        "name": entry.name,
        "folder": str(entry.folder),
        "problem": entry.problem or None,
        "uri": entry.uri,
        "digest": info.digest,
        "bytes": entry.bytes,
        "examples": dict(info.examples),
        "fields": {
            name: {"dtype": kind.dtype, "shape": list(kind.shape), "classes": kind.classes}
            for name, kind in info.fields.items()
        },
        "floor": info.floor,
        "note": info.note,
    }


def _counts(entry: Entry) -> str:
    return "/".join(f"{count:,}" for count in entry.info.examples.values())


def _fields(entry: Entry) -> str:
    return ", ".join(f"{name} {kind.dtype}{list(kind.shape) or ''}" for name, kind in entry.info.fields.items())
