"""The encoding against the data flow of the program, once as terms (exact) and once as numbers."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from encoded_programs import HAND_MADE, chain, scalars, slots, values_alive
from numpy.typing import NDArray
from strategies import random_program

from evolion.discovered.library import known
from evolion.evaluators import scheduling
from evolion.evaluators.encoding import (
    CODE_WIDTH,
    INSTRUCTIONS,
    LOSS,
    PERSISTENT,
    SCALARS,
    SCRATCH,
    WEIGHTS,
    CapacityError,
    Encoding,
    encode,
    scalar_table,
)
from evolion.evaluators.opcodes import FIRST_OPCODE, FUSED, NOISE, OPCODES, Opcode, is_whole
from evolion.primitives.dataflow import Reference, data_flow
from evolion.primitives.kinds import Kind
from evolion.primitives.layout import Layout
from evolion.primitives.numpy_interpreter import trajectory
from evolion.primitives.op import Elementwise, Matrixwise
from evolion.primitives.ops import OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.search.mutation import MutationConfig, mutate
from evolion.search.random_search import random_program as searched_program

Apply = Callable[[str, bool, list[Any]], Any]
OPS_IN_REACH = tuple(dict.fromkeys(code.op for code in OPCODES))
RANDOM, CHILDREN = 3500, 400
LAYOUT = Layout(((2, 3), (), (4,)))
STEPS = 3


def programs() -> Iterator[Program]:
    """Known programs, hand-made ones, random ones with slots of every kind, and what searches generate."""
    yield from known().values()
    yield from map(parse, HAND_MADE.values())
    rng = random.Random(0)
    yield from (random_program(rng, ops=OPS_IN_REACH, prose=False) for _ in range(RANDOM))
    for number, name in enumerate(("adamw_seed", "adamw", "lion")):
        generator = np.random.default_rng(number)
        config = MutationConfig(inputs=("w", "g", "lr", "t", "noise", "loss", "w0")).for_seed(known()[name])
        for _ in range(CHILDREN // 10):
            child = known()[name]
            for _ in range(10):
                child = mutate(child, generator, config)[0]
                yield child
        for _ in range(CHILDREN // 10):
            yield searched_program(generator, config, (3, 15), protected=bool(number % 2))


def interpretable(program: Program) -> bool:
    try:
        encode(program)
    except CapacityError:  # such as what sums the numbers of rows
        return False
    return True


@cache
def everything() -> tuple[Program, ...]:
    return tuple(filter(interpretable, programs()))


def opcodes_of(encoding: Encoding) -> list[Opcode]:
    numbers = encoding.code[: encoding.length, 0].tolist()
    return [OPCODES[number - FIRST_OPCODE] for number in numbers if number >= FIRST_OPCODE]


def run_step(encoding: Encoding, rows: dict[int, Any], columns: list[Any], noise: Any, apply: Apply) -> Any:
    """One step as the code says: the weights after it. A row that was not written (or kept) is a KeyError.

    A scratch row is lost at the end of each pass over the tiles, and where whole tensors are needed.
    """

    def read(argument: int) -> Any:
        return columns[-1 - argument] if argument < 0 else rows[argument]

    start = 0
    for middle, end in encoding.passes[: encoding.pass_count].tolist():
        for position in range(start, end):
            number, target, *arguments = encoding.code[position].tolist()
            assert is_whole(number) is (position >= middle), "each instruction is in the part of the pass for its class"
            if position == middle:
                forget_scratch(rows)
            if number == NOISE:
                rows[target] = noise
                continue
            opcode = OPCODES[number - FIRST_OPCODE]
            values = [read(argument) for argument in arguments[: opcode.arity]]
            if opcode.inner:
                last = opcode.position + OPS[opcode.inner].arity
                values[opcode.position : last] = [apply(opcode.inner, opcode.protected, values[opcode.position : last])]
            rows[target] = apply(opcode.op, opcode.protected, values)
        forget_scratch(rows)
        start = end
    assert start == encoding.length
    return rows[WEIGHTS]


def forget_scratch(rows: dict[int, Any]) -> None:
    for row in [row for row in rows if row >= PERSISTENT]:
        del rows[row]


def columns_of(encoding: Encoding, entry: dict[str, Any], constant: Callable[[float], Any], apply: Apply) -> list[Any]:
    """The columns of one step, each worked out from the statements of the program."""
    program, flow = encoding.program, data_flow(encoding.program)

    def value(reference: Reference) -> Any:
        if isinstance(reference, float):
            return constant(reference)
        if isinstance(reference, str):
            return entry[reference]
        arguments = [value(argument) for argument in flow.arguments[reference]]
        return apply(program.statements[reference].op, program.protected, arguments)

    known = {column: value(reference) for column, reference in enumerate(encoding.columns)}
    return [known.get(column, entry.get("loss") if column == LOSS else None) for column in range(SCALARS)]


def kept_rows(encoding: Encoding, rows: dict[int, Any]) -> dict[int, Any]:
    """The rows that outlive a step: those of the slots and of the initial weights."""
    kept = {*slot_rows(encoding).values(), encoding.initial_weights}
    return {row: value for row, value in rows.items() if row in kept}


def slot_rows(encoding: Encoding) -> dict[str, int]:
    return {slot.name: 2 + i for i, slot in enumerate(encoding.program.slots)}


class Terms:
    """Expressions as numbers: equal expressions, and no others, are given the same one."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def of(self, *term: Any) -> int:
        return self.numbers.setdefault(term, len(self.numbers))

    def constant(self, value: float) -> int:
        return self.of("constant", struct.pack("<d", value))

    def apply(self, op: str, protected: bool, values: list[int]) -> int:
        if op == "identity":
            return values[0]
        record = OPS[op]
        ordered = sorted(values) if record.commutative else values
        return self.of(op, protected and record.protected is not None, *ordered)


