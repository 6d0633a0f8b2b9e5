"""What a pool makes of what its workers say, without a process: the workers here follow a script."""

import itertools
import time
from dataclasses import dataclass, field, replace

import pytest
from laws.evaluator_laws import job, run

from evolion.evaluators import pool as pool_module
from evolion.evaluators import staff as staff_module
from evolion.evaluators.containment import Assignment
from evolion.evaluators.pool import Limits, PoolEvaluator
from evolion.evaluators.types import EvaluatorUnavailable, PoolStatus, Score, Status
from evolion.evaluators.worker import Answer, Answers, Death, Event, Placed, Ready

MIB = 2**20
SCORE = Score(Status.OK, 1.0, (), 100, 0.0)
SILENCE = Answers(())
AS_USUAL = None


@dataclass(eq=False)
class Actor:
    """Answers one batch after another from the script of its kind."""

    kind: "Script"
    said: list[Event]
    killed: bool = False
    tasks: set[str] = field(default_factory=set)

    def send(self, assignments: tuple[Assignment, ...]) -> None:
        self.kind.sent += assignments
        self.kind.batches.append([assignment.job.number for assignment in assignments])
        self.kind.users.append(self)
        events = self.kind.events
        task = assignments[0].job.task
        event = events.pop(0) if events else None
        if event is None:
            event = answers(len(assignments), self.kind.seconds, set_up=task not in self.tasks)
        if self.kind.fatal & {assignment.job.number for assignment in assignments}:
            event = Death("abort")
        self.tasks.add(task)
        self.said += [] if event is SILENCE else [event]

    def kill(self) -> None:
        self.killed = True
        self.kind.living.remove(self)


@dataclass
class Script:
    """Workers that hold `resident` when they start, and what becomes of batches in the order in which they are sent."""

    events: list[Event | None] = field(default_factory=list)
    resident: int = MIB
    delay: float = 0.0
    seconds: float = 0.0
    streams: bool = False
    patient: bool = False
    room: int | None = None
    starts: bool = True
    fatal: set[int] = field(default_factory=set)
    numerics: list[str] = field(default_factory=list)
    sent: list[Assignment] = field(default_factory=list)
    batches: list[list[int]] = field(default_factory=list)
    users: list[Actor] = field(default_factory=list)
    started: list[Actor] = field(default_factory=list)
    living: list[Actor] = field(default_factory=list)
    closed: bool = False

    def start(self) -> Actor:
        numerics = self.numerics.pop(0) if self.numerics else "script"
        said: list[Event] = [Placed(), Ready(numerics, self.resident)] if self.starts else []
        self.started.append(Actor(self, said))
        self.living.append(self.started[-1])
        return self.started[-1]

    def wait(self, timeout: float | None) -> list[tuple[Actor, Event]]:
        time.sleep(self.delay)
        return [(worker, worker.said.pop(0)) for worker in self.living if worker.said]

    def wanted(self) -> int | None:
        return self.room

    def diagnose(self) -> str:
        return ": the script has none"

    def close(self) -> None:
        self.closed = True


def answers(jobs: int, seconds: float = 0.0, *, resident: int = MIB, set_up: bool = False) -> Answers:
    return Answers(tuple(Answer(SCORE, resident, resident, seconds=seconds, set_up=set_up) for _ in range(jobs)))


def test_what_a_worker_is_told_with_a_job() -> None:
    """Limits go with the job, to where they can be held; a job that a worker died with is told from others."""
    script = Script([Death("abort")])
    limits = Limits(job=5.0, set_up=7.0, memory=10 * MIB, memory_set_up=20 * MIB, recycle=30 * MIB)
    with PoolEvaluator(script, 1, limits) as pool:
        run(pool, [job(0)])
    told = Assignment(job(0), 10 * MIB, 20 * MIB, False, 5.0, 7.0, 30 * MIB)
    assert script.sent == [told, replace(told, repeated=True)]


def test_batches_grow_to_what_takes_their_time() -> None:
    """The first job of a kind goes alone, and one whose time is not known; then as many as fill the time."""
    script = Script(seconds=0.1)
    with PoolEvaluator(script, 1, Limits(batch_seconds=1.05)) as pool:
        run(pool, [*(job(number) for number in range(22)), *(job(number, "sleep") for number in range(22, 26))])
    assert [len(batch) for batch in script.batches] == [1, 1, 10, 10, 1, 1, 2]
    assert [number for batch in script.batches for number in batch] == list(range(26))


