"""How far a run is and what it has cost, counted in its database."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from evolion.config import CONFIRMATION_SEEDS, SEEDS_OF_STAGES
from evolion.evaluators.stages import Reason
from evolion.records import Cost, Counts, Standing

__all__ = ["best_of", "best_unconfirmed", "cost_of", "counts_of"]


def counts_of(connection: sqlite3.Connection) -> Counts:
    """Return how far a run is."""

    def pairs(query: str) -> dict[Any, int]:
        return dict(connection.execute(query).fetchall())

    def number(query: str) -> int:
        return int(connection.execute(query).fetchone()[0])

    drops = connection.execute("SELECT stage, reason, count(*) FROM outcomes WHERE NOT reused GROUP BY stage, reason")
    return Counts(
        generated=number("SELECT count(*) FROM candidates"),
        told=number("SELECT count(*) FROM outcomes"),
        evaluated=number("SELECT count(*) FROM outcomes WHERE stage IS NOT NULL AND NOT reused"),
        reused=number("SELECT count(*) FROM outcomes WHERE reused"),
        failed=pairs("SELECT reason, count(*) FROM outcomes WHERE fitness IS NULL GROUP BY reason"),
        stages=pairs("SELECT stage, count(*) FROM outcomes WHERE stage IS NOT NULL GROUP BY stage"),
        drops={(stage, Reason(reason)): count for stage, reason, count in drops},
        confirmed=number("SELECT count(DISTINCT behaviour_key) FROM confirmations JOIN candidates USING (number)"),
        cost=cost_of(connection),
        scores=number("SELECT count(*) FROM scores"),
    )


def cost_of(connection: sqlite3.Connection) -> Cost:
    """Return what a search has trained, or taken from a store of scores, which is not noted score by score.

    The steps after it have seeds of their own and do not count.
    """
    rows = connection.execute(
        "SELECT seeds, sum(json_array_length(score, '$.runs')), sum(json_extract(score, '$.seconds')) "
        "FROM scores JOIN budgets USING (budget) GROUP BY seeds"
    )
    runs, seconds, confirming_runs, confirming_seconds = 0, 0.0, 0, 0.0
    for seeds, its_runs, its_seconds in rows:
        first = json.loads(seeds)[0]
        confirming = CONFIRMATION_SEEDS <= first % (10 * SEEDS_OF_STAGES) < CONFIRMATION_SEEDS + SEEDS_OF_STAGES
        if confirming or first < SEEDS_OF_STAGES:
            runs, seconds = runs + its_runs, seconds + its_seconds
            confirming_runs += confirming * its_runs
            confirming_seconds += confirming * its_seconds
    return Cost(runs, seconds, confirming_runs, confirming_seconds)


def best_unconfirmed(connection: sqlite3.Connection, after: int, limit: int) -> list[Standing]:
    """Return the standings of the best candidates beyond number `after` that are not confirmed, at most so many."""
    rows = connection.execute(
        "SELECT number, fitness FROM outcomes WHERE number > ? AND fitness IS NOT NULL "
        "AND number NOT IN (SELECT number FROM confirmations) "
        "ORDER BY stage DESC, json_extract(fitness, '$[#-1]'), number LIMIT ?",
        (after, limit),
    )
    return [Standing(number, tuple(json.loads(fitness)), confirmed=False) for number, fitness in rows]


def best_of(connection: sqlite3.Connection) -> Standing | None:
    """Return the standing of the best candidate, without reading all of them: seconds for some 100,000."""
    rows = connection.execute("SELECT number, fitness FROM confirmations WHERE fitness IS NOT NULL")
    confirmed = [Standing(number, tuple(json.loads(fitness)), confirmed=True) for number, fitness in rows]
    found = [*confirmed, *best_unconfirmed(connection, -1, 1)]
    return min(found, key=lambda standing: standing.rank, default=None)
