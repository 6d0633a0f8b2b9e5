"""The command line with jobs of tests: python command_line.py inline|PROCESSES|HOST:PORT ARGUMENTS.

Everything but the training is as a user has it: configuration, run folder, messages, exit status.
"""

import sys
from typing import Any


def make_evaluator(kind: str) -> Any:
    from faults.faulty_jobs import slow_score, sound_score
    from laws.job_functions import fixed_tag

    from evolion.evaluators.inline import inline_evaluator
    from evolion.evaluators.pool import Limits
    from evolion.evaluators.processes import process_evaluator
    from evolion.evaluators.ray_pool import ray_evaluator

    if kind == "inline":
        return inline_evaluator(function=sound_score, tag=fixed_tag)
    if ":" in kind:
        return ray_evaluator(2, kind, limits=Limits(job=60.0), function=slow_score, tag=fixed_tag)
    return process_evaluator(int(kind), limits=Limits(job=4.0, set_up=0.0), function=slow_score, tag=fixed_tag)


if __name__ == "__main__":
    from evolion.cli import main
    from evolion.evaluators import factory

    factory.make_evaluator = lambda *_, **__: make_evaluator(sys.argv[1])
    main(sys.argv[2:])
