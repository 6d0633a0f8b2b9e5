"""The simplifier: rewrites a program by the rules of `rules` until none makes it smaller.

Measured against egglog 11 (equality saturation): see docs/language.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from evolion.primitives.dataflow import Reference, remove_dead_code
from evolion.primitives.emission import to_program
from evolion.primitives.facts import BOUND, Fact, equal_slots, fact_of, facts, zero_slots
from evolion.primitives.graph import Builder, Graph, graph_of, rebuilt, same, swapped_freely
from evolion.primitives.op import Elementwise
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program
from evolion.primitives.rules import RULES, Call, Rule, Term, Wildcard

__all__ = ["Simplified", "apply_once", "simplified", "simplify"]

Bindings = dict[str, Reference]

Added = Callable[[Builder, Callable[[Reference], Reference]], Reference]
"""What adds a value to a graph that is being built, as in `rebuilt`."""

_LONG = 100  # more nodes than a search makes: there, each rewrite is chosen by what it gains
_Read = tuple[Rule, Term, Term]
"""A rule with its pattern and its replacement."""


@dataclass(frozen=True, slots=True)
class Simplified:
    """A program after simplification.

    Attributes:
        program: The program.
        fired: (what, how often) pairs in alphabetical order: names of rules, and what building a graph removes.

    """

    program: Program
    fired: tuple[tuple[str, int], ...]


def simplify(program: Program, *, exact: bool = True) -> Program:
    """Return a program that does the same with no more statements, and fewer where the rules allow.

    Args:
        program: The program.
        exact: Whether every update of every step stays the same, bit for bit (in the NumPy meaning; NaN is NaN). Else
            the rules that hold but for rounding and single points are used as well, and only they.

    Hyperparameters keep their names and stay as long as something reads them. Simplifying twice changes nothing more.
    """
    return simplified(program, exact=exact).program


def simplified(program: Program, *, exact: bool = True) -> Simplified:
    """Return what `simplify` does, and which rules fired how often."""
    graph, fired = graph_of(program)
    while True:
        step = _without_slots(graph)
        if step is None and len(graph.nodes) > _LONG:
            step = _many_rewritten(graph, exact)
        step = step or _rewritten(graph, exact)
        if step is None:
            break
        graph, events = step
        fired += events
    shorter = to_program(graph)
    unread = len(_inputs(program)) - len(_inputs(shorter))
    fired = +(fired + Counter({"input or hyperparameter without reader": unread}))
    if set(fired) <= {"copy"} and len(shorter.statements) == len(program.statements):
        # Only copies that slots need, or nothing at all: the program stays as it is written.
        return Simplified(program, ())
    alive = remove_dead_code(program)
    if len(shorter.statements) > len(alive.statements):
        return Simplified(alive, (("dead code", len(program.statements) - len(alive.statements)),))
    return Simplified(shorter, tuple(sorted(fired.items())))


def _inputs(program: Program) -> tuple[str, ...]:
    return program.inputs + tuple(hyperparameter.name for hyperparameter in program.hyperparameters)


def _without_slots(graph: Graph) -> tuple[Graph, Counter[str]] | None:
    """Read 0 in place of slots that stay zero, and one slot in place of others that hold the same."""
    zeros: dict[str, Reference] = dict.fromkeys(sorted(zero_slots(graph)), 0.0)
    for name, renamed in (("slot that stays zero", zeros), ("slot equal to another", equal_slots(graph))):
        # All at once or, as an op that needs a tensor keeps a slot that is zero, one by one.
        for chosen in (renamed, *({slot: reference} for slot, reference in renamed.items())):
            found = rebuilt(graph, renamed=chosen) if chosen else None
            if found is not None and found[0].measure() < graph.measure():
                return found[0], found[1] + Counter([name] * len(chosen))
    return None


def apply_once(program: Program, rule: Rule) -> Program | None:
    """Return the program after one use of a rule, whether it gains anything or not, or None if it does not apply.

    For tests and reports: a rule is right if this changes nothing that it does.
    """
    if rule.arithmetic == ("plain" if program.protected else "protected"):
        return None
    graph, _ = graph_of(program)
    pattern, replacement = rule.terms()
    assert isinstance(pattern, Call)
    for found in _uses(graph, {pattern.op: ((rule, pattern, replacement),)}):
        return to_program(found[1])
    return None


def _rewritten(graph: Graph, exact: bool) -> tuple[Graph, Counter[str]] | None:
    """Apply the first rule that saves a statement or, if none does, the first that makes the measure smaller."""
    now = graph.measure()
    smaller: tuple[Graph, Counter[str]] | None = None
    for rule, after, events in _uses(graph, _rules_by_op(exact, graph.program.protected)):
        measure = after.measure()
        if measure[0] < now[0]:
            return after, events + Counter([rule.name])
        if smaller is None and measure < now and not rule.shortens:
            smaller = after, events + Counter([rule.name])
    return smaller


def _many_rewritten(graph: Graph, exact: bool) -> tuple[Graph, Counter[str]] | None:
    """Apply the first rule at every node at once, if that saves a statement.

    Each replacement has the value of what it replaces, so they do not hinder each other. Long programs need it: one
    rewrite at a time costs a walk over all of the program.
    """
    chosen: dict[int, tuple[Rule, Added]] = {}
    for index, rule, added in _places(graph, _rules_by_op(exact, graph.program.protected)):
        # A sum may need its argument as wide as it is, and others may narrow that at the same time.
        if _by_entry(rule.terms()[1]):
            chosen.setdefault(index, (rule, added))
    found = rebuilt(graph, {index: added for index, (_, added) in chosen.items()})
    if found is None or found[0].measure()[0] >= graph.measure()[0]:
        return None
    return found[0], found[1] + Counter([rule.name for rule, _ in chosen.values()])


def _uses(graph: Graph, rules: Mapping[str, tuple[_Read, ...]]) -> Iterator[tuple[Rule, Graph, Counter[str]]]:
    """Yield every use of a rule: the rule, the graph after it, and what building that graph removed."""
    for index, rule, added in _places(graph, rules):
        found = rebuilt(graph, {index: added})
        if found is not None:
            yield rule, *found


def _places(graph: Graph, rules: Mapping[str, tuple[_Read, ...]]) -> Iterator[tuple[int, Rule, Added]]:
    """Yield every node at which a rule applies, the rule, and what adds its replacement."""
    known: dict[Reference, Fact] | None = None
    for index, (op, _) in enumerate(graph.nodes):
        for rule, pattern, replacement in rules.get(op, ()):
            for bindings in _matches(pattern, index, graph, {}, rule.exact):
                if known is None and (rule.nonnegative or rule.bounded or rule.finite or rule.indicator):
                    known = facts(graph)
                if _holds(rule, bindings, known or {}) and _has_kinds(rule, bindings, graph):
                    yield index, rule, _adding(replacement, bindings)


@cache
def _rules_by_op(exact: bool, protected: bool) -> Mapping[str, tuple[_Read, ...]]:
    """Return the rules in use with their terms, by the op at the root of the pattern; exact ones come first."""
    table: dict[str, tuple[_Read, ...]] = {}
    other = "plain" if protected else "protected"
    for rule in RULES.values():
        pattern, replacement = rule.terms()
        if (rule.exact or not exact) and rule.arithmetic != other and isinstance(pattern, Call):
            table[pattern.op] = (*table.get(pattern.op, ()), (rule, pattern, replacement))
    return table


def _matches(term: Term, reference: Reference, graph: Graph, bindings: Bindings, exact: bool) -> Iterator[Bindings]:
    """Yield every way in which a term is the value of a reference, with arguments swapped where the op allows."""
    if isinstance(term, Wildcard):
        if term.constant and not isinstance(reference, float):
            return
        if term.name not in bindings:
            yield {**bindings, term.name: reference}
        elif same(bindings[term.name], reference):
            yield bindings
        return
    if isinstance(term, float):
        if same(term, reference):
            yield bindings
        return
    if not isinstance(reference, int) or graph.nodes[reference][0] != term.op:
        return
    args = graph.nodes[reference][1]
    yield from _all_match(term.args, args, graph, bindings, exact)
    if OPS[term.op].commutative and not same(args[0], args[1]) and (not exact or swapped_freely(term.op, args)):
        yield from _all_match(term.args, args[::-1], graph, bindings, exact)


def _all_match(
    terms: tuple[Term, ...], args: tuple[Reference, ...], graph: Graph, bindings: Bindings, exact: bool
) -> Iterator[Bindings]:
    if not terms:
        yield bindings
        return
    for found in _matches(terms[0], args[0], graph, bindings, exact):
        yield from _all_match(terms[1:], args[1:], graph, found, exact)


def _by_entry(term: Term) -> bool:
    if not isinstance(term, Call):
        return True
    return isinstance(OPS[term.op].meaning, Elementwise) and all(map(_by_entry, term.args))


def _holds(rule: Rule, bindings: Bindings, known: Mapping[Reference, Fact]) -> bool:
    constants = {name: value for name, value in bindings.items() if isinstance(value, float)}
    return (
        rule.constants(constants)
        and all(fact_of(known, bindings[name]).nonnegative for name in rule.nonnegative)
        and all(fact_of(known, bindings[name]).bound <= BOUND for name in rule.bounded)
        and all(fact_of(known, bindings[name]).finite for name in rule.finite)
        and all(fact_of(known, bindings[name]).indicator for name in rule.indicator)
    )


def _has_kinds(rule: Rule, bindings: Bindings, graph: Graph) -> bool:
    return all(graph.kind_of(bindings[name]) in kinds for name, kinds in rule.kinds.items())


def _adding(term: Term, bindings: Bindings) -> Added:
    """Return what adds a term to a graph that is being built."""

    def add(builder: Builder, to_new: Callable[[Reference], Reference]) -> Reference:
        def value(inner: Term) -> Reference:
            if isinstance(inner, Wildcard):
                return to_new(bindings[inner.name])
            if isinstance(inner, float):
                return inner
            return builder.add(inner.op, tuple([value(argument) for argument in inner.args]), -1)

        return value(term)

    return add
