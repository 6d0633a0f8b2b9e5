import ast
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from strategies import trees

from evolion.primitives.kinds import Kind
from evolion.primitives.ops import EPSILON, LION, OPS, Elementwise, Op, Reduction, accepts, result_kind

UNARY = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -3.7, 1e-8, -1e-8, 1e-300, -1e-300, 5e-324, -5e-324, 1e-310, 20.0]
UNARY += [-20.0, 300.0, 709.0, -745.0, 1e15, 1e200, -1e200, 1.7e308, -1.7e308, np.inf, -np.inf, np.nan, np.pi / 2]
FEW = [0.0, -0.0, 1.0, -1.0, 0.3, -2.5, 1e-310, 1e200, -1e200, np.inf, -np.inf, np.nan]
ELEMENTWISE = [op for op in OPS.values() if isinstance(op.meaning, Elementwise)]
REDUCTIONS = [op for op in OPS.values() if isinstance(op.meaning, Reduction)]
TREE = [np.arange(6.0).reshape(2, 3) - 2.5, np.array(3.0), np.array([-1.0, 4.0])]
OTHER = [np.cos(tensor) for tensor in TREE]


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def named(op: Op) -> str:
    return op.name


def arguments(op: Op) -> list[np.ndarray]:
    """Special numbers in every combination, one array for each argument."""
    table = list(itertools.product(UNARY if op.arity < 2 else FEW, repeat=op.arity))
    return list(np.array(table, np.float64).reshape(len(table), op.arity).T)


def flushed(values: np.ndarray) -> np.ndarray:
    """What a machine sees that takes denormal numbers for zero, as XLA does on CPUs."""
    return np.where(np.abs(values) < np.finfo(np.float64).tiny, np.copysign(0.0, values), values)


def agree(ours: Any, theirs: Any, atol: Any = 1e-300) -> np.ndarray:
    ours, theirs = np.broadcast_arrays(np.asarray(ours, np.float64), np.asarray(theirs, np.float64))
    return np.isclose(ours, theirs, rtol=1e-11, atol=atol, equal_nan=True)


@pytest.mark.parametrize("protected", [False, True], ids=["plain", "protected"])
@pytest.mark.parametrize("op", ELEMENTWISE, ids=named)
def test_numpy_and_jax_agree(op: Op, protected: bool) -> None:
    """Both meanings of an op are one function, at infinities, NaN, signed zeros and denormals too."""
    meaning = op.under(protected)
    assert isinstance(meaning, Elementwise)
    values = arguments(op)
    with np.errstate(all="ignore"):
        exact = meaning.numpy(*values)
        coarse = meaning.numpy(*map(flushed, values))
    result = meaning.jax(jnp, *map(jnp.asarray, values))
    # XLA takes denormal arguments and results for zero, or, in a power, for another tiny number.
    denormal = np.any([column != flushed(column) for column in values], axis=0) if op.arity else False
    wrong = ~(agree(result, exact, np.where(denormal, 1e-90, 1e-300)) | agree(result, coarse))
    culprits = [[float(v[i]) for v in values] for i in np.flatnonzero(wrong)] if op.arity else []
    assert not wrong.any(), f"{op.name} differs at {culprits}: {np.asarray(result)[wrong]} for {exact[wrong]}"


@pytest.mark.parametrize("protected", [False, True], ids=["plain", "protected"])
@pytest.mark.parametrize("op", [op for op in ELEMENTWISE if op.arity], ids=named)
def test_dtype_and_shape_are_those_of_the_arguments(op: Op, protected: bool) -> None:
    """No op changes precision or rank: half-precision parameters stay so."""
    meaning = op.under(protected)
    assert isinstance(meaning, Elementwise)
    for dtype in (np.float32, np.float64):
        arrays = [np.full((2, 3), 0.25, dtype)] * op.arity
        with np.errstate(invalid="ignore"):
            ours, theirs = meaning.numpy(*arrays), meaning.jax(jnp, *map(jnp.asarray, arrays))
        assert ours.shape == theirs.shape == (2, 3)
        assert ours.dtype == theirs.dtype == dtype
    half = meaning.jax(jnp, *[jnp.full((2,), 0.25, jnp.bfloat16)] * op.arity)
    assert half.dtype == jnp.bfloat16


