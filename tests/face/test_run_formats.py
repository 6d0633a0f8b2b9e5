import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_samples import CONFIG, ENVIRONMENT, candidate
from stub_evaluator import StubEvaluator

from evolion.config import ConfirmationConfig
from evolion.driver import resume
from evolion.errors import RunError
from evolion.evaluators.stages import Reason
from evolion.records import Outcome
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
