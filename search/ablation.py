"""Ablation: the programs that a program becomes when one statement is taken out."""

from __future__ import annotations

from evolion.primitives.keys import structural_key
from evolion.primitives.program import Argument, Program
from evolion.search.drafts import finish, offer, without_statement

__all__ = ["removals"]


def removals(program: Program) -> tuple[tuple[int, tuple[Program, ...]], ...]:
    """Return for each statement its index and the valid programs without it.

    What read the statement's value reads instead, one variant each: the earlier binding of its name (for a slot, its
    value at the start of the step), and every argument of the statement of a kind that fits. Variants have no dead
    code, docstring or comments; none has the structural key of the program or of an earlier variant of the same
    statement, so a dead statement has no variant. The order is always the same.
    """
    offered = offer(program)
    draft = offered.draft
    own = structural_key(program)
    rows = []
    for index, statement in enumerate(program.statements):
        replacements: list[Argument | None] = list(dict.fromkeys(statement.args))
        if statement.target in offered.scope(index):
            replacements.insert(0, None)
        variants: dict[str, Program] = {}
        for replacement in replacements:
            shorter = without_statement(draft, index, replacement)
            variant = None if shorter is None else finish(shorter)
            if variant is not None and structural_key(variant) != own:
                variants.setdefault(structural_key(variant), variant)
        rows.append((index, tuple(variants.values())))
    return tuple(rows)
