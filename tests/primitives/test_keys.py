import json
import os
import random
import re
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import disguised, programs, random_program

from evolion.primitives.keys import Probe, ProbeStatus, behavioural_key, probe, structural_key
from evolion.primitives.parser import parse
from evolion.primitives.program import Program

ADAMW = """\
def train(w, g, m, v, lr, t, *, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01):
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    mhat = m / (1 - b1 ** t)
    vhat = v / (1 - b2 ** t)
    return lr * (mhat / (sqrt(vhat) + eps) + weight_decay * w), m, v
"""
LION = """\
def train(w, g, m, lr, *, b1=0.9, b2=0.99, weight_decay=0.1):
    update = lr * (sign(interp(g, m, b1)) + weight_decay * w)
    m = interp(g, m, b2)
    return update, m
"""
SGD = "def train(g, lr):\n    return lr * g\n"

PINNED = {
    "SGD": (
        SGD,
        "f6f04dc0d46ebf1ad045971aa7fd146f",
        "c7d1b060bf7f9bebf6a247d6b7bc3f0f",
    ),
    "AdamW": (
        ADAMW,
        "002a349e012773084b5babe3bcb74488",
        "f6c8ce7ea0797d78046adc0768c52b68",
    ),
    "Lion": (
        LION,
        "eeadc5b3eea455f44a37a26e9acc1373",
        "8d94daaeadbeb0366c67ea25041c5203",
    ),
    "protected AdamW": (
        "@protected\n" + ADAMW,
        "4f6931a997aaf77b9cfe2cafdfac84b0",
        "390d7ac6d8a4c1a8259a130a59864116",
    ),
    "a leaf and a clip": (
        "def train(w, g, n: leaf):\n    n = n + norm(g)\n    return clip(w, 0.5) / n, n\n",
        "390f18ee9800cb1eb994af768b6f124e",
        "53529a25b870c33fb693f25b7bc1a4cd",
    ),
    "a decomposition": (
        "def train(g, lr, l: left):\n    l = l + left_gram(g)\n    return lr * matmul(inverse_root(l, 4), g), l\n",
        "02aef2359fc8bc8778b3c1db862eac08",
        "7b85ad54dff75a7c2f59d08f5afe1965",
    ),
    "zero": (
        "def train():\n    return 0\n",
        "030ae53f208a1f348d84f71330da708d",
        "346b8ef7129a74052a41661efcee5f1a",
    ),
}


def of(expression: str, parameters: str = "w, g, lr, m") -> Program:
    return parse(f"def train({parameters}):\n    m = interp(g, m, 0.9)\n    return {expression}, m\n")


@pytest.mark.parametrize(("text", "structural", "behavioural"), PINNED.values(), ids=PINNED)
def test_keys_are_pinned(text: str, structural: str, behavioural: str) -> None:
    """Stored scores are found by these keys: whoever changes them orphans every store, and says so in the changelog."""
    program = parse(text)
    assert (structural_key(program), behavioural_key(program)) == (structural, behavioural)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("w + g", "g + w"),
        ("w * m", "m * w"),
        ("max(w, g)", "max(g, w)"),
        ("min(w, g)", "min(g, w)"),
        ("dot(w, g)", "dot(g, w)"),
        ("cosine_sim(m, g)", "cosine_sim(g, m)"),
        ("w + g * m", "m * g + w"),
        ("(w)", "w"),
        ("identity(w) + 2", "w + 2.0"),
        ("add(w, g)", "w + g"),
        ("-2 * w", "w * -2"),
    ],
)
def test_the_structural_key_sees_through_writing(one: str, other: str) -> None:
    """Order of commutative arguments, plain assignments and notation do not count."""
    assert structural_key(of(one)) == structural_key(of(other))
    assert behavioural_key(of(one)) == behavioural_key(of(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("w + g", "g + w"),
        ("g - g", "0"),
        ("w + (g - g)", "w"),
        ("g * 1", "g"),
        ("interp(g, w, 0)", "g"),
        ("interp(g, w, 1)", "w"),
        ("sqrt(square(g))", "abs(g)"),
        ("sqrt(square(w))", "abs(w)"),
        ("w / abs(w)", "sign(w)"),
        ("interp(w, g, 0.3)", "w + 0.3 * (g - w)"),
        ("interp(w, g, lr)", "w + lr * (g - w)"),
        ("g * g", "square(g)"),
        ("g ** 2", "square(g)"),
        ("g * g * g", "cube(g)"),
        ("-g", "0 - g"),
        ("1 / (1 + w * w)", "reciprocal(1 + square(w))"),
        ("exp(log(square(w)))", "w * w"),
        ("sinh(w) / cosh(w)", "tanh(w)"),
        ("norm(g) * 2", "norm(g + g)"),
        ("global_norm(g) ** 2", "dot(g, g)"),
        ("clip(g, 1e9)", "g"),
        ("0.1 * 3 * g", "0.3 * g"),
    ],
)
def test_identities_that_the_behavioural_key_sees(one: str, other: str) -> None:
    """Programs that compute the same by other statements share a key, rounding aside."""
    assert behavioural_key(of(one)) == behavioural_key(of(other))
    assert probe(of(one)) == probe(of(other))


