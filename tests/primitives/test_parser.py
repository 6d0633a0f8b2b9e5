import os
import random
import tempfile

import pytest
from hypothesis import given
from strategies import ADAMW, programs, random_program, random_text, texts

from evolion.primitives.kinds import Kind
from evolion.primitives.parser import parse
from evolion.primitives.program import Comment, Hyperparameter, Parameter, Program, ProgramError, Statement


def body(text: str) -> tuple[str, ...]:
    """The statements, one line each, of a text whose signature is the usual one."""
    one = parse("def train(w, g, m, lr, *, b=0.9):\n" + text)
    return tuple(map(str, one.statements))


def round_trip(one: Program) -> None:
    text = str(one)
    two = parse(text)
    assert two == one, text
    assert str(two) == text


@given(programs())
def test_text_is_the_serialisation(one: Program) -> None:
    """parse(str(p)) == p: what is written to a run folder is what ran."""
    round_trip(one)


@pytest.mark.slow
def test_twenty_thousand_programs_round_trip() -> None:
    """The same law over more programs than Hypothesis draws, from a fixed seed."""
    rng = random.Random(2302)
    for _ in range(20_000):
        round_trip(random_program(rng))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_million_programs_round_trip() -> None:
    """The same law once more before a release."""
    rng = random.Random(6675)
    for _ in range(1_000_000):
        round_trip(random_program(rng))


@given(texts())
def test_nested_texts_come_to_a_fixed_point(text: str) -> None:
    """Reading a nested text, printing it and reading it again gives the same program."""
    try:
        one = parse(text)
    except ProgramError:
        return
    round_trip(one)


def test_most_generated_texts_are_valid() -> None:
    """The property above is not about rejected texts alone."""
    rng = random.Random(1)
    valid = 0
    for _ in range(300):
        try:
            parse(random_text(rng))
        except ProgramError:
            continue
        valid += 1
    assert valid > 250


def test_adamw() -> None:
    """The example of the documentation reads as people mean it."""
    one = parse(ADAMW)
    assert one.inputs == ("w", "g", "lr", "t")
    assert one.slots == (Parameter("m", Kind.TENSOR, True), Parameter("v", Kind.TENSOR, True))
    assert one.hyperparameters[2] == Hyperparameter("eps", 1e-8)
    assert len(one.statements) == 15
    assert one.statements[0] == Statement("m", "interp", ("g", "m", "b1"))
    assert one.statements[-1] == Statement("update", "multiply", ("lr", "update"))
    assert (one.update, one.protected, one.docstring, one.comments) == ("update", False, "", ())
    assert parse("@protected\n" + ADAMW).protected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = w + g * m", ("x1 = g * m", "a = w + x1")),
        ("a = w - g - m", ("x1 = w - g", "a = x1 - m")),
        ("a = w ** g ** m", ("x1 = g ** m", "a = w ** x1")),
        ("a = -2 ** w", ("x1 = 2 ** w", "a = negative(x1)")),
        ("a = (-2) ** w", ("a = (-2) ** w",)),
        ("a = w ** -2", ("a = w ** -2",)),
        ("a = --2", ("a = negative(-2)",)),
        ("a = -w", ("a = negative(w)",)),
        ("a = add(w, negative(3))", ("x1 = negative(3)", "a = w + x1")),
        ("a = identity(w)", ("a = w",)),
        ("a = 3", ("a = 3",)),
        ("w = w", ("w = w",)),
        ("w = w * w", ("w = w * w",)),
        ("a = ((w))", ("a = w",)),
        ("a = 0x10 + 1_0.5e1", ("a = 16 + 105",)),
        ("a = 1e-400 + w", ("a = 0 + w",)),
        ("a = w; c = a", ("a = w", "c = a")),
        ("a = (w +\n      g)", ("a = w + g",)),
        ("a = w + \\\n      g", ("a = w + g",)),
        ("x1 = w * g + x2", ("x3 = w * g", "x1 = x3 + x2")),
        ("a = w * g + w  # not x1", ("x2 = w * g", "a = x2 + w")),
    ],
)
def test_expressions(text: str, expected: tuple[str, ...]) -> None:
    """Python's precedence and signs; one operation a statement; fresh names meet no other."""
    prefix = ("x2 = 0",) if "x2" in text else ()
    lines = "".join(f"    {line}\n" for line in (*prefix, text))
    assert body(lines + "    return 0, m\n") == prefix + expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("    return w * lr, m\n", ("update = w * lr",)),
        ("    update = w\n    return update * lr, m\n", ("update = w", "x1 = update * lr")),
        ("    # update\n    return w * lr + b, m\n", ("x1 = w * lr", "update = x1 + b")),
        ("    return (-1), m\n", ()),
    ],
)
def test_the_update_may_be_an_expression(text: str, expected: tuple[str, ...]) -> None:
    """A returned expression becomes a statement; a name that is bound already is not bound again."""
    assert body(text) == expected


def test_a_slot_named_update_keeps_its_value() -> None:
    """The name given to a returned expression never overwrites a slot."""
    one = parse("def train(g, update):\n    return g + update, update\n")
    assert [str(s) for s in one.statements] == ["x1 = g + update"]
    assert one.update == "x1"


