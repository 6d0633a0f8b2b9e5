"""Text to program. The text is parsed with `ast` and never executed."""

from __future__ import annotations

import ast
import bisect
import inspect
import io
import math
import re
import tokenize
import warnings
from dataclasses import dataclass, field
from typing import NoReturn

from evolion.primitives.kinds import Kind, kind_named
from evolion.primitives.ops import OPS
from evolion.primitives.program import (
    MAXIMUM_CHARACTERS,
    MAXIMUM_STATEMENTS,
    RESERVED,
    Argument,
    Comment,
    Hyperparameter,
    Parameter,
    Program,
    ProgramError,
    Statement,
    unknown_op,
)

__all__ = ["MAXIMUM_CHARACTERS", "parse"]

_MAXIMUM_DEPTH = 64

_FRESH_NAMES = re.compile(r"\bx[0-9]+\b")

_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.Pow: "power",
}


def parse(text: str) -> Program:
    """Read a program from its text.

    The text is one function `def train(...)`, optionally under `@protected`: reserved inputs and state slots as
    positional parameters (an annotation gives a slot's kind), hyperparameters keyword-only with a default, assignments
    of nested expressions over `+ - * / **` and the functions of `OPS`, and a final `return update, slot, …` with the
    slots in the order of the signature. Comments and the docstring are kept.

    Raises:
        ProgramError: If the text is anything else; the error has the line, the column, what is wrong and what would
            be right. No other exception is raised, whatever the text.

    """
    if not isinstance(text, str):
        raise ProgramError(f"a program text must be a string, got {type(text).__name__}")
    if len(text) > MAXIMUM_CHARACTERS:
        raise ProgramError(f"the text has {len(text)} characters; at most {MAXIMUM_CHARACTERS} are read")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    function = _single_function(_syntax_tree(text))
    notes = _comment_tokens(text) if "#" in text or not text.isascii() else []
    parameters, hyperparameters = _signature(function)
    reader = _Reader(
        {p.name for p in parameters}.union(h.name for h in hyperparameters), frozenset(_FRESH_NAMES.findall(text))
    )
    body, docstring = _body(function)
    *assignments, last = body
    for node in assignments:
        reader.assignment(node)
    update = reader.returned(last, tuple(p.name for p in parameters if p.slot))
    comments = _comments(text, notes, function, reader) if notes else ()
    try:
        return Program(
            parameters=parameters,
            hyperparameters=hyperparameters,
            statements=tuple(reader.statements),
            update=update,
            protected=bool(function.decorator_list),
            docstring=docstring,
            comments=comments,
        )
    except ProgramError as error:
        places: list[ast.stmt | ast.expr] = [*reader.nodes, last, function]
        place = places[-1 if error.statement is None else error.statement]
        raise ProgramError(error.reason, line=place.lineno, column=place.col_offset + 1) from None


