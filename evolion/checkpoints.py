"""Where a search can be taken up without asking all of its candidates again.

A checkpoint is one record of the run, as JSON, written with the candidates up to it in one transaction; the next one
takes its place. What a search needs besides is looked up in the database by key, so that a checkpoint stays small.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evolion.confirmations import Known
from evolion.evaluators.stages import Hurdles
from evolion.records import Standing
from evolion.search.types import Search
from evolion.store import RunStore

__all__ = ["Checkpoint", "Told", "interval", "read_checkpoint", "write_checkpoint"]

_RECORD = "checkpoint"


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
    fields = _adapter(Checkpoint).dump_python(checkpoint)
    fields["state"] = _adapter(type(checkpoint.state)).dump_python(checkpoint.state)
    store.put_record(_RECORD, fields)


def read_checkpoint(store: RunStore, algorithm: Search[Any]) -> Checkpoint | None:
    """Return the checkpoint of a run; None if it has none that can be read: then it is taken up at its beginning."""
    fields = store.get_record(_RECORD)
    if fields is None:
        return None
    try:
        state = _adapter(type(algorithm.initial())).validate_python(fields["state"])
        found: Checkpoint = _adapter(Checkpoint).validate_python(fields)
    except (ValidationError, KeyError, TypeError):
        return None
    return replace(found, state=state)


@lru_cache(maxsize=32)
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
