import re
from dataclasses import replace
from pathlib import Path

import pytest
from page_reader import Reader
from report_samples import SPEEDS, sample

from evolion.evaluators.protocol.report import Estimate
from evolion.pictures.html import page, write_html
from evolion.pictures.material import gather
from evolion.pictures.words import by_kind, findings, missing, number

HOSTILE = "<script>alert('1')</script>&\"</svg>"
ONE, TWO = ("digits-cnn",), ("zipf-lm", "digits-cnn")
MADE = {"Command": "evolion compare adamw lion"}
PRINTED = "optimizer  loss\nadamw      1.2"


def well_formed(text: str) -> Reader:
    """Read a page and check what holds of every page: closed elements, unique identifiers, nothing from outside."""
    reader = Reader(text)
    assert not reader.unmatched
    assert not reader.open
    identifiers = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert not [tag for tag, _ in reader.elements if tag in {"script", "link", "img", "iframe", "object"}]
    links = [value for _, a in reader.elements for name, value in a.items() if name in {"href", "src", "xlink:href"}]
    assert all(link.startswith("#") and link[1:] in identifiers for link in links)
    places = re.findall(r"url\(([^)]*)\)", text)
    assert all(place.startswith("#") and place[1:] in identifiers for place in places)
    assert "://" not in text
    assert "@import" not in text
    assert not [shown for shown in reader.texts if re.search(r"\bnan\b|\binf\b", shown, re.IGNORECASE)]
    return reader


@pytest.fixture(scope="module")
def full() -> str:
    """The page of a comparison of four optimizers on two tasks."""
    return page(*sample(TWO), "A comparison", PRINTED, MADE)


def test_the_page_shows_everything_and_needs_nothing(full: str) -> None:
    """Every optimizer and task is there, and the file can be sent by mail: no script, no address, no file beside it."""
    reader = well_formed(full)
    assert not [name for name in [*SPEEDS, *TWO] if name not in reader.texts]
    assert {"evolion compare adamw lion", "A comparison"} <= set(reader.texts)
    assert "adamw      1.2" in full
    assert len(reader.all_of("table")) == 3 + len(TWO)


def test_every_picture_has_a_caption_and_words_for_those_who_do_not_see_it(full: str) -> None:
    """A picture without them is lost to some readers; panels without a size of their own can be stacked."""
    reader = well_formed(full)
    figures = len(reader.all_of("figure"))
    assert figures == 6 == len(reader.all_of("figcaption"))
    pictures = [a for a in reader.all_of("svg") if "aria-hidden" not in a]
    assert len(pictures) == 1 + 4 * len(TWO) + 2
    assert all(a["role"] == "img" and a["aria-label"] and a["viewbox"] and "width" not in a for a in pictures)


def test_colours_follow_the_page(full: str) -> None:
    """A picture on a dark page has no black lines: every colour that is set within one is the page's variable."""
    styles = [a.get("style", "") for _, a in Reader(full).elements]
    assert not [style for style in styles if re.search(r"#[0-9a-f]{6}", style)]
    used = set(re.findall(r"var\((--c[0-9a-f]{6})\)", full))
    assert all(full.count(f"{name}:") == 2 for name in used)


def test_tables_scroll_within_their_box(full: str) -> None:
    """A wide table does not make the page wider than a phone."""
    assert full.count('<div class="box"') == full.count("<table>")
    assert ".box{overflow-x:auto;max-width:100%" in full
    assert "width=device-width" in full


def test_the_page_is_the_same_every_time(full: str, tmp_path: Path) -> None:
    """The same report gives the same bytes, in a folder that need not exist."""
    write_html(*sample(TWO), tmp_path / "new" / "page.html", "A comparison", PRINTED, MADE)
    assert (tmp_path / "new" / "page.html").read_bytes() == full.encode()


def test_names_are_text_and_nothing_else() -> None:
    """Names of optimizers come from files: markup within them is shown, never obeyed."""
    report, rows = sample((HOSTILE,), {"adamw": 1.0, HOSTILE: 1.2, "#0072b2 url(#x)": 0.9})
    report = replace(report, notes=(HOSTILE, "bell \x07"))
    reader = well_formed(page(report, rows, HOSTILE, HOSTILE, {HOSTILE: HOSTILE}).replace("url(#x)", "url"))
    assert reader.texts.count(HOSTILE) >= 6
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]


@pytest.mark.parametrize(
    ("speeds", "options", "said"),
    [
        ({"adamw": 1.0}, {}, "took part alone"),
        ({"adamw": 0.0, "lion": 0.0}, {}, "A run on a fresh seed diverged"),
        ({"adamw": 1.0, "lion": 0.9}, {"horizons": (), "seeds": 1, "band": None}, "One fresh seed only"),
    ],
)
def test_a_partial_comparison_says_what_is_missing(
    speeds: dict[str, float], options: dict[str, object], said: str
) -> None:
    """A page comes out of every comparison, and tells what it cannot tell."""
    shown = well_formed(page(*sample(ONE, speeds, **options), "Partial")).texts  # type: ignore[arg-type]
    assert any(said in text for text in shown)
    without_ladder = any("has no runs at other horizons" in text for text in shown)
    assert without_ladder == ("horizons" in options or speeds["adamw"] == 0)


def test_nothing_at_all_still_gives_a_page() -> None:
    """A comparison stopped before its first run has a page that says so."""
    report = replace(sample(ONE)[0], cells=(), aggregates=(), profiles=(), reference_profiles=())
    assert "There is no task with a result." in well_formed(page(report, [], "Empty")).texts


@pytest.mark.parametrize(
    ("low", "high", "band", "said"),
    [
        (1.1, 1.3, None, "faster"),
        (1.1, 1.3, (0.9, 1.15), "not resolved"),
        (0.7, 0.9, (0.95, 1.05), "slower"),
        (0.9, 1.2, None, "not resolved"),
        (1.0, 1.2, None, "not resolved"),
    ],
)
def test_a_verdict_needs_an_interval_beyond_chance(
    low: float, high: float, band: tuple[float, float] | None, said: str
) -> None:
    """Faster is said only where the interval lies above 1 and above what renamed copies of the reference reach."""
    report, rows = sample(ONE, {"adamw": 1.0, "lion": 0.9}, band=band)
    changed = replace(report.aggregates[1], speed_up=Estimate((low + high) / 2, low, high))
    material = gather(replace(report, aggregates=(report.aggregates[0], changed)), rows)
    assert [(verdict, name) for verdict, name, _ in findings(material)] == [(said, "lion")]


def test_kinds_of_optimizers_are_ranked_apart() -> None:
    """A matrix rule ahead on small tasks says nothing about the order of element-wise ones; one kind needs none."""
    report, rows = sample(ONE)
    kinds = {"muon": "matrix"}
    aggregates = tuple(replace(a, kind=kinds.get(a.optimizer, "element-wise")) for a in report.aggregates)
    material = gather(replace(report, aggregates=aggregates), rows)
    assert by_kind(material) == ["element-wise: lion (0.92), sgdm (0.55)", "matrix: muon (1.32)"]
    assert by_kind(gather(report, rows)) == []


def test_notes_come_first_among_what_is_missing() -> None:
    """What scoring left out is what a reader has to know before any number."""
    report, rows = sample(ONE)
    assert missing(gather(report, rows))[0] == report.notes[0]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (float("nan"), "diverged"), (float("inf"), "diverged"), (1234.5, "1,234"), (0.1234, "0.123")],
)
def test_numbers_in_tables_are_never_nan(value: float | None, shown: str) -> None:
    """What cannot be computed is a dash or a word."""
    assert number(value) == shown
