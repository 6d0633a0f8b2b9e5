"""A program as assignments of readable Python expressions over `jnp`, for generated code.

Temporaries are inlined where that reads well, names are kept where they stay unambiguous, and parentheses are
those that Python needs. How the assignments are arranged into a function is the concern of the exporter that asks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache

import numpy as np

from evolion.primitives.dataflow import Reference, data_flow
from evolion.primitives.kinds import Kind
from evolion.primitives.op import Elementwise, Op, Reduction
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program, infer_kinds

__all__ = ["Assignment", "Outline", "outline"]

_TEMPORARY = re.compile(r"x\d+")
_LONGEST_INLINED = 45
_NEVER = 1 << 30


@dataclass(frozen=True, slots=True)
class Assignment:
    """One line `name = expression`.

    Attributes:
        name: The variable that is bound.
        expression: Python source over scalars, and over entries of trees where `reads` names any.
        reads: The variables of kind leaf or tensor that the expression reads, entry by entry. Whole trees, which only
            reductions over all of them read, are not among them.
        kind: The kind of the value.

    """

    name: str
    expression: str
    reads: tuple[str, ...]
    kind: Kind


@dataclass(frozen=True, slots=True)
class Outline:
    """A program ready to be laid out as code.

    Attributes:
        names: The variable of each input, slot and hyperparameter at the start.
        whole_trees: Whether some expression reads a whole tree, so that no function of single tensors will do.
        assignments: In order; without whole trees those of scalars come first.
        update: Source and kind of the update.
        next_slots: Source and kind of the next value of each slot.

    """

    names: dict[str, str]
    whole_trees: bool
    assignments: tuple[Assignment, ...]
    update: tuple[str, Kind]
    next_slots: dict[str, tuple[str, Kind]]


def outline(program: Program, reserved: Collection[str], fixed: Collection[str] = ()) -> Outline:
    """Choose names and expressions for a program without dead code.

    Args:
        program: The program.
        reserved: Names that the surrounding code uses; variables of those names get another.
        fixed: Parameters of the program whose variables must keep their value to the end.

    """
    return _Writer(program, fixed).outline(set(reserved))


class _Writer:
    def __init__(self, program: Program, fixed: Collection[str]) -> None:
        self.program = program
        self.fixed = fixed
        self.flow = data_flow(program)
        self.kinds = infer_kinds(program)
        entry = {p.name: p.kind for p in program.parameters}
        self.entry = entry | {h.name: Kind.SCALAR for h in program.hyperparameters}
        self.meanings = [OPS[s.op].under(program.protected) for s in program.statements]
        self.whole_trees = any(self.is_whole(index) for index in range(len(self.meanings)))
        self.alias: dict[Reference, Reference] = {}
        self.inlined: set[int] = set()
        self.on_floats: set[Reference] = {"horizon", *(h.name for h in program.hyperparameters)}
        for index in range(len(self.meanings)):
            self._resolve(index)
        self._choose_inlined()

    # -- what the statements refer to -------------------------------------------------------------------------------

    def args(self, index: int) -> tuple[Reference, ...]:
        return tuple(map(self._aliased, self.flow.arguments[index]))

    def _aliased(self, reference: Reference) -> Reference:
        # A constant never goes into a table of references: 1.0 and statement 1 are the same key there.
        return reference if isinstance(reference, float) else self.alias.get(reference, reference)

    def outputs(self) -> list[Reference]:
        return list(map(self._aliased, [self.flow.update, *self.flow.next_slots.values()]))

    def kind_of(self, reference: Reference) -> Kind:
        if isinstance(reference, int):
            return self.kinds[reference]
        return self.entry[reference] if isinstance(reference, str) else Kind.SCALAR

    def is_whole(self, index: int) -> bool:
        meaning = self.meanings[index]
        return isinstance(meaning, Reduction) and meaning.scope is Kind.SCALAR

    def has_factor(self, index: int) -> bool:
        meaning = self.meanings[index]
        return isinstance(meaning, Reduction) and self.is_whole(index) and meaning.apply_source != "{reduced}"

    def _resolve(self, index: int) -> None:
        """See through plain assignments, fold what is made of literals alone, and note what is a Python float."""
        args, op = self.args(index), OPS[self.program.statements[index].op]
        meaning = self.meanings[index]
        if op.name == "identity":
            self.alias[index] = args[0]
        elif isinstance(meaning, Elementwise) and args and all(isinstance(a, float) for a in args):
            with np.errstate(all="ignore"):
                self.alias[index] = float(meaning.numpy(*args))
        elif self._is_float(args) and not any(isinstance(node, ast.Call) for node in ast.walk(self.template(index))):
            self.on_floats.add(index)

    def _is_float(self, args: tuple[Reference, ...]) -> bool:
        return all(isinstance(argument, float) or argument in self.on_floats for argument in args)

    # -- inlining ---------------------------------------------------------------------------------------------------

    def _choose_inlined(self) -> None:
        statements = self.program.statements
        users: dict[int, list[int]] = {}
        for index in range(len(statements)):
            if index not in self.alias:
                for argument in self.args(index):
                    if isinstance(argument, int):
                        users.setdefault(argument, []).append(index)
        held = {reference for reference in self.outputs() if isinstance(reference, int)}
        reads: dict[int, set[str]] = {}
        whole: set[int] = set()
        for index, statement in enumerate(statements):
            if index in self.alias:
                continue
            reads[index] = {argument for argument in statement.args if isinstance(argument, str)}
            for argument in self.args(index):
                if isinstance(argument, int) and argument in self.inlined:
                    reads[index] |= reads[argument]
                    whole |= {index} if argument in whole else set()
            whole |= {index} if self.is_whole(index) else set()
            user = users.get(index, [])
            if len(user) != 1 or index in held or not _TEMPORARY.fullmatch(statement.target):
                continue
            rebound = {between.target for between in statements[index + 1 : user[0]]}
            if not rebound & reads[index] and self._may_inline(index, user[0], index in whole):
                self.inlined.add(index)

    def _may_inline(self, index: int, user: int, whole: bool) -> bool:
        wide = self.kinds[index] is not Kind.SCALAR
        if self.has_factor(index) or (self.is_whole(user) and wide) or self.has_factor(user):
            return False
        if whole and self.kinds[user] is not Kind.SCALAR:
            return False
        template = self.template(user)
        slot = next(f"_{i}" for i, a in enumerate(self.args(user)) if isinstance(a, int) and a == index)
        if sum(isinstance(node, ast.Name) and node.id == slot for node in ast.walk(template)) > 1:
            return False
        return len(ast.unparse(self.expression(index, str))) <= _LONGEST_INLINED

    # -- expressions ------------------------------------------------------------------------------------------------

    def template(self, index: int) -> ast.expr:
        op = OPS[self.program.statements[index].op]
        meaning = self.meanings[index]
        if isinstance(meaning, Elementwise):
            tree = _parsed(meaning.source, op.arity)
            return _Safe().visit(tree) if self._is_float(self.args(index)) else tree
        if self.has_factor(index):
            return _parsed(meaning.apply_source.replace("{reduced}", "_reduced"), op.arity)
        return _parsed(meaning.apply_source.replace("{reduced}", f"({meaning.source})"), op.arity)

    def expression(self, index: int, name_of: Callable[[Reference], str], factor: str = "") -> ast.expr:
        nodes = self._nodes(index, name_of) | {"_reduced": ast.Name(factor)}
        filled: ast.expr = _Fill(nodes).visit(self.template(index))
        return filled

    def factor(self, index: int, name_of: Callable[[Reference], str]) -> ast.expr:
        """Return the reduced value of a statement that applies one to each entry, such as a clip."""
        meaning = self.meanings[index]
        assert isinstance(meaning, Reduction)
        nodes = self._nodes(index, name_of)
        filled: ast.expr = _Fill(nodes).visit(_parsed(meaning.source, len(nodes)))
        return filled

    def _nodes(self, index: int, name_of: Callable[[Reference], str]) -> dict[str, ast.expr]:
        op = OPS[self.program.statements[index].op]
        return {f"_{i}": self._argument(argument, op, name_of) for i, argument in enumerate(self.args(index))}

    def _argument(self, reference: Reference, op: Op, name_of: Callable[[Reference], str]) -> ast.expr:
        if isinstance(reference, float):
            return _literal(reference, whole=op.name != "power")
        if isinstance(reference, int) and reference in self.inlined:
            return self.expression(reference, name_of)
        return ast.Name(name_of(reference) if isinstance(reference, (int, str)) else "")

    def leaves(self, index: int) -> list[Reference]:
        """Return the references of the variables in the expression of a statement, inlined ones opened up."""
        found: list[Reference] = []
        for argument in self.args(index):
            if isinstance(argument, int) and argument in self.inlined:
                found += self.leaves(argument)
            elif not isinstance(argument, float):
                found.append(argument)
        return found

    # -- names ------------------------------------------------------------------------------------------------------

    def outline(self, reserved: set[str]) -> Outline:
        order = [i for i in range(len(self.kinds)) if i not in self.alias and i not in self.inlined]
        if not self.whole_trees:
            order.sort(key=lambda index: self.kinds[index] is not Kind.SCALAR)
        names, factors = self._name_all(order, reserved)
        assignments = []
        for index in order:
            if index in factors:
                reduced = ast.unparse(self.factor(index, names.__getitem__))
                assignments.append(Assignment(factors[index], reduced, (), Kind.SCALAR))
            tree = self.expression(index, names.__getitem__, factors.get(index, ""))
            wide = [r for r in self.leaves(index) if self.kind_of(r) is not Kind.SCALAR]
            reads = tuple(dict.fromkeys(names[r] for r in wide)) if self.kinds[index] is not Kind.SCALAR else ()
            assignments.append(Assignment(names[index], ast.unparse(tree), reads, self.kinds[index]))
        results = [(self._source(reference, names), self.kind_of(reference)) for reference in self.outputs()]
        slots = dict(zip(self.flow.next_slots, results[1:], strict=True))
        entry = {name: names[name] for name in self.entry}
        return Outline(entry, self.whole_trees, tuple(assignments), results[0], slots)

    def _source(self, reference: Reference, names: dict[Reference, str]) -> str:
        return ast.unparse(_literal(reference)) if isinstance(reference, float) else names[reference]

    def _name_all(self, order: list[int], reserved: set[str]) -> tuple[dict[Reference, str], dict[int, str]]:
        """Give each value a variable: the program's own name unless that still holds a value which is read later."""
        last: dict[Reference, int] = {}
        for position, index in enumerate(order):
            last |= dict.fromkeys(self.leaves(index), position)
        last |= dict.fromkeys([r for r in self.outputs() if not isinstance(r, float)], _NEVER)
        last |= dict.fromkeys(self.fixed, _NEVER)
        names: dict[Reference, str] = {}
        free_after: dict[str, tuple[int, bool]] = {}
        factors: dict[int, str] = {}

        def bind(wanted: str, position: int, until: int, wide: bool) -> str:
            name, number = wanted, 1
            while name in reserved or not _free(free_after.get(name), position, wide, self.whole_trees):
                number += 1
                name = f"{wanted}_{number}"
            free_after[name] = until, wide
            return name

        for parameter, kind in self.entry.items():
            # What is a Python float is an argument of the function around the step, which may not change it.
            until = _NEVER if parameter in self.on_floats else last.get(parameter, -1)
            names[parameter] = bind(parameter, -_NEVER, until, kind is not Kind.SCALAR)
        for position, index in enumerate(order):
            wide, target = self.kinds[index] is not Kind.SCALAR, self.program.statements[index].target
            if self.has_factor(index):
                factors[index] = bind(f"{target}_factor", position, _NEVER, False)
            names[index] = bind(target, position, last.get(index, position), wide)
        return names, factors


