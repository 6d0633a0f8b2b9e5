from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from evolion.primitives import matrices
from evolion.primitives.jax_execution import stepper
from evolion.primitives.kinds import SIDES, Kind
from evolion.primitives.numpy_interpreter import trajectory
from evolion.primitives.op import Matrixwise, Op
from evolion.primitives.ops import OPS
from evolion.primitives.parser import parse

MATRIXWISE = [op for op in OPS.values() if isinstance(op.meaning, Matrixwise)]
MUON = (3.4445, -4.775, 2.0315)
CONVERGENT = (1.875, -1.25, 0.375)  # (15 x - 10 x^3 + 3 x^5) / 8
M, N = 3, 4


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """float64 throughout, no promotion that a program's author did not write, and IEEE arithmetic without warnings."""
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        stack.enter_context(jax.numpy_dtype_promotion("strict"))
        stack.enter_context(jax.numpy_rank_promotion("raise"))
        stack.enter_context(np.errstate(all="ignore"))
        yield


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def definite(side: int = N) -> np.ndarray:
    x = rng().normal(size=(side, side))
    return np.asarray(x @ x.T + 0.1 * np.eye(side))


def of_kind(kind: Kind, dtype: Any = np.float64) -> np.ndarray:
    """A random matrix of the sides of a kind."""
    lengths = {"1": 1, "m": M, "n": N}
    shape = tuple(lengths[side] for side in SIDES[kind])
    return np.asarray(rng().normal(size=() if kind in (Kind.SCALAR, Kind.LEAF) else shape), dtype)


HOSTILE = {
    "zero": np.zeros((N, N)),
    "ones": np.ones((N, N)),
    "identity": np.eye(N),
    "nilpotent": np.eye(N, k=1),
    "rank 1": np.outer(np.arange(float(N)), np.arange(float(N))),
    "huge": definite() * 1e307,
    "largest": np.full((N, N), np.finfo(np.float64).max),
    "tiny": definite() * 1e-300,
    "denormal": np.full((N, N), 5e-324),
    "negative": -definite(),
    "NaN": np.where(np.eye(N) > 0, np.nan, 1.0),
    "infinite": np.where(np.eye(N) > 0, np.inf, 1.0),
    "minus infinity": np.full((N, N), -np.inf),
}


