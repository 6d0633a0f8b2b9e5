import json
import logging
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto import event_pb2

from evolion.evaluators import ray_metrics
from evolion.evaluators.types import PoolStatus
from evolion.progress import Phase, Progress, StageProgress
from evolion.telemetry import Measure, Measurements, measures_of
from evolion.telemetry_log import LogFile, LogView, logging_to
from evolion.telemetry_ray import RaySink
from evolion.telemetry_tensorboard import TensorBoard, tensorboard

PROGRESS = Progress(
    Phase.SEARCH,
    40,
    100,
    20,
    10,
    5,
    7,
    (-1.0, 3.25),
    workers=PoolStatus(4, 3, 2, 2**30, 2**29, deaths=1, wanted=6),
    generated=48,
    invalid=3,
    probed=8,
    stages=(StageProgress("stage 1", "digits-mlp", 100, 22, 9, 4), StageProgress("stage 2", "zipf-lm", None, 9, 8, 1)),
    best_interval=(3.2, 3.3),
    restarts=2,
    mutations=(("insert", 0.75), ("remove", 0.25)),
)


@dataclass
class Clock:
    """A clock that the test sets, in seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Kept:
    """A sink that keeps what it gets."""

    steps: list[int] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)

    def write(self, step: int, measures: list[Measure]) -> None:
        self.steps.append(step)
        self.measures = measures


def test_everything_known_is_measured() -> None:
    """A run tells counts, shares, the best with its interval, workers, memory, stages, restarts and mutations."""
    found = {(m.name, m.label): m.value for m in measures_of(PROGRESS, 12.5, 2**28)}
    expected = {
        ("candidates/told", None): 40,
        ("candidates/per_second", None): 12.5,
        ("share/known_by_key", None): 0.25,
        ("best/value", None): 3.25,
        ("best/low", None): 3.2,
        ("best/high", None): 3.3,
        ("best/stage", None): 2,
        ("workers/busy", None): 2,
        ("workers/wanted", None): 6,
        ("workers/deaths", None): 1,
        ("memory/driver_bytes", None): 2**28,
        ("memory/workers_bytes", None): 2**30,
        ("stage/entered", ("stage", "1")): 22,
        ("stage/passed", ("stage", "2")): 8,
        ("search/restarts", None): 2,
        ("search/mutation_weight", ("mutation", "insert")): 0.75,
    }
    assert expected.items() <= found.items()
    assert len(found) == len(list(measures_of(PROGRESS, 12.5, 2**28)))


def test_what_is_unknown_is_left_out() -> None:
    """Before the first candidate there is no best, no share and no speed: nothing is made up, above all no NaN."""
    names = {measure.name for measure in measures_of(Progress(Phase.SEARCH, 0, 100))}
    assert not [name for name in names if name.startswith(("best/", "share/", "workers/", "memory/", "stage/"))]
    assert "candidates/per_second" not in names
    infinite = replace(PROGRESS, best_fitness=(-1.0, float("inf")))
    assert "best/value" not in {measure.name for measure in measures_of(infinite)}


def test_measured_now_and_then() -> None:
    """A search is measured every ten seconds, while nothing comes too, and at its end; nothing but the search is."""
    sink, clock = Kept(), Clock()
    observer = Measurements(sink, clock=clock, memory=lambda: 0)
    for done in range(101):
        clock.now = done * 0.5
        observer.on_progress(replace(PROGRESS, done=done))
        observer.on_progress(replace(PROGRESS, done=done))
    assert sink.steps == [0, 20, 40, 60, 80, 100]
    assert {m.name: m.value for m in sink.measures}["candidates/per_second"] == pytest.approx(2.0)
    observer.on_progress(Progress(Phase.RETEST, 3, 9))
    clock.now = 70.0
    observer.on_progress(replace(PROGRESS, done=100))
    assert sink.steps[6:] == [100]


def records(folder: Path) -> Iterator[Any]:
    """The events of all files in a folder, in the order of the files."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_event_files_hold_the_curves(tmp_path: Path) -> None:
    """What TensorBoard reads: the version, then a scalar for each measure at the number of candidates told."""
    with tensorboard(tmp_path / "tensorboard") as observer:
        observer.on_progress(PROGRESS)
    version, start, event = records(tmp_path / "tensorboard")
    assert version.file_version == "brain.Event:2"
    assert (start.step, event.step) == (40, 40)
    scalars = {value.tag: value.simple_value for value in event.summary.value}
    assert scalars["best/value"] == 3.25
    assert scalars["stage/entered/1"] == 22
    assert scalars["search/mutation_weight/insert"] == 0.75


