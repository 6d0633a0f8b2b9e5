"""Layouts of the database of a run, and how one that an earlier version wrote is read and continued."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from evolion.config import ConfirmationConfig, RunConfig

__all__ = ["BEGAN", "FORMAT", "SCHEMA", "adapted", "upgrade"]

FORMAT = 3
"""The number of the database's layout; a change of `SCHEMA` raises it."""

_CONFIRMATIONS = """
CREATE TABLE confirmations (
    number INTEGER PRIMARY KEY REFERENCES outcomes, reason TEXT NOT NULL, fitness TEXT, value REAL, error REAL
);
"""

_MEMOS = """
CREATE TABLE IF NOT EXISTS memos (kind INTEGER, key TEXT, value TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
"""

SCHEMA = f"""
CREATE TABLE records (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE candidates (
    number INTEGER PRIMARY KEY, parent INTEGER, mutation TEXT NOT NULL, text TEXT NOT NULL,
    structural_key BLOB NOT NULL, behaviour_key BLOB NOT NULL, probe_status TEXT NOT NULL
);
CREATE TABLE outcomes (
    number INTEGER PRIMARY KEY REFERENCES candidates, reason TEXT NOT NULL, fitness TEXT, stage INTEGER,
    reused INTEGER NOT NULL, value REAL, hurdle REAL
);
{_CONFIRMATIONS}
{_MEMOS}
CREATE TABLE budgets (
    budget INTEGER PRIMARY KEY, task_digest TEXT NOT NULL, steps INTEGER NOT NULL, seeds TEXT NOT NULL,
    learning_rates TEXT NOT NULL, split TEXT NOT NULL, numerics TEXT NOT NULL,
    UNIQUE (task_digest, steps, seeds, learning_rates, split, numerics)
);
CREATE TABLE scores (
    behaviour_key BLOB NOT NULL, budget INTEGER NOT NULL REFERENCES budgets, score TEXT NOT NULL,
    UNIQUE (behaviour_key, budget)
);
CREATE TABLE events (event INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL);
"""

BEGAN = "first format"
"""The record of a run that was brought to another format: the one that it began in."""

_REASON = "CASE WHEN {column} <> 'ok' THEN {column} WHEN stage = {last} THEN 'finished' ELSE 'hurdle' END"
"""Format 1 wrote no reason for candidates with fitness: those that were not in the last stage had missed a hurdle."""


def adapted(config: RunConfig, connection: sqlite3.Connection, version: int) -> RunConfig:
    """Return the configuration of a run as it was meant in the format that it began in: 1 knew no confirmations."""
    began = connection.execute("SELECT value FROM records WHERE name = ?", (BEGAN,)).fetchone()
    first = int(began[0]) if began else version
    return replace(config, confirmation=ConfirmationConfig(share=0.0)) if first < 2 else config


def upgrade(connection: sqlite3.Connection, version: int, stages: int, *, readonly: bool) -> None:
    """Bring a run of an earlier format to this one.

    A file that is only read stays as it is: views in the connection's own memory stand before its tables.

    Args:
        connection: To the database.
        version: Its format.
        stages: How many stages the run has.
        readonly: Whether the file may not be written.

    """
    if version >= FORMAT:
        return
    if readonly:
        if version < 2:
            _view_second(connection, stages)
        return
    first_to_second = f"""
        ALTER TABLE outcomes RENAME COLUMN status TO reason;
        ALTER TABLE outcomes ADD COLUMN value REAL;
        ALTER TABLE outcomes ADD COLUMN hurdle REAL;
        UPDATE outcomes SET reason = {_REASON.format(column="reason", last=stages - 1)};
        {_CONFIRMATIONS}
    """
    connection.executescript(f"""
        BEGIN IMMEDIATE;
        {first_to_second if version < 2 else ""}
        {_MEMOS}
        INSERT INTO records VALUES ('{BEGAN}', '{version}') ON CONFLICT DO NOTHING;
        PRAGMA user_version = {FORMAT};
        COMMIT;
    """)


def _view_second(connection: sqlite3.Connection, stages: int) -> None:
    """Let a database of the first format look like one of the second."""
    reason = _REASON.format(column="status", last=stages - 1)
    connection.executescript(f"""
        CREATE TEMP VIEW outcomes AS SELECT number, {reason} AS reason, fitness, stage, reused, NULL AS value,
            NULL AS hurdle FROM main.outcomes;
        CREATE TEMP VIEW confirmations AS SELECT NULL AS number, NULL AS reason, NULL AS fitness, NULL AS value,
            NULL AS error WHERE 0;
    """)
