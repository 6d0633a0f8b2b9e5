"""The scores in the database of a run, under what they belong to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import final

from evolion.evaluators.score_keys import ScoreKey, dump_score, read_score
from evolion.proxies.score import Score
from evolion.run_database import Database

__all__ = ["StoredScores"]

_Budget = tuple[str, int, tuple[int, ...], tuple[float, ...], str, str]
_WHERE = "task_digest = ? AND steps = ? AND seeds = ? AND learning_rates = ? AND split = ? AND numerics = ?"
_BUDGETS_REMEMBERED = 4096


@final
@dataclass(slots=True, eq=False)
class StoredScores:
    """Scores by their keys. What a key has besides the behaviour is a row of its own, the budget, which many share."""

    database: Database
    _budgets: dict[_Budget, int] = field(default_factory=dict)

    def put(self, key: ScoreKey, score: Score) -> None:
        """Keep a score under its key. The first one stays: later candidates must see what earlier ones saw."""
        budget = self._budget(key)
        if budget is None:
            self.database.write("INSERT INTO budgets VALUES (NULL, ?, ?, ?, ?, ?, ?)", _columns(_budget_of(key)))
            budget = self._budget(key)
        values = (bytes.fromhex(key.behaviour), budget, dump_score(score))
        self.database.write("INSERT OR IGNORE INTO scores VALUES (?, ?, ?)", values)

    def get(self, key: ScoreKey) -> Score | None:
        """Return the score under a key, None if there is none."""
        budget = self._budget(key)
        if budget is None:
            return None
        row = self.database.read(
            "SELECT score FROM scores WHERE behaviour_key = ? AND budget = ?", (bytes.fromhex(key.behaviour), budget)
        ).fetchone()
        return read_score(row[0]) if row else None

    def whatever_numerics(self, key: ScoreKey) -> tuple[Score, str] | None:
        """Return the score under a key but for its numerics, and the numerics; None if there is none."""
        row = self.database.read(
            "SELECT score, numerics FROM scores JOIN budgets USING (budget) WHERE behaviour_key = ? "
            "AND task_digest = ? AND steps = ? AND seeds = ? AND learning_rates = ? AND split = ? ORDER BY budget",
            (bytes.fromhex(key.behaviour), *_columns(_budget_of(key))[:-1]),
        ).fetchone()
        return (read_score(row[0]), row[1]) if row else None

    def keep_seeds(self, seeds: Iterable[tuple[int, ...]]) -> None:
        """Remove the scores of trainings on any other seeds."""
        kept = tuple(json.dumps(one) for one in seeds)
        marks = ", ".join("?" * len(kept))
        others = f"SELECT budget FROM budgets WHERE seeds NOT IN ({marks})"
        self.database.write(f"DELETE FROM scores WHERE budget IN ({others})", kept)
        self.database.write(f"DELETE FROM budgets WHERE seeds NOT IN ({marks})", kept)
        self._budgets.clear()

    def __iter__(self) -> Iterator[tuple[ScoreKey, Score]]:
        """All stored scores."""
        rows = self.database.read(
            "SELECT behaviour_key, task_digest, steps, seeds, learning_rates, split, numerics, score "
            "FROM scores JOIN budgets USING (budget) ORDER BY budget, behaviour_key"
        )
        for behaviour, digest, steps, seeds, rates, split, numerics, score in rows:
            seeds, rates = tuple(json.loads(seeds)), tuple(json.loads(rates))
            yield ScoreKey(behaviour.hex(), digest, steps, seeds, rates, split, numerics), read_score(score)

    def _budget(self, key: ScoreKey) -> int | None:
        """Return the number of a budget, None if the database has no such."""
        wanted = _budget_of(key)
        found = self._budgets.get(wanted)
        if found is None:
            row = self.database.read(f"SELECT budget FROM budgets WHERE {_WHERE}", _columns(wanted)).fetchone()
            if row is None:
                return None
            if len(self._budgets) >= _BUDGETS_REMEMBERED:
                self._budgets.clear()
            self._budgets[wanted] = found = int(row[0])
        return found


def _budget_of(key: ScoreKey) -> _Budget:
    return key.task_digest, key.steps, key.seeds, key.learning_rates, key.split, key.numerics


def _columns(budget: _Budget) -> tuple[str, int, str, str, str, str]:
    digest, steps, seeds, rates, split, numerics = budget
    return digest, steps, json.dumps(seeds), json.dumps(rates), split, numerics
