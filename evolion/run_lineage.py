"""How a run came to a program: its ancestors, and how it differs from the warm start and from known optimizers."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evolion.config import program_of
from evolion.pictures.run_material import Ablated, LineageStep, Source
from evolion.run_history import Change, History
from evolion.store import RunStore

if TYPE_CHECKING:
    from evolion.discovered.nearest import Nearest
    from evolion.primitives.program import Program

__all__ = ["ancestors", "changed_lines", "lineage_of", "readable", "source_of"]

MOST_STEPS = 40
"""So many steps are shown one by one; of more, those with the largest effects."""

MOST_LINES = 300
MOST_CHANGED = 24
LONGEST_LINE = 400
_LONGEST_COMPARED = 300
"""Statements; of longer programs the nearest known optimizer would take long to find."""


def ancestors(history: History, number: int) -> list[int]:
    """Return a candidate and all that it descends from by first parents, the oldest first."""
    line: list[int] = []
    place = history.made.get(number)
    while place is not None and number not in line[-1:]:
        line.append(number)
        # A parent is always older: damaged data cannot lead in a circle.
        if place.parent is None or place.parent >= number:
            break
        number, place = place.parent, history.made.get(place.parent)
    return line[::-1]


def changed_lines(before: str, after: str, most: int = MOST_LINES) -> tuple[str, ...]:
    """Return the lines that two program texts do not share, with "-" or "+" before them."""
    compared = difflib.ndiff(before.splitlines(), after.splitlines())
    return bounded([f"{line[0]} {line[2:]}" for line in compared if line[0] in "-+"], most)


def whole_difference(before: str, after: str) -> tuple[str, ...]:
    """Return both texts as one, with "-", "+" or a blank before each line; nothing for equal texts."""
    if before == after:
        return ()
    old, new = before.splitlines(), after.splitlines()
    lines = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            lines += [f"  {line}" for line in new[k:m]]
        else:
            lines += [f"- {line}" for line in old[i:j]] + [f"+ {line}" for line in new[k:m]]
    return bounded(lines, MOST_LINES)


def bounded(lines: Sequence[str], most: int) -> tuple[str, ...]:
    """Return lines of a text, not too many and not too long for a page."""
    shown = [line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} …" for line in lines[:most]]
    more = len(lines) - most
    return (*shown, f"… {more:,} more lines") if more > 0 else tuple(shown)


def lineage_of(
    store: RunStore, history: History, number: int, errors: dict[int, float]
) -> tuple[tuple[LineageStep, ...], tuple[str, ...]]:
    """Return the way from the oldest ancestor of a candidate to it, and notes on it.

    Steps without an effect beyond noise stand together where several follow each other.
    """
    line = ancestors(history, number)
    changes = {child: history.change(child, errors) for child in line[1:]}
    telling = [child for child in line[1:] if _tells(changes[child])]
    chosen = set(sorted(telling, key=lambda child: _size(changes[child]), reverse=True)[:MOST_STEPS])
    steps = [_step(store, history, line[0], None, shown=True)]
    for child in line[1:]:
        shown = child in chosen or child == line[-1]
        step = _step(store, history, child, changes[child], shown=shown)
        if not shown and len(steps) > 1 and not steps[-1].difference:
            step = _joined(steps.pop(), step)
        steps.append(step)
    notes = []
    left = len(telling) - len(chosen)
    if left:
        notes.append(f"{left:,} more steps had an effect beyond noise; they stand with those that had none.")
    if len(line) > 1 and not errors:
        notes.append("Nothing was confirmed, so the noise is not known: a change of value may be chance.")
    return tuple(steps), tuple(notes)


def _tells(change: Change | None) -> bool:
    """Whether a step is worth a look of its own: it did something beyond noise, or nobody knows the noise."""
    if change is None:
        return False
    unknown = change.error is None and change.logarithm not in (None, 0.0)
    return not change.same and (change.resolved or unknown)


def _size(change: Change | None) -> float:
    if change is None:
        return 0.0
    return math.inf if change.further else abs(change.logarithm or 0.0)


def _step(store: RunStore, history: History, number: int, change: Change | None, *, shown: bool) -> LineageStep:
    made, outcome = history.made[number], history.outcomes.get(number)
    difference: tuple[str, ...] = ()
    if shown and made.parent is not None:
        parent, child = store.candidate(made.parent), store.candidate(number)
        if parent is not None and child is not None:
            difference = changed_lines(_text(parent.text), _text(child.text), MOST_CHANGED)
    return LineageStep(
        numbers=(number,),
        mutations=(made.mutation,),
        change=None if change is None or change.logarithm is None or change.same else math.expm1(change.logarithm),
        error=None if change is None or change.error is None or change.same else change.error,
        effect=_effect(change, made.parent is None),
        stage=0 if outcome is None or outcome.stage is None else outcome.stage + 1,
        confirmed=change is not None and change.confirmed,
        value=history.value(number)[0],
        difference=difference,
    )


def _effect(change: Change | None, first: bool) -> str:
    if change is None:
        return "where it began" if first else "cannot be compared: one of the two failed"
    if change.same:
        return "does the same"
    if change.further > 0:
        return f"came {change.further} stage{'s' * (change.further > 1)} further"
    if change.further < 0:
        return "did not come as far"
    if change.logarithm is None:
        return "cannot be compared"
    return "" if change.resolved or change.error is None else "within noise"


def _joined(before: LineageStep, step: LineageStep) -> LineageStep:
    """Return two steps as one that says how many they were."""
    return replace(
        step,
        numbers=(*before.numbers, *step.numbers),
        mutations=(*before.mutations, *step.mutations),
        change=None,
        error=None,
        effect="no effect beyond noise",
        confirmed=False,
    )


def source_of(store: RunStore, number: int) -> Source:
    """Return the winner, or a candidate, with its differences from the warm start and the nearest known optimizer."""
    from evolion.discovered.nearest import nearest

    winner = store.winner()
    record = store.candidate(number)
    assert record is not None
    title = "The winner" if winner is not None else "The best so far"
    text = record.text if winner is None else winner.text
    program = readable(text)
    if program is None:
        note = "This version cannot read the program, so it is shown as it is and compared with nothing."
        return Source("\n".join(bounded(text.splitlines(), MOST_LINES)), title, "", "", (), (), (), (note,))
    found = readable(record.text)
    if winner is not None:
        before, after = 0 if found is None else len(found.statements), len(program.statements)
        became = f"{before} statements became {after}" if before != after else "it kept its length"
        note = f"Candidate {number} after simplification and ablation: {became}."
    else:
        program, note = _shorter(program), f"Candidate {number}, simplified by the exact rules; it was not retested."
    near = nearest(program) if len(program.statements) <= _LONGEST_COMPARED else None
    own, seed = str(_bare(program)), str(_bare(program_of(store.config.search.warm_start)))
    return Source(
        text="\n".join(bounded(str(program).splitlines(), MOST_LINES)),
        title=title,
        nearest="" if near is None else str(near),
        nearest_name="" if near is None else near.name,
        from_nearest=() if near is None else whole_difference(str(_fitted(near)), own),
        from_seed=whole_difference(seed, own),
        ablated=tuple(_ablated(removal) for removal in store.get_record("ablation") or ()),
        notes=(note,),
    )


def readable(text: str) -> Program | None:
    """Return the program of a text, None for one that this version cannot read."""
    from evolion.primitives.parser import parse
    from evolion.primitives.program import ProgramError

    try:
        return parse(text)
    except ProgramError:
        return None


def _shorter(program: Program) -> Program:
    from evolion.primitives.simplify import simplify

    simple = simplify(program)
    return simple if len(simple.statements) < len(program.statements) else program


def _text(text: str) -> str:
    """Return a program text without what is said about it."""
    program = readable(text)
    return text if program is None else str(_bare(program))


def _bare(program: Program) -> Program:
    return replace(program, docstring="", comments=())


def _fitted(near: Nearest) -> Program:
    """Return the nearest known optimizer with the constants that bring it nearest."""
    from evolion.discovered.library import known

    program = _bare(known()[near.name])
    own = {hyperparameter.name for hyperparameter in program.hyperparameters}
    return program.with_hyperparameters(**{name: ours for name, (_, ours) in near.changes.items() if name in own})


def _ablated(removal: dict[str, Any]) -> Ablated:
    effects = {task: None if pair is None else (pair[0], pair[1]) for task, pair in removal["effects"].items()}
    return Ablated(removal["statement"], effects, removal["removed"])