@pytest.mark.parametrize("protected", [False, True], ids=["plain", "protected"])
@pytest.mark.parametrize("op", ELEMENTWISE, ids=named)
def test_constants_never_raise(op: Op, protected: bool) -> None:
    """A statement over literals gives infinity or NaN where Python's own floats would raise."""
    meaning = op.under(protected)
    assert isinstance(meaning, Elementwise)
    for args in itertools.product([0.0, -2.5, 1e200], repeat=op.arity):
        with np.errstate(all="ignore"):
            ours = meaning.numpy(*args)
        theirs = meaning.jax(jnp, *args)
        assert agree(theirs, ours).all(), f"{op.name}{args}: {theirs} for {ours}"


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.commutative], ids=named)
def test_commutative_arguments_may_be_swapped(op: Op) -> None:
    """The keys sort the arguments of these ops, so a swap may change no value; zeros of either sign are equal."""
    if isinstance(op.meaning, Elementwise):
        x, y = arguments(op)
        meaning = op.meaning
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(meaning.numpy(x, y), meaning.numpy(y, x))
        one, other = jnp.asarray(x), jnp.asarray(y)
        np.testing.assert_array_equal(meaning.jax(jnp, one, other), meaning.jax(jnp, other, one))
    else:
        assert reduced(op, np, TREE, OTHER) == reduced(op, np, OTHER, TREE)


@pytest.mark.parametrize("op", [op for op in ELEMENTWISE if op.arity == 2 and not op.commutative], ids=named)
def test_other_ops_are_not_commutative(op: Op) -> None:
    """A flag that is missing would cost the structural key an identity."""
    assert isinstance(op.meaning, Elementwise)
    assert op.meaning.numpy(np.float64(2.0), np.float64(3.0)) != op.meaning.numpy(np.float64(3.0), np.float64(2.0))


def reduced(op: Op, namespace: Any, *args: Any) -> list[Any]:
    """The op on trees, from the parts of its record."""
    meaning = op.meaning
    assert isinstance(meaning, Reduction)
    rows = [[a[i] if isinstance(a, list) else a for a in args] for i in range(len(args[0]))]
    sums = [[namespace.sum(term) for term in meaning.terms(namespace, *row)] for row in rows]
    if meaning.scope is Kind.SCALAR:
        sums = [[sum(column) for column in zip(*sums, strict=True)]] * len(rows)
    pairs = zip(sums, rows, strict=True)
    return [meaning.apply(namespace, meaning.combine(namespace, tuple(s), *row), *row) for s, row in pairs]


def reduction_arguments(op: Op, one: Any, other: Any, limit: float) -> list[Any]:
    trees_ = iter([one, other])
    return [next(trees_) if accepts(op, i, Kind.TENSOR) else limit for i in range(op.arity)]


@pytest.mark.parametrize("op", REDUCTIONS, ids=named)
@settings(max_examples=20)
@given(tree=trees())
def test_reductions_agree(op: Op, tree: list[np.ndarray]) -> None:
    """Written once over a namespace, a reduction gives the same with NumPy and with JAX."""
    args = reduction_arguments(op, tree, [np.cos(tensor) for tensor in tree], 0.75)
    mapped = [[jnp.asarray(tensor) for tensor in a] if isinstance(a, list) else a for a in args]
    for ours, theirs in zip(reduced(op, np, *args), reduced(op, jnp, *mapped), strict=True):
        assert np.shape(ours) == theirs.shape
        np.testing.assert_allclose(theirs, ours, rtol=1e-12)


def test_reductions_have_their_scope() -> None:
    """Norm is per parameter tensor; the others see the whole tree as one vector."""
    flat, other = (np.concatenate([np.ravel(tensor) for tensor in tree]) for tree in (TREE, OTHER))
    cosine = flat @ other / np.linalg.norm(flat) / np.linalg.norm(other)
    np.testing.assert_allclose(reduced(OPS["norm"], np, TREE), [np.linalg.norm(tensor.ravel()) for tensor in TREE])
    np.testing.assert_allclose(reduced(OPS["global_norm"], np, TREE), [np.linalg.norm(flat)] * 3)
    np.testing.assert_allclose(reduced(OPS["dot"], np, TREE, OTHER), [flat @ other] * 3)
    np.testing.assert_allclose(reduced(OPS["cosine_sim"], np, TREE, OTHER), [cosine] * 3)
    for limit in (0.5, 100.0):
        scale = min(1.0, limit / np.linalg.norm(flat))
        for ours, tensor in zip(reduced(OPS["clip"], np, TREE, limit), TREE, strict=True):
            np.testing.assert_allclose(ours, scale * tensor)