@pytest.mark.parametrize("op", MATRIXWISE, ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_that_of_the_arguments(op: Op, dtype: Any) -> None:
    """Constants of float64 make no float32 state wider, in NumPy as under strict promotion in JAX."""
    assert isinstance(op.meaning, Matrixwise)
    compute = op.meaning.compute
    for kinds in op.signatures:
        args = [of_kind(kind, dtype) if kind is not Kind.SCALAR else 2.0 for kind in kinds]
        ours = compute(np, *args)
        theirs = jax.eval_shape(lambda x, others=args[1:]: compute(jnp, x, *others), args[0])
        assert (np.result_type(ours), theirs.dtype) == (dtype, dtype)
        assert np.size(ours) == theirs.size


DECOMPOSITIONS = ("inverse", "inverse_root", "eigenvectors", "power_iteration", "orthogonalize")
NUMBERS = {"inverse_root": (4.0,), "orthogonalize": (5.0, *MUON)}


@pytest.mark.parametrize("name", DECOMPOSITIONS)
def test_no_matrix_raises(name: str) -> None:
    """NaN, infinities, singular, huge and tiny matrices end in numbers or NaN, the same with NumPy and JAX."""
    compute = getattr(matrices, name)
    bases = (np.zeros((N, N)), np.eye(N)) if name == "power_iteration" else (None,)
    run = jax.jit(lambda x, *others: compute(jnp, x, *others, *NUMBERS.get(name, ())))
    for case, x in HOSTILE.items():
        for basis in bases:
            args = (x,) if basis is None else (x, basis)
            ours, theirs = compute(np, *args, *NUMBERS.get(name, ())), np.asarray(run(*args))
            assert ours.shape == theirs.shape == x.shape
            if not np.isfinite(x).all():
                assert np.isnan([ours, theirs]).all(), case
            elif name != "inverse":
                assert np.isfinite([ours, theirs]).all(), case
            # A machine that takes denormal numbers for zero sees another matrix; singular ones are so by rounding.
            if case != "denormal" and (name, case) != ("inverse", "rank 1"):
                np.testing.assert_allclose(theirs, ours, rtol=1e-6, atol=1e-6, err_msg=case)
    singular = np.outer([1.0, 2.0], [3.0, 4.0])
    assert np.isfinite(matrices.power_iteration(np, singular, singular)).all()


@pytest.mark.parametrize("factor", [1e-300, 1.0, 1e300])
def test_inverse(factor: float) -> None:
    """The inverse is that of NumPy at any scale, and NaN where there is none."""
    x = definite() + np.triu(np.ones((N, N)))
    np.testing.assert_allclose(matrices.inverse(np, x * factor) * factor, np.linalg.inv(x), rtol=1e-10)
    assert np.isnan(matrices.inverse(np, np.diag([1.0, 0.0, 2.0]) * factor)).all()


@pytest.mark.parametrize("p", [1.0, 2.0, 4.0, 3.5, -1.0, -2.0])
def test_inverse_root(p: float) -> None:
    """The inverse root is the fractional power of SciPy; scales of a matrix come out as those of its root."""
    expected = scipy.linalg.fractional_matrix_power(definite(), -1 / p)
    np.testing.assert_allclose(matrices.inverse_root(np, definite(), p), expected, rtol=1e-9)
    for factor in (1e-300, 1e300):
        ours = matrices.inverse_root(np, definite() * factor, p) / factor ** (-1 / p)
        np.testing.assert_allclose(ours, expected, rtol=1e-9)


def test_inverse_root_of_singular_matrices() -> None:
    """Eigenvalues that are rounding errors count as a share of the largest; the root of nothing is nothing."""
    x = np.diag([4.0, 1.0, 0.0])
    np.testing.assert_allclose(np.diag(matrices.inverse_root(np, x, 2.0)), [0.5, 1.0, 1 / np.sqrt(4e-12)])
    np.testing.assert_array_equal(matrices.inverse_root(np, np.zeros((N, N)), 2.0), np.zeros((N, N)))


def test_eigenvectors() -> None:
    """Columns are orthonormal eigenvectors, the largest eigenvalue first, and their signs are fixed."""
    x = definite()
    vectors = matrices.eigenvectors(np, x)
    values, expected = np.linalg.eigh(x)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(N), atol=1e-12)
    np.testing.assert_allclose(np.diag(vectors.T @ x @ vectors), values[::-1], rtol=1e-6)
    np.testing.assert_allclose(np.abs(vectors), np.abs(expected[:, ::-1]), atol=1e-5)
    np.testing.assert_allclose(matrices.eigenvectors(np, np.eye(N)), np.eye(N), atol=1e-12)
    np.testing.assert_allclose(matrices.eigenvectors(np, np.zeros((N, N))), np.eye(N), atol=1e-12)


def test_power_iteration_converges() -> None:
    """Steps from the zero that slots start with lead to the eigenvectors; each basis is orthonormal."""
    x, q = np.diag([1.0, 4.0, 16.0]) + 0.1, np.zeros((3, 3))
    for _ in range(40):
        q = matrices.power_iteration(np, x, q)
        np.testing.assert_allclose(q.T @ q, np.eye(3), atol=1e-12)
    expected = np.linalg.eigh(x)[1][:, ::-1]
    np.testing.assert_allclose(np.abs(q), np.abs(expected), atol=1e-6)
    basis, triangle = np.linalg.qr(definite())
    one = matrices.power_iteration(np, definite(), np.eye(N))
    np.testing.assert_allclose(one, basis * np.sign(np.diag(triangle)), atol=1e-6)


SINGULAR = {
    "zero": np.zeros((6, 6)),
    "identity": np.eye(6),
    "ones": np.ones((6, 6)),
    "rank 2": np.asarray((lambda x: x @ x.T)(np.random.default_rng(1).normal(size=(6, 2)))),
    "blocks": np.kron(np.eye(2), np.ones((3, 3))),
}


@pytest.mark.parametrize("case", SINGULAR)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-6), (np.float32, 2e-2)])
def test_the_last_bits_do_not_matter(case: str, dtype: Any, tolerance: float) -> None:
    """Matrices with equal eigenvalues and kernels have one basis, whatever a platform's rounding does to them."""
    x = np.asarray(SINGULAR[case], dtype)
    epsilon = 4.5 * float(np.finfo(dtype).eps)
    basis = np.linalg.qr(rng().normal(size=x.shape))[0].astype(dtype)
    for _ in range(5):
        noise = rng().choice([-1.0, 0.0, 1.0], size=x.shape)
        near = np.asarray(x * (1 + epsilon * (noise + noise.T) / 2), dtype)
        for name, *args in (("eigenvectors",), ("inverse_root", 4.0), ("power_iteration", basis)):
            compute = getattr(matrices, name)
            one, other = compute(np, x, *args), compute(np, near, *args)
            scale = max(1.0, float(np.abs(one).max()))
            np.testing.assert_allclose(other / scale, one / scale, atol=tolerance, err_msg=name)
        ours, theirs = matrices.eigenvectors(np, x), matrices.eigenvectors(jnp, jnp.asarray(x))
        np.testing.assert_allclose(theirs, ours, atol=tolerance)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (3, 4), (4, 3), (4, 4)], ids=str)
