"""Lifting: constants of a found program become named hyperparameters where their part in the rule is recognised.

What is recognised, each among the statements that can reach an update:

- `b1`, `b2`, …: the weight of an `interp`, in the order of the statements. The same number in a correction of that
  value for its start at zero, x / (1 - c ** t), takes the same name.
- `momentum`: the factor on a slot in its own next value, m = c * m + x. The same number as a factor on that next value,
  as in Nesterov's form, takes the same name.
- `eps`: a number from 0 to 1e-4 added to a denominator, inside or outside its square root, or the least value of one.
- `weight_decay`: a factor of the weights alone, in a term of the update.
- `learning_rate_scale`: a factor of all terms of the update.

Every other constant stays a literal: a 2 in an exponent or the 1 of `1 - b1 ** t` is part of the form, not a setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from evolion.primitives.dataflow import DataFlow, Reference, data_flow, live_statements
from evolion.primitives.ops import OPS
from evolion.primitives.program import RESERVED, Hyperparameter, Program

__all__ = ["lift"]

_LARGEST_EPSILON = 1e-4
_MOST_TERMS, _MOST_FACTORS = 16, 64

_Site = tuple[int, int]
"""Where a literal stands: the index of its statement and its position among the arguments."""


@dataclass(frozen=True, slots=True)
class _Term:
    """One summand of the update: the literals that multiply it and whatever else does."""

    sites: frozenset[_Site]
    others: frozenset[Reference]


_TermsOf = Callable[[Reference], tuple[_Term, ...]]


def lift(program: Program) -> Program:
    """Return the program with its recognised constants as hyperparameters, named as the module's text says.

    A second constant of a part gets a number, such as `eps_2`; a name that is in use is never taken. Hyperparameters
    that the program has stay as they are and come first. What the program computes stays the same, bit for bit.
    """
    flow = data_flow(program)
    live = sorted(live_statements(program, flow)[0])
    terms = _expansion(program, flow)
    stems: dict[_Site, str] = {}
    for site, stem in (
        *_interpolations(program, flow, live),
        *_momenta(program, flow, terms),
        *_epsilons(program, flow, live),
        *_factors(program, flow, terms),
    ):
        stems.setdefault(site, stem)
    names = _named(program, stems)
    repeated = (*_corrections(program, flow, live), *_lookaheads(program, flow, live, terms))
    names |= {site: names[origin] for site, origin in repeated if site not in names and origin in names}
    return _with_names(program, names, dict.fromkeys(names[site] for site in sorted(stems)))


def _with_names(program: Program, names: dict[_Site, str], order: dict[str, None]) -> Program:
    if not names:
        return program
    values: dict[str, float] = {}
    statements = []
    for index, statement in enumerate(program.statements):
        args = list(statement.args)
        for position, argument in enumerate(args):
            name = names.get((index, position))
            if name is not None and isinstance(argument, float):
                values[name] = argument
                args[position] = name
        statements.append(replace(statement, args=tuple(args)))
    added = tuple(Hyperparameter(name, values[name]) for name in order)
    return replace(program, hyperparameters=program.hyperparameters + added, statements=tuple(statements))


def _named(program: Program, stems: dict[_Site, str]) -> dict[_Site, str]:
    """Give each site a name of its own: `b1`, `b2`, … for the stem b, otherwise the stem, stem_2 and so on."""
    taken = {statement.target for statement in program.statements} | {p.name for p in program.parameters}
    taken |= {h.name for h in program.hyperparameters} | {*RESERVED, *OPS}
    names = {}
    for site in sorted(stems):
        stem, number = stems[site], 1
        while (name := _numbered(stem, number)) in taken:
            number += 1
        names[site] = name
        taken.add(name)
    return names


def _numbered(stem: str, number: int) -> str:
    if stem == "b":
        return f"b{number}"
    return stem if number == 1 else f"{stem}_{number}"


def _is(program: Program, reference: Reference, op: str) -> bool:
    return isinstance(reference, int) and program.statements[reference].op == op


def _interpolations(program: Program, flow: DataFlow, live: list[int]) -> Iterator[tuple[_Site, str]]:
    for index in live:
        if _is(program, index, "interp") and isinstance(flow.arguments[index][2], float):
            yield (index, 2), "b"


def _corrections(program: Program, flow: DataFlow, live: list[int]) -> Iterator[tuple[_Site, _Site]]:
    """Yield where the weight c of an interp stands again in x / (1 - c ** t), with the site in that interp x."""
    origins: dict[_Site, set[_Site]] = {}
    for index in live:
        if not _is(program, index, "divide"):
            continue
        corrected, below = flow.arguments[index]
        if not (isinstance(below, int) and _is(program, below, "subtract") and flow.arguments[below][0] == 1.0):
            continue
        power = flow.arguments[below][1]
        if isinstance(power, int) and _is(program, power, "power") and flow.arguments[power][1] == "t":
            decay = flow.arguments[power][0]
            if isinstance(corrected, int) and _is(program, corrected, "interp") and isinstance(decay, float):
                same = flow.arguments[corrected][2] == decay
                origins.setdefault((power, 0), set()).add((corrected, 2) if same else (power, 0))
    for site, found in origins.items():
        if len(found) == 1 and site not in found:
            yield site, found.pop()


def _momenta(program: Program, flow: DataFlow, terms: _TermsOf) -> Iterator[tuple[_Site, str]]:
    live = live_statements(program, flow)[1]
    for slot, following in flow.next_slots.items():
        for term in terms(following) if slot in live else ():
            if slot in term.others and term.others <= {slot} | {h.name for h in program.hyperparameters}:
                yield from ((site, "momentum") for site in sorted(term.sites))


def _lookaheads(program: Program, flow: DataFlow, live: list[int], terms: _TermsOf) -> Iterator[tuple[_Site, _Site]]:
    """Yield where the momentum c of a slot stands again in c * m, for its next value m, with its own site."""
    origins: dict[Reference, list[_Site]] = {}
    for site, _ in _momenta(program, flow, terms):
        for slot, following in flow.next_slots.items():
            if any(site in term.sites and slot in term.others for term in terms(following)):
                origins.setdefault(following, []).append(site)
    for index in live:
        if _is(program, index, "multiply"):
            for position, factor in enumerate(flow.arguments[index]):
                found = origins.get(flow.arguments[index][1 - position], [])
                if isinstance(factor, float) and [program.statements[i].args[p] for i, p in found] == [factor]:
                    yield (index, position), found[0]


def _counts(reference: Reference) -> bool:
    """Say whether a factor is a literal that is more than a sign."""
    return isinstance(reference, float) and abs(reference) != 1.0


def _epsilons(program: Program, flow: DataFlow, live: list[int]) -> Iterator[tuple[_Site, str]]:
    denominators = {"divide": 1, "reciprocal": 0}
    pending = [flow.arguments[i][denominators[op]] for i in live if (op := program.statements[i].op) in denominators]
    seen: set[int] = set()
    while pending:
        reference = pending.pop()
        if not isinstance(reference, int) or reference in seen:
            continue
        seen.add(reference)
        op, arguments = program.statements[reference].op, flow.arguments[reference]
        if op in ("sqrt", "abs", "identity", "add", "max"):
            pending += arguments
        if op in ("add", "max"):
            for position, argument in enumerate(arguments):
                if isinstance(argument, float) and 0.0 < argument <= _LARGEST_EPSILON:
                    yield (reference, position), "eps"


def _factors(program: Program, flow: DataFlow, terms: _TermsOf) -> Iterator[tuple[_Site, str]]:
    # A number that is added to the update as it is has no factor.
    summands = [term for term in terms(flow.update) if term.others]
    plain = {"w", "lr"} | {h.name for h in program.hyperparameters}
    for site in sorted(frozenset[_Site]().union(*(term.sites for term in summands))):
        having = [term for term in summands if site in term.sites]
        if all("w" in term.others and term.others <= plain for term in having):
            yield site, "weight_decay"
        elif len(having) == len(summands):
            yield site, "learning_rate_scale"


def _expansion(program: Program, flow: DataFlow) -> _TermsOf:
    """Return a function that writes a value as a sum of products, as far as that takes no more than a few terms."""
    known: dict[int, tuple[_Term, ...]] = {}

    def terms(reference: Reference, site: _Site | None = None) -> tuple[_Term, ...]:
        if isinstance(reference, int):
            return known[reference]
        if site is not None and _counts(reference):
            return (_Term(frozenset([site]), frozenset()),)
        return (_Term(frozenset(), frozenset() if isinstance(reference, float) else frozenset([reference])),)

    for index, statement in enumerate(program.statements):
        parts = [terms(reference, (index, position)) for position, reference in enumerate(flow.arguments[index])]
        known[index] = _combined(index, statement.op, parts)
    return terms


def _combined(index: int, op: str, parts: list[tuple[_Term, ...]]) -> tuple[_Term, ...]:
    """Return the terms of a statement from those of its arguments; an op that is no sum or product is a factor."""
    itself = frozenset[Reference]([index])
    if op in ("add", "subtract") and len(parts[0]) + len(parts[1]) <= _MOST_TERMS:
        return parts[0] + parts[1]
    if op in ("identity", "negative"):
        return parts[0]
    terms: tuple[_Term, ...] = ()
    if op == "multiply" and min(map(len, parts)) == 1:
        terms = tuple(_Term(a.sites | b.sites, a.others | b.others) for a in parts[0] for b in parts[1])
    elif op == "divide":
        terms = tuple(_Term(term.sites, term.others | itself) for term in parts[0])
    short = terms and max(len(term.sites) + len(term.others) for term in terms) <= _MOST_FACTORS
    return terms if short else (_Term(frozenset(), itself),)
