import json
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from evolion.primitives import keys, probing
from evolion.primitives.keys import ProbeStatus, behavioural_key, probe, structural_key
from evolion.primitives.op import Matrixwise
from evolion.primitives.ops import OPS
from evolion.primitives.parser import parse
from evolion.primitives.probing import DECOMPOSITIONS, PLAIN, TAME, ProbeInputs, has_decomposition, probe_updates
from evolion.primitives.program import Program

SHAMPOO = """\
def train(g, lr, l: left, r: right):
    l = l + left_gram(g)
    r = r + right_gram(g)
    return lr * matmul(matmul(inverse_root(l, 4), g), inverse_root(r, 4)), l, r
"""
SOAP = """\
def train(g, m, v, lr, l: left, r: right, ql: left, qr: right, *, b1=0.9, b2=0.95, eps=1e-8):
    l = interp(left_gram(g), l, b2)
    r = interp(right_gram(g), r, b2)
    ql = power_iteration(l, ql)
    qr = power_iteration(r, qr)
    m = interp(g, m, b1)
    rotated = matmul(transposed_matmul(ql, g), qr)
    v = interp(square(rotated), v, b2)
    update = matmul(transposed_matmul(ql, m), qr) / (sqrt(v) + eps)
    return lr * matmul_transposed(matmul(ql, update), qr), m, v, l, r, ql, qr
"""
MUON = """\
def train(g, m, lr):
    m = g + 0.95 * m
    return lr * orthogonalize(m, 5, 3.4445, -4.775, 2.0315), m
"""
EIGENBASIS = """\
def train(g, lr, r: right):
    r = r + right_gram(g)
    return lr * matmul(sign(matmul(g, eigenvectors(r + eye(r)))), transpose(eigenvectors(r + eye(r)))), r
"""
NEWTON = """\
def train(g, lr, l: left):
    l = l + left_gram(g)
    return lr * matmul(inverse(l + 0.1 * eye(l)), g), l
"""
MATRIX_PROGRAMS = {"Shampoo": SHAMPOO, "SOAP": SOAP, "Muon": MUON, "eigenbasis": EIGENBASIS, "Newton": NEWTON}


