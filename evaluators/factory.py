"""The evaluator for what a user asks for."""

from evolion.evaluators.batch.evaluator import BatchEvaluator
from evolion.evaluators.environment import processors
from evolion.evaluators.inline import inline_evaluator
from evolion.evaluators.pool import Limits, check_workers
from evolion.evaluators.processes import process_evaluator
from evolion.evaluators.ray_pool import ray_evaluator
from evolion.evaluators.types import Evaluator
from evolion.evaluators.worker import EvaluateFunction


def make_evaluator(
    workers: int | None = None,
    ray_address: str | None = None,
    *,
    limits: Limits | None = None,
    inline: bool = False,
    batch: int | None = None,
    function: EvaluateFunction | None = None,
) -> Evaluator:
    """Return an evaluator with `workers` workers: Ray actors if there is an address, else processes.

    Without a number there are as many as processors: of this machine, or of the Ray cluster.

    `ray_address`: "local", "auto" or "host:port". `inline` computes in the calling process instead: nothing to start,
    but no protection from a job that hangs, crashes or takes all memory either, so that `limits` are refused.

    `batch`: score up to so many jobs at a time on jax's first device, an accelerator if jax finds one. That is in the
    calling process too, and with a function of its own.

    Raises ValueError for settings that make no sense, EvaluatorUnavailable if Ray is missing or does not answer.
    """
    if workers is not None:
        check_workers(workers)
    if batch is not None:
        if inline or workers not in (None, 1) or ray_address is not None or limits is not None or function is not None:
            raise ValueError("an evaluator of batches is one process: it takes no workers, limits or function")
        return BatchEvaluator(batch=batch)
    if inline:
        if workers not in (None, 1) or ray_address is not None:
            raise ValueError("an inline evaluator has one worker and no Ray address")
        if limits is not None:
            raise ValueError("an inline evaluator has no limits: nothing can end a job in the calling process")
        return inline_evaluator(function=function)
    if ray_address is not None:
        return ray_evaluator(workers, ray_address, limits=limits, function=function)
    return process_evaluator(workers or processors(), limits=limits, function=function)
