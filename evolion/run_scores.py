"""The scores of a run as other runs can use them.

A run keeps scores by what programs do, a store that runs share by what was executed, to the last bit. Which program was
executed for a score follows from the order in which the run asked for scores; so that is done again, with every answer
out of the run, without training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import final

from evolion.config import ProposerConfig, RunConfig, program_of
from evolion.errors import InputError, JobError, RunError
from evolion.evaluators.score_keys import ScoreKey
from evolion.evaluators.score_store import Entry
from evolion.evaluators.types import Job, PoolStatus
from evolion.funnel import run_search
from evolion.ledger import Ledger
from evolion.memos import copy_memos
from evolion.primitives.program import Program
from evolion.progress import silent
from evolion.proxies.registry import get_task
from evolion.proxies.score import Score
from evolion.retest import finalists_of, retest
from evolion.store import RunStore

__all__ = ["scores_of_run"]


class _EndedError(Exception):
    """The run holds no answer to what comes next: this is how far it had come."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class _NoEvaluator:
    """Takes every job and answers none."""

    workers: int = 0
    numerics: str = "those of the run"

    @property
    def status(self) -> PoolStatus:
        """Nothing goes on."""
        return PoolStatus(0, 0, 0)

    def numerics_of(self, device: str) -> str:
        """Return one name for all: the run knows under which it has its scores."""
        return self.numerics

    def submit(self, job: Job) -> None:
        """Take a job."""

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        """End it here."""
        if timeout == 0.0:
            return []
        raise _EndedError

    def close(self) -> None:
        """Nothing is open."""


@final
@dataclass(slots=True, eq=False)
class _Answers:
    """Answers with the scores of a run, and remembers to which programs they belong."""

    run: RunStore
    tasks: dict[str, str]
    origins: str
    found: list[Entry] = field(default_factory=list)

    def find(self, program: Program, key: ScoreKey) -> Score | None:
        """Return the score that the run has under a key."""
        known = self.run.kept_scores.whatever_numerics(key)
        if known is None:
            return None
        score, numerics = known
        made = replace(key, numerics=numerics + self.origins)
        self.found.append(Entry(program, self.tasks[key.task_digest], made, score))
        return score

    def keep(self, entries: Sequence[Entry]) -> None:
        """Nothing is computed."""


def scores_of_run(folder: Path | str) -> tuple[list[Entry], int]:
    """Return the scores of a run, finished or not, under the origin that they were made with.

    Returns:
        The scores, and the number of those that are left out because this version comes to other candidates or has
        other tasks than the one that made the run.

    Raises:
        RunError: If there is no run, or it does not say which code made its scores.

    """
    with RunStore.open(folder, readonly=True) as run:
        numerics, origin = run.environment.get("numerics", ""), run.environment.get("origin", "")
        if not numerics or not origin.startswith(numerics):
            raise RunError(f"the run {folder} does not say which code made its scores, so no other run can use them")
        names = {*(stage.task for stage in run.config.stages), *(step.task for step in run.config.retest.tasks)}
        answers = _Answers(run, {get_task(name).digest: name for name in names}, origin.removeprefix(numerics))
        total = run.counts().scores
        with TemporaryDirectory() as place, RunStore.create(Path(place, "run"), run.config, run.environment) as again:
            with again.transaction():
                for candidate in run.candidates():
                    again.add_candidate(candidate)
                copy_memos(run.database, again.database)
            # Proposals that became candidates are rows; nobody is asked for others.
            _go_through(replace(run.config, proposer=ProposerConfig()), Ledger(again, _NoEvaluator(), answers))
        return answers.found, max(0, total - len(answers.found))  # more may have come if the run is under way


def _go_through(config: RunConfig, ledger: Ledger) -> None:
    try:
        run_search(config, program_of(config.search.warm_start), ledger, silent())
        finalists = finalists_of(ledger.store, config.retest.finalists)
        if finalists:
            retest(config, finalists, ledger, silent())
    except (_EndedError, InputError, JobError):
        return  # what was found until then is sound