def of(expression: str, parameters: str = "w, g, lr, m") -> Program:
    return parse(f"def train({parameters}):\n    m = interp(g, m, 0.9)\n    return {expression}, m\n")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("equal(sign(w), sign(g)) * m", "equal(sign(g), sign(w)) * m"),
        ("not_equal(sign(w), sign(g))", "not_equal(sign(g), sign(w))"),
    ],
)
def test_commutative_comparisons(one: str, other: str) -> None:
    """Comparisons for equality may be written either way."""
    assert structural_key(of(one)) == structural_key(of(other))
    assert probe(of(one)) == probe(of(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("where(greater(w, 0), w, 0)", "max(w, 0)"),
        ("where(greater(w, g), w, g)", "max(g, w)"),
        ("clip_value(w, -1, 1)", "min(max(w, -1), 1)"),
        ("sigmoid(w)", "1 / (1 + exp(-w))"),
        ("softplus(w)", "log1p(exp(w))"),
        ("row_sum(w) / row_sum(w * 0 + 1)", "row_mean(w)"),
        ("sqrt(column_sum(square(w)))", "column_norm(w)"),
        ("sqrt(trace(left_gram(w))) + w", "norm(w) + w"),
        ("diagonal(left_gram(w)) + w", "row_sum(square(w)) + w"),
        ("matmul(left_gram(w), g)", "matmul(w, transposed_matmul(w, g))"),
        ("matmul(matmul_transposed(w, w), g)", "matmul(left_gram(w), g)"),
        ("matmul(g, transpose(transpose(right_gram(w))))", "matmul(g, right_gram(w))"),
        ("matmul(eye(left_gram(w)), g)", "g"),
        ("w * top_k_mask(w, 0)", "w * 0"),
    ],
)
def test_identities_of_the_full_vocabulary(one: str, other: str) -> None:
    """Comparisons, reductions and products of matrices are seen through as well."""
    assert structural_key(of(one)) != structural_key(of(other))
    assert probe(of(one)) == probe(of(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("matmul(g, inverse_root(right_gram(w), 2))", "matmul(g, inverse_root(right_gram(w), 4))"),
        ("matmul(g, inverse_root(right_gram(w), -1))", "matmul(inverse_root(left_gram(w), -1), g)"),
        ("orthogonalize(g, 5, 2, -1.5, 0.5)", "orthogonalize(g, 4, 2, -1.5, 0.5)"),
        ("orthogonalize(g, 5, 2, -1.5, 0.5)", "orthogonalize(g, 5, 2, -1.5, 0.51)"),
        ("matmul(left_gram(w), g)", "matmul(w, transposed_matmul(g, w))"),
        ("matmul(matmul_transposed(w, g), m)", "matmul(matmul_transposed(g, w), m)"),
        ("g * top_k_mask(w, 5)", "g * top_k_mask(w, 6)"),
        ("g * top_k_mask(row_sum(w), 2)", "g * top_k_mask(column_sum(w), 2)"),
        ("w / row_norm(w)", "w / column_norm(w)"),
        ("w / row_norm(w)", "w / norm(w)"),
        ("w * row_mean(g)", "w * column_mean(g)"),
        ("w * tensor_max(g)", "w * global_max(g)"),
        ("w - row_mean(w)", "w - tensor_mean(w)"),
        ("where(greater(w, g), w, g)", "where(less(w, g), w, g)"),
        ("where(greater(w, 0), g, m)", "where(greater(w, 0), m, g)"),
        ("matmul(eigenvectors(left_gram(w)), g)", "transposed_matmul(eigenvectors(left_gram(w)), g)"),
        ("matmul(power_iteration(left_gram(w), left_gram(g)), g)", "matmul(eigenvectors(left_gram(w)), g)"),
        ("g * diagonal(right_gram(w))", "g * diagonal(left_gram(w))"),
        ("matmul(upper_triangle(left_gram(w)), g)", "matmul(transpose(upper_triangle(left_gram(w))), g)"),
        ("matmul(sorting(row_sum(w)), g)", "transposed_matmul(sorting(row_sum(w)), g)"),
    ],
)  # fmt: skip
def test_what_differs_in_the_full_vocabulary(one: str, other: str) -> None:
    """Rows, columns and tensors, left and right, a matrix and its transpose, and numbers of steps are told apart."""
    assert structural_key(of(one)) != structural_key(of(other))
    assert behavioural_key(of(one)) != behavioural_key(of(other))


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (SHAMPOO, "inverse_root(l, 4)", "inverse_root(l, 2)"),
        (SHAMPOO, "l + left_gram(g)", "interp(left_gram(g), l, 0.99)"),
        (SHAMPOO, "matmul(matmul(inverse_root(l, 4), g), inverse_root(r, 4))", "matmul(inverse_root(l, 4), g)"),
        (SOAP, "b1=0.9,", "b1=0.91,"),
        (SOAP, "b2=0.95", "b2=0.96"),
        (SOAP, "eps=1e-8", "eps=1e-4"),
        (SOAP, "power_iteration(l, ql)", "eigenvectors(l)"),
        (MUON, "0.95", "0.951"),
        (MUON, "5, 3.4445", "4, 3.4445"),
        (NEWTON, "0.1 *", "0.11 *"),
    ],
)
def test_matrix_programs_that_differ(text: str, old: str, new: str) -> None:
    """Coarser rounding still separates what a constant or a root changes in the matrix optimizers."""
    assert old in text
    assert behavioural_key(parse(text)) != behavioural_key(parse(text.replace(old, new)))
    assert structural_key(parse(text)) != structural_key(parse(text.replace(old, new)))


def test_slots_of_different_kinds() -> None:
    """A slot's kind is part of the structure, and shows in the behaviour where widening changes what is computed."""
    text = "def train(g, a: KIND):\n    a = a + norm(g)\n    return g / max(norm(a + 0 * g), 1), a\n"
    kinds = ("leaf", "row", "column", "tensor")
    found = [structural_key(parse(text.replace("KIND", kind))) for kind in kinds]
    assert len(set(found)) == len(kinds)
    square = "def train(g, a: KIND):\n    a = 0.5 * a + norm(g)\n    return PRODUCT, a\n"
    left = parse(square.replace("KIND", "left").replace("PRODUCT", "matmul(a, g)"))
    right = parse(square.replace("KIND", "right").replace("PRODUCT", "matmul(g, a)"))
    assert structural_key(left) != structural_key(right)
    assert behavioural_key(left) != behavioural_key(right)


def test_swapped_slots_of_all_kinds() -> None:
    """The names and the order of slots do not count, whatever their kinds."""
    text = SHAMPOO.replace("lr, l: left, r: right", "lr, r: right, l: left").replace(", l, r\n", ", r, l\n")
    renamed = SHAMPOO.replace("l: left, r: right", "a: left, b: right")
    for old, new in (("    l = l +", "    a = a +"), ("    r = r +", "    b = b +"), ("(l, 4)", "(a, 4)")):
        renamed = renamed.replace(old, new)
    renamed = renamed.replace("(r, 4)", "(b, 4)").replace(", l, r\n", ", a, b\n")
    for twin in (text, renamed):
        assert structural_key(parse(twin)) == structural_key(parse(SHAMPOO))
        assert probe(parse(twin)) == probe(parse(SHAMPOO))


def test_decompositions_are_found() -> None:
    """Every op that calls a routine of linear algebra is rounded coarsely, and dead code changes nothing."""
    assert {"inverse", "inverse_root", "eigenvectors", "power_iteration"} == DECOMPOSITIONS
    assert all(isinstance(OPS[name].meaning, Matrixwise) for name in DECOMPOSITIONS)
    assert has_decomposition(parse(SHAMPOO))
    assert not has_decomposition(parse(MUON))
    dead = MUON.replace("    return", "    x = inverse(left_gram(g))\n    return")
    assert not has_decomposition(parse(dead))
    assert probe(parse(dead)) == probe(parse(MUON))