def terms_of_program(program: Program, terms: Terms, entry: dict[str, int]) -> tuple[int, dict[str, int]]:
    flow, values = data_flow(program), dict[Reference, int](entry)

    def value(reference: Reference) -> int:
        return terms.constant(reference) if isinstance(reference, float) else values[reference]

    for index, statement in enumerate(program.statements):
        values[index] = terms.apply(statement.op, program.protected, [value(r) for r in flow.arguments[index]])
    return value(flow.update), {name: value(reference) for name, reference in flow.next_slots.items()}


def updates_in_terms(program: Program, terms: Terms) -> tuple[list[int], list[int]]:
    """The weights after each of two steps as the encoding computes them, and as the program says."""
    encoding = encode(program)
    found, expected = [], []
    rows: dict[int, int] = {row: terms.of("slot", name) for name, row in slot_rows(encoding).items()}
    if encoding.initial_weights >= 0:
        rows[encoding.initial_weights] = terms.of("w0")
    slots = {slot.name: terms.of("slot", slot.name) for slot in program.slots}
    fixed = {h.name: terms.constant(h.value) for h in program.hyperparameters} | {"w0": terms.of("w0")}
    for step in range(2):
        inputs = ("w", "g", "lr", "t", "horizon", "loss", "noise", "hess")
        entry = fixed | {name: terms.of(name, step) for name in inputs}
        update, slots = terms_of_program(program, terms, entry | slots)
        expected.append(terms.apply("subtract", False, [entry["w"], update]))
        rows |= {0: entry["w"], 1: entry["g"]} | ({encoding.hess: entry["hess"]} if encoding.hess >= 0 else {})
        columns = columns_of(encoding, entry, terms.constant, terms.apply)
        found.append(run_step(encoding, rows, columns, entry["noise"], terms.apply))
        rows = kept_rows(encoding, rows)
    return found, expected


def test_every_program_is_encoded_as_what_it_says() -> None:
    """Names, slots, copies at the end of a step, fused pairs: the code computes the same expressions, exactly."""
    assert len(everything()) > 3000
    for program in everything():
        found, expected = updates_in_terms(program, Terms())
        assert found == expected, str(program)


