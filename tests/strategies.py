"""Random programs, texts and trees: one generator for Hypothesis and for counts that Hypothesis is too slow for.

Each generator draws from a `random.Random`. With `st.randoms()` Hypothesis chooses the numbers and shrinks them.
"""

import inspect
import math
import random
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from evolion.primitives.dataflow import Reference, data_flow
from evolion.primitives.kinds import Kind, widens
from evolion.primitives.layout import Layout
from evolion.primitives.op import Op, result_kind
from evolion.primitives.ops import OPS, fitting_kinds
from evolion.primitives.program import RESERVED, Comment, Hyperparameter, Parameter, Program, Statement

ADAMW = """\
def train(w, g, m, v, lr, t, *, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01):
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    mhat = m / (1 - b1 ** t)
    vhat = v / (1 - b2 ** t)
    update = mhat / (sqrt(vhat) + eps) + weight_decay * w
    update = lr * update
    return update, m, v
"""
"""The program of design.md, as it is read and searched from."""

VARIABLES = ("a", "b2", "_", "x", "x1", "x2", "x17", "update", "match", "protected", "scalar", "Xy_0", "wd", "print")
SLOTS = ("m", "v", "x3", "vhat", "norm_", "ema", "n", "type")
HYPERPARAMETERS = ("b1", "eps", "x4", "weight_decay", "tensor", "case")
SPECIAL = (0.0, -0.0, 1.0, -1.0, -2.0, 0.1, 0.9, 1e-8, 5e-324, -5e-324, 1.7976931348623157e308, 1e15, 1e16, -1e22, 3.0)
LETTERS = " ab#'\"\\{}%:é×→()=\n\t\u2028\x85\x0c\u0301中🙂"


def random_number(rng: random.Random) -> float:
    """A finite float: often a special one, sometimes any pattern of bits."""
    choice = rng.random()
    if choice < 0.4:
        return rng.choice(SPECIAL)
    if choice < 0.8:
        return rng.gauss(0.0, 1.0)
    value = struct.unpack("<d", rng.randbytes(8))[0]
    return value if math.isfinite(value) else 0.5


def random_prose(rng: random.Random) -> str:
    """Any characters, quotes and line separators among them."""
    return "".join(rng.choices(LETTERS, k=rng.randrange(12)))


def _comment(rng: random.Random) -> str:
    return "".join(letter for letter in random_prose(rng) if letter.isprintable()).strip()


def _docstring(rng: random.Random) -> str:
    text = "".join(letter for letter in random_prose(rng) if letter == "\n" or letter.isprintable())
    for _ in range(4):
        text = "\n".join(line.rstrip() for line in inspect.cleandoc(text).split("\n"))
    return text


def _signature(rng: random.Random) -> tuple[tuple[Parameter, ...], tuple[Hyperparameter, ...]]:
    inputs = rng.sample(list(RESERVED), rng.randrange(len(RESERVED) + 1))
    parameters = [Parameter(name, RESERVED[name], slot=False) for name in inputs]
    names = rng.sample(SLOTS, rng.randrange(5))
    parameters += [Parameter(name, rng.choice((*Kind, Kind.TENSOR)), slot=True) for name in names]
    rng.shuffle(parameters)
    names = rng.sample(HYPERPARAMETERS, rng.randrange(4))
    return tuple(parameters), tuple(Hyperparameter(name, random_number(rng)) for name in names)


def _statement(rng: random.Random, environment: dict[str, Kind], ops: tuple[str, ...]) -> Statement | None:
    """A statement over what is bound, or None if a few ops were drawn in vain: none is for such kinds."""
    available = frozenset([*environment.values(), Kind.SCALAR])
    for _ in range(20):
        op = OPS[rng.choice(ops)]
        if not op.arity or fitting_kinds(op.name, (), available):
            break
    else:
        return None
    args: list[str | float] = []
    kinds: tuple[Kind, ...] = ()
    for _ in range(op.arity):
        accepted = fitting_kinds(op.name, kinds, available)
        names = [name for name, kind in environment.items() if kind in accepted]
        constant = Kind.SCALAR in accepted and (not names or rng.random() < 0.2)
        argument = random_number(rng) if constant else rng.choice(names)
        kinds += (environment[argument] if isinstance(argument, str) else Kind.SCALAR,)
        args.append(argument)
    kind = result_kind(op, kinds)
    assert kind is not None
    target = rng.choice(VARIABLES if rng.random() < 0.6 or not environment else list(environment))
    environment[target] = kind
    return Statement(target, op.name, tuple(args))


