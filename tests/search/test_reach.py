"""What insertion, generation and the change of ops reach, counted for each vocabulary."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
import pytest
import strategies

from evolion.primitives.dataflow import data_flow
from evolion.primitives.kinds import Kind
from evolion.primitives.ops import OPS, VOCABULARIES, accepted_kinds
from evolion.primitives.parser import parse
from evolion.primitives.program import Parameter, Program, infer_kinds
from evolion.search.mutation import MUTATIONS, MutationConfig, mutate, mutation_config
from evolion.search.random_search import random_program

Shape = tuple[str, int, Kind | str]
"""An op, the position of an argument, and the argument's kind or "constant"; position -1 stands for the op itself."""

SEED = parse("def train(w, g, n: leaf, lr):\n    update = n\n    return update, n\n")
ADAMW = parse(strategies.ADAMW)


def config_of(vocabulary: str, seed: Program = SEED, **weights: float) -> MutationConfig:
    return mutation_config(vocabulary, tuple(weights.items()) or (("insert", 1.0),), 60).for_seed(seed)


def shapes_of(programs: Iterable[Program]) -> set[Shape]:
    reached: set[Shape] = set()
    for program in programs:
        kinds = {p.name: p.kind for p in program.parameters} | {h.name: Kind.SCALAR for h in program.hyperparameters}
        for statement, kind in zip(program.statements, infer_kinds(program), strict=True):
            reached.add((statement.op, -1, kind))
            for place, argument in enumerate(statement.args):
                reached.add((statement.op, place, "constant" if isinstance(argument, float) else kinds[argument]))
            kinds[statement.target] = kind
    return reached


def shapes_wanted(vocabulary: str, available: frozenset[Kind]) -> set[Shape]:
    """Every argument shape that values of the available kinds allow."""
    wanted: set[Shape] = set()
    for name in VOCABULARIES[vocabulary]:
        for kinds, result in OPS[name].signatures.items():
            if available.issuperset(kinds):
                wanted.add((name, -1, result))
                wanted |= {(name, place, kind) for place, kind in enumerate(kinds)}
                wanted |= {(name, place, "constant") for place, kind in enumerate(kinds) if kind is Kind.SCALAR}
    return wanted


KINDS = {"lion": frozenset({Kind.SCALAR, Kind.LEAF, Kind.TENSOR}), "full": frozenset(Kind)}


def generators(count: int) -> Iterator[np.random.Generator]:
    return (np.random.default_rng([7, number]) for number in range(count))


@cache
def inserted(vocabulary: str) -> tuple[Program, ...]:
    config = config_of(vocabulary, insert=1.0)
    edits = (MUTATIONS["insert"].apply(SEED, rng, config) for rng in generators(170 * len(config.vocabulary)))
    return tuple(child for child in edits if child is not None)


@cache
def generated(vocabulary: str) -> tuple[Program, ...]:
    config = config_of(vocabulary)
    return tuple(random_program(rng, config, (1, 30)) for rng in generators(22 * len(config.vocabulary)))


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_insertion_reaches_every_op_and_every_kind_of_argument(vocabulary: str) -> None:
    """No op of the vocabulary, no kind of result and no kind of argument at any position is beyond reach."""
    wanted = shapes_wanted(vocabulary, KINDS[vocabulary])
    every = {(name, place, kind) for name in OPS for place, row in enumerate(accepted_kinds(name)) for kind in row}
    if vocabulary == "full":
        assert {shape for shape in every if shape[0] != "identity"} <= wanted
    assert not wanted - shapes_of(inserted(vocabulary))


