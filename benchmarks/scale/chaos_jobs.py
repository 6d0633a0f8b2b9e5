"""The run of chaos.py: its jobs, and its driver, `python chaos_jobs.py ADDRESS|processes WORKERS CONFIG RUN`.

A job is a real training and then a pause, so that a search lasts as long as is asked for on a machine of any speed and
the run that it is compared with, which pauses nowhere, does not. Jobs note in the folder of `EVOLION_CHAOS` who works
on what and when an answer was ready; no score depends on any of that.
"""

import hashlib
import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from evolion.evaluators.types import Job, Score

FOLDER = "EVOLION_CHAOS"
PAUSE, BUSY, ANSWERS = "pause", "busy", "answers"


def paused_job(job: Job) -> Score:
    """Score a job in earnest, then wait as long as the file of the pause says by then."""
    from evolion.evaluators.evaluate import evaluate_job

    folder = os.environ.get(FOLDER)
    if not folder:
        return evaluate_job(job)
    note = Path(folder, BUSY, str(os.getpid()))
    note.write_text(
        hashlib.sha256(
            repr((str(job.program), job.task, job.steps, job.seeds, job.learning_rates)).encode()
        ).hexdigest(),
        encoding="ascii",
    )
    score = evaluate_job(job)
    begun = time.monotonic()
    while time.monotonic() - begun < _pause(folder):
        time.sleep(0.05)
    note.unlink(missing_ok=True)
    with open(Path(folder, ANSWERS), "a", encoding="ascii") as file:
        file.write(f"{time.monotonic()} {os.getpid()}\n")
    return score


def _pause(folder: str) -> float:
    with suppress(OSError, ValueError):
        return float(Path(folder, PAUSE).read_text(encoding="ascii"))
    return 0.0


def drive(where: str, workers: int, config: Path, run: Path) -> None:
    """Begin the run, or go on with it."""
    from evolion.config_text import read_config
    from evolion.driver import discover, resume
    from evolion.evaluators.environment import prepare
    from evolion.evaluators.factory import make_evaluator
    from evolion.evaluators.pool import Limits

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    prepare()
    address = None if where == "processes" else where
    with make_evaluator(workers, address, limits=Limits(job=120.0), function=paused_job) as evaluator:
        if (run / "run.sqlite").exists():
            resume(run, evaluator=evaluator)
        else:
            discover(read_config(str(config), ()), run, evaluator=evaluator)


if __name__ == "__main__":
    from chaos_jobs import drive as begin  # Workers find its function under this name, not as __main__.

    begin(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
