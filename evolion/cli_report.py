"""The command `evolion report`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from evolion.cli_text import JSON, size_text

__all__ = ["report"]


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("-o", "--output", metavar="FILE", help="Where to; DIR/report.html without it. What is there is replaced.")
@JSON
def report(folder: str, output: str | None, as_json: bool) -> None:
    """Write one HTML page about a run, finished or not: what it found, how, and at what cost.

    The page needs nothing beside it: it can be sent by mail, read on a phone and printed. The run is only read.
    """
    from evolion.errors import InputError
    from evolion.run_report import write_report

    if output is not None and Path(output).is_dir():
        raise InputError(f"{output} is a folder; give the name of a file")
    path = write_report(folder, output)
    size = path.stat().st_size
    if as_json:
        print(json.dumps({"folder": folder, "file": str(path), "bytes": size}))
    else:
        print(f"wrote {path} ({size_text(size)})")
