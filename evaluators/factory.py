"""The evaluator for what a user asks for."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from evolion.evaluators.batch.evaluator import BatchEvaluator
from evolion.evaluators.device_classes import DeviceClasses
from evolion.evaluators.environment import processors
from evolion.evaluators.inline import inline_evaluator
from evolion.evaluators.pool import Limits, check_workers
from evolion.evaluators.processes import process_evaluator
from evolion.evaluators.ray_connection import connect, disconnect
from evolion.evaluators.ray_data import place
from evolion.evaluators.ray_pool import ray_evaluator
from evolion.evaluators.types import Evaluator
from evolion.evaluators.worker import EvaluateFunction
from evolion.evaluators.worker_class import WorkerClass, check_classes, fitting

__all__ = ["make_evaluator"]

_PLAIN = (WorkerClass(),)


def make_evaluator(
    workers: int | None = None,
    ray_address: str | None = None,
    *,
    classes: Sequence[WorkerClass] = _PLAIN,
    limits: Limits | None = None,
    inline: bool = False,
    batch: int | None = None,
    function: EvaluateFunction | None = None,
    tasks: Iterable[str] = (),
    numerics: Mapping[str, str] | None = None,
) -> Evaluator:
    """Return an evaluator with workers of one or several classes: Ray actors if there is an address, else processes.

    Args:
        workers: How many there are to be of the default class; without it what the class says, else as many as fit.
        ray_address: "local", "auto" or "host:port".
        classes: What workers there are to be, one class of them without a device.
        limits: What a job may take.
        inline: Compute in the calling process instead: nothing to start, but no protection from a job that hangs,
            crashes or takes all memory either, so that `limits` are refused.
        batch: Score up to so many jobs at a time on jax's first device, an accelerator if jax finds one. That is in
            the calling process too, and with a function of its own.
        function: What scores a job, by classes that train no batches; `evaluate_job` unless given.
        tasks: Those whose data every node of Ray is to have once, instead of every worker.
        numerics: By device, what the workers of a cluster are to compute with; without it what the first of a class
            does. Others are not used.

    Raises:
        ValueError: For settings that make no sense, or that processes cannot have.
        EvaluatorUnavailable: If Ray is missing or does not answer.

    """
    if workers is not None:
        check_workers(workers)
        classes = [one if one.device else replace(one, count=workers) for one in classes]
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
    check_classes(classes)
    if ray_address is not None:
        return _of_actors(classes, ray_address, limits, function, tasks, numerics or {})
    return _of_processes(classes, limits, function)


def _of_actors(
    classes: Sequence[WorkerClass],
    address: str,
    limits: Limits | None,
    function: EvaluateFunction | None,
    tasks: Iterable[str],
    numerics: Mapping[str, str],
) -> Evaluator:
    named = sum(math.ceil((one.count or 0) * one.cpus) for one in classes)
    all_named = all(one.count is not None for one in classes)
    with ExitStack() as undo:
        if connect(address, max(1, named) if all_named else max(named, processors())):
            undo.callback(disconnect)
        data = place(tasks)
        pools: dict[str, Evaluator] = {}
        for one in classes:
            pools[one.device] = pool = ray_evaluator(
                None,
                address,
                limits=limits,
                function=None if one.batch else function,
                data=data,
                worker_class=one,
                beside=[other for other in classes if other is not one],
                numerics=numerics.get(one.device),
            )
            undo.callback(pool.close)
        return DeviceClasses(pools, undo.pop_all().close)


def _of_processes(
    classes: Sequence[WorkerClass], limits: Limits | None, function: EvaluateFunction | None
) -> Evaluator:
    for one in classes:
        if one.accelerated or one.batch is not None:
            raise ValueError(
                f"{one} is to have {', '.join(name for name in one.needs() if name != 'CPU') or 'batches'}: processes "
                "on this machine have cores alone; use --ray local, or --batch to train in this process on its device"
            )
    counts = fitting(classes, [{"CPU": float(processors())}])
    with ExitStack() as undo:
        pools: dict[str, Evaluator] = {}
        for one in classes:
            pool = process_evaluator(counts[one.device], limits=limits, function=function, platform=one.platform)
            undo.callback(pool.close)
            pools[one.device] = pool
        undo.pop_all()
    return pools[""] if len(pools) == 1 else DeviceClasses(pools)
