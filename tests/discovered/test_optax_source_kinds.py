import random
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exported_modules import UNSTABLE, assert_close, imported, moderate
from strategies import random_program

from evolion.discovered.library import known
from evolion.discovered.optax_source import to_source
from evolion.discovered.optax_transform import to_optax
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.numpy_interpreter import trajectory
from evolion.primitives.op import Elementwise
from evolion.primitives.ops import OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import Program

PROGRAMS_OF_ALL_KINDS = {
    "soap": """
def train(g, m, v, L: left, R: right, Q: left, P: right, lr, t, *, b1=0.9, b2=0.95, eps=1e-8):
    L = interp(left_gram(g), L, b2)
    R = interp(right_gram(g), R, b2)
    Q = power_iteration(L, Q)
    P = power_iteration(R, P)
    m = interp(g, m, b1)
    rotated = matmul(transposed_matmul(Q, g), P)
    v = interp(square(rotated), v, b2)
    mean = matmul(transposed_matmul(Q, m), P)
    step = mean / (1 - b1 ** t) / (sqrt(v / (1 - b2 ** t)) + eps)
    return lr * matmul_transposed(matmul(Q, step), P), m, v, L, R, Q, P
""",
    "cautious_global": """
def train(g, m, lr, *, b1=0.9):
    m = interp(g, m, b1)
    mask = greater(g * m, 0)
    return lr * (m * mask / (global_mean(mask) + 1e-3)), m
""",
    "top_k": """
def train(g, e, lr, *, share=0.25):
    g = g + e
    sent = g * top_k_mask(abs(g), share * entry_count(g))
    e = g - sent
    return lr * sent, e
""",
    "periodic": """
def train(w, g, m, lr, t, horizon, *, every=2, b1=0.9):
    m = where(equal(mod(t, every), 0), interp(g, m, b1), m)
    late = greater_equal(t, 0.5 * horizon)
    rate = where(late, lr * (1 - t / horizon), lr)
    return rate * where(less(abs(w), 0.1), 1, 2) * sign(m), m
""",
    "odd_kinds": """
def train(g, m, n: leaf, s: scalar, r: row, c: column, L: left, R: right, lr):
    L = L + matmul_transposed(g, g)
    d = diagonal(L)
    r = r + sqrt(d)
    e = diagonal(R) + transposed_matmul(r, g)
    c = c + matmul_transposed(e, eye(R))
    n = n + transposed_matmul(r, r) + trace(R)
    s = s + global_sum(n) + global_max(r)
    R = 0.5 * R + diagonal_matrix(c) + upper_triangle(right_gram(g))
    m = matmul(r, c) + matmul(sorting(r), g)
    return lr * (m / (1 + n) + s * r), m, n, s, r, c, L, R
""",
    "no_tensor": """
def train(L: left, r: row, lr, t):
    L = eye(L) * t
    r = r + diagonal(L)
    return lr * r, L, r
""",
    "no_tensor_whole": """
def train(L: left, r: row, lr, t):
    L = eye(L) * t
    r = r + diagonal(L) * global_norm(L)
    return lr * r, L, r
""",
    "rebound": """
def train(g, L: left, lr):
    L = L + left_gram(g)
    g = orthogonalize(g, 3, 1.5, -0.5, 0)
    d = diagonal(L)
    g = g * d
    c = matmul_transposed(g, column_sum(g)) * column_max(g)
    return lr * c, L
""",
}

RANKS = ((), (3,), (2, 3), (3, 1, 2), (2, 1, 2, 3))


def assert_same_path(program: Program, folder: Path, *, steps: int = 2, rtol: float = 1e-9) -> None:
    """The exported module and `to_optax` take the weights along the path of the NumPy meaning, in float64."""
    rng = np.random.default_rng(3)
    start = [rng.normal(size=shape) for shape in RANKS]
    gradients = [[rng.normal(size=shape) for shape in RANKS] for _ in range(steps)]
    given: dict[str, Any] = {"horizon": [10.0] * steps, "loss": [0.7] * steps, "hess": gradients}
    path = trajectory(program, start, gradients, learning_rate=0.1, inputs=given)
    inputs = program.inputs
    build = ({"learning_rate": 0.1} if "lr" in inputs else {}) | ({"horizon": 10} if "horizon" in inputs else {})
    with jax.enable_x64(True):
        for made in (to_optax(program, **build), imported(to_source(program, "optax"), folder)(**build)):
            weights = [jnp.asarray(tensor) for tensor in start]
            state = made.init(weights)
            types = jax.tree.map(jax.typeof, tuple(state))
            for gradient, expected in zip(gradients, path[1:], strict=True):
                extra = {"value": jnp.float64(0.7)} if "loss" in inputs else {}
                extra |= {"hess": gradient} if "hess" in inputs else {}
                change, state = made.update([jnp.asarray(g) for g in gradient], state, weights, **extra)
                weights = [w + c for w, c in zip(weights, change, strict=True)]
                assert_close(expected, weights, rtol, str(program))
                assert jax.tree.map(jax.typeof, tuple(state)) == types


@pytest.mark.parametrize("name", PROGRAMS_OF_ALL_KINDS)
def test_exported_programs_of_all_kinds_follow_the_reference(name: str, tmp_path: Path) -> None:
    """Rows, columns, square matrices and masks are exported, for tensors of rank 0 to 4."""
    assert_same_path(parse(PROGRAMS_OF_ALL_KINDS[name]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", known())
def test_exported_known_programs_follow_the_reference(name: str, tmp_path: Path) -> None:
    """Every known program can be pasted into a project and does there what its text says."""
    if "noise" not in known()[name].inputs:
        assert_same_path(known()[name], tmp_path, rtol=1e-6)


def test_random_programs_of_all_kinds_follow_the_reference(tmp_path: Path) -> None:
    """Slots and values of each kind, widened, rebound and shared, survive the export."""
    rng, found = random.Random(8), 0
    gentle = {
        "add",
        "subtract",
        "max",
        "min",
        "interp",
        "abs",
        "tanh",
        "sign",
        "where",
        "greater",
        "top_k_mask",
        "multiply",
    }
    ops = tuple(gentle) + tuple(
        n for n, op in OPS.items() if not isinstance(op.meaning, Elementwise) and n not in UNSTABLE
    )
    while found < 10:
        program = remove_dead_code(random_program(rng, statements=14, ops=ops, prose=False))
        kinds = {slot.kind for slot in program.slots}
        if moderate(program) and len(program.statements) > 4 and len(kinds) > 1 and "noise" not in program.inputs:
            assert_same_path(program, tmp_path, rtol=1e-7)
            found += 1
