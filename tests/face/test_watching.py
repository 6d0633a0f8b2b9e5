import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from run_contents import contents
from stub_evaluator import StubEvaluator, stub_config

from evolion.cli import run
from evolion.cli_watch import Watching, observed, watch
from evolion.driver import discover, resume
from evolion.errors import InputError, RunError
from evolion.evaluators.types import Job, PoolStatus, Score
from evolion.progress import Phase, Progress
from evolion.run_status import status_of
from evolion.run_watch import Follower, Seen, WorkersNote, title_of
from evolion.store import RunStore

BUDGET = 50


class Broken:
    """An observer that fails."""

    def on_progress(self, progress: Progress) -> None:
        raise OSError("no space left on device")


@dataclass
class Onlooker:
    """Reads a run from its store while it goes on, and notes what it saw beside what the store counts."""

    folder: Path
    follower: Follower = field(init=False)
    seen: list[tuple[Seen, dict[str, Any]]] = field(default_factory=list)
    told: list[Progress] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.follower = Follower(self.folder)

    def on_progress(self, progress: Progress) -> None:
        self.told.append(progress)

    def look(self) -> None:
        seen = self.follower.read()
        with RunStore.open(self.folder, readonly=True) as store:
            self.seen.append((seen, status_of(store)))


@dataclass
class Looking(StubEvaluator):
    """An evaluator at whose run somebody looks now and then while it works."""

    look: Callable[[], None] = lambda: None
    calls: int = 0

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        self.calls += 1
        if self.calls % 5 == 0:
            self.look()
        return StubEvaluator.collect(self, timeout)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Onlooker]:
    """A finished run and who looked at it."""
    folder = tmp_path_factory.mktemp("watched") / "run"
    onlooker = Onlooker(folder)
    evaluator = Looking(look=onlooker.look)
    discover(stub_config(BUDGET), folder, evaluator=evaluator, observer=onlooker)
    onlooker.look()
    return folder, onlooker


def test_observers_change_no_run(watched: tuple[Path, Onlooker], tmp_path: Path) -> None:
    """A run with a reader at its store is the run of one whose only observer breaks at once."""
    discover(stub_config(BUDGET), tmp_path / "quiet", evaluator=StubEvaluator(), observer=Broken())
    assert contents(watched[0]) == contents(tmp_path / "quiet")


def test_readings_are_what_the_store_counts(watched: tuple[Path, Onlooker], tmp_path: Path) -> None:
    """What is counted from reading to reading is at any time what counting all of the store gives."""
    onlooker = Onlooker(tmp_path / "again")
    with (
        RunStore.open(watched[0], readonly=True) as store,
        RunStore.create(tmp_path / "again", stub_config(BUDGET), {}) as again,
    ):
        for told in range(0, BUDGET + 5, 5):
            for candidate in store.candidates():
                if told - 5 <= candidate.number - 8 < told or (told == 0 and candidate.number < 3):
                    again.add_candidate(candidate)
            for outcome in store.outcomes():
                if told - 5 <= outcome.number < told:
                    again.add_outcome(outcome)
            for confirmation in store.confirmations():
                if told - 5 <= confirmation.number + 8 < told:
                    again.add_confirmation(confirmation)
            onlooker.look()
    assert len({seen.progress.done for seen, _ in onlooker.seen}) == BUDGET // 5 + 1
    for seen, status in (*onlooker.seen, *watched[1].seen):
        check_reading(seen, status)


def check_reading(seen: Seen, status: dict[str, Any]) -> None:
    progress, counts = seen.progress, status["counts"]
    assert progress.done == counts["told"]
    assert progress.generated == counts["generated"]
    assert progress.evaluated == counts["evaluated"]
    assert progress.reused == counts["reused"]
    assert progress.failed == sum(counts["failed"].values())
    assert seen.scores == counts["scores"]
    assert progress.confirmed == status["confirmations"]["confirmed"]
    best = {"number": progress.best_number, "fitness": progress.best_fitness} if progress.best_fitness else None
    assert best == status["best"]
    rows = [(stage.name, stage.task, stage.steps, stage.entered, stage.passed) for stage in progress.stages]
    keys = ("stage", "task", "steps", "entered", "passed")
    assert rows == [tuple(row[key] for key in keys) for row in status["funnel"][1:]]


def test_status_names_the_best_of_all_standings(watched: tuple[Path, Onlooker]) -> None:
    """The best that is found without reading all candidates is the first of all of them in order."""
    with RunStore.open(watched[0], readonly=True) as store:
        best, first = status_of(store)["best"], store.standings()[0]
    assert (best["number"], best["fitness"]) == (first.number, first.fitness)