@pytest.mark.parametrize("text", MATRIX_PROGRAMS.values(), ids=MATRIX_PROGRAMS)
def test_matrix_programs_are_bounded(text: str) -> None:
    """What the literature trains with is neither dead nor unbounded on the numbers of the probe."""
    assert probe(parse(text)).status is ProbeStatus.OK


def perturbed(inputs: ProbeInputs, error: float, seed: int) -> tuple[dict[str, NDArray[np.float64]], ...]:
    rng = np.random.default_rng(seed)
    return tuple(
        {name: value * (1.0 + error * rng.choice([-1.0, 1.0], np.shape(value))) for name, value in step.items()}
        for step in inputs.steps
    )


@pytest.mark.parametrize("text", MATRIX_PROGRAMS.values(), ids=MATRIX_PROGRAMS)
def test_last_bits_of_the_inputs_do_not_count(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs that differ in their last bits, as the results of another platform would, give the same key."""
    program = parse(text)
    expected, before = probe(program), probe_updates(program, TAME if has_decomposition(program) else PLAIN)
    for seed in range(3):
        for inputs in (PLAIN, TAME):
            monkeypatch.setitem(inputs.__dict__, "steps", perturbed(inputs, 2.0**-50, seed))
        after = probe_updates(program, TAME if has_decomposition(program) else PLAIN)
        assert probe(program) == expected
        assert not np.array_equal(before, after)
        monkeypatch.undo()


def test_another_processor_gives_the_same_keys() -> None:
    """Keys of matrix programs hang neither on the kernels of the linear algebra library nor on its threads."""
    code = (
        "import json, sys\n"
        "from evolion.primitives.keys import probe\n"
        "from evolion.primitives.parser import parse\n"
        "print(json.dumps([probe(parse(text)).key for text in json.load(sys.stdin)]))\n"
    )
    here = [probe(parse(text)).key for text in MATRIX_PROGRAMS.values()]
    for environment in (
        {"OPENBLAS_CORETYPE": "Nehalem"},
        {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2"},
    ):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(list(MATRIX_PROGRAMS.values())),
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == here, environment


def flip_share(inputs: ProbeInputs, error: float, coarse: bool, trials: int = 200) -> float:
    """How often updates of fixed sizes with an error of each number get another digest."""
    rng = np.random.default_rng(5)
    shape = (inputs.count, inputs.layout.entries)
    flips = 0
    for _ in range(trials):
        updates = rng.standard_normal(shape)
        size = np.abs(updates).max() if coarse else np.abs(updates)
        other = updates + error * size * rng.choice([-1.0, 1.0], shape)
        rounded = keys._coarsely_rounded if coarse else keys._rounded
        flips += rounded(updates) != rounded(other)
    return flips / trials


def test_how_often_rounding_lets_the_last_bits_decide() -> None:
    """The share of programs whose digest flips is what the docstring of `probe` says, measured at larger errors."""
    plain = PLAIN.count * PLAIN.layout.entries
    assert plain == 6144
    assert TAME.count * TAME.layout.entries == 990
    for error in (1e-11, 3e-11, 1e-10):
        expected = 1.0 - np.exp(-plain * 0.72 * 2.0**20 * error)
        assert abs(flip_share(PLAIN, error, coarse=False) - expected) < 0.12
    for error in (1e-8, 1e-7):
        assert flip_share(TAME, error, coarse=True) <= 1.1 * 990 * 2.0**12 * error


def test_gradients_orthogonal_to_the_weights_are_among_the_inputs() -> None:
    """Rules that project on the weights only where a gradient is nearly orthogonal to them are seen (AdamP, SGDP)."""
    step = PLAIN.steps[probing._ORTHOGONAL_STEP]
    for w, g in zip(PLAIN.layout.unflatten(step["w"]), PLAIN.layout.unflatten(step["g"]), strict=True):
        if w.size % 2 == 0:
            assert abs(np.vdot(w, g)) <= 1e-15 * np.linalg.norm(w) * np.linalg.norm(g)
        assert np.linalg.norm(g) > 0.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sign(interp(0.1, m, 0.9))", "sign(interp(0.2, m, 0.9))"),
        ("min(lr, global_norm(g)) * w", "lr * w"),
        ("sign(interp(0.1, m, 0.9)) * w", "sign(0.1) * w"),
        ("where(less(abs(dot(w, g)), 1e-6 * norm(w) * norm(g)), w, g)", "g"),
    ],
)
def test_thresholds_that_training_crosses(one: str, other: str) -> None:
    """Signs of averages, tiny gradient norms and near-orthogonality decide in training, and so in the probe."""
    assert behavioural_key(of(one)) != behavioural_key(of(other))