def test_sign_by_division_at_zero() -> None:
    """x / |x| is sign(x) away from 0 only: the probe's gradients hold zeros, where it is NaN, and the keys say so."""
    assert behavioural_key(of("g / abs(g)")) != behavioural_key(of("sign(g)"))
    assert probe(of("g / abs(g)")).status is ProbeStatus.UNBOUNDED


REORDERED = """\
def train(lr, second, t, g, first, w, *, decay=0.01, tiny=1e-8, beta2=0.999, beta1=0.9, spare=3):
    waste = cos(g)
    second = interp(g * g, second, beta2)
    scale = sqrt(second / (1 - beta2 ** t)) + tiny
    waste = waste + 1
    first = interp(g, first, beta1)
    lr = (w * decay + first / (1 - beta1 ** t) / scale) * lr
    return lr, second, first
"""


def test_renaming_reordering_dead_code_and_swapped_slots() -> None:
    """AdamW by other names, in another order, with dead code and its slots the other way round, is AdamW."""
    assert structural_key(parse(REORDERED.replace("g * g", "square(g)"))) == structural_key(parse(ADAMW))
    assert structural_key(parse(REORDERED)) != structural_key(parse(ADAMW))
    assert behavioural_key(parse(REORDERED)) == behavioural_key(parse(ADAMW))


