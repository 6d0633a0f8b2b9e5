from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from laws.evaluator_laws import EvaluatorLaws, Start, job, run
from laws.job_functions import behave, fixed_tag

from evolion.evaluators.batch.evaluator import BatchEvaluator
from evolion.evaluators.factory import make_evaluator
from evolion.evaluators.types import Job, Score, Status


@pytest.fixture
def start() -> Start:
    def start(function: Callable[[Job], Score]) -> BatchEvaluator:
        return BatchEvaluator(batch=4, function=lambda jobs: [function(item) for item in jobs], tag=fixed_tag)

    return start


class TestBatchEvaluator(EvaluatorLaws):
    def test_jobs_are_scored_together_up_to_the_size_of_a_batch(self, start: Start) -> None:
        """A collection computes what is pending, in order, and no more than one batch."""
        with start(behave) as evaluator:
            assert evaluator.workers == 4
            for number in range(6):
                evaluator.submit(job(number))
            assert [[item.number for item, _ in evaluator.collect()] for _ in range(3)] == [[0, 1, 2, 3], [4, 5], []]

    def test_a_batch_that_fails_is_tried_job_by_job(self) -> None:
        """One job that raises costs the others of its batch nothing but a second run."""
        calls: list[tuple[int, ...]] = []

        def score(jobs: Sequence[Job]) -> list[Score]:
            calls.append(tuple(item.number for item in jobs))
            return [behave(item) for item in jobs]

        with BatchEvaluator(batch=3, function=score, tag=fixed_tag) as evaluator:
            scores = run(evaluator, [job(0), job(1, "fail"), job(2)])
        assert calls == [(0, 1, 2), (0,), (1,), (2,)]
        assert [scores[number].status for number in range(3)] == [Status.OK, Status.CRASHED, Status.OK]

    def test_an_interrupt_reaches_the_caller(self) -> None:
        """Ctrl-C during a batch is no failure of its jobs."""

        def interrupted(jobs: Sequence[Job]) -> list[Score]:
            raise KeyboardInterrupt

        with BatchEvaluator(function=interrupted, tag=fixed_tag) as evaluator:
            evaluator.submit(job(0))
            with pytest.raises(KeyboardInterrupt):
                evaluator.collect()

    def test_the_factory_makes_one(self) -> None:
        """A user asks for batches by their size; what only worker processes have is refused."""
        with make_evaluator(batch=8) as evaluator:
            assert isinstance(evaluator, BatchEvaluator)
            assert evaluator.workers == 8
        with pytest.raises(ValueError, match="takes no workers"):
            make_evaluator(2, batch=8)

    def test_settings_without_sense_are_errors(self) -> None:
        """A batch of none would never end; a function whose tag is not known makes scores of no origin."""
        with pytest.raises(ValueError, match="at least 1 job"):
            BatchEvaluator(batch=0)
        with pytest.raises(ValueError, match="needs its tag"):
            BatchEvaluator(function=lambda jobs: [])
