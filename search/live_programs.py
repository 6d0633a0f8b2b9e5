"""Programs without dead code and their structural keys, remembered from when they were made."""

from __future__ import annotations

from collections import OrderedDict

from evolion.primitives.dataflow import data_flow, live_statements, remove_dead_code
from evolion.primitives.keys import structural_key
from evolion.primitives.program import Program

__all__ = ["prepared", "remember"]

_REMEMBERED = 4096
# By the identity of the program that is held here: comparing programs would take as long as half of the work.
_prepared: OrderedDict[int, tuple[Program, Program, str]] = OrderedDict()


def prepared(program: Program) -> tuple[Program, str]:
    """Return the program without dead code and its structural key; what is found of a child serves it as a parent."""
    found = _prepared.get(id(program))
    if found is None:
        flow = data_flow(program)
        statements, parameters = live_statements(program, flow)
        entries = len(program.parameters) + len(program.hyperparameters)
        if len(statements) == len(program.statements) and len(parameters) == entries:
            found = remember(program, program, structural_key(program, flow))
        else:
            live = remove_dead_code(program)
            found = remember(program, live, structural_key(live))
    return found[1:]


def remember(program: Program, live: Program, key: str) -> tuple[Program, Program, str]:
    """Note the program without dead code and its structural key, which somebody has worked out."""
    _prepared[id(program)] = found = (program, live, key)
    if len(_prepared) > _REMEMBERED:
        _prepared.popitem(last=False)
    return found
