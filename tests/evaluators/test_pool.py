"""What a pool makes of what its workers say, without a process: the workers here follow a script."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from encoded_programs import chain, slots
from laws.evaluator_laws import job, run

from evolion.evaluators import pool as pool_module
from evolion.evaluators.containment import Assignment
from evolion.evaluators.encoding import INSTRUCTIONS
from evolion.evaluators.pool import Limits, PoolEvaluator
from evolion.evaluators.types import Job, PoolStatus, Score, Status
from evolion.evaluators.worker import Answer, Death, Event, Ready
from evolion.primitives.parser import parse

MIB = 2**20
SCORE = Score(Status.OK, 1.0, (), 100, 0.0)


@dataclass(eq=False)
class Actor:
    """Answers one assignment after another from the script of its kind."""

    kind: "Script"
    said: list[Event]
    killed: bool = False

    def send(self, assignment: Assignment) -> None:
        self.kind.sent.append(assignment)
        self.said.append(self.kind.events.pop(0) if self.kind.events else Answer(SCORE))

    def kill(self) -> None:
        self.killed = True


@dataclass
class Script:
    """Workers that hold `resident` when they start, and what becomes of jobs in the order in which they are sent."""

    events: list[Event] = field(default_factory=list)
    resident: int = MIB
    delay: float = 0.0
    sent: list[Assignment] = field(default_factory=list)
    started: list[Actor] = field(default_factory=list)

    def start(self) -> Actor:
        self.started.append(Actor(self, [Ready("script", self.resident)]))
        return self.started[-1]

    def wait(self, workers: Sequence[Actor], timeout: float | None) -> list[tuple[Actor, Event]]:
        time.sleep(self.delay)
        return [(worker, worker.said.pop(0)) for worker in workers if worker.said]

    def diagnose(self) -> str:
        return ""

    def close(self) -> None: ...


def test_the_first_job_of_a_kind_may_take_more_and_the_second_try_is_told() -> None:
    """What compiles has more time and memory; a worker that died of a job says nothing of why, so its heir looks."""
    script = Script([Answer(SCORE), Answer(SCORE), Death("abort")])
    limits = Limits(job=5.0, set_up=7.0, memory=10 * MIB, memory_set_up=20 * MIB)
    with PoolEvaluator(script, 1, limits) as pool:
        run(pool, [job(number) for number in range(3)])
    assert [(sent.seconds, sent.memory, sent.memory_set_up, sent.repeated) for sent in script.sent] == [
        (12.0, 10 * MIB, 20 * MIB, False),
        (5.0, 10 * MIB, 0, False),
        (5.0, 10 * MIB, 0, False),
        (12.0, 10 * MIB, 20 * MIB, True),
    ]


LOOPS = {
    "few rows": slots(2),
    "many rows": slots(30),
    "full vocabulary": "def train(g):\n    return g / row_sum(g)\n",
    "full vocabulary, many rows": slots(30).replace("    return m29,", "    m0 = m0 / row_sum(g)\n    return m29,"),
    "hess": "def train(g, hess):\n    return g / hess\n",
}


def allowances(programs: Sequence[str]) -> list[float | None]:
    """The time that one worker has for each of these programs, 1 s or, with what it may compile, 101 s."""
    script = Script()
    jobs = [Job(i, parse(text), "score", 100, (0,), (0.1,)) for i, text in enumerate(programs)]
    with PoolEvaluator(script, 1, Limits(job=1.0, set_up=100.0)) as pool:
        run(pool, jobs)
    return [sent.seconds for sent in script.sent]


def test_every_loop_of_the_interpreter_may_be_compiled_once() -> None:
    """Whether a program is in time may not hang on which programs its worker had before: loops compile one by one."""
    texts = list(LOOPS.values())
    assert allowances([*texts, *texts]) == [101.0] * len(texts) + [1.0] * len(texts)


def test_what_cannot_be_interpreted_may_compile_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled program shares its loop with no other; what cannot be encoded fails in the worker, not in the pool."""
    long = [chain(INSTRUCTIONS), chain(INSTRUCTIONS).replace("cos", "sin")]
    assert allowances([slots(2), *long, slots(2)]) == [101.0, 101.0, 101.0, 1.0]

    def fails(_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(pool_module, "loop_of", fails)
    assert allowances([slots(2)]) == [101.0]


def test_a_worker_that_ended_by_its_alarm_is_a_timeout() -> None:
    """A driver that was busy when the time ran out finds a dead worker: that is no crash, and nothing to try again."""
    with PoolEvaluator(Script([Death("SIGALRM")], delay=0.02), 1, Limits(job=0.01, set_up=0.0)) as pool:
        assert run(pool, [job(0)])[0].status is Status.TIMEOUT
        assert (pool.status.timeouts, pool.status.deaths) == (1, 0)


def test_a_limit_that_cannot_be_held_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Where the system does not tell what a process holds, a limit of memory is not silently ignored."""
    with PoolEvaluator(Script(resident=0), 3, Limits(memory=MIB)) as pool:
        run(pool, [job(number) for number in range(6)])
    assert [record.message for record in caplog.records] == [
        "this system does not tell what a process holds: no limit of memory is held"
    ]


def test_replacing_workers_after_each_job_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A limit below what one job leaves behind costs a start for each job; a user should hear of it."""
    script = Script([Answer(SCORE, 9 * MIB, 9 * MIB)] * 3)
    with PoolEvaluator(script, 1, Limits(recycle=8 * MIB)) as pool:
        run(pool, [job(number) for number in range(3)])
    (record,) = caplog.records
    assert record.message.startswith("a worker holds 9 MiB after a single job")
    assert [actor.killed for actor in script.started] == [True] * 4


def test_the_status_counts_what_became_of_workers() -> None:
    """Sums are over living workers, the peak and the counts over all."""
    events: list[Event] = [
        Answer(SCORE, 5 * MIB, 6 * MIB),
        Answer(SCORE, 9 * MIB, 30 * MIB),
        Death("segfault"),
        Answer(SCORE, 4 * MIB, 20 * MIB, exhausted=True),
    ]
    with PoolEvaluator(Script(events), 1, Limits(recycle=8 * MIB)) as pool:
        run(pool, [job(number) for number in range(3)])
        status = pool.status
        assert pool.numerics == "script"
    assert status == PoolStatus(1, 0, 0, 0, 30 * MIB, recycled=1, deaths=1, over_memory=1)
    assert str(status) == (
        "0 of 1 workers busy, 0.0 GiB held, 0.0 GiB at most by one; "
        "1 replaced for what they held, 1 died, 1 over the limit of memory"
    )
