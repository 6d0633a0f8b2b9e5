"""What is wrong with a program, in words."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from evolion.primitives.kinds import Kind, widens
from evolion.primitives.names import RESERVED, objection
from evolion.primitives.notation import argument_text
from evolion.primitives.op import Op
from evolion.primitives.ops import OPS, accepted_kinds

if TYPE_CHECKING:
    from evolion.primitives.program import Argument, Program, Statement

__all__ = ["ProgramError", "refuse", "unknown_op"]

_MAXIMUM_MESSAGE = 1000


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


def refuse(program: Program) -> NoReturn:
    """Raise the error that says what is wrong with a program whose names, arities or kinds are."""
    environment = _bind_signature(program)
    for index, statement in enumerate(program.statements):
        kind = _check_statement(statement, environment, index)
        if statement.target not in environment:
            _check_name(statement.target, index)
        environment[statement.target] = kind
    end = len(program.statements)
    kind = _argument_kind(program.update, environment, end)
    if not widens(kind, Kind.TENSOR):
        raise ProgramError(
            f"the update must have the shape of the weights, but {argument_text(program.update)} is a {kind}; "
            "multiply it with a tensor first, as in `matmul`",
            statement=end,
        )
    slots = [slot for slot in program.parameters if slot.slot and not widens(environment[slot.name], slot.kind)]
    raise ProgramError(
        f"slot {slots[0].name!r} is of kind {slots[0].kind} but ends as a {environment[slots[0].name]}; "
        f"annotate it `{slots[0].name}: {environment[slots[0].name]}` or bring the value to its kind first",
        statement=end,
    )


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
    op = OPS.get(statement.op)
    if op is None:
        raise ProgramError(unknown_op(statement.op), statement=index)
    args = statement.args
    if len(args) != op.arity:
        raise ProgramError(
            f"{op.name!r} takes {op.arity} argument{'s' * (op.arity != 1)}, got {len(args)}", statement=index
        )
    kinds = [_argument_kind(argument, environment, index) for argument in args]
    result = op.signatures.get(tuple(kinds))
    if result is None:
        raise ProgramError(_refused_kinds(op, args, kinds), statement=index)
    return result


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
    reason = objection(name)
    if reason:
        raise ProgramError(reason, statement=index)


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
