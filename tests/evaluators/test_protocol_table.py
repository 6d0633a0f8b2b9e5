"""The file of rows: appended, never lost, never half a line taken for a whole one."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolion.evaluators.protocol.rows import Row, Stage
from evolion.evaluators.protocol.table import Table, TableError, read_rows
from evolion.proxies.score import Status

ROW = Row(
    id="a|b|tuning|0",
    optimizer="a",
    program="k",
    control="",
    task="b",
    family="f",
    task_digest="d",
    parameters=3,
    floor=None,
    stage=Stage.TUNING,
    trial=0,
    unit=(0.1, 0.7),
    learning_rate=0.01,
    shrinkage=1.0,
    weight_decay=2.0,
    horizon=1.0,
    steps=10,
    batch_size=4,
    seed=0,
    status=Status.OK,
    loss=1.5,
    train_loss=1.25,
    start=3.0,
    curve=(3.0, 1.5),
    seconds=0.5,
    slots=2.0,
    operations=15.0,
    numerics="stub",
)

numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    text=st.text(),
    value=numbers,
    unit=st.none() | st.tuples(numbers, numbers),
    status=st.sampled_from(Status),
    stage=st.sampled_from(Stage),
    curve=st.lists(numbers, max_size=20).map(tuple),
    trial=st.none() | st.integers(0, 99),
)
def test_every_bit_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    value: float,
    unit: tuple[float, float] | None,
    status: Status,
    stage: Stage,
    curve: tuple[float, ...],
    trial: int | None,
) -> None:
    """What is scored from the file is what was computed: floats exactly, names with any letters."""
    path = tmp_path_factory.mktemp("table") / "table.jsonl"
    row = replace(ROW, id=text, learning_rate=value, unit=unit, status=status, stage=stage, curve=curve, trial=trial)
    with Table(path) as table:
        table.append([row])
        assert list(table.rows) == [row]
    assert read_rows(path) == (row,)


def some(count: int) -> list[Row]:
    return [replace(ROW, id=str(i), trial=i) for i in range(count)]


def test_no_file_is_an_empty_table(tmp_path: Path) -> None:
    """A comparison that was killed before its first row goes on like any other."""
    assert read_rows(tmp_path / "none") == ()


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    """Wherever a crash cuts the last line, the rows before it stand and the next append begins a new line."""
    path = tmp_path / "table.jsonl"
    with Table(path) as table:
        table.append(some(3))
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole)):
        path.write_bytes(whole[:cut])
        assert read_rows(path) == tuple(some(2)), cut
    with Table(path) as table:
        table.append(some(3)[2:])
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"id": "x"}', "optimizer"),
        (b"", "EOF"),
        (b"\xff\xfe", "line 2"),
        (b"{" * 50, "line 2"),
        (b'[1, 2, "', "line 2"),
    ],
)
def test_another_broken_line_is_named(tmp_path: Path, line: bytes, words: str) -> None:
    """Half a table is never scored in silence: the message names file, line and mend."""
    path = tmp_path / "table.jsonl"
    with Table(path) as table:
        table.append(some(2))
    first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join((first, line, second, b"")))
    with pytest.raises(TableError, match=words) as caught:
        read_rows(path)
    assert f"{path}, line 2" in str(caught.value)
    assert "take it out" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ids_are_unique(tmp_path: Path) -> None:
    """A run counts once: neither the file nor an append may hold it twice, and nothing is written if it does."""
    path = tmp_path / "table.jsonl"
    with Table(path) as table:
        table.append(some(2))
        for rows in (some(1), [*some(3)[2:], *some(3)[2:]]):
            with pytest.raises(ValueError, match="already"):
                table.append(rows)
    assert read_rows(path) == tuple(some(2))
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(TableError, match="line 3: the row '0' stands there twice"):
        read_rows(path)


def test_a_failing_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be kept is taken back, and the table goes on when the disk does."""

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "table.jsonl"
    with Table(path) as table:
        table.append(some(1))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                table.append(some(2)[1:])
        assert read_rows(path) == tuple(some(1))
        table.append(some(2)[1:])
    assert read_rows(path) == tuple(some(2))


def test_a_number_that_is_none_is_not_written(tmp_path: Path) -> None:
    """A row has numbers or None: infinities would read back as something else."""
    path = tmp_path / "table.jsonl"
    with Table(path) as table, pytest.raises(ValueError, match="finite"):
        table.append([replace(ROW, learning_rate=float("inf"))])
    assert read_rows(path) == ()
