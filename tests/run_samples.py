"""Candidates, scores and keys for tests of the run store."""

from evolion.config import RunConfig, SearchConfig
from evolion.evaluators.score_keys import ScoreKey
from evolion.proxies.score import Run, Score, Status
from evolion.records import CandidateRecord

CONFIG = RunConfig(search=SearchConfig(budget=10))
ENVIRONMENT = {"evolion": "0.1.0", "device": "cpu"}
KEY = ScoreKey("ab" * 16, "cd" * 32, 500, (0, 1), (0.001, 1 / 3), "validation", "cpu jax 0.10 interpreter")


def candidate(number: int, parent: int | None = None) -> CandidateRecord:
    return CandidateRecord(
        number, parent, "insert", f"def train(w, g):\n    return {number}\n", "0a" * 16, "0b" * 16, "ok"
    )


def score(loss: float = 0.1 + 0.2) -> Score:
    return Score(Status.OK, loss, (2.5, loss), 500, 0.25, 1e-3, 1 / 3, (Run(1 / 3, 0, Status.OK, loss, 1e-3, 500),))
