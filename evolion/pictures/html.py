"""The page of a comparison: one file with words, tables and pictures, which needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from evolion.evaluators.protocol.report import Report
from evolion.evaluators.protocol.rows import Row
from evolion.pictures import tables
from evolion.pictures.files import PICTURES, legend, panel_image
from evolion.pictures.material import Material, Picture, gather
from evolion.pictures.page_style import STYLE_SHEET, inline, swatch
from evolion.pictures.words import by_kind, findings, missing

__all__ = ["document", "page", "said", "said_plainly", "write_html"]

NOTHING = '<p class="gap">There is nothing to show.</p>\n'


def said(text: str) -> str:
    """Escape a text that came from outside, without the control characters that neither XML nor readers want."""
    return escape("".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text))


def summary(material: Material) -> str:
    """Return the answer in words: who is how much faster, what is not resolved, and what is missing."""
    found = findings(material)
    items = "".join(
        f'<li class="{verdict.replace(" ", "-")}"><strong>{said(name)}</strong> {said(text)}</li>\n'
        for verdict, name, text in found
    )
    answers = f'<ul class="findings">\n{items}</ul>\n' if found else ""
    control = ""
    if material.report.band is not None:
        low, high = material.report.band
        control = (
            f"<p>Renamed copies of {said(material.report.reference)}, which differ from it by chance alone, reached "
            f"speed-ups of {low:.3g} to {high:.3g}. "
            "Only an interval beyond these and beyond 1 is called faster or slower.</p>\n"
        )
    kinds = by_kind(material)
    ranks = "".join(f"<li>{said(rank)}</li>\n" for rank in kinds)
    apart = (
        f"<p>By what a program works on, as small tasks favour matrix rules:</p>\n<ul>\n{ranks}</ul>\n" if kinds else ""
    )
    gaps = "".join(f"<li>{said(gap)}</li>\n" for gap in missing(material))
    left = f'<h3 id="missing">Left out, or thin</h3>\n<ul>\n{gaps}</ul>\n' if gaps else ""
    return f'<section id="summary"><h2>Summary</h2>\n{answers}{control}{apart}{left}</section>\n'


def figure(material: Material, picture: Picture) -> str:
    """Return a picture with its heading, legend, panels and caption, or what it lacks."""
    gaps = "".join(f'<p class="gap">{said(gap)}</p>\n' for gap in picture.gaps)
    heading = f'<section id="{picture.name}"><h2>{said(picture.title)}</h2>\n'
    if not picture.panels:
        return f"{heading}{gaps or NOTHING}</section>\n"
    names = "".join(f"<li>{swatch(look)}{said(name)}</li>\n" for name, look in legend(material, picture))
    panels = "".join(
        inline(
            panel_image(panel),
            said_plainly(f"{picture.title}: {panel.title}" if panel.title else picture.alt),
            f"{picture.name}-{i}-",
            wide=len(picture.panels) == 1,
        )
        + "\n"
        for i, panel in enumerate(picture.panels)
    )
    return (
        f'{heading}<figure><ul class="key" aria-label="Legend">\n{names}</ul>\n'
        f'<div class="panels" role="group" aria-label="{said(picture.alt)}">\n{panels}</div>\n'
        f"<figcaption>{said(picture.caption)}</figcaption></figure>\n{gaps}</section>\n"
    )


def said_plainly(text: str) -> str:
    """Return a text for an attribute that is escaped later."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def numbers(material: Material) -> str:
    """Return the section of tables."""
    by_task = "".join(tables.task_table(material, task) for task in material.tasks)
    return (
        '<section id="tables"><h2>Tables</h2>\n'
        f"{tables.overall(material)}{by_task}{tables.times(material)}{tables.scores(material)}"
        "<p>Losses are those of the test split at fresh seeds, with the settings that tuning found; differences are "
        "paired by seed, with the reference's loss subtracted. A dash stands for what could not be computed.</p>\n"
        "</section>\n"
    )


def page(
    report: Report, rows: Sequence[Row], title: str, text_table: str = "", details: Mapping[str, str] | None = None
) -> str:
    """Return the page of a comparison. The same arguments give the same text.

    Args:
        report: What the comparison says.
        rows: Its table, for the pictures.
        title: Heading of the page.
        text_table: The table as the command line prints it, shown as it is; empty for none.
        details: How the comparison was made, as terms with what is said of each.

    """
    material = gather(report, rows)
    pictures = [make(material) for make in PICTURES]
    links = [("summary", "Summary"), *((p.name, p.title) for p in pictures), ("tables", "Tables")]
    terms = "".join(f"<dt>{said(name)}</dt><dd>{said(text)}</dd>\n" for name, text in (details or {}).items())
    made = f'<section id="details"><h2>How it was made</h2>\n<dl>\n{terms}</dl></section>\n' if terms else ""
    printed = f"<section><h2>As text</h2>\n<pre>{said(text_table)}</pre></section>\n" if text_table else ""
    body = (
        f"{summary(material)}{''.join(figure(material, picture) for picture in pictures)}{numbers(material)}"
        f"{made}{printed}"
    )
    return document(title, links, body)


def document(title: str, links: Sequence[tuple[str, str]], body: str, *, style: str = "", lead: str = "") -> str:
    """Return a whole page: its heading, the menu, and what is within.

    Args:
        title: Heading.
        links: Identifiers of sections with what the menu calls them.
        body: The sections, as markup.
        style: Style sheet beside the one that all pages have.
        lead: Markup between heading and menu.

    """
    menu = "".join(f'<li><a href="#{name}">{said(text)}</a></li>\n' for name, text in links)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{said(title)}</title>\n<style>\n{STYLE_SHEET}{style}</style>\n</head>\n<body>\n"
        f'<header><h1>{said(title)}</h1>\n{lead}<nav aria-label="Contents"><ul>\n{menu}</ul></nav></header>\n<main>\n'
        f"{body}</main>\n</body>\n</html>\n"
    )


def write_html(
    report: Report,
    rows: Sequence[Row],
    path: Path,
    title: str,
    text_table: str,
    details: Mapping[str, str],
) -> None:
    """Write the page of a comparison (see `page`) to a file, and make its folder if there is none.

    Raises:
        OSError: If the file cannot be written.

    """
    text = page(report, rows, title, text_table, details)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
