"""The look of a comparison's page: one style sheet for light, dark, paper and narrow screens, and pictures within."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from evolion.pictures.looks import COLOURS, GREY, INK, REFERENCE, RULE, SHADE, Look

__all__ = ["STYLE_SHEET", "inline", "swatch"]

PAPER = "#ffffff"
DARK = {
    PAPER: "#15181c", INK: "#e6e6e6", REFERENCE: "#ffffff", GREY: "#9a9a9a", RULE: "#383d44", SHADE: "#23272d",
    "#0072b2": "#4aa8e0", "#d55e00": "#ff8a3d", "#009e73": "#35c79b", "#cc79a7": "#e39cc4", "#e69f00": "#f0b73c",
    "#56b4e9": "#8fd0f5",
}  # fmt: skip
"""What stands for each colour on a dark page: the same hues, lighter."""


def variable(colour: str) -> str:
    """Return the name of the CSS variable that holds a colour."""
    return f"--c{colour[1:]}"


def _variables(dark: bool) -> str:
    used = (PAPER, INK, REFERENCE, GREY, RULE, SHADE, *COLOURS)
    return "".join(f"{variable(colour)}:{DARK[colour] if dark else colour};" for colour in used)


STYLE_SHEET = (
    f":root{{color-scheme:light dark;{_variables(False)}}}\n"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(True)}}}}}\n"
    """*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1rem;background:var(--cffffff);color:var(--c1a1a1a);
font:1rem/1.5 system-ui,"DejaVu Sans",Verdana,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2}
h2{margin-top:2.5rem;font-size:1.25rem;border-bottom:1px solid var(--cd8d8d8)}
p,li,figcaption{max-width:44rem}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1rem;padding:0;list-style:none}
a{color:var(--c0072b2)}
.findings{padding:0;list-style:none}
.findings li{margin:.6rem 0;padding:.5rem .8rem;border-left:.3rem solid var(--c7a7a7a);background:var(--cececec)}
.findings .faster{border-color:var(--c009e73)}
.findings .slower{border-color:var(--cd55e00)}
.box{overflow-x:auto;max-width:100%;margin:1rem 0}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:left;font-weight:bold;padding:.3rem 0}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--cd8d8d8);text-align:right;white-space:nowrap}
thead th{vertical-align:bottom;white-space:normal;min-width:4.5rem}
th:first-child{text-align:left;position:sticky;left:0;background:var(--cffffff);max-width:11rem;white-space:normal;
overflow-wrap:anywhere}
figure{margin:1.5rem 0}
figcaption{font-size:.9rem}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;padding:0;margin:.4rem 0;list-style:none;font-size:.9rem}
.key svg{width:2.6rem;height:.9rem;vertical-align:middle;margin-right:.4rem}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:.8rem}
.panels svg{display:block;width:100%;height:auto;max-width:34rem}
.panels .wide{max-width:46rem}
.panels svg *{stroke-linejoin:round;stroke-linecap:butt}
pre{overflow-x:auto;font-size:.75rem;overflow-wrap:normal}
dt{font-weight:bold}
dd{margin:0 0 .5rem 0}
.gap{color:var(--c1a1a1a);border-left:.3rem solid var(--ce69f00);padding-left:.6rem}
@media (max-width:30rem){body{padding:.7rem}h1{font-size:1.3rem}th,td{padding:.25rem .4rem}}
@media print{body{max-width:none;font-size:10pt}nav{display:none}figure,.panels svg,tr{break-inside:avoid}
.box,pre{overflow:visible}table{font-size:6.5pt}th,td{padding:.1rem .2rem;white-space:normal}
thead th{min-width:0}th:first-child{position:static}pre{white-space:pre-wrap}}
"""
)


def _local(name: str) -> str:
    """Return a name without its namespace: HTML knows those of SVG by themselves."""
    return name.rsplit("}", 1)[-1]


def _themed(style: str) -> str:
    for colour in DARK:
        style = style.replace(colour, f"var({variable(colour)})")
    return style.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")


def inline(svg: bytes, label: str, prefix: str, *, wide: bool = False) -> str:
    """Return a picture as part of a page: its colours follow the page's, and its identifiers stay its own.

    Args:
        svg: A file that `style.image` made.
        label: What it shows, for those who do not see it.
        prefix: Stands before its identifiers, which would otherwise meet those of the page's other pictures.
        wide: Whether it may take more than a column.

    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in [c for c in parent if _local(c.tag) in ("style", "metadata")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(name): value for name, value in element.attrib.items()}
        for name, value in attributes.items():
            if name == "id":
                attributes[name] = prefix + value
            elif name == "href":
                attributes[name] = value.replace("#", f"#{prefix}", 1)
            elif name == "style":
                attributes[name] = _themed(value)
            if "url(#" in value:
                attributes[name] = attributes[name].replace("url(#", f"url(#{prefix}")
        element.attrib.clear()
        element.attrib.update(attributes)
    view = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"viewBox": view, "role": "img", "aria-label": label, **({"class": "wide"} if wide else {})})
    return ElementTree.tostring(root, encoding="unicode")


SHAPES = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z", "s": "M-4-4H4V4H-4Z", "^": "M0-4.5L4.5 4H-4.5Z",
    "v": "M0 4.5L4.5-4H-4.5Z", "<": "M-4.5 0L4-4.5V4.5Z", ">": "M4.5 0L-4-4.5V4.5Z", "D": "M0-5.2L5.2 0L0 5.2L-5.2 0Z",
    "P": "M-1.6-4.5H1.6V-1.6H4.5V1.6H1.6V4.5H-1.6V1.6H-4.5V-1.6H-1.6Z",
    "X": "M-4.3-2.1L-2.1-4.3L0-2.2L2.1-4.3L4.3-2.1L2.2 0L4.3 2.1L2.1 4.3L0 2.2L-2.1 4.3L-4.3 2.1L-2.2 0Z",
    ".": "M-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0Z",
}  # fmt: skip
"""Markers as paths around the origin."""


def swatch(look: Look, *, line: bool = True) -> str:
    """Return a piece of a line with its marker, or the marker alone, for a legend beside its name."""
    colour, width = f"var({variable(look.colour)})", 0.8 if look.control else 1.8
    dash = f' stroke-dasharray="{" ".join(f"{width * part:g}" for part in look.dash)}"' if look.dash else ""
    stroke = f'<path d="M0 0H42" style="stroke:{colour}" stroke-width="{width}"{dash}/>' if line else ""
    return (
        f'<svg viewBox="0 -7 42 14" aria-hidden="true">{stroke}'
        f'<path d="{SHAPES[look.marker]}" transform="translate(21 0)" style="fill:{colour}"/></svg>'
    )