def test_fused_pairs_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fused instruction is an optimization: without any, the code is longer and computes the same expressions."""
    adamw = known()["adamw"]
    fused = {id(program): encode(program).length for program in everything()}
    assert encode(adamw).length == 7
    monkeypatch.setattr(scheduling, "FUSED", ())
    assert encode(adamw).length > 7
    shorter = 0
    for program in filter(interpretable, everything()):  # unfused, a long one may not fit
        found, expected = updates_in_terms(program, Terms())
        assert found == expected, str(program)
        shorter += fused[id(program)] < encode(program).length
    assert shorter > 300


def test_every_fused_pair_is_used() -> None:
    """A pair that no program can contain would be a branch that costs compile time for nothing."""
    used = {
        (opcode.op, opcode.position, opcode.inner) for program in everything() for opcode in opcodes_of(encode(program))
    }
    assert set(FUSED) <= used


def numbers_apply(op: str, protected: bool, values: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    meaning = OPS[op].under(protected)
    if isinstance(meaning, Elementwise):
        return np.broadcast_to(np.asarray(meaning.numpy(*values), np.float64), (LAYOUT.entries,))

    if isinstance(meaning, Matrixwise):
        places = zip(LAYOUT.starts, LAYOUT.sides, LAYOUT.unflatten(values[0]), strict=True)
        found = [
            np.broadcast_to(
                meaning.compute(np, x.reshape(sides), *[np.broadcast_to(k, LAYOUT.entries)[start] for k in values[1:]]),
                sides,
            )
            for start, sides, x in places
        ]
        return LAYOUT.flatten(found)
    group = {
        Kind.SCALAR: np.zeros(LAYOUT.entries, int),
        Kind.LEAF: LAYOUT.widening(Kind.LEAF, Kind.TENSOR),
        Kind.ROW: LAYOUT.of_row,
        Kind.COLUMN: LAYOUT.of_column,
    }[meaning.scope]
    reduce = {"sum": np.sum, "mean": np.mean, "max": np.max}[meaning.reducer]

    def reduced(term: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([reduce(term[group == i]) for i in range(group.max() + 1)])[group]

    terms = tuple(reduced(term) for term in meaning.terms(np, *values))
    return np.asarray(meaning.apply(np, meaning.combine(np, terms, *values), *values))


def inputs(seed: int) -> tuple[list[Any], list[list[Any]], list[float], dict[str, list[Any]]]:
    rng = np.random.default_rng(seed)

    def tensors() -> list[Any]:
        return [rng.normal(size=shape) for shape in LAYOUT.shapes]

    given = {
        "loss": [2.5, 1.5, 1.0],
        "horizon": [float(STEPS)] * STEPS,
        "noise": [tensors() for _ in range(STEPS)],
        "hess": [tensors() for _ in range(STEPS)],
    }
    return tensors(), [tensors() for _ in range(STEPS)], [0.01, 0.1, 0.05], given


def weights_in_numbers(program: Program) -> list[NDArray[np.float64]]:
    """The weights after each step, executed from the encoding in float64."""
    encoding, (weights, gradients, rates, given) = encode(program), inputs(0)
    w = LAYOUT.flatten(weights)
    rows = dict.fromkeys(slot_rows(encoding).values(), np.zeros(LAYOUT.entries))
    if encoding.initial_weights >= 0:
        rows[encoding.initial_weights] = w
    path = []
    for step in range(STEPS):
        entry = {h.name: np.float64(h.value) for h in program.hyperparameters}
        entry |= {"lr": np.float64(rates[step]), "t": np.float64(step + 1), "horizon": np.float64(STEPS)}
        entry["loss"] = np.float64(given["loss"][step])
        columns = columns_of(encoding, entry, np.float64, lambda *call: numbers_apply(*call)[0])
        rows |= {0: w, 1: LAYOUT.flatten(gradients[step])}
        rows |= {encoding.hess: LAYOUT.flatten(given["hess"][step])} if encoding.hess >= 0 else {}
        w = run_step(encoding, rows, columns, LAYOUT.flatten(given["noise"][step]), numbers_apply)
        rows = kept_rows(encoding, rows)
        path.append(w)
    return path


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_equal_the_reference() -> None:
    """Executed in float64, code and columns give the weights of the NumPy reference, infinities and NaN included."""
    weights, gradients, rates, given = inputs(0)
    for program in everything()[::2]:
        expected = trajectory(program, weights, gradients, learning_rate=rates, inputs=given)[1:]
        for found, tensors in zip(weights_in_numbers(program), expected, strict=True):
            np.testing.assert_allclose(found, LAYOUT.flatten(tensors), rtol=1e-9, atol=1e-12, err_msg=str(program))


@pytest.mark.parametrize("steps", [1, 7])
def test_scalar_table_equals_scalars_of_each_step(steps: int) -> None:
    """What is worked out for all steps at once is what each step would have worked out, to the precision of float32."""
    rates = np.linspace(0.5, 0.01, steps).astype(np.float32)
    for program in (*everything()[:300], *everything()[-600:]):
        encoding = encode(program)
        table = scalar_table(encoding, rates)
        assert table.dtype == np.float32
        assert table.shape == (steps, SCALARS)
        for step in range(steps):
            with np.errstate(all="ignore"):
                entry = {h.name: np.float32(h.value) for h in program.hyperparameters}
                entry |= {"lr": rates[step], "t": np.float32(step + 1), "horizon": np.float32(steps)}
                columns = columns_of(
                    encoding, entry, np.float32, lambda op, protected, v: np.float32(OPS[op].under(protected).numpy(*v))
                )[: len(encoding.columns)]
            np.testing.assert_allclose(table[step, : len(columns)], columns, rtol=1e-4, err_msg=str(program))


def test_constants_beyond_single_precision_are_infinite() -> None:
    """A program may name 1e300: in the arithmetic of training that is infinity, and no warning."""
    program = parse("def train(g, *, a=1e300):\n    x = g * a\n    y = x / -1e300\n    return y * (a * 0.5)\n")
    assert set(scalar_table(encode(program), np.ones(2, np.float32))[0, :3].tolist()) == {np.inf, -np.inf}


def test_hoisting_leaves_the_heavy_part_alone() -> None:
    """Bias corrections and decayed rates cost nothing in the loop: the seven instructions of AdamW."""
    encoding = encode(known()["adamw"])
    names = [opcode.op for opcode in opcodes_of(encoding)]
    assert "power" not in names
    assert names.count("subtract") == 1, "that of the update alone"


def test_encoding_is_deterministic_and_within_bounds() -> None:
    """Equal programs give equal code, unused places are zero, and every row and column exists."""
    for program in everything()[:500]:
        first, second = encode(program), encode(parse(str(program)))
        np.testing.assert_array_equal(first.code, second.code)
        np.testing.assert_array_equal(first.passes, second.passes)
        assert (first.length, repr(first.columns)) == (second.length, repr(second.columns))
        assert first.code.shape == (INSTRUCTIONS, CODE_WIDTH)
        assert first.code.dtype == np.int32
        assert not first.code[first.length :].any()
        arguments = first.code[: first.length, 2:]
        assert arguments.max(initial=0) < PERSISTENT + SCRATCH
        columns = set((-1 - arguments[arguments < 0]).tolist())
        assert columns <= {*range(len(first.columns)), LOSS}
        assert first.code[:, 1].max() < PERSISTENT + SCRATCH
        assert first.code[:, 0].max() < FIRST_OPCODE + len(OPCODES)


def test_whole_tensors_are_needed_as_seldom_as_can_be() -> None:
    """Reductions that do not need each other share a pass, wherever they stand: a pass reads every tile once more."""
    assert encode(parse("def train(g, w):\n    a = g / norm(g)\n    return a + w / norm(w)\n")).pass_count == 2
    assert encode(parse("def train(g):\n    a = g / norm(g)\n    return a / global_norm(a)\n")).pass_count == 3


@pytest.mark.parametrize(
    ("text", "fits", "what"),
    [
        (chain, INSTRUCTIONS - 1, f"{INSTRUCTIONS} instructions"),
        (scalars, LOSS, f"{LOSS} scalars"),
        (values_alive, PERSISTENT - 2 + SCRATCH, f"{PERSISTENT} registers"),
        (slots, PERSISTENT - 2, f"{PERSISTENT} registers"),
    ],
)
def test_capacity_is_used_to_the_last_and_then_refused(text: Callable[[int], str], fits: int, what: str) -> None:
    """A program that is one too large is said to be, never cut; one that just fits is encoded right."""
    found, expected = updates_in_terms(parse(text(fits)), Terms())
    assert found == expected
    with pytest.raises(CapacityError, match=what):
        encode(parse(text(fits + 1)))


def test_hess_has_a_row_unless_it_is_dead() -> None:
    """An estimate of the Hessian costs gradients: a program that does not use what it takes is given none."""
    assert encode(parse("def train(g, hess):\n    return g / hess\n")).hess == 2
    dead = encode(parse("def train(g, hess):\n    x = g / hess\n    return g\n"))
    assert (dead.length, dead.hess) == (1, -1)
