"""The meaning of one op as a Python expression over `jnp`, with the names `_0`, `_1`, … for its arguments."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from evolion.primitives.kinds import Kind
from evolion.primitives.op import Op, Reduction

__all__ = [
    "SHAPES",
    "Conditions",
    "Fill",
    "MatrixTemplate",
    "Safe",
    "literal",
    "matrix_template",
    "parsed",
    "reduction",
    "typed",
]

SHAPES = {Kind.TENSOR: "{0}.shape", Kind.ROW: "row_shape({0})", Kind.COLUMN: "column_shape({0})"}
"""Generated code for the shape of a value that is no matrix, from a tensor of the parameter's shape."""

_PRODUCTS = {Kind.LEAF: "jnp.vdot(_0, _1)", Kind.TENSOR: "_0 * _1"}
"""Products of two vectors by the kind of the result; the tensor of a row and a column is made by broadcasting."""


def parsed(source: str, arity: int) -> ast.expr:
    """Parse a source template; `{0}` becomes the name `_0`, and whole numbers lose their point outside of powers."""
    tree = ast.parse(_named(source, arity), mode="eval").body
    return tree if "power" in source or "**" in source else _Whole().visit(tree)


@cache
def _named(source: str, arity: int) -> str:
    return source.format(*[f"_{i}" for i in range(arity)])


def literal(value: float, whole: bool = True) -> ast.expr:
    """Write a number, without a point where it is whole and `whole` allows it."""
    if not np.isfinite(value):
        node: ast.expr = _expression("jnp.nan" if value != value else "jnp.inf")
    else:
        node = ast.Constant(int(abs(value)) if whole and _is_whole(value) else abs(value))
    return ast.UnaryOp(ast.USub(), node) if value == value and np.copysign(1.0, value) < 0 else node


def _is_whole(value: float) -> bool:
    # An integer has no negative zero, and large ones exceed what JAX takes for an integer.
    return value.is_integer() and abs(value) < 1e6 and not (value == 0 and np.copysign(1.0, value) < 0)


def _expression(source: str) -> ast.expr:
    return ast.parse(source, mode="eval").body


class _Whole(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return literal(node.value) if isinstance(node.value, float) else node


class Fill(ast.NodeTransformer):
    """Puts expressions in the place of names."""

    def __init__(self, nodes: dict[str, ast.expr]) -> None:
        self.nodes = nodes

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace a name that stands for an expression."""
        return self.nodes.get(node.id, node)


class Safe(ast.NodeTransformer):
    """Lets JAX divide and raise to powers where Python floats would raise an exception or turn complex."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """Replace an operator by the function of JAX."""
        self.generic_visit(node)
        name = {ast.Div: "divide", ast.Pow: "power"}.get(type(node.op))
        return node if name is None else ast.Call(_expression(f"jnp.{name}"), [node.left, node.right], [])


def typed(tree: ast.expr, floats: Collection[str]) -> ast.expr:
    """Give the dtype of the step to a choice between two Python floats, which has none of its own.

    Ones and zeros are the condition itself, as numbers; where they are a condition again, it stands alone.

    Args:
        tree: The template of an op.
        floats: The names `_0`, `_1`, … that stand for Python floats.

    """
    if not (isinstance(tree, ast.Call) and ast.unparse(tree.func) == "jnp.where"):
        return tree
    condition, *branches = tree.args
    if not all(isinstance(b, ast.Constant) or (isinstance(b, ast.Name) and b.id in floats) for b in branches):
        return tree
    if [ast.unparse(branch) for branch in branches] == ["1", "0"]:
        return ast.Call(_expression("jnp.asarray"), [condition, ast.Name("dtype")], [])
    return ast.Call(ast.Attribute(tree, "astype"), [ast.Name("dtype")], [])


class Conditions(ast.NodeTransformer):
    """Takes a comparison for the condition that it is, where it was made a number only to be compared with zero."""

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        """Replace `jnp.asarray(condition, dtype) != 0` by the condition."""
        self.generic_visit(node)
        left = node.left
        if not (isinstance(left, ast.Call) and ast.unparse(left.func) == "jnp.asarray" and len(left.args) == 2):
            return node
        is_condition = [type(op) for op in node.ops] == [ast.NotEq] and ast.unparse(node.comparators[0]) == "0"
        return left.args[0] if is_condition and ast.unparse(left.args[1]) == "dtype" else node


def reduction(op: Op, meaning: Reduction) -> str:
    """Return the source template of the reduced value; rows and columns have a helper function of the op's name."""
    return meaning.source if meaning.scope in (Kind.SCALAR, Kind.LEAF) else f"{op.name}({{0}})"


@dataclass(frozen=True, slots=True)
class MatrixTemplate:
    """An op on matrix views as an expression.

    Attributes:
        tree: The expression.
        viewed: The numbers of the arguments that must come as matrices.
        reshaped: Whether the result must be brought to the shape of its kind.
        is_matrix: Whether the result is the matrix view of its kind.

    """

    tree: ast.expr
    viewed: frozenset[int]
    reshaped: bool
    is_matrix: bool


def matrix_template(op: Op, compute: Callable[..., Any], kinds: tuple[Kind, ...]) -> MatrixTemplate:
    """Return the expression of an op on matrices for arguments of the given kinds.

    What a function returns in one expression that reads each argument once is written out; others are called.
    """
    kind, vectors = op.signatures[kinds], all(k in (Kind.ROW, Kind.COLUMN) for k in kinds)
    tree = _formula(compute)
    product = isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.MatMult)
    if product and vectors and kind in _PRODUCTS:
        return MatrixTemplate(_expression(_PRODUCTS[kind]), frozenset(), False, False)
    viewed = {i for i, k in enumerate(kinds) if k in SHAPES}
    if tree is None:
        tree = ast.Call(ast.Name(op.name), [ast.Name(f"_{i}") for i in range(op.arity)], [])
    else:
        flat = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "jnp.ravel"]
        viewed -= {i for i in viewed for node in flat if ast.unparse(node.args[0]) == f"_{i}"}
    return MatrixTemplate(tree, frozenset(viewed), kind in SHAPES, kind in SHAPES and op.name != "diagonal")


def _formula(compute: Callable[..., Any]) -> ast.expr | None:
    """Return the one expression of a function of matrices over the names of the arguments, if that reads well."""
    function = ast.parse(_text(compute)).body[0]
    assert isinstance(function, ast.FunctionDef)
    names = [argument.arg for argument in function.args.args[1:]]
    statement = function.body[-1]
    if len(function.body) > 2 or not isinstance(statement, ast.Return) or statement.value is None:
        return None
    read = [node.id for node in ast.walk(statement.value) if isinstance(node, ast.Name)]
    if any(read.count(name) != 1 for name in names):
        return None
    nodes: dict[str, ast.expr] = {name: ast.Name(f"_{i}") for i, name in enumerate(names)}
    tree: ast.expr = Fill(nodes | {"xp": ast.Name("jnp")}).visit(statement.value)
    return _Operators().visit(tree)  # type: ignore[no-any-return]


@cache
def _text(function: Callable[..., Any]) -> str:
    return inspect.getsource(function)


class _Operators(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        function = ast.unparse(node.func)
        if function == "jnp.matmul":
            return ast.BinOp(node.args[0], ast.MatMult(), node.args[1])
        return ast.Attribute(node.args[0], "T") if function == "jnp.transpose" else node