def _syntax_tree(text: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        line, column = max(error.lineno or 1, 1), max(error.offset or 1, 1)
        raise ProgramError(f"not a program: {error.msg}", line=line, column=column) from None
    except (RecursionError, MemoryError):
        raise ProgramError("the text is nested too deeply; name the inner expressions") from None
    except UnicodeEncodeError as error:
        line, column = text.count("\n", 0, error.start) + 1, error.start - text.rfind("\n", 0, error.start)
        reason = "not a program: a lone surrogate is no character; remove it"
        raise ProgramError(reason, line=line, column=column) from None
    except ValueError as error:  # null bytes
        raise ProgramError(f"not a program: {error}", line=1, column=1) from None


def _fail(node: ast.stmt | ast.expr | ast.arg, reason: str) -> NoReturn:
    raise ProgramError(reason, line=node.lineno, column=node.col_offset + 1)


def _single_function(module: ast.Module) -> ast.FunctionDef:
    for node in module.body:
        if not isinstance(node, ast.FunctionDef):
            _fail(node, "only `def train(...):` may stand here; a program has no imports and no other statements")
    if not module.body:
        raise ProgramError("the text is empty; expected one function `def train(...):`", line=1, column=1)
    if len(module.body) > 1:
        _fail(module.body[1], f"expected one function `def train(...):`, found {len(module.body)}")
    function = module.body[0]
    assert isinstance(function, ast.FunctionDef)
    if function.name != "train":
        _fail(function, f"the function must be called 'train', not {function.name!r}")
    for decorator in function.decorator_list:
        if not (isinstance(decorator, ast.Name) and decorator.id == "protected"):
            _fail(decorator, "the only decorator is `@protected`")
    if len(function.decorator_list) > 1:
        _fail(function.decorator_list[1], "`@protected` appears twice; once is enough")
    if getattr(function, "type_params", None):  # Python 3.12 has them
        _fail(function, "type parameters have no meaning here; remove them")
    if function.returns is not None:
        _fail(function.returns, "a return annotation has no meaning here; remove it")
    return function


def _signature(function: ast.FunctionDef) -> tuple[tuple[Parameter, ...], tuple[Hyperparameter, ...]]:
    signature = function.args
    for stars, extra in (("*", signature.vararg), ("**", signature.kwarg)):
        if extra is not None:
            _fail(extra, f"{stars}{extra.arg} is not allowed; name each parameter")
    if signature.posonlyargs:
        _fail(signature.posonlyargs[0], "`/` is not allowed in the parameters; remove it")
    if signature.defaults:
        _fail(signature.defaults[0], "inputs and slots have no default; a hyperparameter stands after `*`")
    parameters = tuple(_parameter(argument) for argument in signature.args)
    hyperparameters = []
    for argument, default in zip(signature.kwonlyargs, signature.kw_defaults, strict=True):
        if argument.annotation is not None:
            _fail(argument, f"hyperparameter {argument.arg!r} is a number; remove its annotation")
        value = None if default is None else _constant(default)
        if value is None:
            _fail(argument, f"hyperparameter {argument.arg!r} needs a number as default, as in `{argument.arg}=0.9`")
        hyperparameters.append(Hyperparameter(argument.arg, value))
    return parameters, tuple(hyperparameters)


def _parameter(argument: ast.arg) -> Parameter:
    annotation = argument.annotation
    if argument.arg in RESERVED:
        if annotation is not None:
            _fail(argument, f"{argument.arg!r} is a reserved input and has its kind; remove the annotation")
        return Parameter(argument.arg, RESERVED[argument.arg], slot=False)
    if annotation is None:
        return Parameter(argument.arg, Kind.TENSOR, slot=True)
    kind = kind_named(annotation.id) if isinstance(annotation, ast.Name) else None
    if kind is None:
        kinds = ", ".join(map(str, Kind))
        _fail(argument, f"the annotation of slot {argument.arg!r} must be one of the kinds {kinds}")
    return Parameter(argument.arg, kind, slot=True)


def _body(function: ast.FunctionDef) -> tuple[list[ast.stmt], str]:
    body, docstring = function.body, ""
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        docstring = _cleaned(first.value.value)
        body = body[1:]
    if not body or not isinstance(body[-1], ast.Return):
        at = body[-1] if body else first
        _fail(at, "the program must end with `return update` and its slots in the order of the signature")
    return body, docstring


def _cleaned(documentation: str) -> str:
    """Clean until nothing changes: where text starts on the second line, one pass leaves its indentation."""
    while True:
        lines = inspect.cleandoc(documentation).split("\n")
        cleaned = "\n".join([line.rstrip() for line in lines])
        if cleaned == documentation:
            return cleaned
        documentation = cleaned


def _constant(node: ast.expr) -> float | None:
    """Return the value of a literal number, with its sign, or None if the node is not one."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = _constant(node.operand)
        return None if value is None else -value
    if not isinstance(node, ast.Constant) or type(node.value) not in (int, float):
        return None
    try:
        value = float(node.value)  # type: ignore[arg-type]
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        _fail(node, "a constant must be a finite number")
    return value


@dataclass
class _Reader:
    """Collects statements from expressions.

    Attributes:
        bound: The names of parameters and of targets so far.
        avoided: What fresh names must differ from.
        nodes: The syntax node of each statement, for error positions.
        starts: For each assignment and the return its line and the index of its first operation.

    """

    bound: set[str]
    avoided: frozenset[str]
    statements: list[Statement] = field(default_factory=list)
    nodes: list[ast.expr] = field(default_factory=list)
    starts: list[tuple[int, int]] = field(default_factory=list)
    fresh: int = 0

    def assignment(self, node: ast.stmt) -> None:
        """Read `name = expression`."""
        if isinstance(node, ast.AugAssign):
            _fail(node, "augmented assignment is not allowed; write `name = name + …`")
        if not isinstance(node, ast.Assign):
            _fail(node, "only assignments and a final return may stand in a program")
        if len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            _fail(node, "assign one value to one name, as in `m = interp(g, m, b1)`")
        target = node.targets[0].id
        self.bound.add(target)
        self.starts.append((node.lineno, len(self.statements)))
        before = len(self.statements)
        value = self.expression(node.value, target, 0)
        if len(self.statements) == before or value != target or self.statements[-1].target != target:
            self._append(target, "identity", (value,), node.value)

    def returned(self, node: ast.stmt, slots: tuple[str, ...]) -> Argument:
        """Read `return update, slot, …` and give back the update."""
        assert isinstance(node, ast.Return)
        self.starts.append((node.lineno, len(self.statements)))
        value = node.value
        outputs = value.elts if isinstance(value, ast.Tuple) else [] if value is None else [value]
        names = tuple(output.id if isinstance(output, ast.Name) else "" for output in outputs[1:])
        if not outputs or names != slots:
            _fail(node, f"the program must end with `return {', '.join(('update', *slots))}`, "
                        "where only the first may be an expression")  # fmt: skip
        name = "update" if "update" not in self.bound else None
        return self.expression(outputs[0], name, 0)

    def expression(self, node: ast.expr, target: str | None, depth: int) -> Argument:
        """Read an expression; its last operation gets the name `target`, inner ones get fresh names."""
        if depth > _MAXIMUM_DEPTH:
            _fail(node, f"expressions may be nested {_MAXIMUM_DEPTH} deep; name the inner ones")
        if isinstance(node, ast.Name):
            return node.id
        constant = None if isinstance(node, (ast.BinOp, ast.Call)) else _constant(node)
        if constant is not None:
            return constant
        name, operands = self._operation(node)
        args = tuple([self.expression(operand, None, depth + 1) for operand in operands])
        return self._append(target or self._fresh_name(), name, args, node)

    def _operation(self, node: ast.expr) -> tuple[str, list[ast.expr]]:
        operator = _OPERATORS.get(type(node.op)) if isinstance(node, ast.BinOp) else None
        if operator is not None:
            return operator, [node.left, node.right]  # type: ignore[attr-defined]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return "negative", [node.operand]
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name):
                _fail(node, "only the functions of the language may be called, by their plain names")
            if node.func.id not in OPS:
                _fail(node, unknown_op(node.func.id))
            if node.keywords or any(isinstance(operand, ast.Starred) for operand in node.args):
                _fail(node, f"{node.func.id!r} takes plain positional arguments only")
            return node.func.id, node.args
        if isinstance(node, ast.Attribute):
            _fail(node, "attributes are not allowed; a program uses names, numbers, + - * / ** and function calls")
        _fail(node, "only names, numbers, + - * / ** and function calls are allowed here")

    def _append(self, target: str, op: str, args: tuple[Argument, ...], node: ast.expr) -> str:
        if len(self.statements) >= MAXIMUM_STATEMENTS:
            _fail(node, f"more than {MAXIMUM_STATEMENTS} operations")
        self.statements.append(Statement(target, op, args))
        self.nodes.append(node)
        return target

    def _fresh_name(self) -> str:
        while True:
            self.fresh += 1
            name = f"x{self.fresh}"
            if name not in self.avoided:
                return name


def _comment_tokens(text: str) -> list[tokenize.TokenInfo]:
    """Return the comments of a text that `ast` reads, which must have ASCII names: `ast` would fold other letters."""
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                found.append(token)
            elif token.type == tokenize.NAME and not token.string.isascii():
                line, column = token.start
                reason = f"{token.string!r} is not allowed as a name; use letters, digits and _"
                raise ProgramError(reason, line=line, column=column + 1)
    except (tokenize.TokenError, SyntaxError) as error:
        raise ProgramError(f"not a program: {error.args[0]}", line=1, column=1) from None
    return found


def _comments(
    text: str, tokens: list[tokenize.TokenInfo], function: ast.FunctionDef, reader: _Reader
) -> tuple[Comment, ...]:
    comments = []
    lines = text.split("\n")
    start_lines = [line for line, _ in reader.starts]
    firsts = [index for _, index in reader.starts]
    for token in tokens:
        line, column = token.start
        if line < function.lineno:
            before = -1
        else:
            # A trailing comment belongs to the statement it follows, so the last start on or before the line counts.
            trailing = bool(lines[line - 1][:column].strip())
            later = bisect.bisect_right(start_lines, line)
            if trailing and later > 0:
                before = firsts[later - 1]
            else:
                before = firsts[later] if later < len(firsts) else len(reader.statements)
        comment = token.string.lstrip("#").strip()
        if not comment.isprintable():
            raise ProgramError("a comment must be printable text", line=line, column=column + 1)
        comments.append(Comment(before, comment))
    return tuple(sorted(comments, key=lambda comment: comment.before))
