import resource

import pytest
from laws.evaluator_laws import job
from laws.job_functions import score

from evolion.evaluators import containment
from evolion.evaluators.containment import Assignment, Containment
from evolion.evaluators.types import Job, Score, Status

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