def test_insertion_reaches_every_interpolation() -> None:
    """An interp may have any kinds and constants in any place: the published class needs a scalar first."""
    reached = set()
    config = dataclasses.replace(config_of("lion"), vocabulary=("interp",))
    for rng in generators(1500):
        program = MUTATIONS["insert"].apply(SEED, rng, config)
        assert program is not None
        kinds = {parameter.name: str(parameter.kind) for parameter in program.parameters}
        for statement, kind in zip(program.statements, infer_kinds(program), strict=True):
            if statement.op == "interp":
                reached.add(tuple("constant" if isinstance(arg, float) else kinds[arg] for arg in statement.args))
            kinds[statement.target] = str(kind)
    wanted = set(itertools.product(("scalar", "leaf", "tensor", "constant"), repeat=3))
    assert not wanted - {("constant",) * 3} - reached


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_generation_reaches_every_op_and_every_kind_of_argument(vocabulary: str) -> None:
    """The random control draws from all of the space that evolution searches; constants are scalars here."""

    def merged(shapes: set[Shape]) -> set[Shape]:
        return {(op, place, Kind.SCALAR if kind == "constant" else kind) for op, place, kind in shapes}

    wanted = merged(shapes_wanted(vocabulary, KINDS[vocabulary]))
    assert not wanted - merged(shapes_of(generated(vocabulary)))


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("source", [inserted, generated])
def test_every_input_and_slot_is_reached_and_every_slot_is_bound(source: object, vocabulary: str) -> None:
    """All inputs on offer come into use, and slots of all kinds on offer, none of which stays zero for ever."""
    config = config_of(vocabulary)
    assert config.slots is not None
    programs = source(vocabulary)  # type: ignore[operator]
    offered = set(config.inputs) | {slot.name for slot in config.slots}
    assert offered == {parameter.name for program in programs for parameter in program.parameters}
    assert {slot.kind for slot in config.slots} == (set(Kind) if vocabulary == "full" else {Kind.LEAF})
    for program in programs:
        flow = data_flow(program)
        known = {"n"} if source is inserted else set()
        assert all(flow.next_slots[slot.name] != slot.name for slot in program.slots if slot.name not in known)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_replacement_reaches_every_op_with_a_sibling(vocabulary: str) -> None:
    """From any statement, every op of the vocabulary with the same kinds in and out is one change away."""
    config = config_of(vocabulary, replace_op=1.0)
    names = VOCABULARIES[vocabulary]
    groups: dict[tuple[tuple[Kind, ...], Kind], set[str]] = {}
    for name in names:
        for kinds, result in OPS[name].signatures.items():
            groups.setdefault((kinds, result), set()).add(name)
    siblings = {name for group in groups.values() if len(group) > 1 for name in group}
    reached: set[str] = set()
    for (kinds, result), group in groups.items():
        for name in sorted(group)[:1]:
            program = program_around(name, kinds, result)
            applies = MUTATIONS["replace_op"].applies(program, config)
            assert applies or len(group) == 1
            for number in range(8 * len(group) if group - reached and applies else 0):
                child = MUTATIONS["replace_op"].apply(program, np.random.default_rng(number), config)
                assert child is not None
                reached.update(statement.op for statement in child.statements)
    assert siblings <= reached


def program_around(name: str, kinds: tuple[Kind, ...], result: Kind) -> Program:
    """A program of one statement, or one that also brings a square matrix to the shape of the weights."""
    slots = [Parameter(f"x{place}", kind, slot=True) for place, kind in enumerate(kinds)]
    arguments = ", ".join(slot.name for slot in slots)
    returned = "".join(f", {slot.name}" for slot in slots)
    bring = {Kind.LEFT: "matmul(value, g)", Kind.RIGHT: "matmul(g, value)"}.get(result, "value")
    signature = ", ".join(["g", *map(str, slots)])
    call = f"({arguments.split(', ')[0]}) {OPS[name].symbol} ({arguments.split(', ')[-1]})"
    value = call if OPS[name].symbol else f"{name}({arguments})"
    return parse(f"def train({signature}):\n    value = {value}\n    update = {bring}\n    return update{returned}\n")


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("name", [row for row in MUTATIONS if row != "crossover"])
def test_no_edit_of_adamw_is_refused(name: str, vocabulary: str) -> None:
    """Draws fit by construction, so that no attempt is spent on kinds that do not go together."""
    config = config_of(vocabulary, ADAMW)
    edits = [MUTATIONS[name].apply(ADAMW, np.random.default_rng(number), config) for number in range(300)]
    assert None not in edits


def test_a_preconditioner_can_grow_from_adamw() -> None:
    """Matrix ops come alive at once: a slot that wakes is fed, and what it gives is brought to the update."""
    config = config_of("full", ADAMW, insert=1.0)
    config = dataclasses.replace(config, vocabulary=("inverse_root", "left_gram", "matmul"), new_constant_share=0.0)
    for number in range(400):
        child = mutate(ADAMW, np.random.default_rng(number), config)[0]
        ops = [statement.op for statement in child.statements]
        if {"inverse_root", "left_gram", "matmul"} <= set(ops) and any(s.kind is Kind.LEFT for s in child.slots):
            return
    raise AssertionError("no child of AdamW has a root of a running average of g gᵀ before its update")
