"""What a comparison says, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from evolion.evaluators.protocol.report import Aggregate, Estimate
from evolion.pictures.material import Material, listed, usable

__all__ = ["by_kind", "findings", "missing", "number", "ranged"]


def number(value: float | None, digits: int = 3) -> str:
    """Return a number in few characters: "–" for none, "diverged" for one that is not finite."""
    if value is None:
        return "–"
    if value != value or value in (float("inf"), float("-inf")):
        return "diverged"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def ranged(estimate: Estimate | None, digits: int = 3) -> str:
    """Return an estimate with its interval: "1.32 (1.18 to 1.47)"."""
    if estimate is None:
        return "–"
    return f"{number(estimate.value, digits)} ({number(estimate.low, digits)} to {number(estimate.high, digits)})"


def verdict(material: Material, speed_up: Estimate) -> str:
    """Say whether an optimizer is "faster" or "slower" beyond chance, or "not resolved".

    An interval has to lie off 1 and off what renamed copies of the reference reach.
    """
    low, high = material.report.band or (1.0, 1.0)
    if speed_up.low > max(1.0, high):
        return "faster"
    return "slower" if speed_up.high < min(1.0, low) else "not resolved"


def _on_tasks(material: Material, name: str, said: str) -> str:
    """Say on which tasks the answer is the opposite one, and on which the speed-up is a bound."""
    cells = [material.cells[task, name] for task in material.tasks if (task, name) in material.cells]
    judged = [(c, verdict(material, c.speed_up.estimate)) for c in cells if c.speed_up and usable(c.speed_up.estimate)]
    parts = []
    for answer in ("faster", "slower"):
        tasks = [cell.task for cell, found in judged if found == answer and answer != said]
        parts += [f" It is {answer} on {listed(tasks)}."] if tasks else []
    bounds = [cell.task for cell in cells if cell.speed_up and cell.speed_up.censored]
    parts += [f" On {listed(bounds)} it leaves what can be measured, and counts with the bound."] if bounds else []
    return "".join(parts)


def finding(material: Material, aggregate: Aggregate) -> tuple[str, str]:
    """Return what is said of one optimizer: the verdict, and a sentence that begins after its name."""
    reference, speed_up = material.report.reference, aggregate.speed_up
    if not usable(speed_up) or speed_up is None:
        lost = f"; {100 * aggregate.diverged:.0f} % of its runs diverged" if aggregate.diverged > 0 else ""
        return "not computed", f"has no speed-up over {reference} that could be computed{lost}."
    said = verdict(material, speed_up)
    level = f"{100 * material.report.level:g} % interval"
    tasks = "1 task" if aggregate.tasks == 1 else f"{aggregate.tasks} tasks"
    worth = (
        f"one of its steps is worth {number(speed_up.value)} of {reference}'s "
        f"({level} {number(speed_up.low)} to {number(speed_up.high)}, {tasks})."
    )
    if said == "not resolved":
        chance = " and from its renamed copies" if material.report.band else ""
        text = f"is not told apart from {reference}{chance}: {worth}"
    else:
        text = f"is {said} than {reference}: {worth}"
    if aggregate.wall is not None and usable(aggregate.wall):
        text += f" In time on the machine that ran it: {ranged(aggregate.wall)}."
    return said, text + _on_tasks(material, aggregate.optimizer, said)


def findings(material: Material) -> list[tuple[str, str, str]]:
    """Return (verdict, name, sentence) of every optimizer but the reference and its copies, the fastest first."""
    aggregates = [a for a in material.report.aggregates if a.optimizer in material.others]
    ranked = sorted(aggregates, key=lambda a: -a.speed_up.value if a.speed_up and usable(a.speed_up) else 0.0)
    told = [(a.optimizer, finding(material, a)) for a in ranked]
    return [(said, name, text) for name, (said, text) in told]


def by_kind(material: Material) -> list[str]:
    """Rank optimizers apart by what their programs work on, where there are several kinds and ranks within one.

    Small tasks exaggerate what matrix rules gain, so a rank over all kinds would mislead.
    """
    judged = [a for a in material.report.aggregates if a.optimizer in material.others and a.kind]
    kinds = list(dict.fromkeys(aggregate.kind for aggregate in judged))
    said = []
    for kind in kinds if len(kinds) > 1 else []:
        known = [
            (a.speed_up.value, a.optimizer) for a in judged if a.kind == kind and a.speed_up and usable(a.speed_up)
        ]
        ranked = ", ".join(f"{name} ({number(value)})" for value, name in sorted(known, key=lambda pair: -pair[0]))
        said += [f"{kind}: {ranked}"] if ranked else []
    return said


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{name} on {task}" for task, name in pairs)


def missing(material: Material) -> list[str]:
    """Say what is missing or thin: notes of the report, empty cells, runs that diverged, single seeds, no controls."""
    report = material.report
    said = list(report.notes)
    if not material.tasks:
        said.append("There is no task with a result.")
    if not material.others:
        said.append(f"{report.reference} took part alone: there is nothing to compare it with.")
    empty = [(t, n) for t in material.tasks for n in material.optimizers if (t, n) not in material.cells]
    lost = [place for place, cell in material.cells.items() if cell.mean is None and cell.losses]
    bare = [place for place, cell in material.cells.items() if not cell.losses]
    single = [place for place, cell in material.cells.items() if len(cell.losses) == 1]
    for places, what in (
        (empty, "No result at all"),
        (bare, "No run on a fresh seed"),
        (lost, "A run on a fresh seed diverged, so that there is no mean loss"),
    ):
        said += [f"{what}: {_pairs(places)}."] if places else []
    if single:
        said.append(f"One fresh seed only, so no deviation: {_pairs(single)}.")
    if material.others and not report.band:
        said.append(
            f"No renamed copies of {report.reference} took part, so what chance alone does is not known; "
            "intervals are compared with 1."
        )
    return said
