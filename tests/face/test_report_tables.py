"""The report of a comparison in the terminal and as JSON."""

import json
import math

import pytest
from scoring_tables import NOISE, comparison, numbers, reported, row, runs, tuned

from evolion.evaluators.protocol.report import Report
from evolion.evaluators.protocol.rows import Stage
from evolion.evaluators.protocol.scoring import report
from evolion.report_tables import render, to_json

LONG = "a program with a name that is much longer than a column of a table"


def scored(rows: list, **options: object) -> Report:
    return report(rows, reference="adamw", draws=100, **options)  # type: ignore[arg-type]


def full() -> Report:
    """Everything that a report can say at once."""
    rows = comparison({"adamw": 1.0, "lion": 0.8, "muon": 1.5, "sgd": 0.05}, tasks=("lm", "mlp"))
    rows += reported("copy", "lm", [2.02, 2.01], first_seed=20, control="adamw")
    rows += reported(LONG, "lm", [2.1, None, 2.0]) + runs("tiny", "gnn", seconds=0.001) + runs("adamw", "gnn")
    rows += tuned("lion", "lm", [1.0], trial=7, unit=(0.95, 0.02), learning_rate=0.123456, shrinkage=0.03)
    rows += [
        row("lion", "lm", Stage.SENSITIVITY, 0, loss, learning_rate=10.0**-i)
        for i, loss in enumerate((None, 2.2, 2.1, 3.0))
    ]
    kinds = {"adamw": "element-wise", "lion": "element-wise", "muon": "matrix"}
    return scored(rows, missing=("mnist",), kinds=kinds)


def lines(found: Report, beginning: str) -> list[str]:
    return [line for line in render(found).splitlines() if line.strip().startswith(beginning)]


def test_no_line_is_wider_than_a_terminal() -> None:
    """110 columns, whatever the names and the numbers."""
    assert max(map(len, render(full()).splitlines())) <= 110


def test_a_task_that_was_left_out_is_said_under_the_summary_and_first_in_the_notes() -> None:
    """A reader of any part of it must know."""
    text = render(full())
    summary, *_, notes = text.split("\n\n")
    assert "left out, as their data are missing: mnist" in summary
    assert notes.splitlines()[1].strip() == "mnist: left out, its data are missing"


def test_the_summary_ranks_by_speed_up_and_each_kind_apart() -> None:
    """The best first; renamed copies are the band of chance, no rivals."""
    found = full()
    summary = render(found).split("\n\n")[0].splitlines()
    places = [line.split()[0] for line in summary if line.startswith("  ") and "[" in line]
    assert places.index("muon") < places.index("adamw") < places.index("lion") < places.index("sgd")
    assert "copy" not in places
    assert any("chance alone: 1 renamed copy of adamw gave speed-ups from" in line for line in summary)
    assert "  element-wise: 1. adamw, 2. lion" in summary
    assert "  matrix: 1. muon" in summary
    assert "  sgd: 2 of its 2 speed-ups are bounds" in summary


def test_differences_have_a_verdict() -> None:
    """Better, worse, or unresolved: never a bare number to be read as a fact."""
    rows = runs("adamw", "lm") + runs("muon", "lm", 2.0) + runs("sgd", "lm", 0.5)
    rows += reported("noisy", "lm", [2.0 + 10 * e for e in NOISE])
    found = scored(rows)
    for name, verdict in (("muon", "better"), ("sgd", "worse"), ("noisy", "unresolved")):
        assert verdict in lines(found, name)[1]
    assert not any(word in lines(found, "adamw")[1] for word in ("better", "worse", "unresolved"))


def test_what_diverged_or_is_missing_is_said_where_its_loss_would_be() -> None:
    """Neither an infinite number nor an empty cell."""
    found = full()
    told = lines(found, LONG[:15])
    assert any("1 of 3 diverged" in line for line in told)
    assert any("no runs" in line for line in told)
    assert "inf" not in render(found).replace("infinite", "")
    assert "nan" not in render(found)


def test_bounds_and_edges_are_marked() -> None:
    """A bound has its direction, and the star stands on the coordinate that is at its edge."""
    found = full()
    assert any("<0.25" in line for line in lines(found, "sgd"))
    rows = runs("adamw", "lm") + tuned("adamw", "lm", [1.0], trial=7, unit=(0.95, 0.5), learning_rate=0.02)
    (setting,) = (line.split() for line in lines(scored(rows), "adamw") if "20" in line.split())
    assert setting[1:3] == ["0.01*", "1"]
    assert any(note.startswith("* at an edge") for note in map(str.strip, render(scored(rows)).splitlines()))


def test_columns_that_say_nothing_are_left_out() -> None:
    """No sensitivity without sensitivity runs."""
    plain = render(scored(runs("adamw", "lm")))
    assert "sensitivity" not in plain
    assert "sensitivity" in render(full())


def test_small_losses_keep_their_digits() -> None:
    """A loss of 1e-5 is not 0.00."""
    text = render(scored(reported("adamw", "lm", [1.01e-5, 1.03e-5])))
    assert "1.02e-05 ± 1.4e-07" in text


@pytest.mark.parametrize("rows", [runs("adamw", "lm"), reported("adamw", "lm", [None]), tuned("adamw", "lm", [None])])
def test_the_smallest_reports_are_rendered(rows: list) -> None:
    """One optimizer; nothing but a divergence; trials that all diverged."""
    assert render(scored(rows)).startswith("1 task, speed-ups in steps of tuned adamw")


def test_json_holds_all_of_the_report_and_no_infinite_numbers() -> None:
    """Strict readers of JSON refuse Infinity and NaN."""
    found = full()
    data = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert set(data) == set(Report.__dataclass_fields__)
    assert len(data["cells"]) == len(found.cells)
    assert data["cells"][0]["times"].keys() <= {"0.5", "1", "2"}
    assert {cell["verdict"] for cell in data["cells"]} <= {None, "better", "worse", "unresolved"}
    assert all(map(math.isfinite, numbers(data)))
