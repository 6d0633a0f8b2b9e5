"""Programs: frozen, hashable, plain data, and valid if they exist.

A program is called once per training step and returns the update, which is subtracted from the weights, and the next
value of each state slot. The text form is in `evolion.primitives.parser` (in) and `str(program)` (out).
"""

from __future__ import annotations

import difflib
import inspect
import keyword
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from numbers import Real
from types import MappingProxyType
from typing import SupportsFloat

from evolion.primitives.kinds import Kind, widens
from evolion.primitives.notation import argument_text, docstring_lines, number_text, operation_text
from evolion.primitives.op import Op
from evolion.primitives.ops import OPS, accepted_kinds

__all__ = [
    "MAXIMUM_CHARACTERS",
    "MAXIMUM_STATEMENTS",
    "RESERVED",
    "Argument",
    "Comment",
    "Hyperparameter",
    "Parameter",
    "Program",
    "ProgramError",
    "Statement",
    "infer_kinds",
]

Argument = str | float
"""The name of a variable, or a finite constant."""

MAXIMUM_STATEMENTS = 4096
"""The longest program that is accepted: a bound on what a hostile text can cost."""

MAXIMUM_CHARACTERS = 200_000
"""The longest text that is read, and that a program may print: a bound on what a hostile text can cost."""

_SURELY_SHORT = 256  # statements, parameters and hyperparameters that print less, even with the longest names
_MAXIMUM_MESSAGE = 1000
_MAXIMUM_NAME = 64

_OPS = dict(OPS)  # looked up for every statement of every program, where a plain dict is faster

RESERVED: Mapping[str, Kind] = MappingProxyType(
    {
        "w": Kind.TENSOR,
        "g": Kind.TENSOR,
        "lr": Kind.SCALAR,
        "t": Kind.SCALAR,
        "horizon": Kind.SCALAR,
        "w0": Kind.TENSOR,
        "loss": Kind.SCALAR,
        "hess": Kind.TENSOR,
        "noise": Kind.TENSOR,
    }
)
"""The inputs that have a fixed meaning: weights, gradient, learning rate of this step, step from 1, planned number of
steps, initial weights, loss, estimate of the Hessian diagonal, standard normal noise of the shape of the weights."""


class ProgramError(ValueError):
    """A program is not valid.

    Attributes:
        reason: What is wrong and what would be right.
        line: Line in the text, from 1, or None where there is no text.
        column: Column in the text, from 1, or None.
        statement: Index of the statement, from 0, or None; the number of statements stands for the return.

    """

    def __init__(
        self, reason: str, *, line: int | None = None, column: int | None = None, statement: int | None = None
    ) -> None:
        reason = reason if len(reason) <= _MAXIMUM_MESSAGE else reason[:_MAXIMUM_MESSAGE] + " …"
        self.reason, self.line, self.column, self.statement = reason, line, column, statement
        if line is not None:
            where = f"line {line}, column {column}: " if column is not None else f"line {line}: "
        elif statement is not None:
            where = f"statement {statement + 1}: "
        else:
            where = ""
        ValueError.__init__(self, where + reason)

    def __reduce__(self) -> tuple[object, ...]:
        """Let the error cross a process boundary with its position."""
        return _rebuild_error, (self.reason, self.line, self.column, self.statement)


def _rebuild_error(reason: str, line: int | None, column: int | None, statement: int | None) -> ProgramError:
    return ProgramError(reason, line=line, column=column, statement=statement)


@dataclass(frozen=True, slots=True)
class Statement:
    """One operation: `target = op(*args)`."""

    target: str
    op: str
    args: tuple[Argument, ...]

    def __str__(self) -> str:
        """Print the statement as one line of program text."""
        return f"{self.target} = {operation_text(OPS[self.op], self.args)}"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A positional parameter: a reserved input, or a state slot that starts at zero."""

    name: str
    kind: Kind
    slot: bool

    def __str__(self) -> str:
        """Print the parameter as it stands in a signature; only slots of another kind than tensor are annotated."""
        return f"{self.name}: {self.kind}" if self.slot and self.kind is not Kind.TENSOR else self.name


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """A named constant with its default; tuning may change it and exports expose it."""

    name: str
    value: float

    def __str__(self) -> str:
        """Print the hyperparameter as it stands in a signature."""
        return f"{self.name}={number_text(self.value)}"


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment on its own line above a statement.

    `before` is the index of that statement; -1 stands for above `def`, the number of statements for above `return`.
    """

    before: int
    text: str


