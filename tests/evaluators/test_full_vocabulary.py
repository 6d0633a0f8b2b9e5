"""Every program of the full vocabulary runs: interpreted where it can be, compiled where not, as the reference says."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from strategies import random_program
from update_paths import close, compiled_paths, interpreted, reference

from evolion.discovered.library import known
from evolion.evaluators.encoding import CapacityError, encode
from evolion.evaluators.evaluate import evaluate_job
from evolion.evaluators.opcodes import OPCODES, has_instruction
from evolion.evaluators.types import Job
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.keys import ProbeStatus, probe
from evolion.primitives.kinds import Kind
from evolion.primitives.ops import FULL, LION, OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.proxies.score import Status

RANDOM = 60

INTERPRETED = {
    "adafactor": """def train(g, lr, r: row, c: column, *, b=0.99):
    s = square(g) + 1e-30
    r = interp(row_mean(s), r, b)
    c = interp(column_mean(s), c, b)
    u = g / sqrt(r * c / tensor_mean(r))
    return lr * u / max(1, sqrt(tensor_mean(square(u)))), r, c
""",
    "cautious": """def train(g, lr, t, m, v, *, b1=0.9, b2=0.99, eps=1e-6):
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    u = m / (1 - b1 ** t) / (sqrt(v / (1 - b2 ** t)) + eps)
    agrees = greater(u * g, 0)
    return lr * u * agrees * entry_count(g) / max(tensor_sum(agrees), 1), m, v
""",
    "top-k mask": """def train(g, lr, m):
    m = interp(g, m, 0.9)
    return lr * m * top_k_mask(abs(m), 0.3 * entry_count(m)), m
""",
    "lars": """def train(w, g, lr, m, *, momentum=0.9, weight_decay=1e-3):
    d = g + weight_decay * w
    m = momentum * m + lr * d * where(greater(norm(w), 0), norm(w) / (norm(d) + 1e-6), 1)
    return 0.02 * m, m
""",
    "restarts": """def train(g, lr, t, horizon, m, n: leaf):
    fresh = equal(mod(t, 2), 0)
    m = where(fresh, g, interp(g, m, 0.9))
    n = max(n, tensor_max(abs(g)))
    return lr * where(less(t, floor(horizon / 2)), sign(m), m / n), m, n
""",
}
COMPILED = {
    "muon": """def train(w, g, lr, m, *, momentum=0.95, steps=5):
    m = momentum * m + g
    x = orthogonalize(g + momentum * m, steps, 3.4445, -4.775, 2.0315)
    return lr * x * sqrt(max(1, row_count(w) / column_count(w))), m
""",
    "adafactor of sums": """def train(g, lr, r: row, c: column):
    r = interp(row_sum(square(g)), r, 0.9)
    c = interp(column_sum(square(g)), c, 0.9)
    return lr * g / (sqrt(r * c / tensor_sum(r)) + 1e-6), r, c
""",
    "shampoo": """def train(g, lr, l: left, r: right, *, eps=1e-3):
    l = l + left_gram(g)
    r = r + right_gram(g)
    x = matmul(matmul(inverse_root(l + eps * eye(l), 4), g), inverse_root(r + eps * eye(r), 4))
    return lr * x * norm(g) / (norm(x) + 1e-8), l, r
""",
    "soap": """def train(g, lr, m, v, l: left, r: right, p: left, q: right, *, b=0.95, eps=1e-3):
    l = interp(left_gram(g), l, b)
    r = interp(right_gram(g), r, b)
    p = power_iteration(l, p)
    q = power_iteration(r, q)
    m = interp(g, m, b)
    v = interp(square(matmul(transposed_matmul(p, g), q)), v, b)
    x = matmul(transposed_matmul(p, m), q) / (sqrt(v) + eps)
    return lr * matmul_transposed(matmul(p, x), q), m, v, l, r, p, q
""",
    "spectrum": """def train(g, lr, l: left, s: scalar):
    l = interp(left_gram(g), l, 0.9)
    s = max(s, global_max(diagonal(l)))
    p = eigenvectors(l + 1e-3 * diagonal_matrix(row_mean(square(g))))
    return lr * matmul(p, tanh(transposed_matmul(p, g) / sqrt(s))), l, s