def _free(holder: tuple[int, bool] | None, position: int, wide: bool, one_scope: bool) -> bool:
    """Say whether a name may be bound again; scalars and entries of trees lie in two scopes unless there is one."""
    if holder is None:
        return True
    until, held_wide = holder
    return until <= position and (one_scope or wide == held_wide)


@cache
def _template(source: str, arity: int) -> str:
    return source.format(*[f"_{i}" for i in range(arity)])


def _parsed(source: str, arity: int) -> ast.expr:
    """Parse a source template; `{0}` becomes the name `_0`, and whole numbers lose their point outside of powers."""
    tree = ast.parse(_template(source, arity), mode="eval").body
    return tree if "power" in source or "**" in source else _Whole().visit(tree)


def _literal(value: float, whole: bool = True) -> ast.expr:
    if not np.isfinite(value):
        node: ast.expr = ast.parse("jnp.nan" if value != value else "jnp.inf", mode="eval").body
    else:
        node = ast.Constant(int(abs(value)) if whole and _is_whole(value) else abs(value))
    return ast.UnaryOp(ast.USub(), node) if value == value and np.copysign(1.0, value) < 0 else node


def _is_whole(value: float) -> bool:
    # An integer has no negative zero, and large ones exceed what JAX takes for an integer.
    return value.is_integer() and abs(value) < 1e6 and not (value == 0 and np.copysign(1.0, value) < 0)


class _Whole(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return _literal(node.value) if isinstance(node.value, float) else node


class _Fill(ast.NodeTransformer):
    """Puts expressions in the place of names."""

    def __init__(self, nodes: dict[str, ast.expr]) -> None:
        self.nodes = nodes

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.nodes.get(node.id, node)


class _Safe(ast.NodeTransformer):
    """Lets JAX divide and raise to powers where Python floats would raise an exception or turn complex."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        name = {ast.Div: "divide", ast.Pow: "power"}.get(type(node.op))
        if name is None:
            return node
        return ast.Call(ast.parse(f"jnp.{name}", mode="eval").body, [node.left, node.right], [])
