"""Runs of earlier formats are read as they are, go on to the end that they would have now, and can be forked."""

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from interruptions import begun, exact_score, resumed, short
from run_contents import contents
from run_samples import CONFIG, ENVIRONMENT, candidate
from stub_evaluator import StubEvaluator, stub_config

from evolion.config import ConfirmationConfig
from evolion.config_text import to_toml
from evolion.driver import discover, resume
from evolion.errors import RunError
from evolion.evaluators.stages import Reason
from evolion.fork import fork
from evolion.records import Outcome
from evolion.run_formats import FORMAT
from evolion.run_status import status_of
from evolion.store import RunStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore.create(tmp_path / "run", CONFIG, ENVIRONMENT) as created:
        yield created


FORMAT_1 = """
DROP TABLE confirmations;
UPDATE outcomes SET reason = 'ok' WHERE reason IN ('finished', 'hurdle');
ALTER TABLE outcomes RENAME COLUMN reason TO status;
ALTER TABLE outcomes DROP COLUMN value;
ALTER TABLE outcomes DROP COLUMN hurdle;
PRAGMA user_version = 1;
"""


def in_format_1(store: RunStore) -> bytes:
    """Close a run and make its file one of format 1; return its bytes."""
    store.close()
    connection = sqlite3.connect(store.folder / "run.sqlite")
    connection.executescript(FORMAT_1)
    connection.close()
    return (store.folder / "run.sqlite").read_bytes()


def test_refused_run_keeps_its_bytes(store: RunStore) -> None:
    """A run that cannot be continued here is not brought to a format that the version it began with cannot read."""
    before = in_format_1(store)
    with pytest.raises(RunError, match="other numerics"):
        resume(store.folder, evaluator=StubEvaluator())
    assert (store.folder / "run.sqlite").read_bytes() == before


def test_runs_of_the_first_format_open(store: RunStore) -> None:
    """A run of an earlier version is read as it is, and brought up to date when it is written to."""
    last = len(CONFIG.stages) - 1
    told = [
        Outcome(0, Reason.FINISHED, (-float(last), 1.0), last, False, 1.0),
        Outcome(1, Reason.HURDLE, (-0.0, 2.0), 0, False, 2.0, 1.5),
        Outcome(2, Reason.DEAD, None, None, False),
    ]
    for outcome in told:
        store.add_candidate(candidate(outcome.number))
        store.add_outcome(outcome)
    before = in_format_1(store)
    unknown = [dataclasses.replace(outcome, value=None, hurdle=None) for outcome in told]
    with RunStore.open(store.folder, readonly=True) as reader:
        assert list(reader.outcomes()) == unknown
        assert reader.counts().drops == {(last, Reason.FINISHED): 1, (0, Reason.HURDLE): 1, (None, Reason.DEAD): 1}
    assert (store.folder / "run.sqlite").read_bytes() == before
    for _ in range(2):  # once as it was, once as it was brought up to date
        with RunStore.open(store.folder) as again:
            assert again.config == dataclasses.replace(CONFIG, confirmation=ConfirmationConfig(share=0.0))
    with RunStore.open(store.folder) as again:
        assert list(again.outcomes()) == unknown
        for outcome in told:  # as a resumed driver does
            again.add_outcome(outcome)
        assert list(again.outcomes()) == told
        with pytest.raises(RunError, match="candidate 1"):
            again.add_outcome(dataclasses.replace(told[1], fitness=(9.0,)))


FORMAT_2 = """
DROP TABLE memos;
DELETE FROM records WHERE name = 'checkpoint';
PRAGMA user_version = 2;
"""
MEANT = {
    2: short(stub_config(50)),
    1: dataclasses.replace(short(stub_config(50)), confirmation=ConfirmationConfig(0.0)),
}
"""What runs of these formats do: the first knew no confirmations, so none are made when it goes on."""


@pytest.fixture(autouse=True)
def exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of programs that do the same up to rounding differ in their last digits, and checkpoints are many."""
    monkeypatch.setattr("stub_evaluator.stub_score", exact_score)
    monkeypatch.setattr("evolion.funnel.interval", lambda told: 10)


def earlier(folder: Path, version: int) -> bytes:
    """Make a run one of an earlier format, as that wrote it; return the bytes of its database."""
    with RunStore.open(folder) as store:
        # The configuration of format 1 did not name confirmations.
        config = dataclasses.replace(store.config, confirmation=MEANT[2].confirmation)
        text = to_toml(config, store.environment)
        store.put_config(text)
        (folder / "config.toml").write_text(text)
    connection = sqlite3.connect(folder / "run.sqlite")
    connection.executescript(FORMAT_2 + (FORMAT_1 if version == 1 else ""))
    connection.close()
    return (folder / "run.sqlite").read_bytes()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("after", [3, 25, None])
def test_run_of_an_earlier_format_goes_on_to_the_same_end(tmp_path: Path, version: int, after: int | None) -> None:
    """Read without a byte changed; resumed and interrupted again, or extended, it ends as a run of this format."""
    discover(MEANT[version], tmp_path / "now", evaluator=StubEvaluator())
    small = MEANT[version].search if after else dataclasses.replace(MEANT[version].search, budget=35)
    folder = begun(dataclasses.replace(MEANT[version], search=small), tmp_path / "run", after=after, shuffle=2)
    before = earlier(folder, version)
    with RunStore.open(folder, readonly=True) as reader:
        assert reader.config.confirmation == MEANT[version].confirmation
        assert status_of(reader)
        assert reader.counts().told == len(list(reader.outcomes()))
    assert (folder / "run.sqlite").read_bytes() == before
    assert not resumed(folder, "search.budget=50", after=10)
    assert resumed(folder)
    assert contents(folder) == contents(tmp_path / "now")


@pytest.mark.parametrize("version", [1, 2])
def test_run_of_an_earlier_format_can_be_forked(tmp_path: Path, version: int) -> None:
    """The fork is of this format; the run that it comes from stays as it is."""
    folder = begun(MEANT[version], tmp_path / "run", after=None)
    now = contents(folder)
    before = earlier(folder, version)
    fork(folder, 20, tmp_path / "fork")
    assert (folder / "run.sqlite").read_bytes() == before
    assert resumed(tmp_path / "fork")
    assert contents(tmp_path / "fork") == now


@pytest.mark.parametrize("readonly", [False, True])
def test_newer_format_says_so(store: RunStore, readonly: bool) -> None:
    """One line that says which version is needed, and not a byte is changed."""
    store.close()
    connection = sqlite3.connect(store.folder / "run.sqlite")
    connection.executescript(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()
    before = (store.folder / "run.sqlite").read_bytes()
    with pytest.raises(RunError, match=f"format {FORMAT + 1}; this version reads up to {FORMAT}.*upgrade"):
        RunStore.open(store.folder, readonly=readonly)
    assert (store.folder / "run.sqlite").read_bytes() == before