""",
}
"""Programs as people write them, of more parts than one op."""

PROGRAMS = {name: parse(text) for name, text in (INTERPRETED | COMPILED).items()}
VALUES: Mapping[Kind, tuple[str, ...]] = {
    Kind.SCALAR: ("loss", "global_mean(g)", "0.7"),
    Kind.LEAF: ("tensor_mean(w)", "norm(g)", "tensor_max(g)"),
    Kind.ROW: ("row_mean(w)", "row_max(g)", "row_norm(w)"),
    Kind.COLUMN: ("column_max(w)", "column_sum(g)", "column_norm(g)"),
    Kind.TENSOR: ("w", "g", "w * g"),
}


def interpretable(program: Program) -> bool:
    try:
        encode(program)
    except CapacityError:
        return False
    return True


def random_programs() -> Iterator[Program]:
    """Programs over all ops with slots of every kind that stay within bounds on the probe."""
    rng = random.Random(5)
    while True:
        program = remove_dead_code(random_program(rng, ops=FULL, statements=16, prose=False))
        if len(program.statements) > 2 and probe(program).status is ProbeStatus.OK:
            yield program


def call(op: str, kinds: tuple[Kind, ...], protected: bool) -> Program:
    """A program whose update is one op of values of these kinds."""
    arguments = ", ".join(VALUES[kind][i % 3] for i, kind in enumerate(kinds))
    decorator = "@protected\n" if protected else ""
    return parse(f"{decorator}def train(w, g, loss):\n    return {op}({arguments}) * 0.1\n")


@pytest.mark.parametrize("protected", [False, True], ids=["plain", "protected"])
def test_every_instruction_means_the_same(protected: bool) -> None:
    """Each op that has an instruction, on values of each kind; NaN and infinities where the reference has them."""
    tried = set()
    for name in ("identity", *FULL):
        if protected and OPS[name].protected is None:
            continue
        kinds_of = [kinds for kinds in OPS[name].signatures if has_instruction(name, kinds)]
        for kinds in kinds_of[:: 1 if OPS[name].arity < 2 else 6]:
            program = call(name, kinds, protected)
            expected = reference(program)
            np.testing.assert_allclose(interpreted(program), expected, rtol=2e-5, atol=2e-6, err_msg=str(program))
            tried.add(name)
    assert protected or tried == {code.op for code in OPCODES}


def test_what_has_no_instruction_is_a_matter_of_capacity() -> None:
    """An op whose value depends on more than the entries of a wide vector is left to the compiled path, by name."""
    for name in FULL:
        for kinds in OPS[name].signatures:
            if not has_instruction(name, kinds) and set(kinds) <= set(VALUES) and OPS[name].signatures[kinds] in VALUES:
                with pytest.raises(CapacityError, match=f"no instruction for {name} of {kinds[0]}"):
                    encode(call(name, kinds, protected=False))
    for program in COMPILED:
        assert not interpretable(PROGRAMS[program])


@pytest.mark.parametrize("name", INTERPRETED)
def test_written_programs_mean_the_same_in_both_paths(name: str) -> None:
    """Programs of row, column and leaf statistics, masks and schedules: both paths agree with the reference."""
    program = PROGRAMS[name]
    expected = reference(program)
    np.testing.assert_allclose(interpreted(program), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(compiled_paths([program])[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", COMPILED)
def test_written_matrix_programs_mean_the_same(name: str) -> None:
    """Iterations, roots and eigenbases in float32 are the reference's to 1 part in 100.

    A decomposition divides by gaps between eigenvalues and takes roots of small ones, so single precision leaves less
    than in a sum, and the shift of a power iteration is larger there.
    """
    np.testing.assert_allclose(compiled_paths([PROGRAMS[name]])[0], reference(PROGRAMS[name]), rtol=1e-2, atol=2e-3)


@pytest.mark.slow
def test_random_programs_mean_the_same() -> None:
    """Over all ops and kinds, both paths agree where both run, and with the reference where rounding is harmless.

    Rounding is harmless where float32 and float64 agree; a program that takes the sign of a difference of equals, or
    an eigenbasis of equal eigenvalues, may differ. Such programs are few.
    """
    source = random_programs()
    programs = [next(source) for _ in range(RANDOM)]
    paths = compiled_paths(programs)
    both = [(p, interpreted(p), theirs) for p, theirs in zip(programs, paths, strict=True) if interpretable(p)]
    assert RANDOM / 5 < len(both) < RANDOM * 4 / 5
    apart = [f"{p}\n{ours}\n{theirs}" for p, ours, theirs in both if not close(ours, theirs, 1e-4)]
    assert len(apart) <= 2, "\n".join(apart)
    off = [
        f"{p}\n{theirs}\n{reference(p)}"
        for p, theirs in zip(programs, paths, strict=True)
        if not close(theirs, reference(p), 1e-3)
    ]
    assert len(off) <= 3, "\n".join(off)


def test_only_programs_beyond_the_paper_pay_for_the_larger_loop() -> None:
    """The loop of the Lion paper's ops compiles sooner; a program takes the other one for an op beyond them alone."""
    for name in ("identity", *FULL):
        kinds = next((k for k in OPS[name].signatures if set(k) <= {Kind.TENSOR} and has_instruction(name, k)), None)
        if kinds is not None:
            in_paper = name == "identity" or name in LION
            assert encode(call(name, kinds, protected=False)).vocabulary == ("lion" if in_paper else "full")
    assert {encode(PROGRAMS[name]).vocabulary for name in INTERPRETED} == {"full"}


@pytest.mark.slow
def test_known_programs_are_interpreted_as_the_reference() -> None:
    """What a search starts from does what its text says, rounding apart.

    On a tensor of one entry `orthograd` brings a rounding error to the norm of the gradient.
    """
    programs = {name: p for name, p in known().items() if interpretable(p) and name != "orthograd"}
    for name, program in programs.items():
        np.testing.assert_allclose(interpreted(program), reference(program), rtol=2e-4, atol=1e-5, err_msg=name)


def job(program: Program, **options: Any) -> Job:
    return Job(0, program, "digits-mlp", **({"steps": 12, "seeds": (0,), "learning_rates": (1e-3,)} | options))


@pytest.mark.parametrize("name", PROGRAMS)
def test_written_programs_train(name: str) -> None:
    """The probe and a job on a task take programs over matrices as they take others."""
    assert probe(PROGRAMS[name]).status is ProbeStatus.OK
    score = evaluate_job(job(PROGRAMS[name]))
    assert score.status is Status.OK
    assert score.curve[-1] < score.curve[0]
