from collections.abc import Sequence

from laws.evaluator_laws import job
from laws.job_functions import score

from evolion.evaluators.batch.contained import BatchContainment
from evolion.evaluators.containment import Assignment
from evolion.evaluators.types import Job, Score
from evolion.proxies.data.source import DataError


def score_all(jobs: Sequence[Job]) -> list[Score]:
    """Score jobs; one on the task "fail" fails all of them."""
    if any(one.task == "fail" for one in jobs):
        raise ValueError(f"{len(jobs)} jobs")
    return [score(one) for one in jobs]


def test_all_answers_come_together_in_order() -> None:
    """A batch is one call: the pool matches its answers by their order."""
    jobs = [job(number) for number in range(5)]
    (answers,) = BatchContainment(score_all).run_batch([Assignment(one, seconds=10.0) for one in jobs])
    assert [one.score for one in answers.answers] == [score(one) for one in jobs]
    assert answers.done
    assert len({one.seconds for one in answers.answers}) == 1


def test_one_job_that_fails_costs_the_others_a_second_run() -> None:
    """A batch that raises is taken apart, so that its cause alone has no score."""
    jobs = [job(0), job(1, "fail"), job(2)]
    (answers,) = BatchContainment(score_all).run_batch([Assignment(one) for one in jobs])
    first, failed, last = (one.score for one in answers.answers)
    assert (first, last) == (score(jobs[0]), score(jobs[2]))
    assert failed.message == "ValueError: 1 jobs"


def test_data_that_cannot_be_had_is_told_apart() -> None:
    """No job of the batch has a score then: all are for another worker."""

    def lacking(jobs: Sequence[Job]) -> list[Score]:
        raise DataError("no file")

    (answers,) = BatchContainment(lacking).run_batch([Assignment(job(number)) for number in range(3)])
    (answer,) = answers.answers
    assert answers.done
    assert answer.unreadable == "DataError: no file"


def test_the_first_batch_of_a_kind_is_set_up() -> None:
    """What compiles is no measure of how long the next batch takes."""
    worker = BatchContainment(score_all)
    looks = [next(worker.run_batch([Assignment(job(number))])).answers[0].set_up for number in range(2)]
    assert looks == [True, False]