@pytest.mark.parametrize("limits", [Limits(batch_seconds=0.0), Limits(batch_jobs=1)])
def test_batches_can_be_turned_off(limits: Limits) -> None:
    """Jobs go one by one where a user wants that."""
    script = Script(seconds=0.1)
    with PoolEvaluator(script, 1, limits) as pool:
        run(pool, [job(number) for number in range(6)])
    assert script.batches == [[number] for number in range(6)]


def test_what_is_queued_is_spread_over_the_workers() -> None:
    """No worker takes so much that another one finds nothing, and none is left idle for the sake of a batch."""
    script = Script(seconds=0.001)
    with PoolEvaluator(script, 4, Limits()) as pool:
        run(pool, [job(number, "score") for number in range(4 * 2)])
        script.batches.clear()
        run(pool, [job(number, "score") for number in range(40)])
    assert sum(map(len, script.batches)) == 40
    assert max(map(len, script.batches)) == 9
    for number in range(4):
        assert script.batches[number] == [number]  # Submitted while all were idle: not held back.


def test_a_death_in_a_batch_counts_against_none_of_its_jobs() -> None:
    """What was answered stays so; the others are tried again, each alone, and may then share no batch."""
    script = Script([AS_USUAL, AS_USUAL, Death("abort")])
    with PoolEvaluator(script, 1, Limits(recycle=None)) as pool:
        scores = run(pool, [job(number) for number in range(6)])
        assert (pool.status.deaths, pool.status.quarantined) == (1, 0)
    assert script.batches == [[0], [1], [2, 3, 4, 5], [2], [3], [4], [5]]
    assert all(score.status is Status.OK for score in scores.values())


def test_a_job_that_killed_a_worker_alone_is_tried_on_a_fresh_one() -> None:
    """The second try is on a worker that did nothing else, so that nothing else can be the cause of its death."""
    script = Script(fatal={1})
    with PoolEvaluator(script, 2, Limits()) as pool:
        while pool.status.ready < 2:
            pool._step(None)
        scores = run(pool, [job(number) for number in range(4)])
    assert (scores[1].status, scores[1].message) == (Status.CRASHED, "quarantined: killed 2 workers")
    first, second = [index for index, batch in enumerate(script.batches) if batch == [1]]
    assert script.users[first] is not script.users[second]
    assert script.users.index(script.users[second]) == second
    assert [scores[number].status for number in (0, 2, 3)] == [Status.OK] * 3


