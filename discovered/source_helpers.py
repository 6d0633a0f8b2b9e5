"""Functions that generated modules define for themselves: the matrix ops, reductions over rows and columns, shapes."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from evolion.primitives.kinds import Kind
from evolion.primitives.op import Matrixwise, Op, Reduction
from evolion.primitives.ops import OPS

__all__ = ["helper_names", "helpers"]

_SHAPES = '''\
def as_matrix(x):
    """Return x as a matrix: its last axis as columns, all others together as rows; a vector is one row."""
    return jnp.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1] if x.ndim else 1))


def row_shape(x):
    """Return the shape of one number for each row, which broadcasts with x."""
    return (*x.shape[:-1], 1) if x.ndim else ()


def column_shape(x):
    """Return the shape of one number for each column, which broadcasts with x."""
    return (*(1,) * (x.ndim - 1), x.shape[-1]) if x.ndim else ()


def left_shape(x):
    """Return the shape of a square matrix with the side of the rows of x."""
    return (math.prod(x.shape[:-1]),) * 2


def right_shape(x):
    """Return the shape of a square matrix with the side of the columns of x."""
    return (x.shape[-1] if x.ndim else 1,) * 2'''


def _matrix_function(compute: Callable[..., Any]) -> str:
    """Return the text of a function of matrices, for `jnp` instead of any array namespace and without annotations."""
    source = inspect.getsource(compute)
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    body = "\n".join(source.rstrip().splitlines()[function.body[0].lineno - 1 :])
    arguments = ", ".join(argument.arg for argument in function.args.args[1:])
    return f"def {function.name}({arguments}):\n" + re.sub(r"\bxp\b", "jnp", body)


def _reduction_function(op: Op, meaning: Reduction) -> str:
    return f'def {op.name}(x):\n    """Return the {op.summary}."""\n    return {meaning.source.format("x")}'


def _functions() -> Iterator[tuple[str, str]]:
    for op in OPS.values():
        meaning = op.meaning
        if isinstance(meaning, Matrixwise):
            yield op.name, _matrix_function(meaning.compute)
        elif isinstance(meaning, Reduction) and meaning.scope in (Kind.ROW, Kind.COLUMN):
            yield op.name, _reduction_function(op, meaning)
    for text in _SHAPES.split("\n\n\n"):
        yield text[len("def ") : text.index("(")], text


@cache
def _table() -> Mapping[str, str]:
    return MappingProxyType(dict(_functions()))


def helper_names() -> frozenset[str]:
    """Return the names of all functions that a generated module may define."""
    return frozenset(_table())


def helpers(code: str) -> list[str]:
    """Return the texts of the functions that some code calls."""
    called = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    return [text for name, text in _table().items() if name in called]
