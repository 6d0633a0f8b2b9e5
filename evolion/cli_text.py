"""What the commands share: the option for JSON and tables of plain text."""

from __future__ import annotations

from collections.abc import Sequence

import click

__all__ = ["JSON", "aligned"]

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lay out rows of equal length in columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
