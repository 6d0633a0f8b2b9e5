import dataclasses
import inspect
import itertools
import math
import pickle
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import programs, random_program, random_prose

from evolion.primitives.kinds import Kind, widens
from evolion.primitives.op import Op
from evolion.primitives.ops import OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import (
    MAXIMUM_STATEMENTS,
    RESERVED,
    Comment,
    Hyperparameter,
    Parameter,
    Program,
    ProgramError,
    Statement,
    infer_kinds,
    valid_program,
)

W = Parameter("w", Kind.TENSOR, slot=False)
G = Parameter("g", Kind.TENSOR, slot=False)
M = Parameter("m", Kind.TENSOR, slot=True)


def program(**changes: Any) -> Program:
    """A small valid program, with changes."""
    base: dict[str, Any] = {
        "parameters": (W, G, M),
        "hyperparameters": (Hyperparameter("b", 0.9),),
        "statements": (Statement("m", "interp", ("g", "m", "b")), Statement("u", "sign", ("m",))),
        "update": "u",
    }
    return Program(**(base | changes))


def body(*statements: Statement) -> dict[str, Any]:
    return {"statements": statements}


BAD: dict[str, tuple[dict[str, Any], str, int | None]] = {
    "unknown op": (body(Statement("u", "sgn", ("g",))), "unknown function 'sgn'; did you mean 'sign'?", 0),
    "too few": (body(Statement("u", "sign", ())), "'sign' takes 1 argument, got 0", 0),
    "too many": (body(Statement("u", "interp", ("g",) * 4)), "'interp' takes 3 arguments, got 4", 0),
    "unbound": (body(Statement("u", "sign", ("v",))), "name 'v' is not bound here", 0),
    "bound later": (
        body(Statement("u", "sign", ("v",)), Statement("v", "sign", ("g",))),
        "name 'v' is not bound here",
        0,
    ),
    "not an input": (body(Statement("u", "sign", ("lr",))), "add it to the parameters", 0),
    "similar": (body(Statement("u", "sign", ("mm",))), "did you mean 'm'?", 0),
    "kind": (
        body(Statement("u", "square", ("g",)), Statement("u", "norm", ("b",))),
        "argument 1 of 'norm' must be a row or column or tensor or left or right, but b is a scalar",
        1,
    ),
    "kind of a constant": (body(Statement("u", "dot", ("g", 2.0))), "argument 2 of 'dot'", 0),
    "limit of clip": (body(Statement("u", "clip", ("g", "m"))), "must be a scalar, but m is a tensor", 0),
    "integer": (body(Statement("u", "sign", (1,))), "finite floating-point number, got 1", 0),  # type: ignore[arg-type]
    "infinite": (body(Statement("u", "sign", (math.inf,))), "finite floating-point number, got inf", 0),
    "nan": ({"update": math.nan}, "got nan", 2),
    "update unbound": ({"update": "x"}, "name 'x' is not bound here", 2),
    "function name": (body(Statement("sign", "sign", ("g",))), "'sign' is the name of a function", 0),
    "train": (body(Statement("train", "sign", ("g",))), "'train' is the name of a function", 0),
    "dunder": (body(Statement("__u", "sign", ("g",))), "'__u' is not allowed as a name", 0),
    "keyword": (body(Statement("lambda", "sign", ("g",))), "'lambda' is not allowed as a name", 0),
    "not ASCII": (body(Statement("é", "sign", ("g",))), "'é' is not allowed as a name", 0),
    "folded": (body(Statement("\uff57", "sign", ("g",))), "is not allowed as a name", 0),
    "spaces": (body(Statement("u v", "sign", ("g",))), "'u v' is not allowed as a name", 0),
    "code": (body(Statement("u = 1\nimport os", "sign", ("g",))), "is not allowed as a name", 0),
    "long name": (body(Statement("u" * 65, "sign", ("g",))), "longer than 64 characters", 0),
    "twice": ({"parameters": (W, W)}, "parameter 'w' appears twice", None),
    "twice as a number": ({"hyperparameters": (Hyperparameter("m", 0.5),)}, "parameter 'm' appears twice", None),
    "reserved slot": ({"parameters": (W, Parameter("g", Kind.TENSOR, slot=True))}, "cannot be a state slot", None),
    "reserved number": ({"hyperparameters": (Hyperparameter("lr", 0.5),)}, "'lr' is a reserved input", None),
    "not reserved": ({"parameters": (Parameter("z", Kind.TENSOR, slot=False),)}, "not a reserved input", None),
    "slot name": ({"parameters": (Parameter("exp", Kind.LEAF, slot=True),)}, "the name of a function", None),
    "number": ({"hyperparameters": (Hyperparameter("b", -math.inf),)}, "got -inf", None),
    "narrowed": (
        {"parameters": (W, G, Parameter("m", Kind.LEAF, slot=True))},
        "slot 'm' is of kind leaf but ends as a tensor; annotate it `m: tensor`",
        2,
    ),
    "too long": ({"statements": (Statement("u", "sign", ("g",)),) * (MAXIMUM_STATEMENTS + 1)}, "at most 4096", None),
    "docstring": ({"docstring": "  indented"}, "the docstring must be", None),
    "line separator": ({"docstring": "one\u2028two"}, "the docstring must be", None),
    "two lines": ({"comments": (Comment(0, "one\ntwo"),)}, "one line of printable text", None),
    "other line": ({"comments": (Comment(0, "one\x85two"),)}, "one line of printable text", None),
    "padded": ({"comments": (Comment(0, " one"),)}, "one line of printable text", None),
    "place": ({"comments": (Comment(3, "one"),)}, "comments must be sorted", None),
    "order": ({"comments": (Comment(1, "one"), Comment(0, "two"))}, "comments must be sorted", None),
}


