"""The page of a run in a browser: on a phone, on a screen, in the dark and on paper. Needs a headless Chromium."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sample_runs import TEXT, table_of, write_run
from stub_evaluator import stub_config

from evolion.run_report import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.chromium,
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason=f"there is no Chromium: set $CHROMIUM, or install {' or '.join(NAMES)}"
    ),
]

WIDTHS = (320, 390, 1280)
PAPER = 687
"""Pixels between the margins of a sheet of A4."""

PROBE = """<script>
const luminance = text => {
  const linear = c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = text.match(/[\\d.]+/g).map(c => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = element => {
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
  return 'rgb(255, 255, 255)';
};
addEventListener('load', () => {
  const root = document.documentElement, wide = [], faint = [];
  for (const e of document.querySelectorAll('body *')) {
    if (!e.closest('svg, .box, pre') && e.getBoundingClientRect().right > root.clientWidth + 1) wide.push(e.tagName);
    if (e.closest('svg') || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [getComputedStyle(e).color, background(e)].map(luminance).sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(e.tagName + ' ' + e.textContent.slice(0, 30));
  }
  document.title = JSON.stringify({
    width: innerWidth, scroll: root.scrollWidth, wide, faint, size: getComputedStyle(document.body).fontSize,
    hidden: [...document.querySelectorAll('details > :not(summary)')].filter(e => !e.checkVisibility()).length,
  });
});
</script>"""


def chromium(*arguments: str, profile: Path) -> str:
    """Run the browser once and return what it prints."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options = ["--hide-scrollbars", "--allow-file-access-from-files", f"--user-data-dir={profile}", *arguments]
    done = subprocess.run(command + options, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def measured(text: str, widths: tuple[int, ...], folder: Path) -> list[dict[str, Any]]:
    """Return what the page says of itself in windows of some widths. A frame can be narrower than a window."""
    (folder / "page.html").write_text(text.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    frames = "".join(f'<iframe src="page.html" style="border:0;width:{w}px;height:844px"></iframe>' for w in widths)
    gather = "addEventListener('load',()=>{document.title=JSON.stringify([...frames].map(f=>f.document.title))})"
    whole = f"<!DOCTYPE html><title></title><body>{frames}<script>const frames=window;{gather}</script>"
    whole = whole.replace("const frames=window;", "const frames=Array.from({length:window.length},(_,i)=>window[i]);")
    (folder / "frames.html").write_text(whole, encoding="utf-8")
    shown = chromium("--dump-dom", (folder / "frames.html").as_uri(), profile=folder / "profile")
    title = re.search(r"<title>(.*?)</title>", shown)
    assert title is not None
    return [json.loads(each) for each in json.loads(html.unescape(title.group(1)))]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run with long names, long lines and many steps."""
    folder = tmp_path_factory.mktemp("chromium") / "a_run_with_a_name_that_has_no_end_and_no_place_to_break_it_anywhere"
    long = "update = lr * m\n" + "".join(f"    x{i} = update * 0.99{i}\n    update = x{i}\n" for i in range(9))
    program = TEXT.format(0.9).replace("update = lr * m\n", long)
    mutation = "a-mutation-with-a-name-that-is-much-too-long-for-any-table-on-a-phone"
    table = table_of({"adamw": 0.002, "a baseline whose name is long": -0.3, "lion": None})
    write_run(folder, 900, text=program, mutation=mutation, table=table, config=stub_config(900))
    return write_report(folder).read_text(encoding="utf-8")


def test_the_page_fits_a_phone_and_a_screen(text: str, tmp_path: Path) -> None:
    """Nobody scrolls sideways to read a sentence, text is of readable size and contrast."""
    for found, width in zip(measured(text, WIDTHS, tmp_path), WIDTHS, strict=True):
        assert (found["width"], found["scroll"], found["wide"]) == (width, width, [])
        assert (found["size"], found["faint"]) == ("16px", [])


def test_measurements_notice_what_is_wrong(text: str, tmp_path: Path) -> None:
    """The other tests would pass on any page if their measurements saw nothing."""
    bad = text.replace("<main>", '<main><div style="width:700px;color:#999">faint</div>')
    (found,) = measured(bad, (390,), tmp_path)
    assert (found["scroll"] > 700, found["wide"], found["faint"]) == (True, ["DIV"], ["DIV faint"])
    assert found["hidden"] > 0


def test_the_page_can_be_read_in_the_dark(text: str, tmp_path: Path) -> None:
    """On a dark page as well every text stands out from what lies behind it."""
    dark = text.replace("@media screen and (prefers-color-scheme:dark)", "@media all")
    assert dark != text
    (found,) = measured(dark, (390,), tmp_path)
    assert (found["scroll"], found["faint"]) == (390, [])


def test_the_page_fits_on_paper(text: str, tmp_path: Path) -> None:
    """On paper nothing can be scrolled or unfolded: tables fit between the margins, and what was folded is shown."""
    (found,) = measured(text.replace("@media print", "@media all"), (PAPER,), tmp_path)
    assert (found["scroll"], found["wide"], found["hidden"]) == (PAPER, [], 0)
    (tmp_path / "plain.html").write_text(text, encoding="utf-8")
    file = tmp_path / "page.pdf"
    uri = (tmp_path / "plain.html").as_uri()
    chromium(f"--print-to-pdf={file}", "--no-pdf-header-footer", uri, profile=tmp_path / "profile")
    pages = len(re.findall(rb"/Type\s*/Page\b", file.read_bytes()))
    assert 4 <= pages <= 30


def test_the_page_can_be_painted(text: str, tmp_path: Path) -> None:
    """The browser gets from the text to a picture of it."""
    (tmp_path / "plain.html").write_text(text, encoding="utf-8")
    picture = tmp_path / "page.png"
    uri = (tmp_path / "plain.html").as_uri()
    chromium(f"--screenshot={picture}", "--window-size=1280,900", uri, profile=tmp_path / "profile")
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") == 1280
    assert len(content) > 20_000
