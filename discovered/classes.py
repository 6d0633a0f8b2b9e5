"""What sort of optimizer a program is: which entries one step brings together, what it needs, and its year."""

from __future__ import annotations

import re
from functools import cache

from evolion.primitives.dataflow import live_statements
from evolion.primitives.kinds import Kind
from evolion.primitives.op import Matrixwise, Reduction
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program

__all__ = ["CLASSES", "class_of", "title", "year"]

CLASSES = ("elementwise", "per row or column", "per tensor", "whole tree", "matrix", "curvature")
"""The classes of `class_of`; of those that fit, a program is in the last."""

_SCOPES = {
    Kind.SCALAR: "whole tree",
    Kind.LEAF: "per tensor",
    Kind.ROW: "per row or column",
    Kind.COLUMN: "per row or column",
}
_MATRICES = {Kind.LEFT, Kind.RIGHT}
_YEAR = re.compile(r"\((1[89]\d\d|2\d\d\d)\b")


def class_of(program: Program) -> str:
    """Return which of `CLASSES` a program is in, by what can reach an update.

    `curvature` reads the Hessian estimate. `matrix` multiplies or decomposes matrices, or keeps square ones. Of the
    others, `whole tree`, `per tensor` and `per row or column` say over what it reduces values or keeps a single number
    for; `elementwise` does none of that. What a hyperparameter switches off counts, as it can be switched on.
    """
    statements, parameters = live_statements(program)
    found = {_class_of_op(program.statements[index].op) for index in statements}
    for parameter in program.parameters:
        if parameter.name not in parameters:
            continue
        if parameter.name == "hess" and not parameter.slot:
            found.add("curvature")
        elif parameter.kind in _MATRICES:
            found.add("matrix")
        elif parameter.slot and parameter.kind in (Kind.LEAF, Kind.ROW, Kind.COLUMN):
            found.add(_SCOPES[parameter.kind])
    return max(found, key=CLASSES.index, default="elementwise")


@cache
def _class_of_op(name: str) -> str:
    op = OPS[name]
    meaning = op.meaning
    if isinstance(meaning, Reduction):
        return _SCOPES[meaning.scope]
    if not isinstance(meaning, Matrixwise):
        return "elementwise"
    if any(_MATRICES & {*kinds, kind} for kinds, kind in op.signatures.items()):
        return "matrix"
    # Numbers of entries, rows or columns hang on shapes alone; a mask is chosen among all entries of a tensor.
    shapes_alone = all(kind is Kind.LEAF for kind in op.signatures.values())
    return "elementwise" if shapes_alone else "per tensor"


def title(program: Program) -> str:
    """Return the first line of the docstring, empty without one."""
    return program.docstring.partition("\n")[0]


def year(program: Program) -> int | None:
    """Return the year of the first source: the first one after an opening parenthesis in the docstring, if any.

    Known programs name their source as `Author, "Title" (2015, arXiv:1412.6980)`.
    """
    found = _YEAR.search(program.docstring)
    return int(found.group(1)) if found else None
