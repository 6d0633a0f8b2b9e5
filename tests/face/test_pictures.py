import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import SPEEDS, sample

from evolion.evaluators.protocol.report import Estimate, Report, SpeedUp
from evolion.evaluators.protocol.rows import Row
from evolion.pictures import files
from evolion.pictures.curves import u_curves, valley
from evolion.pictures.files import PICTURES, legend, write_pictures
from evolion.pictures.forest import forest, forest_lines
from evolion.pictures.labels import apart
from evolion.pictures.looks import looks, plain
from evolion.pictures.material import gather
from evolion.pictures.speeds import climbed, fitted

SVG = "{http://www.w3.org/2000/svg}"
ONE, TWO = ("digits-cnn",), ("zipf-lm", "digits-cnn")
HOSTILE = "<script>alert(1)</script>"
NAMES = ("forest", "learning-curves", "performance-profiles", "speed-over-horizon", "tuning-curves", "u-curves")


def texts(path: Path) -> list[str]:
    """The texts of an SVG file."""
    found = ElementTree.parse(path).getroot().iter(f"{SVG}text")
    return ["".join(element.itertext()).strip("\u200b ") for element in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SVG files of a comparison of four optimizers on two tasks."""
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(*sample(TWO), folder, ("svg",))
    return folder


def test_every_picture_is_written(folder: Path) -> None:
    """A full report leaves no picture out."""
    assert sorted(path.stem for path in folder.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_name_every_optimizer_and_task_and_no_nan(folder: Path, name: str) -> None:
    """Nobody who took part is missing from a picture, and no number that is none is printed."""
    shown = texts(folder / f"{name}.svg")
    optimizers = [n for n in SPEEDS if n != "adamw"] if name == "forest" else list(SPEEDS)
    tasks = [] if name == "performance-profiles" else list(TWO)
    assert not [name for name in [*optimizers, *tasks] if name not in shown]
    assert not [text for text in shown if "nan" in text.lower() or "inf" in text.lower()]


def test_pictures_are_the_same_bytes_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures can be compared and kept under version control: no date, no random identifiers, no user's settings."""
    monkeypatch.setattr(files, "PICTURES", (forest, u_curves))
    report, rows = sample(ONE, {"adamw": 1.0, "lion": 0.9})
    first = write_pictures(report, rows, tmp_path / "a")
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.hashsalt": None}):
        second = write_pictures(report, rows, tmp_path / "b")
        assert matplotlib.rcParams["font.size"] == 30
    assert [path.name for path in first] == [f"{path.stem}.{form}" for path in first[::2] for form in ("svg", "png")]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    """A format that is not written is an error that names those that are, before anything is written."""
    with pytest.raises(ValueError, match="svg, png and pdf"):
        write_pictures(*sample(), tmp_path / "new", ("svg", "bmp"))
    assert not (tmp_path / "new").exists()


def without_numbers(report: Report) -> Report:
    """A report in which every number of every cell is missing."""
    bare = [
        replace(
            cell, learning_rate=None, shrinkage=None, mean=None, deviation=None, losses=(), difference=None,
            corrected=None, speed_up=None, times={}, sensitivity=None, basin=None, rates=(), tuning=(), curve_steps=(),
            curve=(), seconds=None, slots=None, operations=None,
        )
        for cell in report.cells
    ]  # fmt: skip
    empty = [replace(a, speed_up=None, wall=None, by_family={}, better=None) for a in report.aggregates]
    return replace(report, cells=tuple(bare), aggregates=tuple(empty), profiles=(), reference_profiles=(), band=None)


PARTIAL: dict[str, tuple[Report, list[Row]]] = {
    "one optimizer": sample(ONE, {"adamw": 1.0}),
    "all diverged": sample(ONE, {"adamw": 0.0, "lion": 0.0}),
    "one seed, no horizons": sample(ONE, {"adamw": 1.0, "lion": 0.9}, seeds=1, horizons=(), band=None),
    "no rows": (sample(ONE, {"adamw": 1.0, "lion": 0.9})[0], []),
    "no numbers": (without_numbers(sample(ONE)[0]), []),
    "no cells": (replace(sample(ONE)[0], cells=(), aggregates=(), profiles=(), reference_profiles=()), []),
    "hostile names": sample(("a$b_{c}$\x07\n<",), {"_adamw": 1.0, HOSTILE: 1.2, "名前" * 30: 0.9}),
}


@pytest.mark.parametrize("case", PARTIAL)
def test_partial_reports_give_what_there_is(case: str, tmp_path: Path) -> None:
    """Hours of training are never lost to an exception in a picture; what is written is well-formed."""
    for path in write_pictures(*PARTIAL[case], tmp_path, ("svg",)):
        assert not [text for text in texts(path) if "nan" in text.lower()]


@pytest.mark.parametrize("case", PARTIAL)
def test_pictures_without_content_say_why(case: str) -> None:
    """A reader who misses a picture is told what it lacks."""
    pictures = [make(gather(*PARTIAL[case])) for make in PICTURES]
    assert all(picture.panels or picture.gaps or case == "no cells" for picture in pictures)


def test_optimizers_look_the_same_everywhere_and_different_from_each_other() -> None:
    """Colour, marker and dash are tied to the name; printed without colour, marker or dash still tell them apart."""
    names = [f"o{i}" for i in range(25)]
    found = looks(["adamw", *names, "copy"], "adamw", frozenset({"copy"}))
    assert len({(look.marker, look.dash) for name, look in found.items() if name != "copy"}) == 26
    assert len({(look.colour, look.marker) for look in found.values()}) > 24
    assert found["copy"].control
    assert not found["adamw"].dash


def test_renamed_copies_are_one_entry_of_a_legend() -> None:
    """Sixteen copies of the reference do not crowd out what is compared."""
    report, rows = sample(ONE, {"adamw": 1.0, "lion": 0.9, "copy-1": 1.0, "copy-2": 1.0})
    aggregates = tuple(replace(a, control="adamw" if "copy" in a.optimizer else "") for a in report.aggregates)
    material = gather(replace(report, aggregates=aggregates), rows)
    assert [name for name, _ in legend(material, u_curves(material))] == ["adamw", "lion", "renamed copies"]
    assert material.others == ("lion",)


def test_the_valley_ends_at_the_loss_before_training() -> None:
    """What diverges, or ends above where it began, is no point of the curve but an open marker at its top."""
    cell = sample(ONE)[0].cells[0]
    cell = replace(cell, rates=((1e-1, math.inf), (1e-4, 2.0), (1e-3, 1.5), (1e-2, 7.0), (1.0, math.nan)))
    assert valley(cell, 4.0) == ([(1e-4, 2.0), (1e-3, 1.5)], [1e-2, 1e-1, 1.0])


def test_the_ladder_leaves_out_horizons_on_which_a_seed_diverged() -> None:
    """A mean over the seeds that survived would flatter the reference."""
    report, rows = sample(ONE)
    first = next(i for i, row in enumerate(rows) if row.horizon == 4)
    rows[first] = replace(rows[first], loss=math.inf)
    assert list(climbed(gather(report, rows), ONE[0], "adamw")) == [0.25, 0.5, 1.0, 2.0]


def test_the_ladder_is_drawn_as_speed_ups_are_read_from_it() -> None:
    """Losses of a power law over a known floor lie on the line between the rungs as well, and the line never rises."""
    horizons, losses = fitted({h: [0.5 + h**-0.3] for h in (0.25, 1.0, 4.0)}, 0.5, [1.0])
    assert [0.5 + h**-0.3 for h in horizons] == pytest.approx(losses)
    assert fitted({0.5: [2.0], 1.0: [1.0], 2.0: [1.2]}, None, [1.0])[1][-1] == pytest.approx(1.1)


def test_the_forest_stands_by_family_and_keeps_bounds() -> None:
    """Families head their tasks, all tasks come last, and a censored speed-up keeps its side."""
    report, rows = sample()
    cells = list(report.cells)
    place = next(i for i, cell in enumerate(cells) if (cell.task, cell.optimizer) == ("zipf-lm", "muon"))
    cells[place] = replace(cells[place], speed_up=SpeedUp(Estimate(4.0, 3.0, 4.0), "high"))
    lines = forest_lines(gather(replace(report, cells=tuple(cells)), rows))
    assert [line.label for line in lines] == [
        "transformer", "zipf-lm", "glyph-vit", "convolution", "digits-cnn", "mlp", "teacher", "all tasks",
    ]  # fmt: skip
    assert lines[1].entries["muon"] == (Estimate(4.0, 3.0, 4.0), "high")
    assert set(lines[-1].entries) == {"lion", "sgdm", "muon"}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8).map(sorted), st.floats(0.01, 0.12))
def test_labels_are_moved_apart_in_their_order(places: list[float], gap: float) -> None:
    """Names at the ends of lines never overlap, keep the order of their lines, and stay below the top."""
    moved = apart(places, gap)
    assert len(moved) == len(places)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(moved))
    assert moved[-1] <= 1


@given(st.text())
def test_names_in_pictures_are_short_and_printable(name: str) -> None:
    """XML forbids control characters, and a long name would leave no room for the picture."""
    assert plain(name).isprintable()
    assert len(plain(name)) <= 30


def test_markers_over_the_edge_do_not_move_the_axes() -> None:
    """What is drawn beyond its axes takes no part in the layout, which would otherwise give up on small panels."""
    report, rows = sample(TWO)
    lost = [replace(cell, rates=(*cell.rates, (40 * cell.rates[-1][0], math.inf))) for cell in report.cells]
    material = gather(replace(report, cells=tuple(lost)), rows)
    figure = files.whole(material, u_curves(material))
    free = [line for axes in figure.axes for line in axes.lines if not line.get_clip_on()]
    assert len(free) > 8
    assert not any(line.get_in_layout() for line in free)