@pytest.mark.parametrize(("changes", "reason", "statement"), BAD.values(), ids=BAD)
def test_an_invalid_program_cannot_be_made(changes: dict[str, Any], reason: str, statement: int | None) -> None:
    """A Program that exists is valid; what is not says what is wrong, and in which statement."""
    with pytest.raises(ProgramError) as caught:
        program(**changes)
    assert reason in caught.value.reason
    assert caught.value.statement == statement
    assert "\n" not in str(caught.value)


def test_every_reserved_name_is_taken() -> None:
    """An input can stand for one thing only."""
    for name, kind in RESERVED.items():
        assert program(parameters=(Parameter(name, kind, slot=False), *(p for p in (G, M) if p.name != name)))
        with pytest.raises(ProgramError, match="cannot be a state slot"):
            program(parameters=(Parameter(name, kind, slot=True),))


def test_kinds_are_inferred_in_order() -> None:
    """A statement has the join of its arguments' kinds or that of its reduction; a rebound name takes the new one."""
    text = "def train(w, g, n: leaf):\n a = norm(g)\n b = a * 2\n c = b * g\n a = dot(w, c)\n n = a + b\n return c, n\n"
    assert infer_kinds(parse(text)) == (Kind.LEAF, Kind.LEAF, Kind.TENSOR, Kind.SCALAR, Kind.LEAF)


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_statements_have_the_kind_of_their_signature(op: Op) -> None:
    """An op takes the kinds that its record lists and gives the kind that stands there; it refuses all other kinds."""
    mixtures = list(itertools.product(Kind, repeat=op.arity)) if op.arity < 4 else list(op.signatures)
    for kinds in mixtures:
        slots = tuple(Parameter(f"s{i}", kind, slot=True) for i, kind in enumerate(kinds))
        statement = Statement("u", op.name, tuple(slot.name for slot in slots))
        if kinds in op.signatures:
            assert infer_kinds(Program(slots, (), (statement,), 0.0)) == (op.signatures[kinds],)
        else:
            with pytest.raises(ProgramError, match=rf"argument \d of '{op.name}'|arguments of '{op.name}'"):
                Program(slots, (), (statement,), 0.0)


@pytest.mark.parametrize("kind", Kind, ids=str)
def test_what_widens_to_a_tensor_is_an_update(kind: Kind) -> None:
    """An update has the shape of the weights: a square matrix is refused, a number and a row stand for tensors."""
    slot = Parameter("s", kind, slot=True)
    if widens(kind, Kind.TENSOR):
        assert Program((slot,), (), (), "s").update == "s"
    else:
        with pytest.raises(ProgramError, match=f"the shape of the weights, but s is a {kind}; multiply it"):
            Program((slot,), (), (), "s")


