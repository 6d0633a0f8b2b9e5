import resource
import time
from collections.abc import Sequence

import pytest
from encoded_programs import chain, slots
from laws.evaluator_laws import job
from laws.job_functions import score

from evolion.evaluators import containment, shapes
from evolion.evaluators.containment import Assignment, Containment
from evolion.evaluators.encoding import INSTRUCTIONS
from evolion.evaluators.types import Job, Score, Status
from evolion.primitives.parser import parse

LIMITED = Assignment(job(0), memory=2**30)


def data_limit_of(item: Job) -> Score:
    return Score(Status.OK, float(resource.getrlimit(resource.RLIMIT_DATA)[0]), (), 0, 0.0)


def test_data_are_limited_during_the_job_alone() -> None:
    """The worker itself, between jobs, has no limit; neither has a job without one."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    contained = Containment(data_limit_of)
    assert (contained.run(LIMITED).score.loss or 0) > 2**30
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert contained.run(Assignment(job(1))).score.loss == before[0]


def test_an_accelerator_may_reserve_what_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver of a GPU asks for far more than it uses; refusing that would end every job."""
    monkeypatch.setattr(containment, "_computes_on_cpu", lambda: False)
    assert Containment(data_limit_of).run(LIMITED).score.loss == resource.getrlimit(resource.RLIMIT_DATA)[0]


def test_an_error_under_a_limit_is_looked_into_once() -> None:
    """An error may stand for refused memory: the job runs again, and what comes then is the answer; else once alone."""
    seen: list[Job] = []

    def fails_first(item: Job) -> Score:
        seen.append(item)
        if len(seen) == 1:
            raise SystemError("no cause given")
        return score(item)

    contained = Containment(fails_first)
    assert contained.run(LIMITED).score == score(job(0))
    assert seen == [job(0), job(0)]
    seen.clear()
    assert contained.run(Assignment(job(0))).score.message == "SystemError: no cause given"
    assert seen == [job(0)]


@pytest.mark.parametrize("memory", [None, 2**30])
def test_no_exception_of_a_job_ends_the_thread_of_jobs(memory: int | None) -> None:
    """Whatever a job raises, the next one is answered."""

    def raises(item: Job) -> Score:
        if item.number == 0:
            raise KeyboardInterrupt
        return score(item)

    contained = Containment(raises)
    assert contained.run(Assignment(job(0), memory)).score.status is Status.CRASHED
    assert contained.run(Assignment(job(1), memory)).score == score(job(1))


def hang(item: Job) -> Score:
    time.sleep(600)
    return score(item)


@pytest.mark.parametrize("memory", [None, 2**30])
def test_a_job_that_takes_too_long_is_told_by_its_worker(memory: int | None) -> None:
    """The worker knows which job of a batch it was; what follows that job is left to another worker."""
    contained = Containment(lambda item: hang(item) if item.number == 2 else score(item))
    batch = [Assignment(job(number), memory, seconds=0.05) for number in range(5)]
    parts = list(contained.run_batch(batch))
    assert [(part.answers[0].overdue, part.done) for part in parts] == [(False, False), (False, False), (True, True)]
    assert parts[0].answers[0].score == score(job(0))
    assert 0.05 <= parts[2].answers[0].seconds < 10.0


def test_a_batch_ends_where_the_worker_holds_too_much() -> None:
    """A worker that is to be replaced takes no more jobs; the last of a batch says that it is."""
    batch = [Assignment(job(number), recycle=2**50 if number < 2 else 1) for number in range(5)]
    assert [part.done for part in Containment(score).run_batch(batch)] == [False, False, True]
    assert [part.done for part in Containment(score).run_batch(batch[:2])] == [False, True]


LOOPS = {
    "few rows": slots(2),
    "many rows": slots(30),
    "full vocabulary": "def train(g):\n    return g / row_sum(g)\n",
    "full vocabulary, many rows": slots(30).replace("    return m29,", "    m0 = m0 / row_sum(g)\n    return m29,"),
    "hess": "def train(g, hess):\n    return g / hess\n",
}


def set_ups(programs: Sequence[str]) -> list[bool]:
    """Whether a worker is allowed a set-up for each of these programs."""
    contained = Containment(score)
    jobs = [Job(i, parse(text), "score", 100, (0,), (0.1,)) for i, text in enumerate(programs)]
    answers = [contained.run(Assignment(item, seconds=60.0, set_up=60.0)) for item in jobs]
    assert all(answer.shape is None for answer in answers if not answer.set_up)
    return [answer.set_up for answer in answers]


def test_every_loop_of_the_interpreter_may_be_compiled_once() -> None:
    """Whether a program is in time may not hang on which programs its worker had before: loops compile one by one."""
    texts = list(LOOPS.values())
    assert set_ups([*texts, *texts]) == [True] * len(texts) + [False] * len(texts)


def test_what_cannot_be_interpreted_may_compile_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled program shares its loop with no other; what cannot be encoded fails as a job, not before."""
    long = [chain(INSTRUCTIONS), chain(INSTRUCTIONS).replace("cos", "sin")]
    assert set_ups([slots(2), *long, long[0], slots(2)]) == [True, True, True, True, False]

    def fails(_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(shapes, "loop_of", fails)
    assert set_ups([slots(2), slots(2)]) == [True, True]
