"""What a comparison runs, as plain data, and the file that lets a folder go on with it. Loads neither jax nor ray."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

__all__ = ["Entrant", "Manifest", "Plan", "PlanError", "control_name", "from_json", "make_plan", "resumed", "to_json"]

REFERENCE = "adamw"
"""What others are compared with where it takes part and nobody says otherwise; else the first optimizer is."""

_FORMAT = 1


class PlanError(ValueError):
    """A plan makes no sense, or is not that of the folder; the message says in one line what to do."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """An optimizer that takes part.

    Attributes:
        name: Its name in tables.
        program: The text of its program.
        control: The optimizer of which it is a renamed copy, for the A/A control; "" for others.
        number: Which copy it is, from 1; 0 for others.

    """

    name: str
    program: str
    control: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a comparison runs. The same plan gives the same rows, whatever runs them and in which order.

    Attributes:
        entrants: The optimizers; renamed copies of the reference last.
        tasks: Names of tasks, with their modifiers.
        reference: The optimizer in whose steps speed-ups are.
        trials: Quasi-random trials of each optimizer on each task (K).
        seeds: Fresh seeds of everything that is reported (S).
        steps: Horizon of all tasks; each task's own without it.
        horizons: Other horizons at which every optimizer runs, over that of the task.
        reference_horizons: Those of the reference.
        refinements: Trials that the local refinement takes at most.
        extensions: How often the box is extended at most.
        edge_points: Trials in each extension.
        sensitivity_points: Learning rates over three decades around the best.
        tuning_seed: The seed of all trials; the copies of the reference have others.
        first_seed: The first fresh seed; the others follow it.

    Raises:
        PlanError: At construction, for numbers below 1, names that stand there twice, a reference or a control that
            does not take part.

    """

    entrants: tuple[Entrant, ...]
    tasks: tuple[str, ...]
    reference: str
    trials: int = 16
    seeds: int = 4
    steps: int | None = None
    horizons: tuple[float, ...] = (0.25, 0.5, 2.0)
    reference_horizons: tuple[float, ...] = (0.25, 0.5, 2.0, 4.0)
    refinements: int = 8
    extensions: int = 2
    edge_points: int = 5
    sensitivity_points: int = 13
    tuning_seed: int = 0
    first_seed: int = 1

    def __post_init__(self) -> None:
        for kind, names in (("optimizer", [one.name for one in self.entrants]), ("task", list(self.tasks))):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise PlanError(f"the {kind} {twice!r} stands there twice: name each once")
            if not names:
                raise PlanError(f"a comparison needs at least one {kind}")
        names = [one.name for one in self.entrants if not one.control]
        for name in (self.reference, *(one.control for one in self.entrants if one.control)):
            if name not in names:
                raise PlanError(f"the reference {name!r} is none of the optimizers: {', '.join(names)}")
        for name in ("trials", "seeds", "edge_points"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.steps is not None and self.steps < 1:
            raise PlanError(f"steps must be at least 1, got {self.steps}")

    def shift(self, entrant: Entrant) -> int:
        """Return what is added to the seeds of an entrant: copies of the reference share none with it."""
        return entrant.number * (self.first_seed + self.seeds)

    def digest(self) -> str:
        """Return eight hexadecimal digits that differ for plans which differ."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]


def make_plan(
    programs: Mapping[str, str],
    tasks: tuple[str, ...],
    *,
    reference: str | None = None,
    trials: int | None = None,
    seeds: int | None = None,
    controls: int | None = None,
    steps: int | None = None,
    quick: bool = False,
) -> Plan:
    """Return the plan of a comparison; what is not given is that of the profile.

    Args:
        programs: Program texts by the names of the optimizers.
        tasks: Names of tasks.
        reference: The name of an optimizer; "adamw" where it takes part, else the first without it.
        trials: Quasi-random trials; 16, or 6 if quick.
        seeds: Fresh seeds; 4, or 2 if quick.
        controls: Renamed copies of the reference; 2, or 1 if quick.
        steps: Horizon; each task's own without it.
        quick: Whether the profile is the quick one: two horizons and five points of sensitivity.

    Raises:
        PlanError: As `Plan` does.

    """
    names = list(programs)
    first = reference or (REFERENCE if REFERENCE in names else (names or [""])[0])
    if first not in names:
        raise PlanError(f"the reference {first!r} is none of the optimizers: {', '.join(names)}")
    trials = (6 if quick else 16) if trials is None else trials
    copies = (1 if quick else 2) if controls is None else controls
    controlled = [Entrant(control_name(first, i), programs[first], first, i) for i in range(1, copies + 1)]
    plan = Plan(
        entrants=(*(Entrant(name, text) for name, text in programs.items()), *controlled),
        tasks=tasks,
        reference=first,
        trials=trials,
        seeds=(2 if quick else 4) if seeds is None else seeds,
        steps=steps,
        edge_points=max(2, trials // 3),
    )
    if not quick:
        return plan
    return replace(plan, horizons=(0.5, 2.0), reference_horizons=(0.5, 2.0), sensitivity_points=5)


def control_name(reference: str, number: int) -> str:
    """Return the name of a renamed copy."""
    return f"{reference} (copy {number})"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the file plan.json says: all that is needed to go on.

    Attributes:
        plan: The plan.
        digests: What each task is, by name; tasks whose data was missing stand in `missing` instead.
        missing: Why a task was left out, by its name.
        lock: The digest of the set of tasks; "" where none was named.
        source: The name of the set; "" for tasks by name.
        variants: Those of the plan's tasks that are held-out variants of the others.
        format: The number of the file's layout.

    """

    plan: Plan
    digests: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    lock: str = ""
    source: str = ""
    variants: tuple[str, ...] = ()
    format: int = _FORMAT


@cache
def _adapter() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)