DIFFERENT = [
    (ADAMW, ADAMW.replace("b1=0.9", "b1=0.91")),
    (ADAMW, ADAMW.replace("b2=0.999", "b2=0.9990001")),
    (ADAMW, ADAMW.replace("eps=1e-8", "eps=1e-6")),
    (ADAMW, ADAMW.replace("eps=1e-8", "eps=0")),
    (ADAMW, ADAMW.replace("m / (1 - b1 ** t)", "m").replace("v / (1 - b2 ** t)", "v")),
    (ADAMW, ADAMW.replace("v / (1 - b2 ** t)", "v")),
    (ADAMW, ADAMW.replace("weight_decay=0.01", "weight_decay=0")),
    (ADAMW, "@protected\n" + ADAMW),
    (ADAMW, ADAMW.replace("sqrt(vhat) + eps", "sqrt(vhat + eps)")),
    (LION, LION.replace("b1=0.9, b2=0.99", "b1=0.99, b2=0.9")),
    (LION, LION.replace("b2=0.99", "b2=0.97")),
    (LION, LION.replace("sign", "tanh")),
    (SGD, SGD.replace("lr * g", "g")),
    (SGD, SGD.replace("lr * g", "-lr * g")),
    (SGD, SGD.replace("lr * g", "lr * clip(g, 1)")),
    # Bounds that training reaches: learning rates up to 1, weights and noise beyond 1, many steps, a loss near 0.
    (LION, LION.replace("return update", "return clip(update, 2)")),
    (LION, LION.replace("return update", "return min(update, 0.5)")),
    (LION, LION.replace("* w)", "* max(w, -1.1))")),
    (LION, LION.replace("* w)", "* min(w, 4))")),
    (SGD, SGD.replace("lr * g", "min(lr, 0.1) * g")),
    (SGD, SGD.replace("lr * g", "lr * min(g, 3)")),
    (str(of("noise", "g, m, noise")), str(of("min(noise, 2)", "g, m, noise"))),
    (str(of("t", "g, m, t")), str(of("min(t, 100)", "g, m, t"))),
    (str(of("loss", "g, m, loss")), str(of("max(loss, 0.1)", "g, m, loss"))),
    (str(of("norm(g)")), str(of("global_norm(g)"))),
    (str(of("g - w")), str(of("w - g"))),
    (str(of("w0", "w, g, m, w0")), str(of("w", "w, g, m, w0"))),
    (str(of("t", "g, m, t")), str(of("horizon", "g, m, horizon"))),
    (str(of("t", "g, m, t")), str(of("loss", "g, m, loss"))),
    (str(of("hess", "g, m, hess")), str(of("abs(hess)", "g, m, hess"))),
    (str(of("noise", "g, m, noise")), str(of("hess", "g, m, hess"))),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_programs_that_differ_have_different_keys(one: str, other: str) -> None:
    """A shared key would give a program the score of another."""
    assert structural_key(parse(one)) != structural_key(parse(other))
    assert behavioural_key(parse(one)) != behavioural_key(parse(other))


def test_slots_are_told_apart() -> None:
    """Two programs that differ only in which of two slots feeds which are two programs."""
    text = "def train(g, a, b):\n    a = a + g\n    b = b + g * 2\n    return a - b, a, b\n"
    other = text.replace("a - b", "b - a")
    swapped = "def train(g, b, a):\n    b = b + g * 2\n    a = g + a\n    return a - b, b, a\n"
    assert structural_key(parse(text)) == structural_key(parse(swapped)) != structural_key(parse(other))
    scalar = "def train(g, a: scalar):\n    a = a + dot(g, g)\n    return a, a\n"
    assert structural_key(parse(scalar)) != structural_key(parse(scalar.replace("a: scalar", "a")))


def test_signed_zero() -> None:
    """The structural key tells -0.0 from 0; the behaviour is the same unless something divides by it."""
    assert structural_key(of("w * 0")) != structural_key(of("w * -0.0"))
    assert behavioural_key(of("w * 0")) == behavioural_key(of("w * -0.0"))
    assert behavioural_key(of("lr / 0")) != behavioural_key(of("lr / -0.0"))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("lr * g", "lr * g * 0.3", True),
        ("lr * g", "lr * (g + g)", True),
        ("lr * g", "-lr * g", False),
        ("lr * g", "lr * lr * g", False),
        ("lr * sign(m)", "lr * m", False),
        ("lr * m", "1e-30 * lr * m", True),
        ("g - g", "0", True),
    ],
)
def test_up_to_the_learning_rate(one: str, other: str, same: bool) -> None:
    """A positive constant factor is a matter of tuning; anything else is another program."""
    keys = [behavioural_key(of(text), up_to_lr=True) for text in (one, other)]
    assert (keys[0] == keys[1]) is same
    assert keys[0] != behavioural_key(of(one))


@pytest.mark.parametrize(
    ("expression", "status"),
    [
        ("lr * g", "ok"),
        ("1e-300 * g", "ok"),
        ("5e-324", "ok"),
        ("0", "dead"),
        ("-0.0 * w", "dead"),
        ("g - g", "dead"),
        ("1e13 * w", "unbounded"),
        ("1 / 0", "unbounded"),
        ("w * log(-1)", "unbounded"),
        ("g / g", "unbounded"),
        ("1.7e308", "unbounded"),
        ("exp(exp(1 / lr))", "unbounded"),
    ],
)
def test_statuses(expression: str, status: str) -> None:
    """What is dead or not finite is found before anything is trained on it."""
    assert probe(of(expression)).status == ProbeStatus(status)


