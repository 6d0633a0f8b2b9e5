"""How each optimizer looks in every picture: its colour, marker and dash, and its name. Nothing here draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["COLOURS", "GREY", "INK", "REFERENCE", "RULE", "SHADE", "Look", "looks", "plain"]

INK, GREY, RULE, SHADE = "#1a1a1a", "#7a7a7a", "#d8d8d8", "#ececec"
# Not quite black: SVG leaves out black as what need not be said, and a dark page could not exchange it.
REFERENCE = "#111111"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito (2008), "Color universal design", without yellow, which does not show on white; black is the
reference's."""
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ((5.0, 1.5), (1.5, 1.2), (6.0, 1.5, 1.5, 1.5), (3.0, 1.5), (8.0, 2.0))

NAME_WIDTH = 30
"""Names are cut to this length in pictures; tables have them whole."""


@dataclass(frozen=True, slots=True)
class Look:
    """How an optimizer is drawn, the same in every picture.

    Attributes:
        colour: As "#rrggbb".
        marker: Matplotlib's letter.
        dash: Lengths of strokes and gaps in line widths; empty for a solid line.
        control: Whether it is a renamed copy, which is drawn in thin grey.

    """

    colour: str
    marker: str
    dash: tuple[float, ...] = ()
    control: bool = False

    def line(self) -> dict[str, Any]:
        """Return the arguments of `Axes.plot` for a line of this optimizer."""
        style = {"dashes": self.dash} if self.dash else {"linestyle": "-"}
        return {"color": self.colour, "linewidth": 0.8 if self.control else 1.4, **style}

    def mark(self, *, filled: bool = True, size: float = 4) -> dict[str, Any]:
        """Return the arguments of `Axes.plot` for a marker of this optimizer."""
        face = self.colour if filled else "none"
        return {"color": self.colour, "marker": self.marker, "markersize": size, "markerfacecolor": face}


def looks(names: Sequence[str], reference: str, controls: frozenset[str]) -> dict[str, Look]:
    """Return the look of each optimizer: black for the reference, grey for renamed copies of it.

    The numbers of colours, markers and dashes have no common divisor but 2, so that pairs do not repeat early.
    """
    others = [name for name in names if name != reference and name not in controls]
    found = {
        name: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
        for i, name in enumerate(others)
    }
    found |= {name: Look(GREY, ".", (), control=True) for name in names if name in controls}
    return found | {reference: Look(REFERENCE, "o")}


def plain(name: str, width: int = NAME_WIDTH) -> str:
    """Return a name as it can stand in a picture: no control characters, which XML forbids, and not too long."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    return shown if len(shown) <= width else shown[: width - 1] + "…"
