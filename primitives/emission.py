"""From a graph of values back to a program that a person can read: order, names and comments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from evolion.primitives.dataflow import Reference
from evolion.primitives.graph import Graph
from evolion.primitives.program import Argument, Program, Statement

__all__ = ["to_program"]


@dataclass(slots=True)
class _Item:
    """A statement to be: `slot` is the slot that it binds, if any; `origin` as in `Graph`."""

    op: str
    args: tuple[Reference, ...]
    origin: int
    slot: str | None = None


def to_program(graph: Graph) -> Program:
    """Return a program of a graph, with the statements' own names and order where that is possible.

    A slot is bound when its old value is read no more. Where two slots need each other's old value, one takes a copy.
    Comments stay above statements that stay; the docstring and the comments at both ends stay.
    """
    items, returned = _items(graph)
    order = _scheduled(items, set(graph.next_slots))
    statements, update = _named(graph, items, order, returned)
    used = {argument for statement in statements for argument in statement.args} | {update} | set(graph.next_slots)
    entry = {r for item in items for r in item.args if isinstance(r, str)} | {returned}
    program = graph.program
    places = {items[number].origin: place for place, number in enumerate(order)}
    places |= {-1: -1, len(program.statements): len(statements)}
    comments = [replace(c, before=places[c.before]) for c in program.comments if c.before in places]
    return Program(
        parameters=tuple(p for p in program.parameters if p.name in entry or p.name in graph.next_slots),
        hyperparameters=tuple(h for h in program.hyperparameters if h.name in used and h.name in entry),
        statements=tuple(statements),
        update=update,
        protected=program.protected,
        docstring=program.docstring,
        comments=tuple(sorted(comments, key=lambda comment: comment.before)),
    )


def _items(graph: Graph) -> tuple[list[_Item], Reference]:
    """List a statement for each node and for each copy that is needed; return the reference of the update as well.

    A slot whose next value has no node of its own takes a copy, and so does an update that is the old value of a slot.
    """
    items = [_Item(op, args, origin) for (op, args), origin in zip(graph.nodes, graph.origins, strict=True)]
    returned = graph.update
    if isinstance(returned, str) and graph.next_slots.get(returned, returned) != returned:
        returned = len(items)
        items.append(_Item("identity", (graph.update,), -1))
    for slot, reference in graph.next_slots.items():
        if isinstance(reference, int) and items[reference].slot is None:
            items[reference].slot = slot
        elif reference != slot:
            items.append(_Item("identity", (reference,), -1, slot))
    return items, returned


def _scheduled(items: list[_Item], slots: set[str]) -> list[int]:
    """Order the items; where binding a slot would hide an old value that is still needed, add a copy at the end."""
    readers: dict[str, set[int]] = {slot: set() for slot in slots}
    blocking: list[set[int]] = []
    for number, item in enumerate(items):
        blocking.append({a for a in item.args if isinstance(a, int)})
        for argument in item.args:
            if isinstance(argument, str) and argument in slots:
                readers[argument].add(number)
    unread = {slot: set(numbers) for slot, numbers in readers.items()}
    order: list[int] = []
    done: set[int] = set()
    pending = list(range(len(items)))
    while pending:
        waiting = []
        placed = False
        for number in pending:
            slot = items[number].slot
            if blocking[number] <= done and (slot is None or unread[slot] <= {number}):
                order.append(number)
                done.add(number)
                placed = True
                for numbers in unread.values():
                    numbers.discard(number)
            else:
                waiting.append(number)
        if not placed:
            waiting.append(_postponed(items, blocking, next(n for n in waiting if blocking[n] <= done)))
        pending = waiting
    return order


def _postponed(items: list[_Item], blocking: list[set[int]], number: int) -> int:
    """Let an item bind a name of its own and its slot take a copy later; return the number of the copy."""
    items.append(_Item("identity", (number,), -1, items[number].slot))
    blocking.append({number})
    items[number].slot = None
    return len(items) - 1


def _named(graph: Graph, items: list[_Item], order: list[int], update: Reference) -> tuple[list[Statement], Argument]:
    """Give every item the name that it had, if no one needs that name any more, and else a fresh one."""
    program = graph.program
    readings = Counter([a for item in items for a in item.args] + [update])
    holders: dict[str, Reference] = {p.name: p.name for p in program.parameters}
    holders |= {h.name: h.name for h in program.hyperparameters}
    names: dict[Reference, str] = {name: name for name in holders}
    fresh = _fresh_names(set(holders) | {statement.target for statement in program.statements})
    statements = []
    for number in order:
        item = items[number]
        args = tuple([a if isinstance(a, float) else names[a] for a in item.args])
        readings.subtract(item.args)
        name = item.slot or (program.statements[item.origin].target if item.origin >= 0 else "")
        taken = name in graph.next_slots or (name in holders and readings[holders[name]] > 0)
        if item.slot is None and (not name or taken):
            name = next(fresh)
        holders[name] = number
        names[number] = name
        statements.append(Statement(name, item.op, args))
    return statements, update if isinstance(update, float) else names[update]


def _fresh_names(taken: set[str]) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        if f"x{number}" not in taken:
            yield f"x{number}"
