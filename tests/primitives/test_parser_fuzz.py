import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import random_program, random_text

from evolion.primitives.parser import MAXIMUM_CHARACTERS, parse
from evolion.primitives.program import Program, ProgramError

HEAD = "def train(w, g, m):\n"
TAIL = "    return w, m\n"
PIECES = (
    *("(", ")", "[", "]", "{", "}", '"', "'", '"""', "\\", "\\\n", "\n", "\r", "\t", "\x0c", "\0", "\ufeff", "\u2028"),
    *(" ", "    ", "#", ":", ";", ",", ".", "=", ":=", "**", "*", "+", "-", "@", "->", "~", "%", "!", "$", "?", "`"),
    *("lambda", "import os", "return", "def train(w):", "yield", "await", "async", "if", "else", "for", "class", "del"),
    *("w", "x1", "\uff57", "é", "\ud800", "🙂", "1e999", "0x", "1_", "9" * 30, "-0.0", "1j", "f'{w}'", "b''", "True"),
    *("norm", "sqrt(", "interp(w, g, m)", "__class__", "__import__('os')", "@protected\n", "update", "# é", "*args"),
)


def answered(text: str) -> Program | None:
    """Parse; a valid program must print and parse back, anything else must be a ProgramError of one line."""
    error = None
    try:
        program = parse(text)
    except ProgramError as caught:
        error = caught
    if error:
        assert len(str(error).splitlines()) == 1, repr(text)
        assert error.line is None or (error.line >= 1 and (error.column or 0) >= 1), repr(text)
        return None
    assert parse(str(program)) == program, repr(text)
    return program


def mutated(rng: random.Random, text: str) -> str:
    """A text with a few pieces inserted, removed, repeated or moved."""
    for _ in range(rng.randrange(1, 4)):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice((0, 0, 1, 1, 3, 10)))
        choice = rng.random()
        if choice < 0.6:
            text = text[:start] + rng.choice(PIECES) + text[end:]
        elif choice < 0.8:
            text = text[:start] + text[end:]
        else:
            place = rng.randrange(len(text) + 1)
            text = text[:place] + text[start:end] * rng.choice((1, 2, 30)) + text[place:]
    return text


def fuzz(rng: random.Random, size: int) -> float:
    """Answer mutated texts of `size` characters in all; the share that was still valid."""
    done = texts = valid = 0
    while done < size:
        text = random_text(rng) if rng.random() < 0.5 else str(random_program(rng))
        text = mutated(rng, text)
        valid += answered(text) is not None
        texts, done = texts + 1, done + len(text)
    return valid / texts


@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    """Nothing but ProgramError comes out of a text that is no program."""
    answered(text)


@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_any_tokens_are_answered(pieces: list[str]) -> None:
    """The same for texts made of what programs, and attacks on parsers, are made of."""
    answered("".join(pieces))
    answered(HEAD + "    x = " + "".join(pieces) + "\n" + TAIL)


def test_mutated_programs_are_answered() -> None:
    """The same for programs with a few damaged places, a million characters of them."""
    assert 0.02 < fuzz(random.Random(7), 1_000_000) < 0.9


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_million_characters_are_answered() -> None:
    """The same at length before a release."""
    fuzz(random.Random(8), 10_000_000)


def inside(expression: str) -> str:
    return f"{HEAD}    x = {expression}\n{TAIL}"


HOSTILE = {
    "signs": inside("-" * 100_000 + "w"),
    "few signs": inside("-" * 3000 + "w"),
    "double signs": inside("~-" * 50_000 + "w"),
    "nots": inside("not " * 40_000 + "w"),
    "parentheses": inside("(" * 90_000 + "w" + ")" * 90_000),
    "allowed parentheses": inside("(" * 190 + "w" + ")" * 190),
    "open brackets": "[" * 190_000,
    "closed brackets": "]" * 190_000,
    "mixed brackets": "([{" * 60_000,
    "calls": inside("abs(" * 39_000 + "w" + ")" * 39_000),
    "chain": inside("w+" * 90_000 + "w"),
    "short chain": inside("w+" * 950 + "w"),
    "powers": inside("w**" * 60_000 + "w"),
    "attributes": inside("w" + ".w" * 90_000),
    "subscripts": inside("w" + "[0]" * 60_000),
    "lambdas": inside("lambda:" * 25_000 + "w"),
    "conditionals": inside("w if w else " * 15_000 + "w"),
    "comparisons": inside("w<" * 90_000 + "w"),
    "arguments": inside("abs(" + "w," * 90_000 + ")"),
    "comma": HEAD + "    return " + "w," * 90_000 + "\n",
    "100,000 statements": HEAD + "    " + "a=w;" * 45_000 + "\n" + TAIL,
    "statements": HEAD + "    a=w\n" * 22_000 + TAIL,
    "targets": HEAD + "    " + "a=" * 90_000 + "w\n" + TAIL,
    "slots": "def train(" + ",".join(f"a{i}" for i in range(25_000)) + "):\n return 0\n",
    "slots returned": "def train(" + (names := ",".join(f"a{i}" for i in range(12_000))) + f"):\n return 0,{names}\n",
    "similar names": "def train(*," + ",".join("a" * 58 + f"{i:04}=1" for i in range(2800)) + "):\n x=ba\n return x\n",
    "shuffled names": "def train(*,"
    + ",".join("ab" * 25 + f"{i:04}=1" for i in range(3000))
    + "):\n return "
    + "ba" * 25,
    "long name": f"def train({'w' * 190_000}):\n    return w\n",
    "long function": inside("abs" * 60_000 + "(w)"),
    "long integer": inside("9" * 190_000),
    "long hexadecimal": inside("0x" + "f" * 190_000),
    "long fraction": inside("0." + "1" * 190_000),
    "large exponent": inside("1e" + "9" * 190_000),
    "decorators": "@protected\n" * 18_000 + HEAD + TAIL,
    "functions": (HEAD + TAIL) * 5000,
    "indentation": "".join(" " * i + "if w:\n" for i in range(150)),
    "wide indentation": HEAD + " " * 190_000 + "return w, m\n",
    "continuations": inside("\\\n" * 90_000 + "w  # c"),
    "blank lines": HEAD + "\n" * 190_000 + TAIL + "# c",
    "spaces": HEAD + " \t\x0c\n" * 45_000 + TAIL + "# c",
    "long docstring": HEAD + '    """' + "a\n" * 90_000 + '"""\n' + TAIL + "# c",
    "many strings": HEAD + "    " + "'' " * 60_000 + "\n" + TAIL,
    "nested f-strings": inside("f'{" * 1000 + "w" + "}'" * 1000),
    "comments": HEAD + "    a=w\n" * 4000 + "#\n" * 75_000 + TAIL,
    "long comment": HEAD + TAIL + "#" * 190_000,
    "fresh names": HEAD + "# " + " ".join(f"x{i}" for i in range(15_000)) + "\n" + "    a=w+w*w\n" * 2000 + TAIL,
    "nulls": "\0" * 190_000,
    "surrogates": "\ud800" * 190_000,
    "marks": "\ufeff" * 190_000,
    "backslashes": inside("'" + "\\d" * 90_000 + "'"),
    "letters that fold": inside("\ufb03" * 60_000),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_texts_cost_little(text: str) -> None:
    """Deep, long and odd texts are answered within seconds, most within milliseconds, and never end the process."""
    assert len(text) <= MAXIMUM_CHARACTERS
    start = time.process_time()
    answered(text)
    assert time.process_time() - start < 5.0