def test_last_reading_is_what_the_driver_said(watched: tuple[Path, Onlooker]) -> None:
    """From outside and from inside a search looks the same at its end."""
    last = [progress for progress in watched[1].told if progress.phase == "search"][-1]
    seen = watched[1].seen[-1][0]
    assert seen.state == "finished"
    for name in ("done", "total", "evaluated", "reused", "failed", "best_number", "best_fitness", "best_text"):
        assert getattr(seen.progress, name) == getattr(last, name), name
    assert (seen.progress.confirmed, seen.progress.best_interval) == (last.confirmed, last.best_interval)
    assert [(s.entered, s.passed) for s in seen.progress.stages] == [(s.entered, s.passed) for s in last.stages]


def test_best_falls_back_when_confirmations_fail(watched: tuple[Path, Onlooker]) -> None:
    """A reader that remembers few candidates finds the best one though all of those few were confirmed and failed."""
    folder = watched[0]
    follower = Follower(folder)
    follower.read()
    with RunStore.open(folder, readonly=True) as store:
        follower._unconfirmed = follower._unconfirmed[:1]
        follower._unconfirmed[0] = next(s for s in store.standings() if s.confirmed)
        follower._last_confirmed = -1
        follower.read()
        left = [standing.number for standing in store.standings() if not standing.confirmed]
    assert [standing.number for standing in follower._unconfirmed] == left[:64]


def watched_lines(folder: Path, **options: bool) -> list[str]:
    stream = io.StringIO()
    watch(folder, stream, interval=0.0, sleep=never, **options)
    return stream.getvalue().splitlines()


def never(seconds: float) -> None:
    raise AssertionError("a finished run is not waited for")


def test_finished_run_ends_the_watching(watched: tuple[Path, Onlooker]) -> None:
    """Watching a run that is over says so once, with all that it came to, and ends."""
    (line,) = watched_lines(watched[0])
    assert line.startswith(f"{watched[0]}: finished: search {BUDGET}/{BUDGET}, ")
    for part in ("known by key", "failed", "entered the stages", "confirmed", "best", "95% in"):
        assert part in line