def test_a_second_try_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no fresh worker can be had, one that has worked will do."""
    monkeypatch.setattr(pool_module, "_FRESH_AFTER", 0.05)
    script = Script([answers(1), Death("abort")])
    with PoolEvaluator(script, 2, Limits()) as pool:
        run(pool, [job(0)])
        while pool.status.ready < 2:
            pool._step(None)
        script.starts = False
        assert all(score.status is Status.OK for score in run(pool, [job(number) for number in range(1, 5)]).values())


def test_workers_lost_with_their_machine_count_against_no_job() -> None:
    """A preemptible cluster takes any number of workers from a job, which is tried until it has a score."""
    script = Script([Death("node gone", innocent=True, node=f"node {number % 3}") for number in range(7)])
    with PoolEvaluator(script, 1, Limits()) as pool:
        assert run(pool, [job(0)])[0].status is Status.OK
        assert (pool.status.nodes_lost, pool.status.deaths, pool.status.quarantined) == (3, 7, 0)


def test_a_job_that_takes_every_machine_down_is_given_up() -> None:
    """Losses of machines count against nobody, but a job is not tried on all the machines of a cluster."""
    losses = [Death("node gone", innocent=True, node=f"node {number}") for number in range(pool_module.LOSSES_ALLOWED)]
    script = Script(losses)
    with PoolEvaluator(script, 1, Limits()) as pool:
        scores = run(pool, [job(1)])
        assert pool.status.quarantined == 1
    assert scores[1].status is Status.CRASHED
    assert scores[1].message == "quarantined: was on 10 machines when they were lost or out of memory"


def test_a_machine_that_is_out_of_memory_blames_no_neighbour() -> None:
    """Ray ends whom it likes: jobs are tried again, each alone, and only one that fails on and on is given up."""
    ended = Death("Ray ended it", innocent=True)
    script = Script([AS_USUAL, AS_USUAL, ended, ended, ended])
    with PoolEvaluator(script, 1, Limits()) as pool:
        assert all(score.status is Status.OK for score in run(pool, [job(number) for number in range(5)]).values())
        assert (pool.status.nodes_lost, pool.status.deaths, pool.status.quarantined) == (0, 3, 0)
        assert script.batches == [[0], [1], [2, 3, 4], [2], [2], [2], [3], [4]]
        script.events = [ended] * pool_module.LOSSES_ALLOWED
        assert run(pool, [job(5)])[5].status is Status.CRASHED


def test_a_pool_without_jobs_looks_after_its_workers() -> None:
    """A class of workers that has nothing to do for hours is ready, and as large as its cluster, when it has."""
    script = Script(room=1)
    with PoolEvaluator(script, 1, Limits()) as pool:
        assert pool.collect(0.0) == []
        assert pool.status.ready == 0  # Who is not needed yet is no error either.
        run(pool, [job(0)])
        script.room = 3
        script.living[0].said.append(Death("abort"))
        for _ in range(4):
            assert pool.collect(0.0) == []
        assert (pool.workers, pool.status.ready, len(script.started)) == (3, 3, 4)


def test_a_pool_that_nobody_asked_for_long_hears_its_workers_first() -> None:
    """Those that were ready in time are not found missing because the driver was busy until the time was over."""
    script = Script()
    with PoolEvaluator(script, 1, Limits(start=0.01)) as pool:
        script.started[0].said = [Ready("script", MIB)]
        time.sleep(0.05)
        assert pool.numerics == "script"


def test_closing_ends_all_workers_whatever_one_says() -> None:
    """One that cannot be ended leaves no other behind, nor what they share."""
    script = Script()
    pool = PoolEvaluator(script, 3, Limits())
    script.living.remove(script.started[1])  # Its end raises ValueError.
    with pytest.raises(ValueError, match="not in list"):
        pool.close()
    assert [actor.killed for actor in script.started] == [True] * 3
    assert script.closed


def test_a_batch_without_an_answer_in_time_is_tried_job_by_job() -> None:
    """Where nobody knows which job of a batch hangs, all are tried again, and the one that hangs costs its own time."""
    script = Script([AS_USUAL, AS_USUAL, SILENCE, AS_USUAL, SILENCE], seconds=0.001, delay=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_module, "_LATE", 0.1)
        with PoolEvaluator(script, 1, Limits(job=0.05, set_up=0.0)) as pool:
            scores = run(pool, [job(number) for number in range(5)])
    assert [scores[number].status for number in range(5)] == [
        Status.OK,
        Status.OK,
        Status.OK,
        Status.TIMEOUT,
        Status.OK,
    ]
    assert script.batches == [[0], [1], [2, 3, 4], [2], [3], [4]]


def test_a_frozen_worker_shows_soon_whatever_the_size_of_its_batch() -> None:
    """A batch may take what its jobs took so far, with much to spare, and one limit: not the limits of all of them."""
    script = Script([AS_USUAL, AS_USUAL, AS_USUAL, SILENCE], seconds=0.001, delay=0.01)
    with PoolEvaluator(script, 1, Limits(job=100.0, set_up=50.0)) as pool:
        run(pool, [job(0), job(1)])
        for number in range(2, 22):
            pool.submit(job(number))
        while len((seat := next(iter(pool._seats))).open) < 19:
            pool._step(None)
        assert seat.deadline is not None
        assert seat.deadline - seat.since == pytest.approx(100.0 + 1.0, abs=1.0)
        seat.deadline = time.monotonic()
        assert not pool._late(seat)
        assert seat.deadline - time.monotonic() == pytest.approx(50.0, abs=1.0)


def test_a_worker_that_streams_names_the_job_that_hangs() -> None:
    """Each answer counts as it comes; the time of the next job begins then, and what follows it is nobody's fault."""
    first = Answers((Answer(SCORE),), done=False)
    script = Script([AS_USUAL, AS_USUAL, first], streams=True, delay=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_module, "_LATE", 0.1)
        with PoolEvaluator(script, 1, Limits(job=0.05, set_up=0.0)) as pool:
            scores = run(pool, [job(number) for number in range(6)])
    assert [number for number, score in scores.items() if score.status is Status.TIMEOUT] == [3]
    assert script.batches == [[0], [1], [2, 3, 4, 5], [4], [5]]