@pytest.mark.parametrize(("kind", "to"), list(itertools.product(Kind, Kind)), ids=str)
def test_slots_widen(kind: Kind, to: Kind) -> None:
    """A slot may be left at a value that is broadcast to its kind; anything else is refused and the remedy named."""
    slots = (Parameter("value", kind, slot=True), Parameter("slot", to, slot=True))
    body = (Statement("slot", "identity", ("value",)),)
    if widens(kind, to):
        assert Program(slots, (), body, 0.0).slots[1].kind is to
    else:
        with pytest.raises(ProgramError, match=f"slot 'slot' is of kind {to} but ends as a {kind}; annotate it"):
            Program(slots, (), body, 0.0)


@given(programs())
def test_programs_are_frozen_plain_data(one: Program) -> None:
    """Programs cross process boundaries and serve as keys of dictionaries."""
    copy = pickle.loads(pickle.dumps(one))
    assert copy == one
    assert hash(copy) == hash(one)
    assert str(copy) == str(one)
    assert {one: 1}[copy] == 1
    for record in (one, *one.statements, *one.parameters, *one.hyperparameters, *one.comments):
        field = dataclasses.fields(record)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, field, None)
        with pytest.raises((AttributeError, TypeError)):
            record.extra = 1  # type: ignore[union-attr]


def test_errors_keep_their_position_across_processes() -> None:
    """A worker's error is as precise as a local one."""
    for error in (
        ProgramError("wrong", line=3, column=7),
        ProgramError("wrong", line=3),
        ProgramError("wrong", statement=2),
        ProgramError("wrong"),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is ProgramError
        assert (copy.reason, copy.line, copy.column, copy.statement) == (
            error.reason,
            error.line,
            error.column,
            error.statement,
        )
        assert str(copy) == str(error)
    assert str(ProgramError("wrong", line=3, column=7)) == "line 3, column 7: wrong"
    assert str(ProgramError("wrong", statement=2)) == "statement 3: wrong"


def test_messages_are_of_bounded_length() -> None:
    """A hostile name does not flood a log."""
    with pytest.raises(ProgramError) as caught:
        program(update="u" * 100_000)
    assert len(str(caught.value)) < 1100


def test_the_printed_form() -> None:
    """One operation a line, infix where there is a symbol, whole numbers without a point, prose where it stood."""
    text = (
        "# above\n"
        "@protected\n"
        "def train(w, g, m, n: leaf, s: scalar, lr, *, b=0.9, k=-3, eps=1e-08):\n"
        '    """One line."""\n'
        "    # first\n"
        "    m = interp(g, m, b)\n"
        "    a = m + 1\n"
        "    a = a ** -2.5\n"
        "    a = (-2) ** a\n"
        "    a = max(a, -0.0)\n"
        "    c = get_pi()\n"
        "    d = a\n"
        "    # last\n"
        "    return d, m, n, s\n"
    )
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.0, -1.0, 1e15, 1e16, -1e22, 5e-324, 1.7976931348623157e308, 0.1, 2**53 + 2.0, 1e-8]
)
def test_numbers_print_exactly(value: float) -> None:
    """Text is the serialisation: no bit of a constant is lost, the sign of zero included."""
    one = program(
        statements=(Statement("u", "power", (value, value)), Statement("u", "subtract", (value, "u"))),
        hyperparameters=(Hyperparameter("b", value),),
        update=value,
    )
    two = parse(str(one))
    found = [*two.statements[0].args, two.statements[1].args[0], two.hyperparameters[0].value, two.update]
    assert [(number, math.copysign(1.0, number)) for number in found] == [(value, math.copysign(1.0, value))] * 5  # type: ignore[arg-type]


def test_any_prose_is_refused_or_kept() -> None:
    """Docstrings and comments with quotes, backslashes and line separators never change on the way through text."""
    rng = random.Random(5)
    kept = 0
    for _ in range(3000):
        docstring = inspect.cleandoc(random_prose(rng))
        comments = tuple(Comment(place, random_prose(rng)) for place in (-1, 0, 2))
        for changes in ({"docstring": docstring}, {"comments": comments}):
            try:
                one = program(**changes)
            except ProgramError:
                continue
            assert parse(str(one)) == one
            kept += 1
    assert kept > 500


def test_hyperparameters_change_by_name() -> None:
    """Tuning sets constants and nothing else; a wrong name or number is refused."""
    one = program()
    two = one.with_hyperparameters(b=1)
    assert two.hyperparameters == (Hyperparameter("b", 1.0),)
    assert dataclasses.replace(two, hyperparameters=one.hyperparameters) == one
    assert one.with_hyperparameters() == one
    with pytest.raises(ValueError, match="no hyperparameter 'c'; it has: b"):
        one.with_hyperparameters(c=1.0)
    for value in (math.nan, math.inf, True, "1", None):
        with pytest.raises(ValueError, match="'b' must be a finite number"):
            one.with_hyperparameters(b=value)  # type: ignore[arg-type]


