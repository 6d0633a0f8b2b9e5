"""The body of a PyTorch optimizer's update, from a program: one line for each operation on lists of tensors.

A value is computed where it belongs: numbers that follow from hyperparameters, learning rate and step in Python, once a
step; scalars that follow from tensors as tensors of rank 0; all others as lists with one tensor for each parameter, in
memory that is no longer needed wherever that is possible.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from evolion.discovered.source_templates import Fill
from evolion.discovered.torch_expressions import FOREACH, Conditional, device_template, host_template, number
from evolion.primitives.dataflow import Reference, data_flow
from evolion.primitives.kinds import Kind
from evolion.primitives.op import Elementwise, Matrixwise, Reduction
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program, infer_kinds

__all__ = ["SHAPES", "Stage", "Statements"]

SHAPES = {
    Kind.LEAF: "()",
    Kind.ROW: "row_shape({0})",
    Kind.COLUMN: "column_shape({0})",
    Kind.TENSOR: "{0}.shape",
    Kind.LEFT: "left_shape({0})",
    Kind.RIGHT: "right_shape({0})",
}
"""Generated code for the shape of a value, from a tensor of the parameter's shape."""

UPDATE, SLOT = -1, -2
"""What stands for the end of the step among the users of a value."""

_TEMPORARY = re.compile(r"x\d+")
_LONGEST, _LONGEST_OF_ALL = 45, 85  # characters of what is merged, and of the whole expression
_VIEWED = (Kind.ROW, Kind.COLUMN, Kind.TENSOR)
_COMMUTATIVE = ("add", "mul", "maximum", "minimum")
_HARMLESS = frozenset(["add", "subtract", "multiply", "negative", "where", "identity", "greater", "greater_equal",
                       "less", "less_equal", "equal", "not_equal"])  # fmt: skip


class Stage(Enum):
    """Where a value is computed."""

    HOST = "a number of Python"
    DEVICE = "a tensor of rank 0"
    LIST = "a list with one tensor for each parameter"


@dataclass(frozen=True, slots=True)
class Term:
    """What is added in one call: coefficient / divisor * y, * (y * z) or * (y / z), by the call's name."""

    call: str
    coefficient: ast.expr | None
    factors: tuple[Reference, ...]
    divisor: ast.expr | None = None