def to_json(manifest: Manifest) -> str:
    """Return the text of plan.json."""
    return _adapter().dump_json(manifest, indent=2).decode() + "\n"


def from_json(text: str | bytes, where: str) -> Manifest:
    """Return what `to_json` has written. Raises PlanError, which names the place, for anything else."""
    try:
        found = _adapter().validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise PlanError(
            f"{where} is not the plan of a comparison ({place + ': ' if place else ''}{first['msg']})"
        ) from None
    if found.format != _FORMAT:
        raise PlanError(f"{where} was written in format {found.format}; this version of Evolion reads {_FORMAT}")
    return found


def resumed(found: Manifest, asked: Manifest, folder: str) -> Manifest:
    """Return what a folder goes on with: what is asked for, if it is what the folder holds.

    Data that was missing then and is there now is no change: its task joins in.

    Raises:
        PlanError: If the plan, a task or the task sets have changed, as rows of both would stand in one table.

    """
    mend = f"the rows of both cannot stand in one table; choose another folder than {folder} with --out"
    ours, theirs = _said(asked.plan), _said(found.plan)
    for name, value in ours.items():
        if value != theirs[name]:
            raise PlanError(f"{folder} holds a comparison with {name} {theirs[name]}, not {value}: {mend}")
    for one, other in zip(asked.plan.entrants, found.plan.entrants, strict=True):
        if one.program != other.program:
            raise PlanError(f"{folder} holds a comparison with another program of the name {one.name!r}: {mend}")
    for task, digest in asked.digests.items():
        if found.digests.get(task, digest) != digest:
            raise PlanError(f"the task {task!r} or its data has changed since {folder} was begun: {mend}")
    if found.lock != asked.lock:
        raise PlanError(f"the set of tasks has changed since {folder} was begun: {mend}")
    return replace(asked, digests={**found.digests, **asked.digests})


def _said(plan: Plan) -> dict[str, Any]:
    said: dict[str, Any] = {item.name: getattr(plan, item.name) for item in fields(plan)}
    return said | {"entrants": ", ".join(one.name for one in plan.entrants), "tasks": ", ".join(plan.tasks)}
