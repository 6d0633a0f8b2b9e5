"""What a run has found, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from evolion.pictures.material import listed
from evolion.pictures.run_material import Evidence, Leader, RunMaterial

__all__ = ["compared", "finding", "percent", "spread"]

BETTER, WORSE, UNSHOWN = "better", "worse", "no difference shown"


def compared(material: RunMaterial) -> tuple[Evidence, ...]:
    """Return the rows of the retest that stand for baselines."""
    return tuple(row for row in material.evidence if row.verdict)


def finding(material: RunMaterial) -> tuple[str, str]:
    """Return what was found: a verdict ("better", "mixed", "not better", "unknown", "nothing") and a sentence.

    "better" is said only of a winner that is better than every baseline on every task of the retest.
    """
    rows = compared(material)
    if rows:
        return _retested(rows)
    if material.evidence:
        return "unknown", "The retest had no baselines, so whether the winner is better than a known optimizer is open."
    far = f"{material.told:,} of {material.budget:,} candidates have been told"
    if material.leaders:
        done = material.told >= material.budget
        left = "The search is over and its retest is not" if done else f"The run is not finished: {far}"
        return "unknown", (
            f"{left}, so whether anything here is better than a known optimizer is not known. {_so_far(material)}"
        ).strip()
    if material.told:
        return "nothing", f"Nothing was found: each of the {material.told:,} candidates told so far failed."
    return "nothing", f"Nothing is known yet: {far}."


def _retested(rows: Sequence[Evidence]) -> tuple[str, str]:
    by = {said: [row for row in rows if row.verdict == said] for said in (BETTER, WORSE, UNSHOWN)}
    lost = [row for row in rows if row.verdict not in by]
    on = f"on {_tasks(rows)}"
    if len(by[BETTER]) == len(rows):
        return "better", f"The winner is better than {_programs(rows)} {on}: {_amounts(rows)}."
    parts = []
    if by[BETTER]:
        parts.append(f"better than {_where(by[BETTER])}")
    if by[WORSE]:
        parts.append(f"worse than {_where(by[WORSE])}")
    if by[UNSHOWN]:
        parts.append(f"not told apart from {_where(by[UNSHOWN])}")
    if lost:
        parts.append(f"not comparable with {_where(lost)}, as a run diverged")
    said = f"It is {listed_parts(parts)}."
    if by[BETTER]:
        count = f"{len(by[BETTER])} of {len(rows)} comparisons, and worse in {len(by[WORSE]) or 'none'}"
        return "mixed", f"The winner is not shown to be better over all: it is better in {count}. {said}"
    if by[WORSE]:
        return "not better", f"The winner is not better than the baselines. {said}"
    return "not better", f"Nothing shows that the winner is better than the baselines. {said}"


def listed_parts(parts: Sequence[str]) -> str:
    """Return phrases in one sentence, whole."""
    return parts[0] if len(parts) == 1 else f"{'; '.join(parts[:-1])}; and {parts[-1]}"


def _programs(rows: Sequence[Evidence]) -> str:
    return listed(dict.fromkeys(row.program for row in rows))


def _tasks(rows: Sequence[Evidence]) -> str:
    return listed(dict.fromkeys(row.task for row in rows))


def _where(rows: Sequence[Evidence]) -> str:
    by_program: dict[str, list[str]] = {}
    for row in rows:
        by_program.setdefault(row.program, []).append(row.task)
    parts = [f"{listed([program])} on {listed(tasks)}" for program, tasks in by_program.items()]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"


def _amounts(rows: Sequence[Evidence]) -> str:
    shares = [
        -row.difference.value / row.loss.value for row in rows if row.difference and row.loss and row.loss.value > 0
    ]
    if not shares:
        return "the whole interval of each paired difference of test losses lies below zero"
    low, high = min(shares), max(shares)
    by = percent(low) if percent(low) == percent(high) else f"{percent(low)} to {percent(high)}"
    return f"its test loss is {by} lower, and the whole interval of each paired difference lies below zero"


def _so_far(material: RunMaterial) -> str:
    best = next((leader for leader in material.leaders if leader.place == 1), None)
    start = next((leader for leader in material.leaders if leader.number == 0), None)
    if best is None:
        return ""
    if best.number == 0:
        return "So far no candidate is ahead of the warm start."
    ours, theirs = _value(best), None if start is None else _value(start)
    said = f"The best so far is candidate {best.number}, which finished stage {best.stage}"
    if start is None or ours is None or theirs is None:
        return f"{said}."
    if start.stage != best.stage:
        return f"{said}; the warm start finished stage {start.stage}."
    seeds = "with fresh seeds" if best.confirmed and start.confirmed else "at first sight, which flatters the best"
    way = "lower" if ours <= theirs else "higher"
    return f"{said}: its value is {percent(abs(1 - ours / theirs))} {way} than that of the warm start, {seeds}."


def _value(leader: Leader) -> float | None:
    return leader.first if leader.confirmed is None else leader.confirmed.value


def percent(share: float) -> str:
    """Return a share as "3.2 %", with two digits below ten per cent."""
    amount = 100 * share
    return f"{amount:.0f} %" if abs(amount) >= 10 else f"{amount:.2g} %"


def spread(change: float, error: float | None) -> str:
    """Return a relative change with its standard error, signed: "−3.2 % ± 0.8 %"."""
    sign = "−" if change < 0 else "+"
    said = f"{sign}{percent(abs(change))}"
    return said if error is None else f"{said} ± {percent(error)}"