def test_an_undefined_name_is_not_met_by_a_fresh_one() -> None:
    """A name that the author forgot to bind stays an error, although x1 is the first fresh name."""
    with pytest.raises(ProgramError, match="line 3, column 9: name 'x1' is not bound"):
        parse("def train(w):\n    a = w * w * w\n    b = x1\n    return b\n")


def test_comments_and_docstrings_are_kept() -> None:
    """Known programs carry their sources: every comment stays at its statement."""
    one = parse(
        "# Title ÿ\n"
        "@protected  # why\n"
        "#\n"
        "def train(  # inputs\n"
        "    w, g, m,\n"
        "):\n"
        '    """First.\n\n'
        "      Second.\n"
        '    """\n'
        "    # above a\n"
        "    a = w * g + m  # behind a # still\n"
        "    b = (\n"
        "        a  # inside b\n"
        "    )\n"
        "    m = b; c = m  # behind c\n"
        "    # above return\n"
        "    return c, m  # behind return\n"
        "# the end\n"
    )
    assert one.docstring == "First.\n\nSecond."
    assert one.comments == (
        Comment(-1, "Title ÿ"),
        Comment(-1, "why"),
        Comment(-1, ""),
        Comment(0, "inputs"),
        Comment(0, "above a"),
        Comment(0, "behind a # still"),
        Comment(2, "inside b"),
        Comment(4, "behind c"),
        Comment(5, "above return"),
        Comment(5, "behind return"),
        Comment(5, "the end"),
    )
    round_trip(one)


@pytest.mark.parametrize("ending", ["\r", "\r\n"])
def test_line_endings_do_not_matter(ending: str) -> None:
    """A text from another system is the same program, comments included."""
    text = "# a\n" + ADAMW.replace("    vhat", "    # b\n    vhat")
    assert parse(text.replace("\n", ending)) == parse(text)


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ('"""A b."""', "A b."),
        ('\'say """ and \\\\\'', 'say """ and \\'),
        ('"""ends with \\""""', 'ends with "'),
        ('r"""a\\d"""', "a\\d"),
        ('"""\n      indented\n    less\n    """', "indented\nless"),
        ('"""\n    \n      one\n        two\n    """', "one\ntwo"),
        ('"\\t tab"', "tab"),
        ('"a" "b"', "ab"),
        ('""', ""),
        ('"\\N{BULLET} \\u4e2d"', "\u2022 \u4e2d"),
        ('"\\d"', "\\d"),
    ],
)
def test_docstrings(literal: str, expected: str) -> None:
    """Documentation comes back as it was meant, cleaned, and never warns."""
    one = parse(f"def train(w):\n    {literal}\n    return w\n")
    assert one.docstring == expected
    round_trip(one)


def test_signatures() -> None:
    """Inputs, slots of each kind and numbers stand in any order that Python allows."""
    annotated = ", ".join(f"{kind}_: {kind}" for kind in Kind)
    returned = ", ".join(f"{kind}_" for kind in Kind)
    one = parse(f"def train(m, w, {annotated}, *, a=-1, b=1e-3):\n    return w, m, {returned}\n")
    assert [(p.name, p.kind, p.slot) for p in one.parameters] == [
        ("m", Kind.TENSOR, True),
        ("w", Kind.TENSOR, False),
        *((f"{kind}_", kind, True) for kind in Kind),
    ]
    assert one.hyperparameters == (Hyperparameter("a", -1.0), Hyperparameter("b", 0.001))
    plain = annotated.replace("tensor_: tensor", "tensor_")
    assert str(one).startswith(f"def train(m, w, {plain}, *, a=-1, b=0.001):\n")
    assert parse("def train():\n    return 0\n").parameters == ()
    assert parse("def train(w): return w").update == "w"


@pytest.mark.parametrize(
    "attempt",
    [
        "import pathlib; pathlib.Path({path!r}).touch()\n" + ADAMW,
        ADAMW + "open({path!r}, 'w')\n",
        "@open({path!r}, 'w')\n" + ADAMW,
        "def train(w=open({path!r}, 'w')):\n    return w\n",
        "def train(w: open({path!r}, 'w')):\n    return w\n",
        "def train(*, b=open({path!r}, 'w')):\n    return b\n",
        "def train(w):\n    open({path!r}, 'w')\n    return w\n",
        "def train(w):\n    x = open({path!r}, 'w')\n    return x\n",
        "def train(w):\n    f'{{open({path!r}, \"w\")}}'\n    return w\n",
        "def train(w):\n    return __import__('os').mknod({path!r})\n",
        "def train(w) -> open({path!r}, 'w'):\n    return w\n",
        "class train(open({path!r}, 'w')): pass\n",
    ],
)
def test_the_text_is_never_executed(attempt: str) -> None:
    """A program from a stranger is data: reading it does nothing but read it."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "touched")
        with pytest.raises(ProgramError):
            parse(attempt.format(path=path))
        assert os.listdir(folder) == []
