"""Where a search can be taken up without asking all of its candidates again.

A checkpoint is one record of the run, as JSON, written with the candidates up to it in one transaction; the next one
takes its place. What a search needs besides is looked up in the database by key, so that a checkpoint stays small.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evolion.config import AblationConfig, ProposerConfig, RetestConfig, RunConfig
from evolion.confirmations import Known
from evolion.evaluators.stages import Hurdles
from evolion.records import Standing
from evolion.search.types import Search
from evolion.store import RunStore

__all__ = ["RECORD", "Checkpoint", "Told", "asked_at", "interval", "read_checkpoint", "write_checkpoint"]

RECORD = "checkpoint"
"""The name of the record."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the view says of the candidates told so far; nothing is decided by it.

    Attributes:
        evaluated: Candidates that were trained.
        reused: Candidates whose scores were known by their key.
        failed: Candidates without fitness.
        probed: Candidates that the probe stopped.
        entered: By stage, candidates that entered it with a training of their own.
        passed: Of these, those that went on or finished.

    """

    evaluated: int = 0
    reused: int = 0
    failed: int = 0
    probed: int = 0
    entered: tuple[int, ...] = ()
    passed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A search after some candidates were told, confirmations that are due then included.

    Attributes:
        told: How many.
        limits: For each candidate asked for and not yet told what lets it into each stage, in their order.
        state: That of the search algorithm.
        hurdles: Those for the next candidate.
        known: What confirmations know.
        counts: For the view.
        top: The best few.

    """

    told: int
    limits: tuple[tuple[float, ...], ...]
    state: Any
    hurdles: Hurdles
    known: Known
    counts: Told = field(default_factory=Told)
    top: tuple[Standing, ...] = ()


def interval(told: int) -> int:
    """Return after how many more candidates the next checkpoint is due: what it costs stays a small share."""
    return max(1_000, told // 50)


def write_checkpoint(store: RunStore, checkpoint: Checkpoint) -> None:
    """Keep a checkpoint instead of the one before."""
    store.put_record(RECORD, _fields(checkpoint, store.config))


def read_checkpoint(store: RunStore, algorithm: Search[Any]) -> Checkpoint | None:
    """Return the checkpoint of a run; None if it has none that fits: then it is taken up at its beginning.

    One does not fit that is damaged, that a search of another configuration made, or that says something else than the
    rows of the candidates.
    """
    fields = store.get_record(RECORD)
    try:
        if fields is None or fields["config"] != _digest(store.config):
            return None
        kind: type = type(algorithm.initial())
        state = _adapter(kind).validate_python(fields["state"])
        found: Checkpoint = _adapter(Checkpoint).validate_python(fields)
    except (ValidationError, KeyError, TypeError):
        return None
    found = replace(found, state=state)
    if json.dumps(_fields(found, store.config)) != json.dumps(fields):
        return None  # as when a version of the algorithm with other fields wrote it
    search = store.config.search
    # With a larger budget, candidates after these would have been asked for before the checkpoint was written.
    whole = found.told + len(found.limits) == min(found.told + search.lag, search.budget)
    last = found.told + len(found.limits) - 1
    if found.told < 1 or not whole or not store.is_whole(found.told) or store.last_number() < last:
        return None
    return found


def _fields(checkpoint: Checkpoint, config: RunConfig) -> dict[str, Any]:
    fields: dict[str, Any] = _adapter(Checkpoint).dump_python(checkpoint)
    kind: type = type(checkpoint.state)
    fields["state"] = _adapter(kind).dump_python(checkpoint.state)
    return fields | {"config": _digest(config)}


def asked_at(store: RunStore) -> int:
    """Return how many candidates had been asked for when the checkpoint of a run was written; 0 without one.

    Raises:
        KeyError, TypeError: If it is damaged.

    """
    fields = store.get_record(RECORD)
    return 0 if fields is None else int(fields["told"]) + len(fields["limits"])


def _digest(config: RunConfig) -> str:
    """Return a digest of what the state of a search hangs on: all but its end and what comes after."""
    search = replace(config.search, budget=1)
    plain = replace(
        config.determining(),
        search=search,
        retest=RetestConfig(),
        ablation=AblationConfig(),
        proposer=ProposerConfig(),  # what it proposed is in the rows of the candidates
    )
    return hashlib.sha256(json.dumps(asdict(plain), sort_keys=True).encode()).hexdigest()[:32]


@lru_cache(maxsize=32)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
