"""What the commands share: the option for JSON, tables of plain text, sizes."""

from __future__ import annotations

from collections.abc import Sequence

import click

__all__ = ["JSON", "aligned", "size_text"]

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lay out rows of equal length in columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def size_text(count: float) -> str:
    """Return a number of bytes with a unit."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"
