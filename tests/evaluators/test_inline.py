from collections.abc import Callable

import pytest
from laws.evaluator_laws import EvaluatorLaws, Start, job
from laws.job_functions import behave, fixed_tag

from evolion.evaluators.inline import inline_evaluator
from evolion.evaluators.types import Evaluator, Job, Score


@pytest.fixture
def start() -> Start:
    def start(function: Callable[[Job], Score]) -> Evaluator:
        return inline_evaluator(function=function, tag=fixed_tag)

    return start


class TestInlineEvaluator(EvaluatorLaws):
    def test_jobs_are_answered_in_order(self, start: Start) -> None:
        """One collection computes one job, so a driver is never kept longer than that."""
        with start(behave) as evaluator:
            for number in range(3):
                evaluator.submit(job(number))
            assert [[item.number for item, _ in evaluator.collect()] for _ in range(4)] == [[0], [1], [2], []]

    def test_what_the_process_holds_is_told(self, start: Start) -> None:
        """Where there is one process alone, a person sees the same as of workers."""
        status = start(behave).status
        assert (status.workers, status.ready, status.busy) == (1, 1, 0)
        assert 2**20 < status.resident_bytes <= status.peak_resident_bytes

    def test_an_interrupt_reaches_the_caller(self) -> None:
        """Ctrl-C during a job is no failure of the job."""

        def interrupted(item: Job) -> Score:
            raise KeyboardInterrupt

        with inline_evaluator(function=interrupted, tag=fixed_tag) as evaluator:
            evaluator.submit(job(0))
            with pytest.raises(KeyboardInterrupt):
                evaluator.collect()