def test_inputs_and_slots() -> None:
    """Both views keep the order of the signature."""
    one = parse("def train(v: leaf, g, m, lr):\n    return g, v, m\n")
    assert one.inputs == ("g", "lr")
    assert [slot.name for slot in one.slots] == ["v", "m"]


def test_the_generator_reaches_the_whole_language() -> None:
    """The property tests mean something: every op, every input and every kind of slot and value comes up."""
    rng = random.Random(0)
    found = [random_program(rng) for _ in range(500)]
    assert {kind for one in found for kind in infer_kinds(one)} == set(Kind)
    assert {p.kind for one in found for p in one.slots} == set(Kind)
    assert {name for one in found for name in one.inputs} == set(RESERVED)
    assert {s.op for one in found for s in one.statements} == set(OPS)
    assert {one.protected for one in found} == {True, False}
    assert any(one.docstring and one.comments for one in found)


@pytest.mark.parametrize("name", OPS)
def test_the_generator_takes_any_ops(name: str) -> None:
    """A test of a few ops draws from these alone, also where the inputs at hand fit none of them."""
    rng = random.Random(name)
    found = {s.op for _ in range(60) for s in random_program(rng, ops=(name,)).statements}
    assert name in found <= {name, "identity"}


def corrupted(start: Program, rng: random.Random) -> dict[str, Any]:
    """The parts of a program, up to three of them changed at random, mostly for the worse."""
    names: list[Any] = ["w", "g", "m", "u", "lr", "hess", "sign", "__x", "é", 0.5, math.inf, 1, *OPS]
    kinds = list(Kind)
    parts: dict[str, Any] = {
        "parameters": list(start.parameters),
        "hyperparameters": list(start.hyperparameters),
        "statements": list(start.statements),
        "update": start.update,
    }
    for _ in range(rng.randrange(4)):
        part = rng.choice(list(parts))
        texts = [name for name in names if isinstance(name, str)]
        if part == "update":
            parts[part] = rng.choice(names)
            continue
        made: dict[str, Any] = {
            "parameters": Parameter(rng.choice(texts), rng.choice(kinds), rng.random() < 0.5),
            "hyperparameters": Hyperparameter(rng.choice(texts), rng.choice([0.5, math.nan, 1, "g"])),  # type: ignore[arg-type]
            "statements": Statement(
                rng.choice(texts), rng.choice(texts), tuple(rng.choices(names, k=rng.randrange(4)))
            ),
        }
        entries = parts[part]
        at = rng.randrange(len(entries) + 1)
        change = rng.randrange(4) if at < len(entries) else 0
        if part == "statements" and change == 3:
            old = entries[at]
            entries[at] = Statement(old.target, old.op, tuple(rng.sample(old.args, len(old.args))))
        else:
            entries[at : at + (change > 0)] = [] if change == 1 else [made[part]]
    return {name: tuple(value) if isinstance(value, list) else value for name, value in parts.items()}


@settings(max_examples=400)
@given(start=programs(), seed=st.integers(0, 2**32), protected=st.booleans())
def test_a_program_made_without_a_reason_is_made_as_by_its_class(start: Program, seed: int, protected: bool) -> None:
    """The way that skips the words for what is wrong lets in what construction lets in, and nothing else."""
    parts = corrupted(start, random.Random(seed)) | {"protected": protected}
    made = valid_program(**parts)
    try:
        usual = Program(**parts)
    except ProgramError:
        assert made is None
        return
    assert made == usual
    assert hash(made) == hash(usual)
    assert pickle.loads(pickle.dumps(made)) == usual
    assert str(made) == str(usual)


def test_a_long_program_is_made_as_by_its_class() -> None:
    """The bound on a printed text holds for a program that is made without a reason, too."""
    name = "u" * 64
    fits, too_long = (tuple(Statement(name, "sign", ("g",)) for _ in range(count)) for count in (300, 4000))
    assert valid_program((W, G), (), fits, name, False) == Program((W, G), (), fits, name)
    assert valid_program((W, G), (), too_long, name, False) is None
