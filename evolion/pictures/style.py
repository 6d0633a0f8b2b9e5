"""How pictures look: one colour, marker and dash for each optimizer, axes, and files that are the same every time."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

__all__ = [
    "GREY",
    "INK",
    "RULE",
    "SHADE",
    "Look",
    "image",
    "linear_axis",
    "log_axis",
    "looks",
    "plain",
    "ratio_axis",
    "styled",
]

INK, GREY, RULE, SHADE = "#1a1a1a", "#7a7a7a", "#d8d8d8", "#ececec"
# Not quite black: SVG leaves out black as what need not be said, and a dark page could not exchange it.
REFERENCE = "#111111"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito (2008), "Color universal design", without yellow, which does not show on white; black is the
reference's."""
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ((5.0, 1.5), (1.5, 1.2), (6.0, 1.5, 1.5, 1.5), (3.0, 1.5), (8.0, 2.0))

STYLE: Any = {
    "svg.hashsalt": "evolion",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "figure.facecolor": "#ffffff",
}

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


@contextmanager
def styled() -> Iterator[None]:
    """Draw with this module's settings alone: no matplotlibrc of the user's, and none of ours left behind."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name may hold letters that the font lacks; they are drawn as boxes and stand in the tables.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def image(figure: Figure, form: str) -> bytes:
    """Return a figure as a file of a form ("svg", "png", "pdf") without the time and the program's version.

    Raises:
        ValueError: If matplotlib does not write that form.

    """
    metadata: dict[str, Any] = {
        "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }.get(form, {})
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=160, metadata=metadata)
    return buffer.getvalue()


def superscript(exponent: int) -> str:
    """Return 10 to an exponent, without mathematical markup, which names could hold as well."""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def tick(value: float, _: object = None) -> str:
    """Return a number of a logarithmic axis in few characters."""
    if value <= 0 or not math.isfinite(value):
        return ""
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = value / 10.0**exponent
    if abs(mantissa - 1) < 1e-6 and not -2 < exponent < 5:
        return superscript(exponent)
    if -4 < exponent < 5:
        return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"
    return f"{mantissa:.2g}·{superscript(exponent)}"


def fraction(value: float, _: object = None) -> str:
    """Return a ratio such as a quarter as people write it."""
    return f"1/{1 / value:.3g}" if 0 < value < 1 else f"{value:.3g}"


def _set_scale(axes: Axes, axis: Axis, scale: str, low: float, high: float) -> None:
    if axis is axes.xaxis:
        axes.set_xscale(scale)
        axes.set_xlim(low, high)
    else:
        axes.set_yscale(scale)
        axes.set_ylim(low, high)


def log_axis(axes: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """Make an axis logarithmic over a range (0 < low <= high), with labels even where it spans no power of ten."""
    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    if high / low < 1.5:
        low, high = low / 1.25, high * 1.25
    margin = (high / low) ** 0.04
    _set_scale(axes, axis, "log", low / margin, high * margin)
    decades = math.log10(high / low)
    subs = (1.0,) if decades > 2 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 5.0) if decades > 0.5 else None
    locator = LogLocator(10, subs=subs, numticks=6 if decades > 2 else 12) if subs else MaxNLocator(4)
    axis.set_major_locator(locator)
    axis.set_major_formatter(FuncFormatter(tick))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def linear_axis(axes: Axes, which: Literal["x", "y"], low: float, high: float, *, whole: bool = False) -> None:
    """Make an axis linear over a range with a small margin, and with few ticks."""
    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    width = high - low if high > low else max(abs(high), 1.0) * 0.1
    _set_scale(axes, axis, "linear", low - 0.04 * width, high + 0.04 * width)
    axis.set_major_locator(MaxNLocator(5, integer=whole))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def ratio_axis(axes: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """Make an axis logarithmic over ratios, with labels at 1/4, 1/2, 1, 2, 4, and between if it is narrow."""
    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    _set_scale(axes, axis, "log", low / 1.04, high * 1.04)
    between = (2 / 3, 0.8, 1.25, 1.5) if high / low <= 5 else ()
    places = sorted([2.0**k for k in range(-6, 7)] + list(between))
    axis.set_major_locator(FixedLocator([place for place in places if low / 1.04 <= place <= high * 1.04]))
    axis.set_major_formatter(
        FuncFormatter(fraction if not between else lambda value, _: f"{value:.2f}".rstrip("0").rstrip("."))
    )
    axis.set_minor_locator(NullLocator())