def test_state_that_explodes_is_found_later() -> None:
    """The probe runs several steps: a slot that doubles its exponent at each is seen."""
    program = parse("def train(g, s: scalar):\n    u = g * s\n    s = s * s + 1e3\n    return u, s\n")
    assert probe(program).status is ProbeStatus.UNBOUNDED


def test_twins_share_both_keys() -> None:
    """Equal structural keys mean equal behaviour, over random programs in disguise."""
    rng = random.Random(11)
    for _ in range(400):
        program = random_program(rng)
        twin = disguised(program, rng, swap=False)
        assert structural_key(program) == structural_key(twin), str(program)
        assert probe(program) == probe(twin), str(program)


@given(programs(), st.randoms(use_true_random=False))
def test_swapped_arguments_change_no_behaviour(program: Program, rng: random.Random) -> None:
    """Commutative arguments in another order leave the behaviour, and with one slot at most the structural key too."""
    twin = disguised(program, rng)
    assert probe(program) == probe(twin)
    if len(program.slots) < 2:
        assert structural_key(program) == structural_key(twin)


@settings(max_examples=300)
@given(st.lists(programs(statements=3, prose=False), min_size=2, max_size=2))
def test_equal_structure_means_equal_behaviour(pair: list[Program]) -> None:
    """Over pairs of small programs too, which coincide now and then by chance."""
    if structural_key(pair[0]) == structural_key(pair[1]):
        assert probe(pair[0]) == probe(pair[1])


@given(programs())
def test_prose_does_not_count(program: Program) -> None:
    """Docstrings and comments are for people."""
    bare = replace(program, docstring="", comments=())
    assert structural_key(bare) == structural_key(program)
    assert probe(bare) == probe(program)


@given(programs())
def test_keys_are_digests(program: Program) -> None:
    """Every valid program has its keys, whatever its arithmetic does, without a warning."""
    for key in (structural_key(program), behavioural_key(program), behavioural_key(program, up_to_lr=True)):
        assert re.fullmatch("[0-9a-f]{32}", key)
    assert probe(program) == Probe(behavioural_key(program), probe(program).status)


def test_keys_are_equal_in_other_processes() -> None:
    """Scores are shared between machines: hash seeds, memory and import order leave no trace."""
    rng = random.Random(4)
    texts = [ADAMW, LION, *(str(random_program(rng)) for _ in range(200))]
    code = (
        "import json, sys\n"
        "from evolion.primitives.keys import behavioural_key, structural_key\n"
        "from evolion.primitives.parser import parse\n"
        "programs = list(map(parse, json.load(sys.stdin)))\n"
        "print(json.dumps([[structural_key(p), behavioural_key(p)] for p in programs]))\n"
    )
    here = [[structural_key(program), behavioural_key(program)] for program in map(parse, texts)]
    for seed in ("0", "12345"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(texts),
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == here


def test_last_bits_do_not_count() -> None:
    """Constants a few units in the last place apart behave the same, as another platform's arithmetic would."""
    for number in (0.1, 0.3, 1e-3, 7.7):
        bits = struct.unpack("<q", struct.pack("<d", number))[0]
        near = struct.unpack("<d", struct.pack("<q", bits + 3))[0]
        assert near != number
        assert behavioural_key(of(f"{number!r} * m")) == behavioural_key(of(f"{near!r} * m"))
        assert structural_key(of(f"{number!r} * m")) != structural_key(of(f"{near!r} * m"))


def test_the_probe_leaves_error_handling_alone() -> None:
    """Silencing floating-point warnings is the probe's own affair."""
    with np.errstate(all="raise"):
        before = np.geterr()
        assert probe(of("exp(1e9) * g / 0")).status is ProbeStatus.UNBOUNDED
        assert np.geterr() == before