def test_orthogonalize_finds_the_polar_factor(shape: tuple[int, int]) -> None:
    """Ten convergent steps bring every singular value to 1 and leave the singular vectors; a vector gets norm 1."""
    x = rng().normal(size=shape) + 2 * np.eye(*shape)
    left, _, right = np.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(matrices.orthogonalize(np, x, 10.0, *CONVERGENT), left @ right, atol=1e-6)
    muon = matrices.orthogonalize(np, x, 5.0, *MUON)
    assert 0.5 < np.linalg.svd(muon, compute_uv=False).min() < np.linalg.svd(muon, compute_uv=False).max() + 1e-9 < 1.3


def test_orthogonalize_of_singular_matrices() -> None:
    """The kernel stays a kernel, nothing becomes nothing, and no division by the norm of zero is seen."""
    x = np.outer([1.0, 2.0, 2.0], [0.6, 0.8])
    np.testing.assert_allclose(matrices.orthogonalize(np, x, 10.0, *CONVERGENT), x / 3, atol=1e-9)
    np.testing.assert_array_equal(matrices.orthogonalize(np, np.zeros((2, 3)), 5.0, *MUON), np.zeros((2, 3)))


@pytest.mark.parametrize("steps", [-3.0, 0.0, 0.4, 1.0, 4.6, 5.0, 10.0, 11.0, 1e300, np.nan, np.inf, -np.inf])
def test_steps_may_be_traced(steps: float) -> None:
    """A number of steps that is computed in a program does what the same constant does, and never more than ten."""
    x = rng().normal(size=(2, 3))
    static = matrices.orthogonalize(np, x, steps, *MUON)
    traced = _orthogonalize(x, jnp.asarray(steps))
    np.testing.assert_allclose(traced, static, rtol=1e-9)
    whole = 0.0 if np.isnan(steps) else min(max(np.round(steps), 0.0), 10.0)
    np.testing.assert_array_equal(static, matrices.orthogonalize(np, x, whole, *MUON))


@jax.jit
def _orthogonalize(x: Any, steps: Any) -> Any:
    return matrices.orthogonalize(jnp, x, steps, *MUON)


def test_sorting() -> None:
    """The permutation puts numbers in descending order and undoes itself with its transpose; ties keep their order."""
    x = np.array([[2.0, np.nan, -1.0, 2.0, np.inf, 0.0]])
    p = matrices.sorting(np, x)
    np.testing.assert_array_equal(np.argmax(p, axis=0), [4, 0, 3, 5, 2, 1])
    np.testing.assert_array_equal(p @ p.T, np.eye(6))
    np.testing.assert_array_equal(matrices.sorting(jnp, jnp.asarray(x)), p)
    finite = np.array([[3.0, -1.0, 7.0]])
    np.testing.assert_array_equal(finite @ matrices.sorting(np, finite), [[7.0, 3.0, -1.0]])
    ordered = np.arange(4.0)[::-1][None]
    np.testing.assert_array_equal(matrices.sorting(np, ordered), np.eye(4))


@pytest.mark.parametrize(
    ("k", "count"),
    [
        *((0.0, 0), (1.0, 1), (2.0, 3), (3.0, 3), (3.4, 3), (4.0, 4), (5.0, 6), (6.0, 6), (7.0, 6), (1e300, 6)),
        *((-5.0, 0), (np.nan, 0), (np.inf, 6), (-np.inf, 0), (0.4, 0), (0.6, 1)),
    ],
)
def test_top_k(k: float, count: int) -> None:
    """As many entries count as k says, ties with the last one too; a k out of range is brought into it."""
    x = np.array([[3.0, 1.0, 2.0], [2.0, -np.inf, np.nan]])
    mask = matrices.top_k_mask(np, x, k)
    np.testing.assert_array_equal(matrices.top_k_mask(jnp, jnp.asarray(x), jnp.asarray(k)), mask)
    # NaN counts as smallest, level with minus infinity.
    assert mask.sum() == count
    assert count in (0, 6) or np.isfinite(x[mask > 0]).all()


