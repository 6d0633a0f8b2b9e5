import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from laws.evaluator_laws import EvaluatorLaws, Start, job, run
from laws.job_functions import fixed_tag
from stub_evaluator import StubEvaluator, stub_score

from evolion.evaluators import device_classes
from evolion.evaluators.device_classes import DeviceClasses
from evolion.evaluators.inline import inline_evaluator
from evolion.evaluators.types import Evaluator, Job, PoolStatus, Score


@pytest.fixture
def start() -> Start:
    def start(function: Callable[[Job], Score], *, tag: Callable[[], str] = fixed_tag) -> DeviceClasses:
        return DeviceClasses({name: inline_evaluator(function=function, tag=tag) for name in ("", "other")})

    return start


class TestDeviceClasses(EvaluatorLaws):
    pass


class Timed:
    """Answers each job some seconds after it was submitted, without computing; counts how often it is asked."""

    def __init__(self, seconds: float, numerics: str = "timed") -> None:
        self.seconds, self.numerics, self.workers = seconds, numerics, 1
        self.pending: list[tuple[float, Job]] = []
        self.asked = 0
        self.closed = threading.Event()

    @property
    def status(self) -> PoolStatus:
        return PoolStatus(1, 1, len(self.pending), resident_bytes=5, peak_resident_bytes=7, waiting="for a place")

    def numerics_of(self, device: str) -> str:
        return self.numerics

    def submit(self, job: Job) -> None:
        self.pending.append((time.monotonic() + self.seconds, job))

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        self.asked += 1
        if not self.pending:
            return []
        left = self.pending[0][0] - time.monotonic()
        time.sleep(max(0.0, left if timeout is None else min(left, timeout)))
        done = [item for end, item in self.pending if end <= time.monotonic()]
        self.pending = self.pending[len(done) :]
        return [(item, stub_score(item)) for item in done]

    def close(self) -> None:
        self.closed.set()


def test_the_job_alone_says_who_trains_it() -> None:
    """Scores of a stage come from one class, whoever is free: that keeps a mixed cluster deterministic."""
    classes = {"": StubEvaluator(numerics="cpu"), "gpu": StubEvaluator(numerics="cuda", workers=5)}
    with DeviceClasses(classes) as evaluator:
        assert evaluator.workers == 3 + 5
        assert evaluator.numerics == evaluator.numerics_of("") == "cpu"
        assert evaluator.numerics_of("gpu") == "cuda"
        jobs = [replace(job(number, "digits-mlp"), device="gpu" if number % 3 else "") for number in range(9)]
        assert set(run(evaluator, jobs)) == set(range(9))
    for device, one in classes.items():
        assert [item.number for item in one.seen] == [item.number for item in jobs if item.device == device]
        assert one.closed


def test_a_class_that_is_not_there_is_named() -> None:
    """A job that nobody can train is refused at once."""
    with DeviceClasses({"": StubEvaluator(), "gpu": StubEvaluator()}) as evaluator:
        with pytest.raises(ValueError, match="no workers of class 'tpu': there are '', 'gpu'"):
            evaluator.submit(replace(job(0), device="tpu"))
        with pytest.raises(ValueError, match="no workers of class 'tpu'"):
            evaluator.numerics_of("tpu")
        assert evaluator.collect() == []
    with pytest.raises(ValueError, match="need a default one"):
        DeviceClasses({"gpu": StubEvaluator()})


def test_a_slow_class_holds_up_no_other() -> None:
    """What a fast class has finished is handed over while a slow one is still at work, without asking all the time."""
    slow, fast = Timed(0.6), Timed(0.05)
    with DeviceClasses({"": slow, "fast": fast}) as evaluator:
        evaluator.submit(job(100, "digits-mlp"))
        seen = []
        for number in range(5):
            evaluator.submit(replace(job(number, "digits-mlp"), device="fast"))
            seen += [item.number for item, _ in evaluator.collect()]
        assert seen == [0, 1, 2, 3, 4]
        assert [item.number for item, _ in evaluator.collect()] == [100]
    assert slow.asked < 200


def test_waiting_ends_in_time() -> None:
    """A driver that has other things to do gets control back, whichever classes have jobs."""
    with DeviceClasses({"": Timed(60.0), "other": Timed(60.0)}) as evaluator:
        for device in ("", "other"):
            evaluator.submit(replace(job(len(device), "digits-mlp"), device=device))
            assert evaluator.collect(timeout=0.01) == []
            assert evaluator.collect(timeout=0.0) == []


def test_a_class_that_gives_up_is_not_waited_for() -> None:
    """An evaluator that has jobs and nothing to say is the caller's to judge, not a wait without end."""

    class Silent(Timed):
        def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
            return []

    with DeviceClasses({"": Silent(0.0), "other": Timed(0.0)}) as evaluator:
        evaluator.submit(job(0, "digits-mlp"))
        assert evaluator.collect() == []


def test_a_class_without_jobs_is_looked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers die and its part of the cluster grows while another class is at work; one never used needs nobody."""
    monkeypatch.setattr(device_classes, "_TEND", 0.02)
    working, idle, unused = Timed(0.2), Timed(0.0), Timed(0.0)
    with DeviceClasses({"": working, "idle": idle, "unused": unused}) as evaluator:
        evaluator.submit(replace(job(0, "digits-mlp"), device="idle"))
        evaluator.collect()
        before = idle.asked
        evaluator.submit(job(1, "digits-mlp"))
        assert [item.number for item, _ in evaluator.collect()] == [1]
    assert 2 <= idle.asked - before <= 12
    assert unused.asked == 0


def test_what_classes_say_of_themselves_is_put_together() -> None:
    """A person sees all workers in one line, and which class it is that waits."""
    evaluator = DeviceClasses({"": Timed(1.0), "gpu": Timed(1.0)})
    evaluator.submit(replace(job(0, "digits-mlp"), device="gpu"))
    status = evaluator.status
    assert (status.workers, status.ready, status.busy) == (2, 2, 1)
    assert (status.resident_bytes, status.peak_resident_bytes) == (10, 7)
    assert status.waiting == "for a place; gpu: for a place"


def test_closing_leaves_nothing_open() -> None:
    """A class that fails to close keeps neither the others nor the connection that they share."""

    class Broken(Timed):
        def close(self) -> None:
            raise OSError("broken")

    released = threading.Event()
    others = [Timed(1.0), Timed(1.0)]
    classes: dict[str, Evaluator] = {"": others[0], "broken": Broken(1.0), "last": others[1]}
    evaluator = DeviceClasses(classes, released.set)
    with pytest.raises(OSError, match="broken"):
        evaluator.close()
    assert all(one.closed.is_set() for one in others)
    assert released.is_set()


def test_any_interleaving_gives_the_same_scores() -> None:
    """Which class answers first decides nothing."""
    jobs = [replace(job(number, "digits-mlp"), device=("", "b")[number % 2]) for number in range(40)]
    found = []
    for seed in range(3):
        order = random.Random(seed).sample(jobs, len(jobs))
        with DeviceClasses({"": StubEvaluator(shuffle=seed), "b": StubEvaluator(shuffle=seed + 1)}) as evaluator:
            found.append(run(evaluator, order))
    assert found[0] == found[1] == found[2]