def test_a_pool_follows_the_room_that_there_is() -> None:
    """Workers join while the pool runs, and go when there is room for fewer: those without work first."""
    script = Script(room=2)
    with PoolEvaluator(script, 2, Limits()) as pool:
        for script.room in (2, 5, 3):
            run(pool, [job(number) for number in range(20)])
            assert pool.workers == pool.status.wanted == script.room
            assert len(script.living) <= script.room
        assert len(script.started) == 5


def test_a_pool_that_shrinks_to_nothing_waits_and_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster may be taken away for the night; the run goes on by itself when it is back."""
    monkeypatch.setattr(staff_module, "_SAY_AFTER", 0.02)
    script = Script(delay=0.01, room=1)
    with PoolEvaluator(script, 1, Limits(start=60.0)) as pool:
        assert pool.status.waiting == "no worker is ready yet"
        run(pool, [job(0)])
        assert pool.status.waiting == ""
        script.events, script.starts = [Death("node gone", innocent=True, node="a")], False
        pool.submit(job(1))
        assert pool.collect(timeout=0.6) == []
        assert pool.status.waiting == "all workers are gone, waiting for others: the script has none"
        script.starts = True
        for worker in list(script.living):
            worker.said += [Placed(), Ready("script", MIB)]
        assert [item.number for item, _ in pool.collect()] == [1]
    said = [record.message for record in caplog.records]
    assert sum(message.startswith("all workers are gone") for message in said) == 1
    assert said[-1] == "there are workers again: the run goes on"


def test_a_worker_that_never_gets_ready_is_replaced() -> None:
    """One that has a place and hangs there while it starts would hold it for ever; one without a place may wait."""
    script = Script(delay=0.005)
    with PoolEvaluator(script, 1, Limits(start=0.5)) as pool:
        run(pool, [job(0)])
        script.starts, script.events = False, [Death("abort")]
        pool.submit(job(1))
        assert pool.collect(timeout=0.2) == []
        assert len(script.started) == 2  # It waits for its place.
        script.living[0].said.append(Placed())
        script.starts = True
        assert [item.number for item, _ in pool.collect()] == [1]
    assert len(script.started) == 3


def test_a_worker_that_joins_with_other_numerics_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    """A strange machine that joins at night ends no run; at the start of one it is an error, as a person is there."""
    script = Script([answers(1), Death("abort")], numerics=["script", "strange", "strange", "script"])
    with PoolEvaluator(script, 1, Limits()) as pool:
        assert set(run(pool, [job(number) for number in range(3)])) == {0, 1, 2}
        assert pool.numerics == "script"
    assert sum("computes with other numerics" in record.message for record in caplog.records) == 2
    assert len(script.started) == 4


def test_a_cluster_without_a_node_is_waited_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines that boot take minutes and spot machines may be gone for hours: the run begins when there is one."""
    monkeypatch.setattr(staff_module, "_SAY_AFTER", 0.02)
    script = Script(delay=0.005, patient=True, starts=False)
    with PoolEvaluator(script, 1, Limits(start=0.2)) as pool:
        pool.submit(job(0))
        assert pool.collect(timeout=0.5) == []
        assert pool.status.waiting == "no node has a place for a worker yet, waiting for one: the script has none"
        script.started[0].said = [Placed("node"), Ready("script", MIB)]
        assert [item.number for item, _ in pool.collect()] == [0]
    assert [record.message for record in caplog.records][1:] == ["there are workers now: the run goes on"]


def test_a_cluster_whose_workers_do_not_start_is_an_error() -> None:
    """Who has a place and does not start in time, or dies again and again, will not do so tomorrow either."""
    script = Script(delay=0.005, patient=True, starts=False)
    with PoolEvaluator(script, 1, Limits(start=0.1)) as pool:
        script.started[0].said = [Placed("node")]
        with pytest.raises(EvaluatorUnavailable, match=r"no worker was ready within 0\.1 s: the script has none"):
            assert pool.numerics
    script = Script(patient=True, starts=False)
    with PoolEvaluator(script, 3, Limits()) as pool:
        for actor in script.started:
            actor.said = [Placed("node"), Death("no library")]
        with pytest.raises(EvaluatorUnavailable, match="3 died in a row while starting, the last with no library"):
            assert pool.numerics