def random_program(
    rng: random.Random, *, statements: int = 12, ops: tuple[str, ...] = tuple(OPS), prose: bool = True
) -> Program:
    """A valid program over `ops` with inputs, slots of each kind, hyperparameters, rebound names and dead code.

    A slot whose name is bound to what does not widen to its kind is assigned another value at the end, by `identity`.
    """
    parameters, hyperparameters = _signature(rng)
    environment = {p.name: p.kind for p in parameters} | {h.name: Kind.SCALAR for h in hyperparameters}
    drawn = [_statement(rng, environment, ops) for _ in range(rng.randrange(statements + 1))]
    body = [statement for statement in drawn if statement is not None]
    for slot in parameters:
        if slot.slot and not widens(environment[slot.name], slot.kind):
            narrower = [name for name, kind in environment.items() if widens(kind, slot.kind)]
            value = rng.choice(narrower) if narrower and rng.random() < 0.8 else random_number(rng)
            body.append(Statement(slot.name, "identity", (value,)))
            environment[slot.name] = environment[value] if isinstance(value, str) else Kind.SCALAR
    wide = [name for name, kind in environment.items() if widens(kind, Kind.TENSOR)]
    update = rng.choice(wide) if wide and rng.random() < 0.95 else random_number(rng)
    comments = []
    if prose and rng.random() < 0.3:
        places = sorted(rng.randrange(-1, len(body) + 1) for _ in range(rng.randrange(4)))
        comments = [Comment(place, _comment(rng)) for place in places]
    return Program(
        parameters=parameters,
        hyperparameters=hyperparameters,
        statements=tuple(body),
        update=update,
        protected=rng.random() < 0.4,
        docstring=_docstring(rng) if prose and rng.random() < 0.3 else "",
        comments=tuple(comments),
    )


def program_of(op: Op, kinds: tuple[Kind, ...], *, protected: bool = False) -> Program:
    """The program that applies one op to slots `s0`, `s1`, … of these kinds and keeps the result in the slot `out`."""
    kind = result_kind(op, kinds)
    assert kind is not None
    slots = tuple(Parameter(f"s{i}", kind, slot=True) for i, kind in enumerate(kinds))
    body = (Statement("out", op.name, tuple(slot.name for slot in slots)),)
    return Program((*slots, Parameter("out", kind, slot=True)), (), body, 0.0, protected)


def arguments_of(op: Op, kinds: tuple[Kind, ...], layout: Layout, rng: np.random.Generator) -> dict[str, Any]:
    """Random values for `program_of`, as the NumPy interpreter takes them, where the op has a finite result.

    A square matrix is symmetric and has no small eigenvalue; the numbers of `orthogonalize` are those of Muon.
    """
    values: dict[str, Any] = {"out": np.zeros(layout.shape(op.signatures[kinds]))}
    for position, kind in enumerate(kinds):
        value = rng.normal(size=layout.shape(kind))
        if kind in (Kind.LEFT, Kind.RIGHT):
            matrices = [rng.normal(size=shape) for shape in layout.matrices_by_kind[kind]]
            value = np.concatenate([np.ravel(x @ x.T + np.diag(np.arange(len(x)) + 0.5)) for x in matrices])
        if position:
            numbers = {"orthogonalize": (5.0, 3.4445, -4.775, 2.0315), "inverse_root": (4.0,), "top_k_mask": (2.0,)}
            if op.name in numbers:
                value = np.full(layout.shape(kind), numbers[op.name][position - 1])
        values[f"s{position}"] = value
    return values


def programs(**options: Any) -> st.SearchStrategy[Program]:
    return st.builds(lambda rng: random_program(rng, **options), st.randoms(use_true_random=False))


def _signatures_by_result() -> dict[Kind, list[tuple[str, list[tuple[Kind, ...]]]]]:
    """For each kind the ops that can give it, and the kinds of arguments for which they do."""
    table: dict[Kind, list[tuple[str, list[tuple[Kind, ...]]]]] = {kind: [] for kind in Kind}
    for op in OPS.values():
        for kind in sorted(set(op.signatures.values())):
            if op.name != "identity":
                table[kind].append((op.name, [kinds for kinds, result in op.signatures.items() if result is kind]))
    return table


SIGNATURES_BY_RESULT = _signatures_by_result()


