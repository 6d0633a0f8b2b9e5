"""What every evaluator keeps to. A test module of an evaluator subclasses the laws and gives the fixture `start`."""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from laws import job_functions
from laws.job_functions import BEHAVIOURS, LARGE, TROUBLE, behave, fixed_tag

from evolion.evaluators import data_lack
from evolion.evaluators.environment import numerics_tag
from evolion.evaluators.inline import inline_evaluator
from evolion.evaluators.pool import Limits
from evolion.evaluators.types import Evaluator, EvaluatorUnavailable, Job, Score, Status
from evolion.evaluators.worker import answer
from evolion.primitives.parser import parse

Start = Callable[..., Any]

SGD = parse("def train(g, lr):\n    update = lr * g\n    return update\n")
MOMENTUM = parse("def train(g, m, lr, *, b1=0.9):\n    m = interp(g, m, b1)\n    return lr * m, m\n")
PATIENT = Limits(start=60.0)
CONTAINED = Limits(start=60.0, memory=50 * 2**20, memory_set_up=50 * 2**20)
REAL_JOBS = tuple(Job(i, program, "digits-mlp", 20, (0,), (0.1, 0.01)) for i, program in enumerate((SGD, MOMENTUM)))


def job(number: int, task: str = "score", *, split: str = "validation") -> Job:
    return Job(number, SGD if number % 2 else MOMENTUM, task, 100, (0, 1), (0.1, 0.01), split)


def run(evaluator: Evaluator, jobs: Iterable[Job]) -> dict[int, Score]:
    """Submit all jobs, collect until nothing is pending; each is answered once."""
    waiting = {}
    for item in jobs:
        waiting[item.number] = item
        evaluator.submit(item)
    scores = {}
    while finished := evaluator.collect():
        for item, score in finished:
            assert waiting.pop(item.number) == item
            scores[item.number] = score
    assert not waiting
    return scores


def gone(process: int) -> bool:
    """Whether a process has ended, within ten seconds."""
    for _ in range(200):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        # A child of another process may stay as a zombie until that one reaps it, once all of its threads have ended.
        state = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        if state == "Z" and len(list(Path(f"/proc/{process}/task").iterdir())) == 1:
            return True
        time.sleep(0.05)
    return False


@cache
def scores_of_this_process() -> tuple[dict[int, Score], str]:
    with inline_evaluator() as evaluator:
        return run(evaluator, REAL_JOBS), evaluator.numerics


