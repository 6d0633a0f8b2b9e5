"""A program as assignments of readable Python expressions over `jnp`, for generated code.

Temporaries are inlined where that reads well, names are kept where they stay unambiguous, and parentheses are
those that Python needs. How the assignments are arranged into a function is the concern of the exporter that asks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np

from evolion.discovered.source_templates import (
    SHAPES,
    Conditions,
    Fill,
    MatrixTemplate,
    Safe,
    literal,
    matrix_template,
    parsed,
    reduction,
    typed,
)
from evolion.primitives.dataflow import Reference, data_flow
from evolion.primitives.kinds import Kind
from evolion.primitives.op import Elementwise, Matrixwise, Reduction
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program, infer_kinds

__all__ = ["Assignment", "Outline", "outline"]

_TEMPORARY = re.compile(r"x\d+")
_LONGEST_INLINED = 45
_LONGEST = 90
_LONGEST_MAPPED = 80  # within a lambda
_NEVER = 1 << 30
_TREES = ("g", "w", "w0", "hess", "noise")
_UNNAMED = "(shape)"  # no name of a program


@dataclass(frozen=True, slots=True)
class Assignment:
    """One line `name = expression`.

    Attributes:
        name: The variable that is bound.
        expression: Python source over scalars, and over entries of trees where `reads` names any.
        reads: The variables of other kinds than scalar that the expression reads, one parameter tensor at a time. Whole
            trees, which only reductions over all of them read, are not among them.
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
        shaped: The tensor parameter that lends its shape where one is needed, or None if the program has no tensors.
        shape_name: Its variable; without one a variable that is to hold a tensor of the parameter's shape.
        whole_trees: Whether some expression reads a whole tree, so that no function of single tensors will do.
        assignments: In order; without whole trees those of scalars come first.
        update: Source and kind of the update.
        next_slots: Source and kind of the next value of each slot.

    """

    names: dict[str, str]
    shaped: str | None
    shape_name: str
    whole_trees: bool
    assignments: tuple[Assignment, ...]
    update: tuple[str, Kind]
    next_slots: dict[str, tuple[str, Kind]]


def outline(program: Program, reserved: Collection[str]) -> Outline:
    """Choose names and expressions for a program without dead code.

    Args:
        program: The program.
        reserved: Names that the surrounding code uses; variables of those names get another.

    """
    return _Writer(program).outline(set(reserved))


def _lender(program: Program) -> str | None:
    """Return the tensor that lends its shape to values that have none: one whose name is never bound again, if any."""
    tensors = [name for name in _TREES if name in program.inputs]
    tensors += [slot.name for slot in program.slots if slot.kind is Kind.TENSOR]
    rebound = {statement.target for statement in program.statements}
    return next((name for name in tensors if name not in rebound), tensors[0] if tensors else None)


class _Writer:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.shaped = _lender(program)
        self.flow = data_flow(program)
        self.kinds = infer_kinds(program)
        entry = {p.name: p.kind for p in program.parameters}
        self.entry = entry | {h.name: Kind.SCALAR for h in program.hyperparameters}
        self.rebound = {statement.target for statement in program.statements}
        self.meanings = [OPS[s.op].under(program.protected) for s in program.statements]
        self.whole_trees = any(self.is_whole(index) for index in range(len(self.meanings)))
        self.alias: dict[Reference, Reference] = {}
        self.inlined: set[int] = set()
        self.on_floats: set[Reference] = {"horizon", *(h.name for h in program.hyperparameters)}
        self.kept_as_matrices: set[int] = set()
        for index in range(len(self.meanings)):
            self._resolve(index)
        self.kept_as_matrices = self._find_matrices()
        self._choose_inlined()

    # -- what the statements refer to -------------------------------------------------------------------------------

    def args(self, index: int) -> tuple[Reference, ...]:
        """Return the arguments of a statement, and after them a tensor if its expression needs one for the shape."""
        template = self.matrices(index)
        extra = (self._shape_source(index),) if template is not None and template.reshaped else ()
        return (*map(self._aliased, self.flow.arguments[index]), *extra)

    def kinds_of(self, index: int) -> tuple[Kind, ...]:
        return tuple(map(self.kind_of, self.flow.arguments[index]))

    def matrices(self, index: int) -> MatrixTemplate | None:
        """Return the template of a statement that works on matrix views."""
        meaning = self.meanings[index]
        if not isinstance(meaning, Matrixwise):
            return None
        template = matrix_template(OPS[self.program.statements[index].op], meaning.compute, self.kinds_of(index))
        return replace(template, reshaped=False) if index in self.kept_as_matrices else template

    def _shape_source(self, index: int) -> Reference:
        """Return a tensor whose shape serves at a statement: one with a name that is not kept for this alone."""
        if self.shaped in self.rebound:
            for earlier in reversed(range(index)):
                named = not _TEMPORARY.fullmatch(self.program.statements[earlier].target)
                if named and self.kinds[earlier] is Kind.TENSOR and earlier not in self.alias:
                    return earlier
        return self.shaped or _UNNAMED

    def _find_matrices(self) -> set[int]:
        """Return the statements with a matrix that is only ever read as one, and so is not reshaped in between."""
        found = {i for i in range(len(self.meanings)) if (template := self.matrices(i)) and template.is_matrix}
        found -= {reference for reference in self.outputs() if isinstance(reference, int)}
        for index in range(len(self.meanings)):
            template = None if index in self.alias else self.matrices(index)
            if index not in self.alias:
                viewed = template.viewed if template else ()
                found -= {a for i, a in enumerate(self.args(index)) if isinstance(a, int) and i not in viewed}
        return found

    def _aliased(self, reference: Reference) -> Reference:
        # A constant never goes into a table of references: 1.0 and statement 1 are the same key there.
        return reference if isinstance(reference, float) else self.alias.get(reference, reference)

    def _ends_narrow(self) -> bool:
        """Say whether some result has to be widened, for which a tensor must lend its shape at the end."""
        kinds = [Kind.TENSOR, *(self.entry[name] for name in self.flow.next_slots)]
        return any(self.kind_of(result) is not kind for result, kind in zip(self.outputs(), kinds, strict=True))

    def outputs(self) -> list[Reference]:
        return list(map(self._aliased, [self.flow.update, *self.flow.next_slots.values()]))

    def kind_of(self, reference: Reference) -> Kind:
        if isinstance(reference, int):
            return self.kinds[reference]
        return self.entry.get(reference, Kind.TENSOR) if isinstance(reference, str) else Kind.SCALAR

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
            named = (*statement.args, *self.args(index)[len(statement.args) :])
            reads[index] = {argument for argument in named if isinstance(argument, str)}
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
        if len(ast.unparse(self.expression(index, self._target))) > _LONGEST_INLINED:
            return False
        self.inlined.add(index)
        length = len(ast.unparse(self.expression(user, self._target)))
        self.inlined.remove(index)
        return length <= (_LONGEST_MAPPED if self.whole_trees else _LONGEST)

    def _target(self, reference: Reference) -> str:
        return self.program.statements[reference].target if isinstance(reference, int) else str(reference)

    # -- expressions ------------------------------------------------------------------------------------------------

    def template(self, index: int) -> ast.expr:
        """Return the expression of a statement over `_0`, `_1`, …, the results of `args`."""
        op, meaning = OPS[self.program.statements[index].op], self.meanings[index]
        if isinstance(meaning, Elementwise):
            args = self.args(index)
            tree = typed(
                parsed(meaning.source, op.arity), {f"_{i}" for i, a in enumerate(args) if self._is_float((a,))}
            )
            return Safe().visit(tree) if self._is_float(args) else tree
        if isinstance(meaning, Matrixwise):
            return self._shaped(index)
        if self.has_factor(index):
            return parsed(meaning.apply_source.replace("{reduced}", "_reduced"), op.arity)
        return parsed(meaning.apply_source.replace("{reduced}", f"({reduction(op, meaning)})"), op.arity)

    def _shaped(self, index: int) -> ast.expr:
        """Return the template of a statement on matrices with the result in the shape of its kind."""
        template, kinds = self.matrices(index), self.kinds_of(index)
        assert template is not None
        if not template.reshaped:
            return template.tree
        shape = parsed(SHAPES[self.kinds[index]].replace("{0}", f"{{{len(kinds)}}}"), len(kinds) + 1)
        return ast.Call(ast.parse("jnp.reshape", mode="eval").body, [template.tree, shape], [])

    def expression(self, index: int, name_of: Callable[[Reference], str], factor: str = "") -> ast.expr:
        nodes = self._nodes(index, name_of) | {"_reduced": ast.Name(factor)}
        filled: ast.expr = Fill(nodes).visit(self.template(index))
        return Conditions().visit(filled)  # type: ignore[no-any-return]

    def factor(self, index: int, name_of: Callable[[Reference], str]) -> ast.expr:
        """Return the reduced value of a statement that applies one to each entry, such as a clip."""
        meaning = self.meanings[index]
        assert isinstance(meaning, Reduction)
        nodes = self._nodes(index, name_of)
        filled: ast.expr = Fill(nodes).visit(parsed(meaning.source, len(nodes)))
        return filled

    def _nodes(self, index: int, name_of: Callable[[Reference], str]) -> dict[str, ast.expr]:
        template = self.matrices(index)
        # A count of iterations must be a float where it is a number of Python; a power would turn whole.
        whole = template is None and self.program.statements[index].op != "power"
        nodes = {f"_{i}": self._argument(argument, whole, name_of) for i, argument in enumerate(self.args(index))}
        if template is not None:
            for i in template.viewed:
                nodes[f"_{i}"] = self._matrix(self.args(index)[i], name_of)
        return nodes

    def _argument(self, reference: Reference, whole: bool, name_of: Callable[[Reference], str]) -> ast.expr:
        if isinstance(reference, float):
            return literal(reference, whole=whole)
        if isinstance(reference, int) and reference in self.inlined:
            return self.expression(reference, name_of)
        return ast.Name(name_of(reference) if isinstance(reference, (int, str)) else "")

    def _matrix(self, reference: Reference, name_of: Callable[[Reference], str]) -> ast.expr:
        """Return the matrix view of a value."""
        if reference in self.kept_as_matrices:
            return self._argument(reference, True, name_of)
        return ast.Call(ast.Name("as_matrix"), [self._argument(reference, True, name_of)], [])

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
            read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            wide = [names[r] for r in self.leaves(index) if self.kind_of(r) is not Kind.SCALAR and names[r] in read]
            reads = tuple(dict.fromkeys(wide)) if self.kinds[index] is not Kind.SCALAR else ()
            assignments.append(Assignment(names[index], ast.unparse(tree), reads, self.kinds[index]))
        results = [(self._source(reference, names), self.kind_of(reference)) for reference in self.outputs()]
        slots = dict(zip(self.flow.next_slots, results[1:], strict=True))
        entry = {name: names[name] for name in self.entry}
        lent = names[self.shaped or _UNNAMED]
        return Outline(entry, self.shaped, lent, self.whole_trees, tuple(assignments), results[0], slots)

    def _source(self, reference: Reference, names: dict[Reference, str]) -> str:
        return ast.unparse(literal(reference)) if isinstance(reference, float) else names[reference]

    def _name_all(self, order: list[int], reserved: set[str]) -> tuple[dict[Reference, str], dict[int, str]]:
        """Give each value a variable: the program's own name unless that still holds a value which is read later."""
        last: dict[Reference, int] = {}
        for position, index in enumerate(order):
            last |= dict.fromkeys(self.leaves(index), position)
        last |= dict.fromkeys([r for r in self.outputs() if not isinstance(r, float)], _NEVER)
        if self.shaped is not None and self._ends_narrow():
            last[self.shaped] = _NEVER
        names: dict[Reference, str] = {_UNNAMED: "like" if self.whole_trees else "leaf"}
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