class Statements:
    """A program without dead code, resolved and ready to be written: stages, users, and what is written with what."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.flow, self.kinds = data_flow(program), infer_kinds(program)
        self.ops = [OPS[statement.op] for statement in program.statements]
        self.meanings = [op.under(program.protected) for op in self.ops]
        self.entry = {p.name: p.kind for p in program.parameters}
        self.entry |= {h.name: Kind.SCALAR for h in program.hyperparameters}
        self.alias: dict[Reference, Reference] = {}
        self.stages: list[Stage] = []
        for index in range(len(self.kinds)):
            self._resolve(index)
        self.users: dict[Reference, list[int]] = {}
        for index in self.written():
            for argument in self.args(index):
                self._uses(argument, index)
        self.update = self.aliased(self.flow.update)
        self.next_slots = {slot: self.aliased(reference) for slot, reference in self.flow.next_slots.items()}
        self._uses(self.update, UPDATE)
        for reference in self.next_slots.values():
            self._uses(reference, SLOT)
        self.merged: set[int] = set()
        self.decay = self._find_decay()
        for index in self.written():
            if index not in self.merged and self._is_merged(index):
                self.merged.add(index)

    def written(self) -> list[int]:
        """Return the statements that are neither plain assignments nor numbers."""
        return [index for index in range(len(self.kinds)) if index not in self.alias]

    def args(self, index: int) -> tuple[Reference, ...]:
        """Return what the arguments of a statement refer to."""
        return tuple(map(self.aliased, self.flow.arguments[index]))

    def aliased(self, reference: Reference) -> Reference:
        """See through plain assignments."""
        # A constant never goes into a table of references: 1.0 and statement 1 are the same key there.
        return reference if isinstance(reference, float) else self.alias.get(reference, reference)

    def _uses(self, reference: Reference, user: int) -> None:
        if not isinstance(reference, float):
            self.users.setdefault(reference, []).append(user)

    def _resolve(self, index: int) -> None:
        """See through plain assignments, fold what is made of literals alone, and find the stage."""
        args, meaning = self.args(index), self.meanings[index]
        if self.ops[index].name == "identity":
            self.alias[index] = args[0]
        elif isinstance(meaning, Elementwise) and all(isinstance(a, float) for a in args):
            with np.errstate(all="ignore"):
                self.alias[index] = float(meaning.numpy(*args))
        on_host = isinstance(meaning, Elementwise) and all(self.stage(a) is Stage.HOST for a in args)
        one = Stage.HOST if on_host else Stage.DEVICE
        self.stages.append(one if self.kinds[index] is Kind.SCALAR else Stage.LIST)

    def stage(self, reference: Reference) -> Stage:
        """Return where a value is computed."""
        if isinstance(reference, float):
            return Stage.HOST
        if isinstance(reference, int):
            return self.stages[reference]
        if self.entry[reference] is not Kind.SCALAR:
            return Stage.LIST
        on_device = reference == "loss" or any(reference == slot.name for slot in self.program.slots)
        return Stage.DEVICE if on_device else Stage.HOST

    def kind_of(self, reference: Reference) -> Kind:
        """Return the kind of a value."""
        if isinstance(reference, int):
            return self.kinds[reference]
        return self.entry[reference] if isinstance(reference, str) else Kind.SCALAR

    def needs_numpy(self) -> bool:
        """Say whether some number is computed by what raises an exception, or has none, for floats of Python."""
        numbers = [i for i in self.written() if self.stages[i] is Stage.HOST]
        divided = any(self.foreach(i) == "div" and self.is_divided(i) for i in self.merged)
        return divided or any(self.program.statements[i].op not in _HARMLESS for i in numbers)

    # -- what is written with what ----------------------------------------------------------------------------------

    def foreach(self, index: int) -> str:
        """Return PyTorch's name of an operation on lists, or "" for what is written tensor by tensor.

        Further names are `square`, `interp`, `choice` between two lists by a number, and `factor` for a list times a
        number that is reduced from it.
        """
        meaning, args = self.meanings[index], self.args(index)
        if self.stages[index] is Stage.LIST and isinstance(meaning, Reduction) and meaning.scope is Kind.SCALAR:
            return "factor"
        if self.stages[index] is not Stage.LIST or not isinstance(meaning, Elementwise):
            return ""
        stages, kinds = list(map(self.stage, args)), list(map(self.kind_of, args))
        alike = [stage is Stage.LIST and kind is self.kinds[index] for stage, kind in zip(stages, kinds, strict=True)]
        if self.ops[index].name == "interp":
            return "interp" if alike[:2] == [True, True] and stages[2] is Stage.HOST else ""
        if self.ops[index].name == "where":
            chosen = stages[0] is Stage.HOST and alike[1:] == [True, True] and "w" not in args
            return "choice" if chosen else ""
        name = FOREACH.get(meaning.source, "square" if meaning.source == "jnp.square({0})" else "")
        if len(args) == 2 and name:
            if stages[0] is not Stage.LIST:
                stages.reverse()
                name = name if name in _COMMUTATIVE else ""
            if stages[1] is Stage.DEVICE and name not in ("add", "mul", "div"):
                return ""
        return name

    def product(self, reference: Reference) -> tuple[str, tuple[Reference, ...]] | None:
        """Return the call and the factors of a statement that multiplies or divides one list by another."""
        if not isinstance(reference, int):
            return None
        name, args = self.foreach(reference), self.args(reference)
        if name == "square":
            return "addcmul", (args[0], args[0])
        if name in ("mul", "div") and all(self.stage(a) is Stage.LIST for a in args):
            return "addc" + name, args
        return None

    def scaled(self, reference: Reference) -> tuple[Reference, Reference] | None:
        """Return the number and the list of a statement that multiplies one by the other."""
        if not isinstance(reference, int) or self.foreach(reference) != "mul":
            return None
        x, y = self.args(reference)
        if Stage.HOST in (self.stage(x), self.stage(y)):
            return (x, y) if self.stage(x) is Stage.HOST else (y, x)
        return None

    def is_divided(self, index: int) -> bool:
        """Say whether a statement divides a list by a number, and only a quotient of lists that is added reads it."""
        user = self.sole_user(index)
        if user is None or user < 0 or self.foreach(index) != "div" or "w" in self.args(index):
            return False
        found = self.product(user)
        by_number = self.stage(self.args(index)[1]) is Stage.HOST
        return (
            by_number and found is not None and found[0] == "addcdiv" and found[1][0] == index and self._is_term(user)
        )

    def sole_user(self, reference: Reference) -> int | None:
        """Return the only reader of a value, if there is just one."""
        users = self.users.get(reference, []) if not isinstance(reference, float) else []
        return users[0] if len(users) == 1 else None

    def _find_decay(self) -> tuple[Reference | None, Reference, Reference] | None:
        """Find an update c * (z + k * w): return c or None, k and z."""
        found = self.scaled(self.update) if self.sole_user(self.update) == UPDATE else None
        factor, total = found or (None, self.update)
        if not isinstance(total, int) or self.foreach(total) != "add" or self.sole_user(total) is None:
            return None
        for decay, rest in (self.args(total), self.args(total)[::-1]):
            pair = self.scaled(decay)
            if pair and pair[1] == "w" and self.sole_user(decay) == total and self.stage(rest) is Stage.LIST:
                if rest == "w":
                    return None
                self.merged |= {i for i in (self.update, total, decay) if isinstance(i, int)}
                return factor, pair[0], rest
        return None

    def _is_merged(self, index: int) -> bool:
        """Say whether a statement is written as a part of the only one that reads its value."""
        user = self.sole_user(index)
        if user is None or user == SLOT:
            return False
        if self.stages[index] is Stage.LIST and (self._is_term(index) or self.is_divided(index)):
            return True
        if user == UPDATE or not _TEMPORARY.fullmatch(self.program.statements[index].target):
            return False
        if not isinstance(self.meanings[index], Elementwise) or not self._takes(index, user):
            return False
        if len(ast.unparse(self.expression(index, self._target))) > _LONGEST:
            return False
        if self.foreach(user):
            return True
        self.merged.add(index)
        length = len(ast.unparse(self.expression(user, self._target)))
        self.merged.remove(index)
        return length <= _LONGEST_OF_ALL

    def _takes(self, index: int, user: int) -> bool:
        """Say whether the expression of a user has room for that of a value."""
        stage, called = self.stages[index], self.foreach(user)
        if stage is Stage.LIST and (called or self.stages[user] is not Stage.LIST):
            return False
        if stage is Stage.DEVICE and self.stages[user] is not Stage.DEVICE:
            return False
        if called:
            return called != "interp"
        slot = next(f"_{i}" for i, a in enumerate(self.args(user)) if isinstance(a, int) and a == index)
        read = [node.id for node in ast.walk(self.template(user)) if isinstance(node, ast.Name)]
        return read.count(slot) == 1

    def _is_term(self, index: int) -> bool:
        """Say whether a value is a product or quotient that its user adds in one call."""
        user = self.sole_user(index)
        if user is None or not (self.product(index) or self.scaled(index)):
            return False
        in_decay = self.decay is not None and self.decay[2] == index
        if user == UPDATE or in_decay:
            factors = self.args(index) if self.product(index) else ()
            return not (in_decay and "w" in self.args(index)) and "w" not in factors
        if not _TEMPORARY.fullmatch(self.program.statements[index].target):
            return False
        called, args = self.foreach(user), self.args(user)
        if called == "mul" and self.scaled(user):
            return self.product(index) is not None and "w" not in self.args(index) and self._is_term(user)
        if called == "interp":
            found = self.product(index)
            return args[0] == index and found is not None and found[0] == "addcmul" and args[1] not in found[1]
        if called not in ("add", "sub") or any(self.stage(a) is not Stage.LIST for a in args):
            return False
        return args[1] == index or (called == "add" and not (isinstance(args[1], int) and self._is_term(args[1])))

    def term(self, reference: Reference, name_of: Callable[[Reference], str]) -> Term:
        """Return what a value is as a summand."""
        if not isinstance(reference, int) or reference not in self.merged:
            return Term("add", None, (reference,))
        found = self.product(reference)
        if found:
            first, *others = found[1]
            if not (isinstance(first, int) and first in self.merged):
                return Term(found[0], None, found[1])
            divided, divisor = self.args(first)
            return Term(found[0], None, (divided, *others), self.argument(divisor, name_of))
        pair = self.scaled(reference)
        assert pair is not None
        inner = self.term(pair[1], name_of)
        return Term(inner.call, self.argument(pair[0], name_of), inner.factors, inner.divisor)

    # -- expressions ------------------------------------------------------------------------------------------------

    def _target(self, reference: Reference) -> str:
        return self.program.statements[reference].target if isinstance(reference, int) else str(reference)

    def template(self, index: int) -> ast.expr:
        """Return the expression of a statement over `_0`, `_1`, …."""
        op, meaning = self.ops[index], self.meanings[index]
        if self.stages[index] is Stage.HOST and isinstance(meaning, Elementwise):
            return host_template(op, meaning)
        numbers = {f"_{i}" for i, a in enumerate(self.args(index)) if self.stage(a) is Stage.HOST}
        return device_template(op, meaning, numbers)

    def expression(self, index: int, name_of: Callable[[Reference], str]) -> ast.expr:
        """Return the expression of a statement for numbers, tensors of rank 0, or the tensors of one parameter."""
        nodes = {f"_{i}": self.argument(a, name_of) for i, a in enumerate(self.args(index))}
        meaning = self.meanings[index]
        if isinstance(meaning, Matrixwise):
            for i, argument in enumerate(self.args(index)):
                if self.kind_of(argument) in _VIEWED:
                    nodes[f"_{i}"] = ast.Call(ast.Name("as_matrix"), [nodes[f"_{i}"]], [])
        tree = Conditional().visit(Fill(nodes).visit(self.template(index)))
        if isinstance(tree, ast.IfExp) and self.needs_numpy():
            # A number of Python would raise an exception where it is divided by zero.
            return ast.Call(ast.parse("np.float64", mode="eval").body, [tree], [])
        number_of_product = self.kinds[index] is Kind.LEAF and self.ops[index].arity == 2
        if isinstance(meaning, Matrixwise) and (self.kinds[index] in _VIEWED or number_of_product):
            shape = ast.parse(SHAPES[self.kinds[index]].format(name_of("w")), mode="eval").body
            tree = ast.Call(ast.Attribute(tree, "reshape"), [shape], [])
        return tree  # type: ignore[no-any-return]

    def chosen(self, index: int, name_of: Callable[[Reference], str]) -> ast.expr:
        """Return the conditional expression of a choice between two lists."""
        condition, x, y = (self.argument(a, name_of) for a in self.args(index))
        test = ast.Compare(condition, [ast.NotEq()], [ast.Constant(0)])
        return ast.IfExp(Conditional().visit(test), x, y)

    def argument(self, reference: Reference, name_of: Callable[[Reference], str]) -> ast.expr:
        """Return a number, a variable, or the expression of a statement that is merged into others."""
        if isinstance(reference, float):
            return number(reference)
        if isinstance(reference, int) and reference in self.merged:
            return self.expression(reference, name_of)
        return ast.Name(name_of(reference))

    def leaves(self, index: int) -> list[Reference]:
        """Return the references that the text of a statement reads, with those of what is merged into it."""
        found: list[Reference] = []
        for argument in self.args(index):
            if isinstance(argument, int) and argument in self.merged:
                found += self.leaves(argument)
            elif not isinstance(argument, float):
                found.append(argument)
        return found