class EvaluatorLaws:
    """Laws of the protocol."""

    def test_every_job_is_answered_once_with_its_own_score(self, start: Start) -> None:
        """No job is lost, doubled or mixed up with another, and every score is equal bit for bit to a direct call."""
        jobs = [job(number, "sleep" if number == 3 else "score") for number in range(20)]
        with start(behave) as evaluator:
            assert evaluator.numerics == evaluator.numerics_of("") == fixed_tag()
            assert run(evaluator, jobs) == {item.number: answer(behave, item) for item in jobs}

    def test_jobs_may_be_added_between_collections(self, start: Start) -> None:
        """A search submits while others are in flight."""
        with start(behave) as evaluator:
            seen = []
            for number in range(6):
                evaluator.submit(job(number))
                evaluator.submit(job(100 + number))
                seen += [item.number for item, _ in evaluator.collect()]
            while finished := evaluator.collect():
                seen += [item.number for item, _ in finished]
            assert sorted(seen) == [*range(6), *range(100, 106)]

    def test_failures_are_scores(self, start: Start) -> None:
        """An exception in a job says type and text in its score, equal in every evaluator, and harms no other job."""
        tasks = {1: "fail", 3: "run_out_of_memory", 5: "leave", 7: "diverge"}
        with start(behave) as evaluator:
            scores = run(evaluator, [job(number, tasks.get(number, "score")) for number in range(9)])
        assert {number: (scores[number].status, scores[number].message) for number in tasks} == {
            1: (Status.CRASHED, "ValueError: no score for job 1"),
            3: (Status.CRASHED, "MemoryError: out of memory"),
            5: (Status.CRASHED, "SystemExit: 3"),
            7: (Status.DIVERGED, "training diverged at step 2"),
        }
        assert all(scores[number] == answer(behave, job(number)) for number in range(9) if number not in tasks)

    def test_data_that_cannot_be_had_is_no_score(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program is not blamed for a file that is away: what was scored stands, and the rest waits for the file."""
        monkeypatch.setattr(data_lack, "DATA_PATIENCE", 0.0)
        with start(behave) as evaluator:
            assert set(run(evaluator, [job(number) for number in range(4)])) == set(range(4))
            with pytest.raises(EvaluatorUnavailable, match=r"the data of .*: .*no file"):
                run(evaluator, [job(4, "lack_data")])

    def test_nothing_pending_is_nothing_finished(self, start: Start) -> None:
        """A driver with nothing in flight does not wait."""
        with start(behave) as evaluator:
            assert evaluator.collect() == []
            assert evaluator.collect(timeout=5.0) == []

    def test_a_closed_evaluator_takes_no_jobs(self, start: Start) -> None:
        """A job after the end is an error, not a wait without end; closing again is none."""
        evaluator = start(behave)
        evaluator.submit(job(0, "sleep"))
        evaluator.close()
        evaluator.close()
        with pytest.raises(RuntimeError, match="closed"):
            evaluator.submit(job(1))
        with pytest.raises(RuntimeError, match="closed"):
            evaluator.collect()


class WorkerLaws:
    """Laws of evaluators with worker processes."""

    def test_a_job_that_kills_its_workers_is_given_up(self, start: Start) -> None:
        """A fatal job ends as crashed after two deaths; every other job gets its score."""
        tasks = {2: "end_process", 5: "violate_memory"}
        with start(behave) as evaluator:
            scores = run(evaluator, [job(number, tasks.get(number, "score")) for number in range(8)])
        for number, score in scores.items():
            if number in tasks:
                assert (score.status, score.message) == (Status.CRASHED, "quarantined: killed 2 workers")
            else:
                assert score == answer(behave, job(number))

    def test_batches_lose_nothing_when_a_worker_dies(self, start: Start) -> None:
        """Jobs that travel together share no fate: what dies, hangs or takes too long among them is answered alone."""
        limits = replace(PATIENT, job=0.5, set_up=0.0, batch_seconds=5.0)
        jobs = [job(number, "trouble_by_number") for number in range(90)]
        with start(behave, limits=limits) as evaluator:
            scores = run(evaluator, jobs)
            status = evaluator.status
        assert scores[40].message == "quarantined: killed 2 workers"
        assert [scores[number].status for number in (60, 75)] == [Status.TIMEOUT] * 2
        assert scores[61].message == "ValueError: no score for job 61"
        assert all(scores[item.number] == answer(behave, item) for item in jobs if item.number not in TROUBLE)
        assert (status.timeouts, status.quarantined, status.busy, status.nodes_lost) == (2, 1, 0, 0)
        assert status.deaths >= 2

    def test_the_order_in_which_jobs_end_changes_nothing(self, start: Start) -> None:
        """Jobs of very different lengths overtake each other, in batches and out of them."""
        jobs = [job(number, "sleep" if number % 7 == 0 else "score") for number in range(40)]
        with start(behave) as evaluator:
            forth, back = run(evaluator, jobs), run(evaluator, jobs[::-1])
        assert forth == back == {item.number: answer(behave, item) for item in jobs}

    def test_a_job_whose_worker_dies_once_is_tried_again(self, start: Start, tmp_path: Path) -> None:
        """A worker lost for another reason costs no candidate."""
        item = job(0, "end_process_once", split=str(tmp_path / "mark"))
        with start(behave) as evaluator:
            scores = run(evaluator, [item, job(1)])
        assert scores[0] == answer(BEHAVIOURS["score"], item)

    def test_a_job_whose_data_is_away_for_a_moment_is_tried_again(self, start: Start, tmp_path: Path) -> None:
        """A file system that answers late costs no candidate."""
        item = job(0, "lack_data_once", split=str(tmp_path / "mark"))
        with start(behave) as evaluator:
            scores = run(evaluator, [item, *(job(number) for number in range(1, 9))])
            assert (evaluator.status.deaths, evaluator.status.quarantined) == (0, 0)
        assert scores[0] == answer(BEHAVIOURS["score"], item)
        assert all(scores[number] == answer(behave, job(number)) for number in range(1, 9))

    def test_an_idle_worker_that_dies_is_replaced(self, start: Start, caplog: pytest.LogCaptureFixture) -> None:
        """A worker killed between two jobs costs its replacement alone; the job that finds it dead is not to blame."""
        with start(behave, workers=1) as evaluator:
            process = int(run(evaluator, [job(0, "process_id")])[0].loss or 0)
            for number in (1, 2):
                time.sleep(0.6)
                os.kill(process, 9)
                assert gone(process)
                item = job(number, "process_id")
                process = int(run(evaluator, [item])[number].loss or 0)
            assert (evaluator.status.deaths, evaluator.status.quarantined) == (2, 0)
        # It would be quarantined at the second one.
        assert not any("the job is tried again" in record.message for record in caplog.records)

    def test_a_job_that_hangs_is_timed_out(self, start: Start) -> None:
        """One endless job costs its own time, whatever it does; its worker is gone, the others go on."""
        limits = Limits(job=1.5, set_up=0.0, start=60.0)
        tasks = {1: "hang", 2: "loop_for_ever", 5: "hang_without_signals", 6: "hang_with_the_interpreter"}
        with start(behave, limits=limits) as evaluator:
            scores = run(evaluator, [job(number, tasks.get(number, "score")) for number in range(8)])
            assert (evaluator.status.timeouts, evaluator.status.deaths) == (len(tasks), 0)
        for number, score in scores.items():
            if number in tasks:
                assert (score.status, score.message) == (Status.TIMEOUT, "no answer within 1.5 s")
                assert 1.5 <= score.seconds < 30.0
            else:
                assert score == answer(behave, job(number))

    def test_the_set_up_of_a_worker_is_not_held_against_its_job(self, start: Start) -> None:
        """The first job of a shape loads data and compiles; the limit of a job does not cover that."""
        with start(behave, workers=1, limits=Limits(job=0.05, set_up=60.0, start=60.0)) as evaluator:
            assert run(evaluator, [job(0, "sleep")])[0].status is Status.OK
            assert run(evaluator, [job(1, "sleep")])[1].status is Status.TIMEOUT

    def test_collect_gives_up_waiting_in_time(self, start: Start) -> None:
        """A driver that has other things to do gets control back; the job stays pending."""
        with start(behave, workers=1) as evaluator:
            evaluator.submit(job(0, "sleep"))
            begun = time.monotonic()
            assert evaluator.collect(timeout=0.01) == []
            assert time.monotonic() - begun < 10.0
            assert [item.number for item, _ in evaluator.collect()] == [0]

    def test_no_process_stays_behind(self, start: Start) -> None:
        """Closing ends every worker, one in the middle of a job included."""
        with start(behave) as evaluator:
            processes = {
                int(score.loss or 0) for score in run(evaluator, [job(n, "process_id") for n in range(8)]).values()
            }
            evaluator.submit(job(9, "hang"))
            evaluator.collect(timeout=0.1)
        assert os.getpid() not in processes
        assert all(gone(process) for process in processes)

    @pytest.mark.parametrize(
        ("tag", "message"),
        [
            ("failing_tag", "no worker starts: 3 died in a row while starting, the last with LookupError: no device"),
            ("fatal_tag", "no worker starts: 3 died in a row while starting"),
            ("hanging_tag", r"no worker was ready within 4 s"),
            ("tag_of_its_own", "workers compute with different numerics"),
        ],
    )
    def test_workers_that_cannot_be_used_are_an_error(self, start: Start, tag: str, message: str) -> None:
        """A search on workers that never start, or whose scores cannot be compared, ends in a clear error."""
        limits = Limits(start=4.0 if tag == "hanging_tag" else 60.0)
        evaluator = start(behave, tag=getattr(job_functions, tag), limits=limits)
        with pytest.raises(EvaluatorUnavailable, match=message):
            run(evaluator, (job(number, "sleep") for number in range(200)))

    def test_a_function_must_be_importable(self, start: Start) -> None:
        """A function that exists in the driver alone is refused at once, not in the workers."""
        with pytest.raises(ValueError, match="cannot be imported by a worker"):
            start(lambda item: behave(item))

    def test_no_workers_is_an_error(self, start: Start) -> None:
        """An evaluator without workers would wait for ever."""
        with pytest.raises(ValueError, match="at least 1"):
            start(behave, workers=0)


class LimitLaws:
    """Laws of the limits that workers hold."""

    def test_a_compiled_loop_without_end_is_timed_out(self, start: Start) -> None:
        """What runs inside XLA looks at no signal and no flag; it is ended as any other."""
        with start(behave, workers=1, limits=Limits(job=0.5, set_up=60.0, start=60.0)) as evaluator:
            scores = run(evaluator, [job(number, "loop_in_jax") for number in (0, 1)])
        assert [scores[number].status for number in (0, 1)] == [Status.OK, Status.TIMEOUT]

    def test_a_job_that_takes_too_much_memory_is_ended_alone(self, start: Start) -> None:
        """However a job explodes, it is told from other deaths, early; the others get their scores, and nobody dies."""
        _check_containment(
            start, CONTAINED, "take_in_pieces", "take_at_once", "take_with_the_interpreter", "take_shared"
        )

    @pytest.mark.slow
    def test_a_job_that_takes_too_much_memory_through_jax_is_ended_alone(self, start: Start) -> None:
        """Where jax is refused memory it raises errors of several types; none of them hides the cause."""
        limits = replace(CONTAINED, memory_set_up=400 * 2**20)
        _check_containment(start, limits, "take_through_jax", "take_pieces_through_jax")

    def test_a_death_for_want_of_memory_is_told_from_others(self, start: Start) -> None:
        """A library that ends the process where it gets no memory does not hide the cause."""
        with start(behave, workers=1, limits=CONTAINED) as evaluator:
            scores = run(evaluator, [job(0, "end_process_if_refused"), job(1, "fail")])
        assert scores[0].message == "needed more than 50 MiB of memory"
        assert scores[1].message == "ValueError: no score for job 1"

    def test_a_worker_that_holds_too_much_is_replaced_between_jobs(self, start: Start) -> None:
        """Replacing workers changes no score and is no death: the limit below makes each job's worker a new one."""
        jobs = [job(number, "process_id" if number < 2 else "score") for number in range(4)]
        with start(behave, limits=Limits(start=60.0, recycle=1)) as evaluator:
            scores = run(evaluator, jobs)
            status = evaluator.status
        assert scores[0].loss != scores[1].loss
        assert all(gone(int(scores[number].loss or 0)) for number in (0, 1))
        assert all(scores[number] == answer(behave, jobs[number]) for number in range(2, 4))
        assert (status.recycled, status.deaths, status.timeouts, status.over_memory) == (len(jobs), 0, 0, 0)

    def test_what_the_workers_hold_is_told(self, start: Start) -> None:
        """A person sees how many workers work and what they hold, before, in the midst of and after jobs."""
        with start(behave, limits=Limits(start=60.0, job=2.0, set_up=0.0)) as evaluator:
            assert evaluator.status.workers == evaluator.workers == 2
            assert evaluator.numerics
            run(evaluator, [job(number) for number in range(4)])
            after = evaluator.status
            assert after.busy == 0
            assert 2**20 < after.resident_bytes <= 2 * after.peak_resident_bytes
            evaluator.submit(job(9, "sleep"))
            assert evaluator.status.busy == 1


def _check_containment(start: Start, limits: Limits, *behaviours: str) -> None:
    tasks = {3 * number + 1: behaviour for number, behaviour in enumerate(behaviours)}
    with start(behave, limits=limits) as evaluator:
        scores = run(evaluator, [job(number, tasks.get(number, "score")) for number in range(3 * len(tasks) + 1)])
        status = evaluator.status
    for number, score in scores.items():
        if number in tasks:
            assert (score.status, score.message) == (Status.CRASHED, "needed more than 50 MiB of memory")
        else:
            assert score == answer(behave, job(number))
    assert (status.over_memory, status.deaths, status.timeouts) == (len(tasks), 0, 0)
    assert 0 < status.peak_resident_bytes < LARGE // 2


class RealScoreLaws:
    """Laws of the real function, which takes seconds to compile."""

    def test_real_scores_equal_those_of_the_calling_process(self, start: Start) -> None:
        """A search gives the same result on any evaluator: real scores and their tag are equal bit for bit."""
        from evolion.evaluators.evaluate import evaluate_job

        # One worker: each would compile for itself.
        with start(evaluate_job, tag=numerics_tag, workers=1) as evaluator:
            scores, numerics = run(evaluator, REAL_JOBS), evaluator.numerics
        assert (scores, numerics) == scores_of_this_process()
        assert all(score.status is Status.OK for score in scores.values())
