"""The table of all rewrite rules; see `evolion.primitives.rule` for what a row says."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from evolion.primitives import arithmetic_rules, matrix_rules, selection_rules
from evolion.primitives.rule import SCALARS, VALUES, Arithmetic, Call, Rule, Term, Wildcard

__all__ = ["EXAMPLE_CONSTANTS", "RULES", "SCALARS", "VALUES", "Arithmetic", "Call", "Rule", "Term", "Wildcard"]


def _registry(rows: tuple[Rule, ...]) -> Mapping[str, Rule]:
    table = {rule.name: rule for rule in rows}
    if len(table) != len(rows):
        raise ValueError("two rules share a name; one of them is superfluous")
    return MappingProxyType(table)


RULES = _registry(
    (
        *(*arithmetic_rules.EXACT, *selection_rules.EXACT, *matrix_rules.EXACT),
        *(*arithmetic_rules.APPROXIMATE, *selection_rules.APPROXIMATE, *matrix_rules.APPROXIMATE),
    )
)
"""Every rule by name, the exact ones first."""

EXAMPLE_CONSTANTS: Mapping[str, float] = {"c": 2.5, "k": -1.5}
"""Constants that fulfil the condition of every rule."""