@dataclass(frozen=True, slots=True)
class Program:
    """A valid update rule. Programs are equal if their texts are, or differ in the sign of a zero constant alone.

    Attributes:
        parameters: Reserved inputs and state slots in the order of the signature.
        hyperparameters: Named constants in the order of the signature.
        statements: The body, one operation each; a name may be bound more than once.
        update: What is returned first: a variable or a constant. The weights become `w - update`.
        protected: Whether logarithm, square root and division are those of the Lion paper (see `ops`).
        docstring: Documentation, cleaned as by `inspect.cleandoc`.
        comments: Comments, by position.

    Raises:
        ProgramError: At construction, for an unbound name, an unknown op, a wrong number or kind of arguments, a name
            that is used twice or not allowed, a constant that is not finite, or a slot that ends with a value of a
            wider kind than its own.

    """

    parameters: tuple[Parameter, ...]
    hyperparameters: tuple[Hyperparameter, ...]
    statements: tuple[Statement, ...]
    update: Argument
    protected: bool = False
    docstring: str = ""
    comments: tuple[Comment, ...] = ()

    def __post_init__(self) -> None:
        """Check everything that makes a program valid."""
        infer_kinds(self)
        _check_text(self)

    @property
    def slots(self) -> tuple[Parameter, ...]:
        """The state slots in the order of the signature."""
        return tuple(parameter for parameter in self.parameters if parameter.slot)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the reserved inputs in the order of the signature."""
        return tuple(parameter.name for parameter in self.parameters if not parameter.slot)

    def with_hyperparameters(self, **values: SupportsFloat) -> Program:
        """Return this program with other defaults for some of its hyperparameters.

        Raises:
            ValueError: If the program has no hyperparameter of a given name, or a value is not a finite number.

        """
        names = [hyperparameter.name for hyperparameter in self.hyperparameters]
        for name, value in values.items():
            if name not in names:
                known = ", ".join(names) or "none"
                raise ValueError(f"the program has no hyperparameter {name!r}; it has: {known}")
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise ValueError(f"hyperparameter {name!r} must be a finite number, got {value!r}")
        changed = tuple(
            Hyperparameter(old.name, float(values.get(old.name, old.value))) for old in self.hyperparameters
        )
        return replace(self, hyperparameters=changed)

    def __str__(self) -> str:
        """Print the program text, one operation a line; `parse` reads it back."""
        above: dict[int, list[str]] = {}
        for comment in self.comments:
            above.setdefault(comment.before, []).append(f"# {comment.text}".rstrip())
        signature = [str(parameter) for parameter in self.parameters]
        if self.hyperparameters:
            signature += ["*", *map(str, self.hyperparameters)]
        lines = above.get(-1, []) + (["@protected"] if self.protected else [])
        lines.append(f"def train({', '.join(signature)}):")
        lines += [f"    {line}" if line else "" for line in docstring_lines(self.docstring)]
        for index, statement in enumerate(self.statements):
            lines += [f"    {line}" for line in above.get(index, [])]
            lines.append(f"    {statement}")
        lines += [f"    {line}" for line in above.get(len(self.statements), [])]
        returned = [argument_text(self.update), *(slot.name for slot in self.slots)]
        lines.append(f"    return {', '.join(returned)}")
        return "\n".join(lines) + "\n"


def infer_kinds(program: Program) -> tuple[Kind, ...]:
    """Return the kind of each statement's value, in order, and check names, arities and kinds on the way.

    Raises:
        ProgramError: If the program is not valid; its `statement` says where.

    """
    if len(program.statements) > MAXIMUM_STATEMENTS:
        raise ProgramError(f"{len(program.statements)} operations; at most {MAXIMUM_STATEMENTS} are allowed")
    environment = _bind_signature(program)
    kinds: list[Kind] = []
    for index, statement in enumerate(program.statements):
        kind = _check_statement(statement, environment, index)
        if statement.target not in environment:
            _check_name(statement.target, index)
        environment[statement.target] = kind
        kinds.append(kind)
    end = len(program.statements)
    kind = _argument_kind(program.update, environment, end)
    if not widens(kind, Kind.TENSOR):
        raise ProgramError(
            f"the update must have the shape of the weights, but {argument_text(program.update)} is a {kind}; "
            "multiply it with a tensor first, as in `matmul`",
            statement=end,
        )
    for slot in program.parameters:
        if slot.slot and environment[slot.name] is not slot.kind and not widens(environment[slot.name], slot.kind):
            raise ProgramError(
                f"slot {slot.name!r} is of kind {slot.kind} but ends as a {environment[slot.name]}; "
                f"annotate it `{slot.name}: {environment[slot.name]}` or bring the value to its kind first",
                statement=end,
            )
    return tuple(kinds)


def _bind_signature(program: Program) -> dict[str, Kind]:
    environment: dict[str, Kind] = {}
    for parameter in program.parameters:
        name = parameter.name
        if name in environment:
            raise ProgramError(f"parameter {name!r} appears twice; give each its own name")
        if parameter.slot and name in RESERVED:
            raise ProgramError(f"{name!r} is a reserved input and cannot be a state slot; rename the slot")
        if not parameter.slot and RESERVED.get(name) is not parameter.kind:
            raise ProgramError(f"{name!r} is not a reserved input; the reserved inputs are {', '.join(RESERVED)}")
        _check_name(name, None)
        environment[name] = parameter.kind
    for hyperparameter in program.hyperparameters:
        name = hyperparameter.name
        if name in environment:
            raise ProgramError(f"parameter {name!r} appears twice; give each its own name")
        if name in RESERVED:
            raise ProgramError(f"{name!r} is a reserved input: write it before the `*`, without a default")
        _check_name(name, None)
        _check_constant(hyperparameter.value, None)
        environment[name] = Kind.SCALAR
    return environment


def _check_statement(statement: Statement, environment: Mapping[str, Kind], index: int) -> Kind:
    op = _OPS.get(statement.op)
    if op is None:
        raise ProgramError(unknown_op(statement.op), statement=index)
    args = statement.args
    if len(args) != op.arity:
        raise ProgramError(
            f"{op.name!r} takes {op.arity} argument{'s' * (op.arity != 1)}, got {len(args)}", statement=index
        )
    # A name that is bound is the common case, and this line is what most of a check's time goes to.
    kinds = [
        environment[a] if a.__class__ is str and a in environment else _argument_kind(a, environment, index)
        for a in args
    ]
    result = op.signatures.get(tuple(kinds))
    if result is None:
        raise ProgramError(_refused_kinds(op, args, kinds), statement=index)
    return result


def _refused_kinds(op: Op, args: tuple[Argument, ...], kinds: list[Kind]) -> str:
    """Say which argument of an op has a kind that it does not take, or that the arguments do not go together."""
    for position, (kind, accepted) in enumerate(zip(kinds, accepted_kinds(op.name), strict=True)):
        if kind not in accepted:
            wanted = " or ".join(map(str, sorted(accepted)))
            found = f"{argument_text(args[position])} is a {kind}"
            return f"argument {position + 1} of {op.name!r} must be a {wanted}, but {found}"
    together = ", ".join(f"{argument_text(argument)} ({kind})" for argument, kind in zip(args, kinds, strict=True))
    rows = [", ".join(map(str, signature)) for signature in op.signatures if signature[0] is kinds[0]]
    fitting = f"; with a {kinds[0]} first it takes {' or '.join(rows)}" if op.arity == 2 else ""
    return f"the arguments of {op.name!r} do not go together: {together}{fitting}"


def unknown_op(name: str) -> str:
    """Say that there is no op of this name, and which one may have been meant."""
    close = difflib.get_close_matches(name, OPS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "`evolion ops` lists the functions"
    return f"unknown function {name!r}; {hint}"


def _argument_kind(argument: Argument, environment: Mapping[str, Kind], index: int) -> Kind:
    if isinstance(argument, str):
        kind = environment.get(argument)
        if kind is None:
            close = difflib.get_close_matches(argument, environment, n=1)
            if close:
                hint = f"did you mean {close[0]!r}?"
            elif argument in RESERVED:
                hint = "it is a reserved input: add it to the parameters"
            else:
                hint = "bind it first, or make it a state slot or a hyperparameter"
            raise ProgramError(f"name {argument!r} is not bound here; {hint}", statement=index)
        return kind
    _check_constant(argument, index)
    return Kind.SCALAR


def _check_constant(value: object, index: int | None) -> None:
    if type(value) is not float or not math.isfinite(value):
        raise ProgramError(f"a constant must be a finite floating-point number, got {value!r}", statement=index)


def _check_name(name: str, index: int | None) -> None:
    reason = _objection(name)
    if reason:
        raise ProgramError(reason, statement=index)


@lru_cache(maxsize=4096)
def _objection(name: str) -> str:
    if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name) or name.startswith("__"):
        return f"{name!r} is not allowed as a name; use letters, digits and _"
    if len(name) > _MAXIMUM_NAME:
        return f"the name {name[:_MAXIMUM_NAME]}… is longer than {_MAXIMUM_NAME} characters; shorten it"
    if name in OPS or name == "train":
        return f"{name!r} is the name of a function; choose another for the variable"
    return ""


def _check_text(program: Program) -> None:
    documentation = program.docstring
    records = len(program.statements) + len(program.parameters) + len(program.hyperparameters)
    if not documentation and not program.comments and records <= _SURELY_SHORT:
        return
    printable = all(line.isprintable() and line == line.rstrip() for line in documentation.split("\n"))
    if not printable or inspect.cleandoc(documentation) != documentation:
        raise ProgramError("the docstring must be printable text, cleaned as by inspect.cleandoc")
    positions = [comment.before for comment in program.comments]
    if positions != sorted(positions) or any(not -1 <= at <= len(program.statements) for at in positions):
        raise ProgramError("comments must be sorted by position and stand above def, a statement or return")
    if not all(comment.text.isprintable() and comment.text == comment.text.strip() for comment in program.comments):
        raise ProgramError("a comment must be one line of printable text")
    if len(str(program)) > MAXIMUM_CHARACTERS:
        raise ProgramError(f"printed one operation a line, the text has more than {MAXIMUM_CHARACTERS} characters")