def test_protected_meanings_are_those_of_the_paper() -> None:
    """Under @protected log and sqrt take |x|, log1p |1 + x|, x / y is x / (y + 1e-8), and nothing else changes."""
    x, y = np.array([-3.0, -0.5, 0.25, 4.0]), np.array([0.0, 2.0, -1.0, 1e-8])
    expected = {
        "log": np.log(np.abs(x)),
        "log2": np.log2(np.abs(x)),
        "log10": np.log10(np.abs(x)),
        "sqrt": np.sqrt(np.abs(x)),
        "log1p": np.log(np.abs(1 + x)),
        "divide": x / (y + 1e-8),
    }
    assert {op.name for op in OPS.values() if op.protected} == set(expected)
    for name, values in expected.items():
        meaning = OPS[name].under(True)
        assert isinstance(meaning, Elementwise)
        np.testing.assert_allclose(meaning.numpy(*[x, y][: OPS[name].arity]), values, rtol=1e-15)
    assert EPSILON == OPS["get_eps"].meaning.numpy() == 1e-8  # type: ignore[union-attr]


@pytest.mark.parametrize("op", OPS.values(), ids=named)
def test_records_are_complete(op: Op) -> None:
    """Every op says what it is, names its own key and has a template for each of its arguments."""
    assert OPS[op.name] is op
    assert op.summary == op.summary.strip() != ""
    assert op.name.isidentifier()
    assert op.arity == 2 or not (op.symbol or op.commutative)
    for meaning in (op.under(False), op.under(True)):
        parts = [meaning.source, meaning.apply_source] if isinstance(meaning, Reduction) else [meaning.source]
        text = " ".join(parts)
        assert [i for i in range(4) if f"{{{i}}}" in text] == list(range(op.arity))
        assert type(meaning) is type(op.meaning)


def counted(source: str) -> int:
    """The operators and calls of an expression; `optax.tree.norm` is a square and a sum, `vdot` a product and a sum."""
    inner = {"optax.tree.norm": 2, "optax.tree.vdot": 2}
    nodes = list(ast.walk(ast.parse(source.format(*"xya"), mode="eval")))
    calls = [inner.get(ast.unparse(node.func), 1) for node in nodes if isinstance(node, ast.Call)]
    return sum(calls) + sum(isinstance(node, ast.BinOp | ast.UnaryOp) for node in nodes)


@pytest.mark.parametrize("protected", [False, True], ids=["plain", "protected"])
@pytest.mark.parametrize("op", OPS.values(), ids=named)
def test_operations_are_those_of_the_source(op: Op, protected: bool) -> None:
    """The cost of an op is what its generated code does for each entry, under protection too."""
    meaning = op.under(protected)
    if isinstance(meaning, Elementwise):
        assert meaning.operations == counted(meaning.source) - (op.name == "interp")  # 1 - a, as a rule a scalar
    else:
        entries = {"norm": 2, "global_norm": 2, "dot": 2, "cosine_sim": 6, "clip": 3}
        assert meaning.operations == entries[op.name]
        if "optax" in meaning.source:  # what is done once, on the sums, counts nothing
            once = {"cosine_sim": 2, "clip": 2}.get(op.name, 0)
            applied = counted(meaning.apply_source.format(*"xya", reduced="r"))
            assert meaning.operations == counted(meaning.source) - once + applied


def test_transcendental_operations() -> None:
    """What hardware does in one instruction is not counted as a call of a function."""
    none = {"identity", "get_pi", "get_e", "get_eps", "abs", "sign", "square", "sqrt", "cube", "reciprocal", "negative"}
    none |= {"add", "subtract", "multiply", "divide", "max", "min", "interp"} | {op.name for op in REDUCTIONS}
    for protected in (False, True):
        found = {op.name: op.under(protected).transcendental for op in OPS.values()}
        assert found == {name: int(name not in none) for name in OPS}


def test_kinds_of_results() -> None:
    """An elementwise result is as wide as its widest argument; a reduction has the kind of its scope."""
    for op in ELEMENTWISE:
        for kinds in itertools.product(Kind, repeat=op.arity):
            assert result_kind(op, kinds) is max(kinds, default=Kind.SCALAR)
            assert all(accepts(op, position, kind) for position, kind in enumerate(kinds))
    found = {op.name: result_kind(op, tuple(a[0] for a in op.accepts)) for op in REDUCTIONS}
    scalars = dict.fromkeys(("global_norm", "dot", "cosine_sim"), Kind.SCALAR)
    assert found == {"norm": Kind.LEAF, "clip": Kind.TENSOR} | scalars
    assert not any(accepts(op, 0, kind) for op in REDUCTIONS for kind in (Kind.SCALAR, Kind.LEAF))


def test_the_vocabulary_of_the_paper() -> None:
    """45 functions less the two without a meaning on floats, plus negation's twin: 44 names, all of them ops."""
    assert len(LION) == len(set(LION)) == 44
    assert set(LION) <= set(OPS)
    assert set(OPS) - set(LION) == {"identity"}
