"""The lines of a PyTorch optimizer's update: names, and memory that is used again."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from evolion.discovered.torch_statements import SHAPES, Stage, Statements
from evolion.primitives.dataflow import Reference
from evolion.primitives.kinds import Kind

__all__ = ["Body", "body"]

_TEMPORARY = re.compile(r"x\d+")
_WIDTH = 100
_GIVEN = ("g", "w", "w0", "hess")


@dataclass(frozen=True, slots=True)
class Body:
    """The update of one list of parameters.

    Attributes:
        names: The variable of each input, slot and hyperparameter at the start.
        lines: The statements; `w` is a list of the weights, and changed in place.
        stored: For each slot whose new value lies in other memory than the old one, the variable that holds it.

    """

    names: dict[str, str]
    lines: tuple[str, ...]
    stored: dict[str, str]


def body(statements: Statements, reserved: Collection[str]) -> Body:
    """Write the statements of a program, with variables that are not among the reserved names."""
    return _Emitter(statements, set(reserved)).body()


class _Emitter:
    def __init__(self, plan: Statements, reserved: set[str]) -> None:
        self.plan = plan
        self.reserved = reserved
        self.left: Counter[Reference] = Counter({reference: len(users) for reference, users in plan.users.items()})
        self.left["w"] += 1
        self.names: dict[Reference, str] = {}
        self.held: dict[str, Reference] = {}
        self.memory: dict[Reference, Reference] = {}  # what is held in memory that may be overwritten, and whose it was
        self.lines: list[str] = []
        for name, kind in plan.entry.items():
            self.names[name] = self.bind(name, name, taken=set(self.names.values()))
            if kind is not Kind.SCALAR and name not in _GIVEN:
                self.memory[name] = name
        if "w" not in plan.entry:
            self.names["w"] = self.bind("w", "w", taken=set(self.names.values()))

    def body(self) -> Body:
        entry = {str(name): variable for name, variable in self.names.items()}
        for index in self.plan.written():
            if index not in self.plan.merged:
                self.statement(index)
        stored = self.store()
        self.apply()
        return Body(entry, tuple(self.lines), stored)

    # -- names and memory -------------------------------------------------------------------------------------------

    def bind(self, wanted: str, reference: Reference, taken: Collection[str] = ()) -> str:
        name, count = wanted, 1
        while name in self.reserved or name in taken or self.left[self.held.get(name, "")] > 0:
            count += 1
            name = f"{wanted}_{count}"
        self.held[name] = reference
        return name

    def name(self, reference: Reference) -> str:
        return self.names[reference]

    def text(self, reference: Reference) -> str:
        return ast.unparse(self.plan.argument(reference, self.name))

    def consume(self, index: int) -> None:
        for reference in self.plan.leaves(index):
            self.left[reference] -= 1

    def free(self, index: int, candidates: Collection[Reference]) -> Reference | None:
        """Return the first value that nobody reads any more and whose memory has room for that of a statement."""
        for reference in candidates:
            fits = not isinstance(reference, float) and self.plan.kind_of(reference) is self.plan.kinds[index]
            if fits and self.left[reference] == 0 and reference in self.memory:
                return reference
        return None

    def target(self, index: int) -> str:
        return self.plan.program.statements[index].target

    def wanted(self, index: int) -> str:
        """Return the name of a value: of a temporary that of what is going to be computed in its place, if any."""
        slots, at = self.plan.next_slots, index
        while _TEMPORARY.fullmatch(self.target(at)):
            user = self.plan.sole_user(at)
            in_place = user is not None and user >= 0 and self.plan.foreach(user) not in ("", "choice")
            if user is None or not in_place or self.plan.args(user)[0] != at or user in self.plan.merged:
                return self.target(index)
            at = user
        free = self.target(at) not in slots and self.plan.kinds[at] is self.plan.kinds[index]
        return self.target(at) if free else self.target(index)

    def new(self, index: int, expression: str) -> None:
        """Bind the value of a statement to a variable of its own."""
        self.names[index] = self.bind(self.wanted(index), index)
        self.lines.append(f"{self.names[index]} = {expression}")

    def call(
        self, index: int, function: str, onto: Reference, arguments: str, candidates: tuple[Reference, ...]
    ) -> None:
        """Write a call for lists, in place if one of the candidates for the first argument is free."""
        before = self.names[onto]
        place = self.free(index, candidates)
        if place is None:
            self.new(index, f"torch._foreach_{function}({', '.join(filter(None, [before, arguments]))})")
            self.memory[index] = index
            return
        self.lines.append(f"torch._foreach_{function}_({', '.join(filter(None, [self.names[place], arguments]))})")
        self.take(index, place)

    def take(self, index: int, place: Reference) -> None:
        """Let a value lie where another one was."""
        self.memory[index] = self.memory.pop(place)
        self.names[index] = self.names[place]
        self.held[self.names[place]] = index
        target = self.target(index)
        if target != self.names[place] and not _TEMPORARY.fullmatch(target):
            old = self.names[place]
            self.names[index] = self.bind(target, index)
            self.lines.append(f"{self.names[index]} = {old}")

    # -- statements -------------------------------------------------------------------------------------------------

    def statement(self, index: int) -> None:
        called, args = self.plan.foreach(index), self.plan.args(index)
        if self.plan.stages[index] is not Stage.LIST:
            expression = ast.unparse(self.plan.expression(index, self.name))
            self.consume(index)
            self.new(index, expression)
        elif called in ("interp", "choice", "factor"):
            getattr(self, f"_{called}")(index, args)
        elif called:
            self.operation(index, called, args)
        else:
            self.mapped(index)

    def mapped(self, index: int) -> None:
        """Write a list of what an expression gives for each parameter."""
        tree = self.plan.expression(index, self.name)
        read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        lists = [r for r in ("w", *self.plan.leaves(index)) if r == "w" or self.plan.stage(r) is Stage.LIST]
        names = list(dict.fromkeys(self.names[r] for r in lists if self.names[r] in read))
        over = names[0] if len(names) == 1 else f"zip({', '.join(names)})"
        parts = [ast.unparse(tree), f"for {', '.join(names)} in {over}"]
        self.consume(index)
        long = sum(map(len, parts)) + len(self.target(index)) > _WIDTH - 8
        self.new(index, f"[\n    {parts[0]}\n    {parts[1]}\n]" if long else f"[{' '.join(parts)}]")
        self.memory[index] = index

    def operation(self, index: int, called: str, args: tuple[Reference, ...]) -> None:
        plan = self.plan
        if called == "square":
            args, called = (args[0], args[0]), "mul"
        if len(args) == 1:
            self.consume(index)
            self.call(index, called, args[0], "", args)
            return
        swapped = plan.stage(args[0]) is not Stage.LIST
        first, second = args[::-1] if swapped else args
        if called == "add" and first in plan.merged and plan.stage(second) is Stage.LIST:
            first, second = second, first
        in_one = isinstance(second, int) and second in plan.merged and plan.stage(second) is Stage.LIST
        if called in ("add", "sub") and in_one:
            self.accumulate(index, first, second, -1 if called == "sub" else 1)
            return
        text = self.text(second)
        self.consume(index)
        both = called in ("add", "mul", "maximum", "minimum") and plan.stage(second) is Stage.LIST
        if both and self.free(index, (first,)) is None and self.free(index, (second,)) is not None:
            first, text = second, self.names[first]
        self.call(index, called, first, text, (first,))

    def accumulate(self, index: int, base: Reference, summand: Reference, sign: int) -> None:
        call, arguments = self.summand(summand, sign)
        self.consume(index)
        self.call(index, call, base, arguments, (base,))

    def summand(self, reference: Reference, sign: int, factor: ast.expr | None = None) -> tuple[str, str]:
        """Return the call that adds a term to a list, and its arguments after the list."""
        term = self.plan.term(reference, self.name)
        coefficient = term.coefficient
        if factor is not None:
            coefficient = factor if coefficient is None else ast.BinOp(factor, ast.Mult(), coefficient)
        factors = ", ".join(self.names[r] for r in term.factors)
        if coefficient is None and term.divisor is None and (sign > 0 or term.call == "add"):
            return term.call if sign > 0 else "sub", factors
        tree: ast.expr = ast.Constant(1) if coefficient is None else coefficient
        tree = ast.UnaryOp(ast.USub(), tree) if sign < 0 else tree
        tree = tree if term.divisor is None else ast.BinOp(tree, ast.Div(), term.divisor)
        return term.call, f"{factors}, {'alpha' if term.call == 'add' else 'value'}={ast.unparse(tree)}"

    def _interp(self, index: int, args: tuple[Reference, ...]) -> None:
        """Write (1 - a) x + a y, in the memory of y where that is free, or of x."""
        x, y, a = args
        weight = self.plan.argument(a, self.name)
        rest = ast.unparse(ast.BinOp(ast.Constant(1), ast.Sub(), weight))
        if isinstance(x, int) and x in self.plan.merged:
            call, factors = self.summand(x, 1)
            self.consume(index)
            self.call(index, "mul", y, ast.unparse(weight), (y,))
            self.lines.append(f"torch._foreach_{call}_({self.names[index]}, {factors}, value={rest})")
            return
        self.consume(index)
        if self.free(index, (y,)) is None and self.free(index, (x,)) is not None:
            self.call(index, "lerp", x, f"{self.names[y]}, {ast.unparse(weight)}", (x,))
        else:
            self.call(index, "lerp", y, f"{self.names[x]}, {rest}", (y,))

    def _choice(self, index: int, args: tuple[Reference, ...]) -> None:
        """Write one of two lists; as it is the same list, neither is ever overwritten."""
        expression = ast.unparse(self.plan.chosen(index, self.name))
        self.consume(index)
        for reference in args[1:]:
            self.left[reference] += 1
        self.new(index, expression)

    def _factor(self, index: int, args: tuple[Reference, ...]) -> None:
        factor = ast.unparse(self.plan.expression(index, self.name))
        self.consume(index)
        self.call(index, "mul", args[0], factor, (args[0],))

    # -- the end of a step ------------------------------------------------------------------------------------------

    def store(self) -> dict[str, str]:
        """Give each slot memory of its own for its next value; return the variables of those that lie elsewhere."""
        plan, stored, claimed = self.plan, dict[str, str](), set[Reference]()
        slots = {slot.name: slot.kind for slot in plan.program.slots}
        settled = {s for s, r in plan.next_slots.items() if not isinstance(r, float) and self.memory.get(r) == s}
        for slot, reference in plan.next_slots.items():
            kind, own = plan.kind_of(reference), not isinstance(reference, float) and reference in self.memory
            if slot in settled and kind is slots[slot]:
                claimed.add(reference)
        for slot, reference in plan.next_slots.items():
            kind, own = plan.kind_of(reference), not isinstance(reference, float) and reference in self.memory
            text = self.text(reference)
            if slots[slot] is Kind.SCALAR:
                in_place = plan.stage(reference) is Stage.DEVICE
                stored[slot] = text if in_place else f"torch.as_tensor({text}, dtype=dtype, device=device)"
            elif kind is slots[slot] and slot in settled:
                continue
            elif kind is slots[slot] and own and reference not in claimed:
                claimed.add(reference)
                stored[slot] = text
            elif kind is slots[slot]:
                stored[slot] = f"[x.clone() for x in {text}]"
            else:
                shape, w = SHAPES[slots[slot]].format("p"), self.names["w"]
                wide = plan.stage(reference) is Stage.LIST
                over = f"x, p in zip({text}, {w})" if wide else f"p in {w}"
                stored[slot] = f"[widened({'x' if wide else text}, {shape}, p) for {over}]"
        for slot, expression in stored.items():
            if not expression.isidentifier():
                stored[slot] = self.bind(f"next_{slot}", slot)
                self.left[slot] += 1
                self.lines.append(f"{stored[slot]} = {expression}")
        return stored

    def apply(self) -> None:
        """Subtract the update from the weights."""
        plan, w, update = self.plan, self.names["w"], self.plan.update
        if plan.decay is not None:
            factor, decay, rest = plan.decay
            scale = None if factor is None else plan.argument(factor, self.name)
            rate = plan.argument(decay, self.name)
            product = rate if scale is None else ast.BinOp(scale, ast.Mult(), rate)
            self.lines.append(
                f"torch._foreach_mul_({w}, {ast.unparse(ast.BinOp(ast.Constant(1), ast.Sub(), product))})"
            )
            call, arguments = self.summand(rest, -1, scale)
            self.lines.append(f"torch._foreach_{call}_({w}, {arguments})")
        elif plan.stage(update) is Stage.LIST:
            call, arguments = self.summand(update, -1)
            self.lines.append(f"torch._foreach_{call}_({w}, {arguments})")
        elif plan.stage(update) is Stage.DEVICE:
            self.lines.append(f"torch._foreach_add_({w}, -{self.text(update)})")
        else:
            self.lines.append(f"torch._foreach_sub_({w}, {self.text(update)})")