def test_json_lines_say_everything(watched: tuple[Path, Onlooker], capsys: pytest.CaptureFixture[str]) -> None:
    """With --json there is one object a line, and the command ends with status 0."""
    assert run(["status", str(watched[0]), "--watch", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert (said["state"], said["told"], said["budget"], said["generated"]) == ("finished", BUDGET, BUDGET, BUDGET)
    assert said["per_second"] is None
    assert [stage["stage"] for stage in said["stages"]] == ["stage 1", "stage 2"]
    assert said["best"]["interval"][0] < said["best"]["fitness"][-1]
    assert abs(said["time"] - time.time()) < 60


def test_watching_in_a_terminal_leaves_the_last_state(watched: tuple[Path, Onlooker]) -> None:
    """In a terminal the view is redrawn in place, and what it showed last stays."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    watch(watched[0], stream, interval=0.0, sleep=never)
    shown = stream.getvalue()
    assert "finished" in shown
    assert f"{BUDGET}/{BUDGET}" in shown
    assert "funnel" in shown
    assert "driver" not in shown  # this process is not the driver


def test_stopped_run_is_watched_until_somebody_ends_it(watched: tuple[Path, Onlooker], tmp_path: Path) -> None:
    """A run that nobody is at is watched on; one whose disk is away for a moment too."""
    folder = tmp_path / "run"
    naps: list[float] = []
    with pytest.raises(InterruptedError):
        discover(stub_config(BUDGET), folder, evaluator=Ending())

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        database = folder / "run.sqlite"
        if len(naps) == 2:
            database.rename(folder / "away")
        if len(naps) == 3:
            (folder / "away").rename(database)
        if len(naps) == 4:
            resume(folder, evaluator=StubEvaluator())

    stream = io.StringIO()
    watch(folder, stream, interval=7.0, sleep=sleep)
    states = [line.split(": ")[1] for line in stream.getvalue().splitlines()]
    assert states == ["stopped", "stopped", "stopped", "finished"]
    assert naps == [7.0] * 4


class Ending(StubEvaluator):
    """An evaluator whose driver is interrupted."""

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        if len(self.seen) > 20:
            raise InterruptedError("stopped")
        return StubEvaluator.collect(self, timeout)


def test_no_run_is_an_error(tmp_path: Path) -> None:
    """Watching a folder without a run is bad usage, not an endless wait."""
    with pytest.raises(RunError, match="holds no run"):
        watch(tmp_path, io.StringIO(), interval=1.0, sleep=never)


def test_interrupt_ends_the_watching_quietly(tmp_path: Path) -> None:
    """Ctrl-C is how a person stops looking: nothing is said and the status is 0."""
    folder = tmp_path / "run"
    with RunStore.create(folder, stub_config(BUDGET), {}):
        pass
    script = "import sys; from evolion.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, "status", str(folder), "--watch", "--interval", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"{folder}: stopped: search 0/{BUDGET}")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "", "")


def test_workers_are_noted_for_others(tmp_path: Path) -> None:
    """What the workers do is in the store every ten seconds, and shown as long as the run goes on, with its age."""
    folder, now = tmp_path / "run", [1e9]
    with RunStore.create(folder, stub_config(BUDGET), {}) as store:
        note, noted = WorkersNote(store, clock=lambda: now[0]), []
        for busy in range(20):
            note.on_progress(Progress(Phase.SEARCH, 0, BUDGET, workers=PoolStatus(40, 30, busy)))
            seen = Follower(folder).read()
            noted.append(seen.noted)
            assert seen.progress.workers is not None
            now[0] += 3.0
        assert sorted(set(noted)) == [1e9 + 12.0 * time for time in range(5)]
        assert seen.progress.workers == PoolStatus(40, 30, 16)
        now[0] = 9e8  # a clock that was set back
        note.on_progress(Progress(Phase.SEARCH, 0, BUDGET, workers=PoolStatus(40, 30, 21)))
        assert Follower(folder).read().noted == 9e8
        assert title_of(folder, seen, 1e9 + 48.0 + 130.0) == f"{folder}: running, workers as of 2 min ago"
    assert Follower(folder).read().progress.workers is None


@dataclass
class Stuck(StubEvaluator):
    """An evaluator that has no worker for a while."""

    waits: int = 3

    @property
    def status(self) -> PoolStatus:
        return PoolStatus(3, waiting="no machine has a free CPU" if self.waits else "")

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        if not self.waits:
            return StubEvaluator.collect(self, timeout)
        if timeout:
            self.waits -= 1
            time.sleep(timeout)
        return []


def test_a_run_that_waits_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While no candidate comes because no worker runs, observers and those outside are told so all the same."""
    monkeypatch.setattr("evolion.ledger._IDLE_SECONDS", 0.01)
    onlooker, outside = Onlooker(tmp_path / "run"), []

    class Outside:
        def on_progress(self, progress: Progress) -> None:
            onlooker.on_progress(progress)
            outside.append(Follower(tmp_path / "run").read().progress.workers)

    discover(stub_config(20), tmp_path / "run", evaluator=Stuck(), observer=Outside())
    reasons = [progress.workers.waiting for progress in onlooker.told if progress.workers]
    assert reasons[:2] == ["no machine has a free CPU"] * 2
    assert reasons[-1] == ""
    assert "no machine has a free CPU" in [workers.waiting for workers in outside if workers]


@pytest.fixture
def shown(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run under everything that shows it."""

    def make(**options: object) -> Path:
        folder = tmp_path / "run"
        with observed(Watching(folder, **options), "search") as observer:  # type: ignore[arg-type]
            discover(stub_config(20), folder, evaluator=StubEvaluator(), observer=observer)
        return folder

    return make


def test_log_lies_in_the_run_folder(shown: Callable[..., Path]) -> None:
    """Every run keeps a log of what began, what was the best when, and how it ended: one JSON object a line."""
    folder = shown()
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    messages = [line["message"] for line in lines]
    assert (messages[0], messages[-1]) == ("search begins", "search is done")
    assert any(message.startswith("new best: ") for message in messages)
    assert {"search", "tuning", "retest"} <= {line["phase"] for line in lines if "phase" in line}
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert not logging.getLogger("evolion").handlers


def test_log_says_how_a_run_ended(tmp_path: Path) -> None:
    """The log of a run that fell has the exception, with its traceback where no message explains it."""
    folder = tmp_path / "run"
    with pytest.raises(InterruptedError), observed(Watching(folder), "search") as observer:
        discover(stub_config(BUDGET), folder, evaluator=Ending(), observer=observer)
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    assert last["message"] == "search stops: InterruptedError: stopped"
    assert "Traceback" in last["exception"]


def test_event_files_lie_where_they_are_wanted(shown: Callable[..., Path], tmp_path: Path) -> None:
    """A run that is to write event files has one file for each process at it."""
    folder = shown(events=tmp_path / "run" / "tensorboard")
    assert len(list((folder / "tensorboard").iterdir())) == 1
    options = Watching.of("run", False, False, None, True, None), Watching.of("run", False, False, None, True, "there")
    assert [watching.events for watching in options] == [Path("run/tensorboard"), Path("there")]


def test_log_elsewhere(shown: Callable[..., Path], tmp_path: Path) -> None:
    """--log puts the log where it is wanted, and a folder that is missing is said before anything starts."""
    folder = shown(log=tmp_path / "elsewhere.jsonl")
    assert (tmp_path / "elsewhere.jsonl").exists()
    assert not (folder / "log.jsonl").exists()
    with (
        pytest.raises(InputError, match="there is no folder"),
        observed(Watching(folder, log=tmp_path / "a" / "b.jsonl"), "search"),
    ):
        pass


def test_refused_folder_gets_no_log(tmp_path: Path) -> None:
    """Where no run begins nothing is left behind: the folder may be somebody else's."""
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError), observed(Watching(tmp_path), "search"):
        raise InputError("taken")
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its extra, --tensorboard says what to install before anything starts."""
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with (
        pytest.raises(InputError, match=r"pip install 'evolion\[tensorboard\]'"),
        observed(Watching(tmp_path / "run", events=tmp_path / "run" / "tensorboard"), "search"),
    ):
        pass