def random_expression(rng: random.Random, names: Mapping[str, Kind], kind: Kind = Kind.TENSOR, depth: int = 4) -> str:
    """A nested expression of the text form over bound names, of the given kind; rarely it has another by mistake."""
    choice = rng.random()
    if depth == 0 or choice < 0.2:
        fitting = [name for name, bound in names.items() if bound is kind or rng.random() < 0.005]
        number = not fitting or (kind is Kind.SCALAR and choice < 0.1)
        return repr(random_number(rng)) if number else rng.choice(fitting)

    def inner(kind: Kind) -> str:
        return random_expression(rng, names, kind, depth - 1)

    if choice < 0.6:
        first, second = (kind, rng.choice((kind, Kind.SCALAR)))[:: rng.choice((1, -1))]
        return f"({inner(first)}{rng.choice((' + ', ' - ', '*', ' / ', ' ** '))}{inner(second)})"
    if choice < 0.7:
        return f"-({inner(kind)})"
    name, signatures = rng.choice(SIGNATURES_BY_RESULT[kind])
    return f"{name}({', '.join(map(inner, rng.choice(signatures)))})"


def random_text(rng: random.Random) -> str:
    """A program text with nested expressions over values of each kind, and comments; most are valid."""
    tensors = ("w", "g", "m", "x1", "x9")
    names = {str(kind): kind for kind in Kind if kind is not Kind.TENSOR}
    names = dict.fromkeys(tensors, Kind.TENSOR) | dict.fromkeys(("lr", "b1"), Kind.SCALAR) | names
    slots = [str(kind) for kind in Kind if kind is not Kind.TENSOR]
    signature = ", ".join(f"{slot}: {slot}" for slot in slots)
    lines = [f"def train(w, g, m, lr, {signature}, *, b1=0.9):", "    x1 = g", "    x9 = w"]
    for _ in range(rng.randrange(5)):
        comment = rng.choice(("", "  # " + _comment(rng)))
        name = rng.choice(list(names))
        lines.append(f"    {name} = {random_expression(rng, names, names[name])}{comment}")
    lines.append(f"    return {', '.join([random_expression(rng, names), 'm', *slots])}")
    return "\n".join(lines) + "\n"


def texts() -> st.SearchStrategy[str]:
    return st.builds(random_text, st.randoms(use_true_random=False))


@st.composite
def trees(draw: st.DrawFn) -> list[NDArray[np.float64]]:
    """One to four tensors of rank 0 to 4, none of them empty, with numbers of moderate size."""
    shapes = draw(st.lists(st.lists(st.integers(1, 3), max_size=4), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return [np.asarray(rng.normal(size=shape)) for shape in shapes]


def disguised(program: Program, rng: random.Random, *, swap: bool = True) -> Program:
    """The same program under other names, with its statements, slots and, with `swap`, arguments in another order.

    Statements without a use, a slot and a hyperparameter that nothing reads are added.
    """
    flow = data_flow(program)
    parameters = list(program.parameters)
    rng.shuffle(parameters)
    names: dict[Reference, str] = {p.name: p.name if not p.slot else f"s{i}" for i, p in enumerate(parameters)}
    names |= {h.name: f"h{i}" for i, h in enumerate(program.hyperparameters)}
    targets = rng.sample(range(1000), len(program.statements))
    names |= {index: f"y{number}" for index, number in enumerate(targets)}

    def name(reference: Reference) -> str | float:
        return reference if isinstance(reference, float) else names[reference]

    body = []
    for index in _topological(flow.arguments, rng):
        op = OPS[program.statements[index].op]
        args = [name(reference) for reference in flow.arguments[index]]
        if swap and op.commutative and rng.random() < 0.5:
            args[:2] = args[1::-1]
        body.append(Statement(names[index], op.name, tuple(args)))
        if rng.random() < 0.3:
            body.append(Statement("dead", rng.choice(("cos", "identity")), (names[index],)))
    update = name(flow.update)
    if isinstance(update, str):
        body.append(Statement("result", "identity", (update,)))
        update = "result"
    returned = {slot: name(reference) for slot, reference in flow.next_slots.items()}
    body += [Statement(f"next_{slot}", "identity", (value,)) for slot, value in returned.items()]
    body += [Statement(names[slot], "identity", (f"next_{slot}",)) for slot in returned]
    return Program(
        parameters=(
            *(Parameter(names[p.name], p.kind, p.slot) for p in parameters),
            Parameter("unused", Kind.LEAF, slot=True),
        ),
        hyperparameters=(
            *(Hyperparameter(names[h.name], h.value) for h in program.hyperparameters),
            Hyperparameter("spare", 3.0),
        ),
        statements=tuple(body),
        update=update,
        protected=program.protected,
    )


def _topological(arguments: tuple[tuple[Reference, ...], ...], rng: random.Random) -> list[int]:
    done: list[int] = []
    waiting = set(range(len(arguments)))
    while waiting:
        ready = [i for i in sorted(waiting) if not any(isinstance(a, int) and a in waiting for a in arguments[i])]
        done.append(rng.choice(ready))
        waiting.remove(done[-1])
    return done
