"""How pictures are drawn: Matplotlib's settings, axes, and files that are the same every time."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from evolion.pictures.looks import GREY, INK, RULE

__all__ = ["fraction", "image", "linear_axis", "log_axis", "ratio_axis", "styled"]

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