def test_resumed_curves_go_on(tmp_path: Path) -> None:
    """A resumed run tells TensorBoard from where on earlier steps do not count; a step is told once."""
    told: dict[int, float] = {}
    for number, steps in enumerate([(10, 20, 30, 40), (25, 35, 45)]):
        clock = Clock(1000.0 * (number + 1))
        writer = TensorBoard(tmp_path, clock)
        for step in steps:
            writer.write(step, [Measure("best/value", float(number), "")])
            writer.write(step, [Measure("best/value", 99.0, "")])
        writer.close()
        writer.close()
    for event in records(tmp_path):
        if event.session_log.status == event_pb2.SessionLog.START:
            told = {step: value for step, value in told.items() if step < event.step}
        for value in event.summary.value:
            told[event.step] = value.simple_value
    assert told == {10: 0.0, 20: 0.0, 25: 1.0, 35: 1.0, 45: 1.0}


def test_nothing_is_written_for_a_run_that_does_not_begin(tmp_path: Path) -> None:
    """A run folder stays empty until the run is there: its event files come with the first candidate."""
    with tensorboard(tmp_path / "run" / "tensorboard"):
        pass
    assert not (tmp_path / "run").exists()


@dataclass
class Metrics:
    """Stands for Ray's metrics."""

    given: list[tuple[str, str, float, dict[str, str]]] = field(default_factory=list)

    def set(self, name: str, value: float, tags: dict[str, str], *, text: str) -> None:
        assert text
        self.given.append(("gauge", name, value, tags))

    def count(self, name: str, value: float, tags: dict[str, str], *, text: str) -> None:
        assert text
        self.given.append(("counter", name, value, tags))


def test_metrics_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Ray each measure is a gauge or a counter named evolion_*, tagged with its run; without Ray there is none."""
    metrics = Metrics()
    sink = RaySink("first", metrics)  # type: ignore[arg-type]
    measures = list(measures_of(PROGRESS))
    monkeypatch.setattr("evolion.telemetry_ray.connected", lambda: False)
    sink.write(40, measures)
    assert metrics.given == []
    monkeypatch.setattr("evolion.telemetry_ray.connected", lambda: True)
    sink.write(40, measures)
    assert ("counter", "evolion_candidates_told", 40, {"run": "first"}) in metrics.given
    assert ("gauge", "evolion_best_value", 3.25, {"run": "first"}) in metrics.given
    assert ("counter", "evolion_stage_entered", 22, {"run": "first", "stage": "1"}) in metrics.given
    assert all(name.replace("_", "").isalnum() for _, name, *_ in metrics.given)


def test_ray_is_not_loaded_to_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without Ray pays nothing for Ray's metrics."""
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert not ray_metrics.connected()
    assert "ray" not in sys.modules