def test_plain_matrix_ops() -> None:
    """Products, transposes and diagonals are those of NumPy."""
    x, y, s = rng().normal(size=(2, 3)), rng().normal(size=(3, 3)), rng().normal(size=(3, 3))
    expected = {
        "matmul": (x @ y, (x, y)),
        "matmul_transposed": (x @ x.T, (x, x)),
        "transposed_matmul": (x.T @ x, (x, x)),
        "left_gram": (x @ x.T, (x,)),
        "right_gram": (x.T @ x, (x,)),
        "transpose": (s.T, (s,)),
        "eye": (np.eye(3), (s,)),
        "trace": (s[0, 0] + s[1, 1] + s[2, 2], (s,)),
        "diagonal": (s[range(3), range(3)], (s,)),
        "diagonal_matrix": (np.eye(3) * x[0], (x[:1],)),
        "upper_triangle": (np.where(np.arange(3)[:, None] <= np.arange(3), s, 0.0), (s,)),
        "entry_count": (6.0, (x,)),
        "row_count": (2.0, (x,)),
        "column_count": (3.0, (x,)),
    }
    others = {*DECOMPOSITIONS, "sorting", "top_k_mask"}
    assert set(expected) | others == {op.name for op in MATRIXWISE}
    for name, (value, args) in expected.items():
        np.testing.assert_allclose(getattr(matrices, name)(np, *args), value, rtol=1e-14, err_msg=name)


@pytest.mark.parametrize(
    "expression",
    [
        *("orthogonalize(g, 1e300, 3.4, -4.7, 2)", "orthogonalize(g, 5, 1e300, 1e300, 1e300)"),
        *(
            "orthogonalize(g, exp(1e3), 1, 1, 1)",
            "orthogonalize(g, 0 / 0, 1, 1, 1)",
            "orthogonalize(1e308 * g, 5, 1, 1, 1)",
        ),
        *("top_k_mask(g, 1e300)", "top_k_mask(g, -1e300)", "top_k_mask(g, 1e300 / 0)", "top_k_mask(0 / g, 2)"),
        *("matmul(inverse(left_gram(g * 1e200)), g)", "matmul(inverse_root(left_gram(g), 1e300), g)"),
        *("matmul(inverse_root(left_gram(g), 1e-300), g)", "matmul(eigenvectors(left_gram(g * 1e200)), g)"),
        *("matmul(power_iteration(left_gram(g), left_gram(g) * 1e300), g)", "power(1e300, 1e300) * g"),
        *("mod(g, 1e-300)", "mod(1e300, g)", "floor(1e300 * g)", "clip_value(g, 1e300, -1e300)"),
    ],
)
def test_hostile_constants(expression: str) -> None:
    """A text can ask for any number: none makes a step fail or last."""
    program = parse(f"def train(g):\n    return {expression}\n")
    tree = [rng().normal(size=shape) for shape in ((2, 3), ())]
    path = trajectory(program, tree, [tree, tree])
    assert [tensor.shape for tensor in path[-1]] == [tensor.shape for tensor in tree]
    shapes = [tensor.shape for tensor in tree]
    run = jax.jit(lambda g: stepper(program)({"g": g}, shapes, jnp.float32)[0])
    update = run([jnp.asarray(tensor, jnp.float32) for tensor in tree])
    assert [(leaf.shape, leaf.dtype) for leaf in update] == [(shape, jnp.float32) for shape in shapes]


@pytest.mark.parametrize("op", MATRIXWISE, ids=lambda op: op.name)
@pytest.mark.parametrize("empty", ["m", "n"])
def test_tensors_without_entries_have_a_meaning(op: Op, empty: str) -> None:
    """An optimizer runs over a parameter tree with an empty leaf: the results are empty as well, or sums of nothing."""
    lengths = {"1": 1, "m": M, "n": N} | {empty: 0}
    meaning = op.meaning
    assert isinstance(meaning, Matrixwise)
    for kinds, result in op.signatures.items():
        for xp in (np, jnp):
            numbers = (Kind.SCALAR, Kind.LEAF)
            views = [2.0 if k in numbers else xp.zeros([lengths[s] for s in SIDES[k]], xp.float64) for k in kinds]
            size = np.prod([lengths[side] for side in SIDES[result]]) if result not in numbers else 1
            assert np.size(meaning.compute(xp, *views)) == size
