"""What a pool makes of what its workers say, without a process: the workers here follow a script."""

import itertools
import time
from dataclasses import replace

import pytest
from laws.evaluator_laws import job, run
from scripted_workers import AS_USUAL, MIB, SCORE, SILENCE, Script, answers

from evolion.evaluators import pool as pool_module
from evolion.evaluators.containment import Assignment
from evolion.evaluators.pool import Limits, PoolEvaluator
from evolion.evaluators.types import PoolStatus, Status
from evolion.evaluators.worker import Answer, Answers, Death, Event


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
