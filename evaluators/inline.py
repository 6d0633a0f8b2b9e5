"""The evaluator that needs no other process: it computes while the caller waits."""

from evolion.evaluators.batch.evaluator import BatchEvaluator
from evolion.evaluators.environment import numerics_tag
from evolion.evaluators.worker import EvaluateFunction, TagFunction, answer, default_function

__all__ = ["inline_evaluator"]


def inline_evaluator(*, function: EvaluateFunction | None = None, tag: TagFunction = numerics_tag) -> BatchEvaluator:
    """Return an `Evaluator` that scores one job in each call of `collect`, in the order of submission.

    It has no limits: a job that hangs, takes all memory or kills its process takes the caller with it. `function`
    scores a job, `evaluate_job` unless given; `tag` says what it computes with.
    """
    score = function or default_function()
    return BatchEvaluator(batch=1, function=lambda jobs: [answer(score, job) for job in jobs], tag=tag)
