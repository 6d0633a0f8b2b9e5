"""The meaning of one op as a Python expression over PyTorch, and the texts of the functions that generated code needs.

PyTorch itself is not imported.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

from evolion.discovered.source_templates import Fill, literal, parsed
from evolion.primitives.op import Elementwise, Meaning, Op

__all__ = [
    "FOREACH",
    "Conditional",
    "device_template",
    "function_names",
    "functions",
    "host_template",
    "number",
    "options_of",
]

FOREACH: Mapping[str, str] = MappingProxyType(
    {f"jnp.{name}({{0}})": name for name in ("abs", "cos", "sin", "tan", "sinh", "cosh", "tanh", "exp", "expm1", "log",
                                             "log10", "log2", "log1p", "sqrt", "sign", "floor")}
    | {"jnp.arcsin({0})": "asin", "jnp.arccos({0})": "acos", "jnp.arctan({0})": "atan", "-{0}": "neg"}
    | {"1.0 / {0}": "reciprocal", "{0} + {1}": "add", "{0} - {1}": "sub", "{0} * {1}": "mul", "{0} / {1}": "div"}
    | {"{0} ** {1}": "pow", "jnp.maximum({0}, {1})": "maximum", "jnp.minimum({0}, {1})": "minimum"}
)  # fmt: skip
"""Source of an op that PyTorch has for lists of tensors, and the name it has there: `torch._foreach_NAME`."""

_RENAMED = {"power": "torch.pow", "mod": "torch.remainder", "cbrt": "cbrt", "logaddexp": "logaddexp"}
"""Functions of JAX that PyTorch has under another name, or that generated code defines."""

_BOUNDS = {"maximum": "torch.clamp_min", "minimum": "torch.clamp_max"}

_LONGEST_WRITTEN_OUT = 45


def number(value: float) -> ast.expr:
    """Write a number."""
    return _Infinities().visit(literal(value))  # type: ignore[no-any-return]


class _Infinities(ast.NodeTransformer):
    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """Name infinity and NaN by Python's own module."""
        return ast.Attribute(ast.Name("math"), node.attr)


class Conditional(ast.NodeTransformer):
    """Takes a comparison for the condition that it is, where it was made a number only to be compared with zero."""

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        """Replace `condition.to(dtype) != 0` and `(1 if condition else 0) != 0` by the condition."""
        self.generic_visit(node)
        if [type(op) for op in node.ops] != [ast.NotEq] or ast.unparse(node.comparators[0]) != "0":
            return node
        left = node.left
        if isinstance(left, ast.Call) and ast.unparse(left.func) == "np.float64":
            left = left.args[0]
        if isinstance(left, ast.IfExp) and (ast.unparse(left.body), ast.unparse(left.orelse)) == ("1", "0"):
            return left.test
        if isinstance(left, ast.Call) and ast.unparse(left).endswith(".to(dtype)"):
            assert isinstance(left.func, ast.Attribute)
            return left.func.value
        return node