def test_workers_with_other_numerics_than_a_run_are_left_where_they_are(caplog: pytest.LogCaptureFixture) -> None:
    """Of a cluster of two kinds of machines a run uses the kind that began it, whichever answers first, and the others
    hold up nothing: no worker is started in their place again, and their places are counted out.
    """
    script = Script(patient=True, room=4, numerics=["strange", "strange", "script", "script"])
    with PoolEvaluator(script, 4, Limits(), "script") as pool:
        assert pool.numerics == "script"
        run(pool, [job(number) for number in range(20)])
        assert (pool.workers, pool.status.ready, len(script.started)) == (2, 2, 4)
        assert {script.started.index(user) for user in script.users} == {2, 3}
        script.started[0].said.append(Death("node gone", innocent=True, node="node"))
        script.room = 3
        run(pool, [job(number) for number in range(20)])
        assert (pool.workers, script.started[0].killed, len(script.started)) == (2, True, 4)
    assert all(actor.killed for actor in script.started)
    (said,) = [record.message for record in caplog.records if "other numerics" in record.message]
    assert said.endswith("is not used: one with [script], another with [strange]")


def test_a_number_of_workers_is_had_beside_those_that_are_not_used() -> None:
    """Who asked for two gets two that can be used, as long as the cluster has places."""
    script = Script(patient=True, numerics=["first", "strange", "first"])
    with PoolEvaluator(script, 2, Limits()) as pool:
        run(pool, [job(number) for number in range(20)])
        assert (pool.numerics, pool.workers, pool.status.ready, len(script.started)) == ("first", 2, 2, 3)


def test_a_cluster_of_other_machines_alone_is_an_error() -> None:
    """A run that was begun elsewhere and finds no machine like that says what it found."""
    script = Script(patient=True, room=2, delay=0.005, numerics=["strange", "other"])
    with PoolEvaluator(script, 2, Limits(start=0.1), "script") as pool:
        script.numerics, script.starts = [], False
        found = r"within 0\.1 s: 2 not used, as they compute with \[other\] and \[strange\] and the run with \[script\]"
        with pytest.raises(EvaluatorUnavailable, match=found):
            assert pool.numerics


def test_clocks_that_jump_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day is set by people and servers, forth and back; no limit and no wait may hang on it."""
    script = Script(delay=0.002)
    jumps = itertools.cycle([1e9, -1e9, 0.0])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(next(jumps) * 1e9))
    with PoolEvaluator(script, 2, Limits(job=60.0, start=60.0)) as pool:
        scores = run(pool, [job(number) for number in range(30)])
        assert pool.collect(timeout=0.01) == []
    assert all(score.status is Status.OK for score in scores.values())
    assert len(script.started) == 2


def test_a_closed_pool_that_never_started_names_the_cause() -> None:
    """Where nothing ever starts a person is waiting for the reason."""
    pool = PoolEvaluator(Script(starts=False, delay=0.005), 1, Limits(start=0.05))
    pool.submit(job(0))
    with pytest.raises(EvaluatorUnavailable, match=r"no worker was ready within 0\.05 s: the script has none"):
        pool.collect()
    with pytest.raises(RuntimeError, match="closed"):
        pool.collect()


def test_a_worker_that_ended_by_its_alarm_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that was busy when the time ran out finds a dead worker: that is no crash, and nothing to try again."""
    monkeypatch.setattr(pool_module, "_LATE", 0.0)
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
    script = Script([answers(1, resident=9 * MIB)] * 3)
    with PoolEvaluator(script, 1, Limits(recycle=8 * MIB)) as pool:
        run(pool, [job(number) for number in range(3)])
    (record,) = caplog.records
    assert record.message.startswith("a worker holds 9 MiB after a single job")
    assert [actor.killed for actor in script.started] == [True] * 4


def test_the_status_counts_what_became_of_workers() -> None:
    """Sums are over living workers, the peak and the counts over all."""
    events: list[Event | None] = [
        Answers((Answer(SCORE, 5 * MIB, 6 * MIB),)),
        Answers((Answer(SCORE, 9 * MIB, 30 * MIB),)),
        Death("segfault"),
        Answers((Answer(SCORE, 4 * MIB, 20 * MIB, exhausted=True),)),
    ]
    with PoolEvaluator(Script(events), 1, Limits(recycle=8 * MIB)) as pool:
        run(pool, [job(number) for number in range(3)])
        status = pool.status
        assert pool.numerics == "script"
    assert status == PoolStatus(
        1, 0, 0, 0, 30 * MIB, recycled=1, deaths=1, over_memory=1, wanted=1, waiting="no worker is ready"
    )
    assert str(status) == (
        "0 of 1 workers busy, 0.0 GiB held, 0.0 GiB at most by one; "
        "1 replaced for what they held, 1 died, 1 over the limit of memory; no worker is ready"
    )
