"""How many workers a pool has, which, and what it waits for: the workers here follow a script."""

import math
import time

import pytest
from laws.evaluator_laws import job, run
from scripted_workers import MIB, SCORE, Script, answers

from evolion.evaluators import data_lack
from evolion.evaluators import staff as staff_module
from evolion.evaluators.pool import Limits, PoolEvaluator
from evolion.evaluators.types import EvaluatorUnavailable
from evolion.evaluators.worker import Answer, Answers, Death, Placed, Ready


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


def test_workers_without_the_data_are_left_where_they_are(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that lacks a file neither scores nor blames a candidate: what it was handed is for the other nodes."""
    lacking = Answers((Answer(SCORE, MIB, unreadable="no file"),))
    monkeypatch.setattr(staff_module, "_SAY_AFTER", 0.02)
    script = Script([lacking, lacking], delay=0.001, patient=True, room=3)
    with PoolEvaluator(script, 3, Limits(batch_jobs=2)) as pool:
        scores = run(pool, [job(number) for number in range(20)])
        assert set(scores.values()) == {SCORE}
        assert (pool.workers, pool.status.ready, len(script.started)) == (1, 1, 3)
        script.events, script.starts = [lacking], False
        pool.submit(job(20))
        assert pool.collect(timeout=0.5) == []
        waiting = "all workers are gone, waiting for others: 3 not used, as they cannot have the data of score"
        assert pool.status.waiting == waiting
    assert sum("cannot have the data of score and is not used: no file" in r.message for r in caplog.records) == 1
    assert all(actor.killed for actor in script.started)


def test_a_place_without_the_data_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who copies the missing file to a node has its workers back: the run goes on by itself."""
    monkeypatch.setattr(data_lack, "DATA_PATIENCE", 0.2)
    lacking = Answers((Answer(SCORE, MIB, unreadable="no file"),))
    script = Script([answers(1), lacking, lacking], delay=0.001, patient=True, room=2)
    with PoolEvaluator(script, 2, Limits()) as pool:
        run(pool, [job(0)])
        assert set(run(pool, [job(number) for number in range(1, 9)])) == set(range(1, 9))
        until = time.monotonic() + 30.0
        while pool.status.ready < 2 and time.monotonic() < until:
            pool.collect(0.01)
        assert (pool.workers, pool.status.ready, len(script.living)) == (2, 2, 2)


def test_data_that_no_node_has_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster on which nobody has the files gets no machine after the other: a person has to bring them."""
    monkeypatch.setattr(data_lack, "DATA_PATIENCE", 0.2)
    lacking = Answers((Answer(SCORE, MIB, unreadable="no file"),))
    script = Script([lacking] * 100, delay=0.001, patient=True)
    with PoolEvaluator(script, 2, Limits()) as pool:
        pool.submit(job(0))
        with pytest.raises(EvaluatorUnavailable, match="no worker can have the data of score: no file"):
            pool.collect()
    assert len(script.started) < 20


def test_what_a_worker_without_the_data_answered_before_counts() -> None:
    """A batch on several tasks stops at the first whose data is away, and loses nothing of what came before."""
    partly = Answers((Answer(SCORE, MIB), Answer(SCORE, MIB, unreadable="no file")))
    script = Script([answers(1), answers(1), partly], patient=True, room=1)
    with PoolEvaluator(script, 1, Limits(batch_seconds=math.inf, batch_jobs=4)) as pool:
        run(pool, [job(0)])
        for number in range(1, 6):  # the first is handed over at once, the others together
            pool.submit(job(number))
        assert [each.number for each, _ in pool.collect()] == [1]
        script.room = 2
        answered: list[int] = []
        while finished := pool.collect():
            answered += [each.number for each, _ in finished]
    assert answered == [2, 3, 4, 5]
    assert script.batches == [[0], [1], [2, 3, 4, 5], [3], [4, 5]]


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
        one = r"1 not used, as they compute with \[{}\] and the run with \[script\]"
        found = rf"within 0\.1 s: {one.format('other')}; {one.format('strange')}"
        with pytest.raises(EvaluatorUnavailable, match=found):
            assert pool.numerics


def test_a_closed_pool_that_never_started_names_the_cause() -> None:
    """Where nothing ever starts a person is waiting for the reason."""
    pool = PoolEvaluator(Script(starts=False, delay=0.005), 1, Limits(start=0.05))
    pool.submit(job(0))
    with pytest.raises(EvaluatorUnavailable, match=r"no worker was ready within 0\.05 s: the script has none"):
        pool.collect()
    with pytest.raises(RuntimeError, match="closed"):
        pool.collect()
