"""Programs: frozen, hashable, plain data, and valid if they exist.

A program is called once per training step and returns the update, which is subtracted from the weights, and the next
value of each state slot. The text form is in `evolion.primitives.parser` (in) and `str(program)` (out).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from operator import attrgetter
from typing import Any, SupportsFloat

from evolion.primitives.kinds import Kind, widens
from evolion.primitives.names import RESERVED, objection
from evolion.primitives.notation import argument_text, docstring_lines, number_text, operation_text
from evolion.primitives.ops import OPS
from evolion.primitives.program_errors import ProgramError, refuse, unknown_op

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
    "statement_kinds",
    "unknown_op",
    "valid_program",
]

Argument = str | float
"""The name of a variable, or a finite constant."""

MAXIMUM_STATEMENTS = 4096
"""The longest program that is accepted: a bound on what a hostile text can cost."""

MAXIMUM_CHARACTERS = 200_000
"""The longest text that is read, and that a program may print: a bound on what a hostile text can cost."""

_SURELY_SHORT = 256  # statements, parameters and hyperparameters that print less, even with the longest names

# Looked up for every statement of every program: plain dicts, and a member of an enumeration under a name of its own.
_OPS = dict(OPS)
_RESULTS = {name: dict(op.signatures) for name, op in OPS.items()}
_NO_RESULTS: dict[tuple[Kind, ...], Kind] = {}
_UPDATES = frozenset(kind for kind in Kind if widens(kind, Kind.TENSOR))
_SCALAR = Kind.SCALAR
_CONTENT = attrgetter("target", "op", "args")
_DEFAULT = attrgetter("name", "value")


@dataclass(frozen=True, slots=True)
class Statement:
    """One operation: `target = op(*args)`."""

    target: str
    op: str
    args: tuple[Argument, ...]

    def __str__(self) -> str:
        """Print the statement as one line of program text."""
        return f"{self.target} = {operation_text(_OPS[self.op], self.args)}"


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

    def __hash__(self) -> int:
        """Hash what mutations change, in few steps; programs that differ elsewhere are told apart by `==`."""
        return hash((self.update, *map(_CONTENT, self.statements), *map(_DEFAULT, self.hyperparameters)))

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
            if above:
                lines += [f"    {line}" for line in above.get(index, [])]
            lines.append(f"    {statement.target} = {operation_text(_OPS[statement.op], statement.args)}")
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
    kinds = _kinds_if_valid(program)
    if kinds is None:
        refuse(program)
    return kinds


def valid_program(
    parameters: tuple[Parameter, ...],
    hyperparameters: tuple[Hyperparameter, ...],
    statements: tuple[Statement, ...],
    update: Argument,
    protected: bool,
) -> Program | None:
    """Return the program of these parts, or None where it is not valid; saying why takes longer than the check."""
    if len(statements) + len(parameters) + len(hyperparameters) > _SURELY_SHORT:
        try:
            return Program(parameters, hyperparameters, statements, update, protected)
        except ProgramError:
            return None
    # It is checked before anybody sees it, by what its construction calls; a text as short as this needs no check.
    program = object.__new__(Program)
    values = (parameters, hyperparameters, statements, update, protected, "", ())
    for name, value in zip(Program.__slots__, values, strict=True):
        object.__setattr__(program, name, value)
    return None if _kinds_if_valid(program) is None else program


def statement_kinds(
    statements: tuple[Statement, ...], scope: dict[str, Kind]
) -> tuple[list[tuple[Kind, ...]], list[Kind]] | None:
    """Return the kinds of the arguments of each statement and of its value, or None if an op does not take them.

    The scope, kinds by name, is that of the start; it becomes that of the end.
    """
    arguments, results = [], []
    known = scope.get
    for statement in statements:
        # A name that is bound is the common case, and this line is what most of a check's time goes to. No op takes the
        # None of what is not.
        kinds: tuple[Any, ...] = tuple(
            [known(a) if a.__class__ is str else _constant_kind(a, scope) for a in statement.args]
        )
        result = _RESULTS.get(statement.op, _NO_RESULTS).get(kinds)
        if result is None:
            return None
        arguments.append(kinds)
        results.append(result)
        scope[statement.target] = result
    return arguments, results


def _constant_kind(argument: Argument, scope: Mapping[str, Kind]) -> Kind | None:
    if isinstance(argument, str):
        return scope.get(argument)
    return _SCALAR if type(argument) is float and math.isfinite(argument) else None


def _kinds_if_valid(program: Program) -> tuple[Kind, ...] | None:
    """Return what `infer_kinds` does, or None where it raises."""
    scope: dict[str, Kind] = {}
    for parameter in program.parameters:
        name, kind = parameter.name, parameter.kind
        reserved = RESERVED.get(name)
        if (reserved is not None if parameter.slot else reserved is not kind) or name in scope or objection(name):
            return None
        scope[name] = kind
    for hyperparameter in program.hyperparameters:
        name = hyperparameter.name
        if name in RESERVED or name in scope or objection(name):
            return None
        if _constant_kind(hyperparameter.value, {}) is None:
            return None
        scope[name] = _SCALAR
    for statement in program.statements:
        if statement.target not in scope and objection(statement.target):
            return None
    inferred = statement_kinds(program.statements, scope)
    if inferred is None:
        return None
    for parameter in program.parameters:
        kind = scope[parameter.name]
        if parameter.slot and kind is not parameter.kind and not widens(kind, parameter.kind):
            return None
    return tuple(inferred[1]) if _constant_kind(program.update, scope) in _UPDATES else None


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