def test_counters_count_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter gets what was added; a number that fell is a new count, as after a restart of the workers."""
    added: list[float] = []

    class Counter:
        def inc(self, value: float, tags: dict[str, str]) -> None:
            added.append(value)

    metrics = ray_metrics.RayMetrics()
    metrics._made["evolion_deaths"] = Counter()
    for value in (0.0, 3.0, 3.0, 5.0, 2.0):
        metrics.count("evolion_deaths", value, {"run": "a"}, text="")
    assert added == [3.0, 2.0, 2.0]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_log_lines_have_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record is an object with the time in UTC, the level, the logger and whatever fields the caller gave."""
    with logging_to(tmp_path / "log.jsonl"):
        log = logging.getLogger("evolion.evaluators.pool")
        log.info("a worker is ready", extra={"worker": 3})
        log.warning("the worker of job %d died", 7, extra={"job": 7, "worker": 3, "path": tmp_path, "_own": 1})
        log.debug("not for a log of days")
    ready, died = lines(tmp_path / "log.jsonl")
    assert ready["time"].endswith("+00:00")
    assert {"level": "info", "message": "a worker is ready", "worker": 3}.items() <= ready.items()
    assert {"level": "warning", "logger": "evolion.evaluators.pool", "job": 7, "worker": 3}.items() <= died.items()
    assert died["path"] == str(tmp_path)
    assert "_own" not in died
    assert capsys.readouterr().err == "evolion: the worker of job 7 died\n"


def test_log_keeps_tracebacks(tmp_path: Path) -> None:
    """An exception that was logged is there in full."""
    with logging_to(tmp_path / "log.jsonl"):
        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("evolion").info("a failure", exc_info=True)
    (line,) = lines(tmp_path / "log.jsonl")
    assert "ValueError: broken" in line["exception"]


def test_log_is_held_back_until_the_run_is_there(tmp_path: Path) -> None:
    """What is logged before the run folder may be written comes first when it may; the order stays."""
    begun = [False]
    with logging_to(tmp_path / "log.jsonl", lambda: begun[0]):
        log = logging.getLogger("evolion.run")
        log.info("one")
        assert not (tmp_path / "log.jsonl").exists()
        begun[0] = True
        log.info("two")
    assert [line["message"] for line in lines(tmp_path / "log.jsonl")] == ["one", "two"]


def test_log_goes_on_and_stays_bounded(tmp_path: Path) -> None:
    """A log is appended to by each process at the run, and never takes more than twice its limit."""
    path = tmp_path / "log.jsonl"
    for process in range(3):
        file = LogFile(path, limit=1000)
        for line in range(30):
            file.write(f"{process} {line} {'x' * 50}\n")
        file.close()
    assert path.stat().st_size <= 1000
    assert (tmp_path / "log.jsonl.1").stat().st_size <= 1000
    assert len(list(tmp_path.iterdir())) == 2
    assert path.read_text().splitlines()[-1].startswith("2 29 ")


def test_log_on_a_full_disk_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the log cannot be written there is one warning, and the run goes on."""
    with logging_to(Path("/dev/full")):
        for number in range(3):
            logging.getLogger("evolion.run").info("line %d", number)
    assert capsys.readouterr().err == (
        "evolion: /dev/full is written no more, the run goes on: [Errno 28] No space left on device\n"
    )


def test_log_tells_phases_bests_and_waiting(tmp_path: Path) -> None:
    """A run of days has a line every five minutes, for each new best, and when its workers are gone or back."""
    clock = Clock()
    view = LogView(clock=clock, memory=lambda: 2**29)
    waiting = PoolStatus(4, waiting="no machine has a free CPU")
    with logging_to(tmp_path / "log.jsonl"):
        for minute in range(11):
            clock.now = 60.0 * minute
            view.on_progress(replace(PROGRESS, done=minute, best_number=7 if minute < 4 else 8))
        clock.now += 1.0
        view.on_progress(replace(PROGRESS, done=11, best_number=8, workers=waiting))
        view.on_progress(replace(PROGRESS, done=11, best_number=8, workers=replace(waiting, waiting="no node")))
        view.on_progress(replace(PROGRESS, done=12, best_number=8))
    found = lines(tmp_path / "log.jsonl")
    assert [line["candidate"] for line in found if "candidate" in line] == [7, 8]
    states = [line for line in found if "phase" in line]
    assert [line["done"] for line in states] == [0, 5, 10, 11, 12]
    assert states[3]["message"].endswith("nothing runs: no machine has a free CPU")
    assert states[1]["driver_bytes"] == 2**29
