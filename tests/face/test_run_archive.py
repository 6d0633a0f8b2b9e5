"""What quality-diversity and pareto keep is said in the status and on the page of a run."""

from dataclasses import replace
from pathlib import Path

import pytest
from interruptions import begun, short
from sample_runs import write_run
from stub_evaluator import stub_config

from evolion.config import RunConfig
from evolion.run_archive import archive_of
from evolion.run_report import write_report
from evolion.run_status import status_lines, status_of
from evolion.search.registry import ALGORITHMS
from evolion.store import RunStore

KEEPING = ("quality-diversity", "pareto")


def config_of(algorithm: str, *, adapt: bool = False) -> RunConfig:
    config = short(stub_config(120))
    return replace(config, search=replace(config.search, algorithm=algorithm, adapt_mutations=adapt))


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evolion.funnel.interval", lambda told: 20)


def said_of(folder: Path) -> tuple[str, str]:
    with RunStore.open(folder, readonly=True) as run:
        return "\n".join(status_lines(status_of(run))), write_report(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("adapt", [False, True])
def test_coverage_and_score_of_the_cells_are_shown(tmp_path: Path, adapt: bool) -> None:
    """How many kinds of programs a search has found can be followed without any code, also where mutations adapt."""
    folder = begun(config_of("quality-diversity", adapt=adapt), tmp_path / "run", after=None)
    with RunStore.open(folder, readonly=True) as run:
        data = status_of(run)["archive"]
    assert 1 < data["filled"] < data["cells"]
    assert data["coverage"] == data["filled"] / data["cells"]
    assert data["qd_score"] > 0.0
    status, page = said_of(folder)
    assert f"cells       {data['filled']} of {data['cells']} filled, coverage " in status
    assert "QD score" in page
    assert "cells filled" in page


def test_ends_of_the_front_are_shown(tmp_path: Path) -> None:
    """The front has a best in every aim, and a reader learns that time is a count."""
    config = config_of("pareto")
    folder = begun(config, tmp_path / "run", after=None)
    with RunStore.open(folder, readonly=True) as run:
        data = status_of(run)["archive"]
    aims = ["value", *config.search.pareto.objectives]
    assert [end["least"] for end in data["ends"]] == aims
    assert data["ends"][0]["value"] == min(end["value"] for end in data["ends"])
    for name in aims[1:]:
        least = next(end for end in data["ends"] if end["least"] == name)["expenses"][name]
        assert least == min(end["expenses"][name] for end in data["ends"])
    status, page = said_of(folder)
    assert f"front       {data['front']} programs, least value " in status
    assert "Ends of the front" in page
    assert "operations per parameter and step" in page
    assert "none is measured" in page


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name not in KEEPING])
def test_other_searches_keep_none(tmp_path: Path, algorithm: str) -> None:
    """Where there are neither cells nor a front, nothing is said of them."""
    folder = write_run(tmp_path / "run", 20, config=config_of(algorithm), winner=None)
    with RunStore.open(folder) as run:
        run.put_record("checkpoint", {"told": 10, "state": {"filled": [], "living": []}})
        assert archive_of(run) is None


@pytest.mark.parametrize("algorithm", KEEPING)
def test_what_cannot_be_read_is_left_out(tmp_path: Path, algorithm: str) -> None:
    """Neither a run without checkpoint nor one of another version stops its report; an empty archive is one."""
    folder = write_run(tmp_path / "run", 20, config=config_of(algorithm), winner=None)
    with RunStore.open(folder) as run:
        assert archive_of(run) is None
        for odd in (None, [], {"told": 3}, {"told": 3, "state": 7}, {"told": 3, "state": {"filled": 1, "living": 1}}):
            run.put_record("checkpoint", odd)
            assert archive_of(run) is None
        run.put_record("checkpoint", {"told": 3, "state": {}})
        assert archive_of(run) is not None
    assert "after 3 candidates" in said_of(folder)[0]
