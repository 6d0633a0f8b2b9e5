"""The page of a run: it says what was found first, needs nothing but itself, and comes out of every run."""

import json
import logging
import re
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from page_reader import Reader
from sample_runs import TEXT, WINNER, program_text, table_of, write_run
from stub_evaluator import stub_config

from evolion.cli import cli
from evolion.errors import RunError
from evolion.pictures.run_page import page
from evolion.pictures.run_words import finding
from evolion.run_history import read_history, spending
from evolion.run_progress import kind_of, learned
from evolion.run_report import attempt_report, material_of, write_report
from evolion.run_watch import WORKERS_RECORD
from evolion.store import RunStore

SECTIONS = ["found", "progress", "funnel", "leaderboard", "lineage", "program", "mutations", "cost", "reproduction"]
HOSTILE = '</pre></style><script>alert(\'1\')</script><img src="https://example.org/x" onerror="alert(2)">&amp;\x07'


def well_formed(text: str) -> Reader:
    """Read a page and check what holds of every one."""
    reader = Reader(text)
    assert not reader.unmatched
    assert not reader.open
    identifiers = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    assert [name for name in identifiers if name in SECTIONS] == SECTIONS
    assert not {tag for tag, _ in reader.elements} & {"script", "link", "img", "iframe", "object", "form", "base"}
    links = [value for _, a in reader.elements for name, value in a.items() if name in {"href", "src", "xlink:href"}]
    assert all(link.startswith("#") and link[1:] in identifiers for link in links)
    assert not [name for _, a in reader.elements for name in a if name.startswith("on")]
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme:dark" in style
    assert "@media print" in style
    boxes = [a for tag, a in reader.elements if tag == "div" and a.get("class") == "box"]
    assert len(boxes) == sum(tag == "table" for tag, _ in reader.elements)
    pictures = [a for tag, a in reader.elements if tag == "svg" and "aria-hidden" not in a]
    assert all(a["role"] == "img" and a["aria-label"] and "width" not in a for a in pictures)
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b", reader.text)
    return reader


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 400 candidates, whose retest found nothing better than AdamW."""
    return write_run(tmp_path_factory.mktemp("finished") / "run", 400)


def test_a_finished_run_has_a_page_that_says_the_answer_first(finished: Path) -> None:
    """The first thing to read is what was found and, where it is not better than the baselines, just that."""
    text = write_report(finished).read_text(encoding="utf-8")
    shown = well_formed(text).text
    answer = "The winner is not shown to be better over all: it is better in 2 of 4 comparisons, and worse in none."
    assert answer in shown
    assert shown.index(answer) < shown.index("Paired differences") < shown.index("Candidates told")
    assert f"{WINNER}, became the winner" in shown
    assert "0.002 (-0.008 to 0.012)" in shown
    assert "workers died: 3" in shown
    assert "quarantine/ab.txt: quarantined: segmentation fault" in shown
    assert f"evolion export {finished} --to optax" in shown


def test_the_page_is_written_whole_and_the_run_is_only_read(finished: Path) -> None:
    """A report can be made of a run that somebody archived: no byte of the database changes, no scrap is left."""
    before = (finished / "run.sqlite").read_bytes()
    with RunStore.open(finished, readonly=True) as store:
        assert material_of(store) == material_of(store)
    write_report(finished)
    assert (finished / "run.sqlite").read_bytes() == before
    assert not [path.name for path in finished.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("differences", "verdict", "begins"),
    [
        ({"adamw": -0.1, "lion": -0.2}, "better", "The winner is better than adamw and lion on"),
        ({"adamw": -0.1, "lion": 0.0}, "mixed", "The winner is not shown to be better over all"),
        ({"adamw": -0.1, "lion": 0.2}, "mixed", "The winner is not shown to be better over all"),
        ({"adamw": 0.1, "lion": 0.0}, "not better", "The winner is not better than the baselines"),
        ({"adamw": 0.0, "lion": None}, "not better", "Nothing shows that the winner is better"),
        ({}, "unknown", "The retest had no baselines"),
    ],
)
def test_better_is_said_only_of_what_is_better_everywhere(
    tmp_path: Path, differences: dict[str, float | None], verdict: str, begins: str
) -> None:
    """One lucky comparison does not make a discovery, and a run that diverged is not counted as beaten."""
    folder = write_run(tmp_path / "run", 120, table=table_of(differences))
    with RunStore.open(folder, readonly=True) as store:
        found, sentence = finding(material_of(store))
    assert (found, sentence[: len(begins)]) == (verdict, begins)


def test_an_unfinished_run_says_how_far_it_is(tmp_path: Path) -> None:
    """Whoever looks on Sunday reads how far it is, and no claim about what is better."""
    folder = write_run(tmp_path / "run", 300, told=260, config=stub_config(500))
    with RunStore.open(folder) as store:
        store.put_record(WORKERS_RECORD, [time.time() + 1, {"deaths": 7}])
    shown = well_formed(write_report(folder).read_text(encoding="utf-8")).text
    assert "The run is not finished: 260 of 500 candidates have been told" in shown
    assert "is not known" in shown
    assert "40 not told yet" in shown
    assert "workers died: 7" in shown
    assert f"evolion resume {folder}" in shown


@pytest.mark.parametrize(("count", "said"), [(0, "Nothing is known yet"), (60, "each of the 60 candidates")])
def test_a_run_without_any_success_has_a_page(tmp_path: Path, count: int, said: str) -> None:
    """A run that has just begun, or in which everything failed, is when a page is wanted most."""
    folder = write_run(tmp_path / "run", count, failing=True, config=stub_config(100))
    shown = well_formed(write_report(folder).read_text(encoding="utf-8")).text
    assert said in shown


FIRST_FORMAT = """
DROP TABLE confirmations;
DROP TABLE IF EXISTS memos;
UPDATE outcomes SET reason = 'ok' WHERE reason IN ('finished', 'hurdle');
ALTER TABLE outcomes RENAME COLUMN reason TO status;
ALTER TABLE outcomes DROP COLUMN value;
ALTER TABLE outcomes DROP COLUMN hurdle;
PRAGMA user_version = 1;
"""


def test_a_run_of_the_first_format_has_a_page(tmp_path: Path) -> None:
    """What an older version wrote is read as it is: no confirmations, values in the fitness alone."""
    folder = write_run(tmp_path / "run", 200)
    connection = sqlite3.connect(folder / "run.sqlite")
    connection.executescript(FIRST_FORMAT)
    connection.close()
    shown = well_formed(write_report(folder).read_text(encoding="utf-8")).text
    assert "Nothing was confirmed, so the noise is not known" in shown
    assert "not confirmed" in shown


def test_whatever_a_run_holds_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    """Names, texts and versions come from files that others wrote: markup within them is text."""
    said = TEXT.format(0.9).replace(":\n", f':\n    """{HOSTILE[:-1]}"""\n', 1)
    config = replace(stub_config(130), search=replace(stub_config(130).search, warm_start=said))
    folder = tmp_path / "<b>run"
    write_run(folder, 130, config=config, text=said, mutation=HOSTILE, table=table_of({HOSTILE: 0.0}))
    with RunStore.open(folder, readonly=True) as store:
        material = replace(material_of(store), environment={HOSTILE: HOSTILE}, costs=((HOSTILE, HOSTILE),))
    shown = well_formed(page(material)).text
    assert shown.count("<script>alert('1')</script>") >= 6
    assert "\x07" not in shown


def test_a_program_of_another_version_is_shown_as_it_is(tmp_path: Path) -> None:
    """A text with functions that this version does not know must not cost the whole page."""
    folder = write_run(tmp_path / "run", 130, text="def train(w, g, lr):\n    return whirl(g)\n")
    shown = well_formed(write_report(folder).read_text(encoding="utf-8")).text
    assert "whirl(g)" in shown
    assert "cannot read the program" in shown


def test_the_size_of_a_page_is_bounded(tmp_path: Path) -> None:
    """A long run has a page for a phone: pictures are thinned, and a lineage of hundreds of steps is compressed."""
    folder = write_run(tmp_path / "run", 5000, winner=4900)
    assert write_report(folder).stat().st_size < 400_000
    with RunStore.open(folder, readonly=True) as store:
        material = material_of(store)
    assert len(material.lineage) <= 100
    assert max(len(material.progress.points.told), len(material.progress.first.told)) <= 700
    assert material.lineage[-1].numbers[-1] == 4900


def test_the_cost_of_a_search_adds_up(finished: Path) -> None:
    """What was spent and what keys, probe and hurdles saved is what all stages of all candidates would have cost."""
    with RunStore.open(finished, readonly=True) as store:
        history = read_history(store)
        stages = store.config.stages
    totals, spent = spending(history)
    from evolion.run_history import training_steps

    full = sum(steps * trainings for steps, trainings in map(training_steps, stages))
    assert spent.trained + spent.known + spent.stopped + spent.hurdles == 400 * full
    assert totals[399] == spent.total
    assert list(totals.values()) == sorted(totals.values())


def test_lineage_and_effects_are_those_of_the_store(finished: Path) -> None:
    """Every candidate of the lineage descends from the one before, and compressed steps keep their numbers."""
    with RunStore.open(finished, readonly=True) as store:
        material = material_of(store)
        parents = {candidate.number: candidate.parent for candidate in store.candidates()}
    numbers = [number for step in material.lineage for number in step.numbers]
    assert (numbers[0], numbers[-1]) == (0, WINNER)
    assert [parents[number] for number in numbers[1:]] == numbers[:-1]


def test_restarts_and_weights_come_from_the_checkpoint(tmp_path: Path) -> None:
    """A search that began anew says so in the picture, and weights that adapted stand in the table."""
    folder = write_run(tmp_path / "run", 200)
    state = {
        "inner": {"restarts": [{"after": 80}, {"after": 150}]},
        "credits": {"weights": [["insert", 3.0], ["delete", 1.0]]},
    }
    with RunStore.open(folder) as store:
        store.event("extended", {"from": 200, "to": 300})
        store.put_record("checkpoint", {"state": state})
        assert learned(store).weights == {"insert": 0.75, "delete": 0.25}
    text = write_report(folder).read_text(encoding="utf-8")
    assert "the search began anew" in well_formed(text).text
    assert "to 300 candidates" in text
    assert "75 %" in text
    for odd in (None, [], {"state": 3}, {"state": {"restarts": 1, "credits": {"weights": [1, ["x"]]}}}):
        with RunStore.open(folder) as store:
            store.put_record("checkpoint", odd)
            assert learned(store).restarts == ()


@pytest.mark.parametrize(
    ("mutation", "kind"),
    [("insert", "insert"), ("crossover 12", "crossover"), ("llm small 3", "llm small"), ("7", "7")],
)
def test_second_parents_do_not_make_kinds_of_mutations(mutation: str, kind: str) -> None:
    """The table of mutations has one row for crossovers, not one for each pair of parents."""
    assert kind_of(mutation) == kind


def test_the_command_writes_where_it_is_told(finished: Path, tmp_path: Path) -> None:
    """The path is printed, for people and for programs; a folder is refused in one line."""
    run = CliRunner().invoke
    done = run(cli, ["report", str(finished), "-o", str(tmp_path / "new" / "page.html"), "--json"])
    assert done.exit_code == 0
    said = json.loads(done.output)
    assert said["bytes"] == Path(said["file"]).stat().st_size
    assert f"wrote {finished / 'report.html'}" in run(cli, ["report", str(finished)]).output
    refused = run(cli, ["report", str(finished), "-o", str(tmp_path)])
    assert "is a folder" in str(refused.exception)


def test_a_report_never_ends_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What goes wrong with a page at the end of a run is a line in the log; asked for by hand it is an error."""
    with pytest.raises(RunError, match="holds no run"):
        write_report(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert attempt_report(tmp_path) is None
    assert "no report was written" in caplog.text
    folder = write_run(tmp_path / "run", 30, told=20, config=stub_config(40))
    (folder / "report.html").mkdir()
    with pytest.raises(RunError, match="cannot write the report"):
        write_report(folder)


def test_the_text_of_sample_runs_is_readable() -> None:
    """The other tests would say little if their programs were none."""
    from evolion.primitives.parser import parse

    assert str(parse(program_text(3))) == program_text(3)