class _Host(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        name = _function(node)
        if name == "where":
            return ast.IfExp(*node.args)
        return ast.Call(ast.Attribute(ast.Name("np"), name), node.args, [])


class _Device(ast.NodeTransformer):
    """Writes a template for tensors; `numbers` are the names that stand for numbers of Python."""

    def __init__(self, numbers: Collection[str]) -> None:
        self.numbers = numbers

    def is_number(self, node: ast.expr) -> bool:
        names = [child.id for child in ast.walk(node) if isinstance(child, ast.Name) and child.id != "jnp"]
        return all(name in self.numbers for name in names)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        name, args = _function(node), node.args
        are_numbers = list(map(self.is_number, args))
        args = [self.visit(arg) for arg in args]
        if name == "where":
            return self.choice(args, are_numbers)
        if all(are_numbers):
            return ast.Call(_dotted(f"np.{name}"), args, [])
        if name in _BOUNDS and any(are_numbers):
            tensor, bound = args if are_numbers[1] else args[::-1]
            return ast.Call(_dotted(_BOUNDS[name]), [tensor, bound], [])
        return ast.Call(_dotted(_RENAMED.get(name, f"torch.{name}")), args, [])

    def choice(self, args: list[ast.expr], are_numbers: list[bool]) -> ast.expr:
        if [ast.unparse(branch) for branch in args[1:]] == ["1", "0"]:
            return ast.Call(ast.Attribute(args[0], "to"), [ast.Name("dtype")], [])
        of_tensors = not are_numbers[0] and not all(are_numbers[1:])
        if of_tensors:
            return ast.Call(_dotted("torch.where"), args, [])
        return ast.Call(ast.Name("where"), [*args, ast.Name("dtype")], [])


def _function(node: ast.Call) -> str:
    assert isinstance(node.func, ast.Attribute)
    return node.func.attr


def _dotted(name: str) -> ast.expr:
    return ast.parse(name, mode="eval").body


def host_template(op: Op, meaning: Elementwise) -> ast.expr:
    """Return the expression for numbers of Python or NumPy, over `_0`, `_1`, …."""
    return _Host().visit(parsed(meaning.source, op.arity))  # type: ignore[no-any-return]


def device_template(op: Op, meaning: Meaning, numbers: Collection[str]) -> ast.expr:
    """Return the expression for tensors, over `_0`, `_1`, …, of which `numbers` stand for numbers of Python.

    For an op over matrices the arguments are matrices, for one over whole trees lists. What a function returns in one
    short expression that reads each argument once is written out; others are called.
    """
    if isinstance(meaning, Elementwise):
        return _Device(numbers).visit(parsed(meaning.source, op.arity))  # type: ignore[no-any-return]
    arguments: list[ast.expr] = [ast.Name(f"_{i}") for i in range(op.arity)]
    called = ast.Call(ast.Name(op.name), arguments + [ast.Name(name) for name in options_of(op)], [])
    function = _function_tree(op.name)
    returned = function.body[-1]
    if len(function.body) > 2 or not isinstance(returned, ast.Return) or returned.value is None:
        return called
    names = [argument.arg for argument in function.args.args]
    read = [node.id for node in ast.walk(returned.value) if isinstance(node, ast.Name) and node.id != "torch"]
    if sorted(read) != sorted(names) or len(ast.unparse(returned.value)) > _LONGEST_WRITTEN_OUT:
        return called
    return Fill(dict(zip(names, arguments, strict=True))).visit(returned.value)  # type: ignore[no-any-return]


def options_of(op: Op) -> list[str]:
    """Return the arguments of an op's function beyond those of the op: options that the user of the module sets."""
    if isinstance(op.meaning, Elementwise):
        return []
    return [argument.arg for argument in _function_tree(op.name).args.args[op.arity :]]


@cache
def _function_tree(name: str) -> ast.FunctionDef:
    function = ast.parse(_table()[name]).body[0]
    assert isinstance(function, ast.FunctionDef)
    return function


@cache
def _table() -> Mapping[str, str]:
    """Return the texts of the functions that generated code may define, without annotations."""
    source = resources.files(__package__ or "").joinpath("torch_functions.py").read_text(encoding="utf-8")
    lines = source.splitlines()
    texts = {}
    for function in ast.parse(source).body:
        if isinstance(function, ast.FunctionDef):
            arguments = ", ".join(argument.arg for argument in function.args.args)
            body = "\n".join(lines[function.body[0].lineno - 1 : function.end_lineno])
            texts[function.name] = f"def {function.name}({arguments}):\n{body}"
    return MappingProxyType(texts)


def function_names() -> frozenset[str]:
    """Return the names of all functions that generated code may define."""
    return frozenset(_table())


def functions(code: str) -> list[str]:
    """Return the texts of the functions that some code calls, and of those that they call."""
    table, needed, pending = _table(), set[str](), [code]
    while pending:
        names = {node.id for node in ast.walk(ast.parse(pending.pop())) if isinstance(node, ast.Name)}
        found = names & set(table) - needed
        needed |= found
        pending += [table[name] for name in found]
    return [text for name, text in table.items() if name in needed]
