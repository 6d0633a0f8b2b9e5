import ast
import inspect
import itertools
import math
import string
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import arguments_of, program_of, trees

from evolion.primitives import matrices
from evolion.primitives.elementwise_ops import EPSILON
from evolion.primitives.kinds import Kind, join
from evolion.primitives.layout import Layout, matrix_sides
from evolion.primitives.numpy_interpreter import stepper
from evolion.primitives.op import Elementwise, Matrixwise, Op, Reduction, result_kind
from evolion.primitives.ops import FULL, LION, OPS, VOCABULARIES, accepted_kinds, fitting_kinds

UNARY = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -3.7, 1e-8, -1e-8, 1e-300, -1e-300, 5e-324, -5e-324, 1e-310, 20.0]
UNARY += [-20.0, 300.0, 709.0, -745.0, 1e15, 1e200, -1e200, 1.7e308, -1.7e308, np.inf, -np.inf, np.nan, np.pi / 2]
FEW = [0.0, -0.0, 1.0, -1.0, 0.3, -2.5, 1e-310, 1e200, -1e200, np.inf, -np.inf, np.nan]
ELEMENTWISE = [op for op in OPS.values() if isinstance(op.meaning, Elementwise)]
REDUCTIONS = [op for op in OPS.values() if isinstance(op.meaning, Reduction)]
MATRIXWISE = [op for op in OPS.values() if isinstance(op.meaning, Matrixwise)]
LAYOUT = Layout(((), (4,), (2, 3), (2, 1, 3), (1, 2, 2, 3)))


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


def applied(op: Op, kinds: tuple[Kind, ...], *args: Any, layout: Layout = LAYOUT, protected: bool = False) -> Any:
    """The op on flat vectors, by the NumPy interpreter."""
    values = {f"s{i}": value for i, value in enumerate(args)}
    with np.errstate(all="ignore"):
        return stepper(program_of(op, kinds, protected=protected), layout)(values)[1]["out"]


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.commutative], ids=named)
def test_commutative_arguments_may_be_swapped(op: Op) -> None:
    """The keys sort the arguments of these ops, so a swap may change no value; zeros of either sign are equal."""
    meaning = op.meaning
    if isinstance(meaning, Elementwise):
        x, y = arguments(op)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(meaning.numpy(x, y), meaning.numpy(y, x))
        one, other = jnp.asarray(x), jnp.asarray(y)
        np.testing.assert_array_equal(meaning.jax(jnp, one, other), meaning.jax(jnp, other, one))
    for kinds in op.signatures:
        values = arguments_of(op, kinds, LAYOUT, np.random.default_rng(0))
        first, second, *others = (values[f"s{i}"] for i in range(op.arity))
        swapped = (kinds[1], kinds[0], *kinds[2:])
        np.testing.assert_array_equal(applied(op, kinds, first, second, *others), applied(op, swapped, second, first))


@pytest.mark.parametrize("op", [op for op in ELEMENTWISE if op.arity == 2 and not op.commutative], ids=named)
def test_other_ops_are_not_commutative(op: Op) -> None:
    """A flag that is missing would cost the structural key an identity."""
    assert isinstance(op.meaning, Elementwise)
    assert op.meaning.numpy(np.float64(2.0), np.float64(3.0)) != op.meaning.numpy(np.float64(3.0), np.float64(2.0))


def views(tree: list[np.ndarray], kind: Kind) -> list[np.ndarray]:
    """The matrix view of each tensor, or square matrices and rows or columns of such tensors."""
    matrix = [tensor.reshape(matrix_sides(tensor.shape)) for tensor in tree]
    made = {
        Kind.TENSOR: lambda x: x,
        Kind.ROW: lambda x: x[:, :1] * 2.0,
        Kind.COLUMN: lambda x: x[:1] - 1.0,
        Kind.LEFT: lambda x: x @ x.T,
        Kind.RIGHT: lambda x: x.T @ x,
        Kind.LEAF: lambda x: x[:1, :1] + 3.0,
    }
    return [np.asarray(made[kind](x)) for x in matrix]


@pytest.mark.parametrize("op", [op for op in REDUCTIONS if op.arity == 1], ids=named)
@settings(max_examples=20)
@given(tree=trees())
def test_reductions_are_those_of_numpy(op: Op, tree: list[np.ndarray]) -> None:
    """A row is a row of the matrix view, a leaf a parameter tensor, and global is the tree as one vector."""
    layout = Layout(tuple(tensor.shape for tensor in tree))
    word = op.name.split("_")[-1]
    reduce: Any = np.linalg.norm if word == "norm" else getattr(np, word)
    for (kind,) in op.signatures:
        given_views = views(tree, kind)
        ours = applied(op, (kind,), np.concatenate([np.ravel(x) for x in given_views]), layout=layout)
        match op.meaning.scope:  # type: ignore[union-attr]
            case Kind.ROW:
                expected = np.concatenate([reduce(x, axis=1) for x in given_views])
            case Kind.COLUMN:
                expected = np.concatenate([reduce(x, axis=0) for x in given_views])
            case Kind.LEAF:
                expected = np.array([reduce(np.ravel(x)) for x in given_views])
            case _:
                expected = reduce(np.concatenate([np.ravel(x) for x in given_views]))
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


def test_reductions_of_two_arguments() -> None:
    """The other reductions see the whole tree as one vector."""
    x, y = np.random.default_rng(1).normal(size=(2, LAYOUT.entries))
    pair = (Kind.TENSOR, Kind.TENSOR)
    np.testing.assert_allclose(applied(OPS["dot"], pair, x, y), x @ y)
    cosine = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    np.testing.assert_allclose(applied(OPS["cosine_sim"], pair, x, y), cosine)
    for limit in (0.5, 100.0):
        scale = min(1.0, limit / np.linalg.norm(x))
        ours = applied(OPS["clip"], (Kind.TENSOR, Kind.SCALAR), x, limit)
        np.testing.assert_allclose(ours, scale * x)


@pytest.mark.parametrize("op", [op for op in REDUCTIONS if op.name.endswith(("max", "norm", "sum", "mean"))], ids=named)
def test_reductions_pass_nan_on(op: Op) -> None:
    """A tensor that holds NaN has no sum and no largest entry; other tensors' numbers stay."""
    for (kind,) in op.signatures:
        x = np.ones(LAYOUT.shape(kind))
        x[-1] = np.nan
        ours = np.atleast_1d(applied(op, (kind,), x))
        assert np.isnan(ours[-1])
        assert np.isfinite(ours[:1]).all() or ours.size == 1


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
    assert op.domain == op.domain.strip()
    assert "\n" not in op.summary + op.domain + op.latex
    assert op.name.isidentifier()
    assert op.arity == 2 or not (op.symbol or op.commutative)
    assert op.signatures
    assert {len(kinds) for kinds in op.signatures} == {op.arity}
    for meaning in (op.under(False), op.under(True)):
        assert type(meaning) is type(op.meaning)
        if isinstance(meaning, Matrixwise):
            assert meaning.compute is getattr(matrices, op.name)
            names = list(inspect.signature(meaning.compute).parameters)
            assert (names[0], len(names)) == ("xp", 1 + op.arity)
            continue
        parts = [meaning.source, meaning.apply_source] if isinstance(meaning, Reduction) else [meaning.source]
        text = " ".join(parts)
        assert [i for i in range(4) if f"{{{i}}}" in text] == list(range(op.arity))


@pytest.mark.parametrize("op", OPS.values(), ids=named)
def test_formulas_are_complete(op: Op) -> None:
    """A formula shows every argument, closes what it opens, and is made by `format` alone."""
    fields = {field for _, field, _, _ in string.Formatter().parse(op.latex) if field is not None}
    # The identity matrix hangs on the size of its argument alone.
    assert fields == set() if op.name == "eye" else fields == set(map(str, range(op.arity)))
    formula = op.latex.format(*"xyzst"[: op.arity])
    depths = list(itertools.accumulate((letter == "{") - (letter == "}") for letter in formula))
    assert min(depths) >= 0 == depths[-1]
    assert formula.count(r"\left") == formula.count(r"\right")
    assert formula.count(r"\begin") == formula.count(r"\end")


@pytest.mark.parametrize("op", OPS.values(), ids=named)
def test_protection_is_stated(op: Op) -> None:
    """Who reads the summary of an op knows whether @protected changes it."""
    assert (op.protected is not None) == ("@protected" in op.summary)
    assert op.protected is None or op.protected != op.meaning


@pytest.mark.parametrize("op", ELEMENTWISE, ids=named)
def test_domains_are_stated(op: Op) -> None:
    """Where moderate numbers give an infinite result or NaN, the record says so."""
    numbers = [-3.0, -2.5, -1.0, -0.5, -0.0, 0.0, 0.25, 1.0, 2.0, 20.0]
    table = list(itertools.product(numbers, repeat=op.arity))
    with np.errstate(all="ignore"):
        result = np.asarray(op.meaning.numpy(*np.array(table).reshape(len(table), op.arity).T))  # type: ignore[union-attr]
    stated = {word: word in op.domain for word in ("NaN", "inf")}
    assert stated["NaN"] or not np.isnan(result).any()
    assert stated["inf"] or not np.isinf(result).any()


@pytest.mark.parametrize("op", REDUCTIONS + MATRIXWISE, ids=named)
def test_domains_over_tensors_are_stated(op: Op) -> None:
    """The same for zeros, ones and random numbers in the place of tensors, rows and matrices."""
    rng = np.random.default_rng(0)
    for kinds in op.signatures:
        for fill in (None, 0.0, 1.0, -1.0):
            values = arguments_of(op, kinds, LAYOUT, rng)
            args = [values[f"s{i}"] if fill is None else np.full_like(values[f"s{i}"], fill) for i in range(len(kinds))]
            result = applied(op, kinds, *args)
            assert op.domain or np.isfinite(result).all()


def counted(source: str) -> int:
    """The operators and calls of an expression, but for what makes 1 and 0 of a truth value.

    `optax.tree.norm` is a square and a sum, `vdot` a product and a sum.
    """
    inner = {"optax.tree.norm": 2, "optax.tree.vdot": 2}
    nodes = list(ast.walk(ast.parse(source.format(*"xya"), mode="eval")))
    calls = [
        inner.get(ast.unparse(node.func), 1)
        for node in nodes
        if isinstance(node, ast.Call) and not ast.unparse(node).endswith(", 1.0, 0.0)")
    ]
    return sum(calls) + sum(isinstance(node, ast.BinOp | ast.UnaryOp | ast.Compare) for node in nodes)


@pytest.mark.parametrize("protected", [False, True], ids=["plain", "protected"])
@pytest.mark.parametrize("op", ELEMENTWISE + REDUCTIONS, ids=named)
def test_operations_are_those_of_the_source(op: Op, protected: bool) -> None:
    """The cost of an op is what its generated code does for each entry, under protection too."""
    meaning = op.under(protected)
    if isinstance(meaning, Elementwise):
        assert meaning.operations == counted(meaning.source) - (op.name == "interp")  # 1 - a, as a rule a scalar
        return
    assert isinstance(meaning, Reduction)
    entries = {"dot": 2, "cosine_sim": 6, "clip": 3}
    assert meaning.operations == entries.get(op.name, 2 if op.name.endswith("norm") else 1)
    if "optax" in meaning.source:  # what is done once, on the sums, counts nothing
        once = {"cosine_sim": 2, "clip": 2, "global_mean": 3}.get(op.name, 0)
        part = counted(meaning.apply_source.format(*"xya", reduced="r"))
        assert meaning.operations == counted(meaning.source) - once + part


@pytest.mark.parametrize("op", MATRIXWISE, ids=named)
def test_operations_of_matrix_ops(op: Op) -> None:
    """The cost is a number for matrices of any size, and grows with their sides."""
    assert isinstance(op.meaning, Matrixwise)
    for kinds in op.signatures:
        args = (None, *(4.0,) * (op.arity - 1))
        counts = [op.meaning.operations(m, n, kinds, args) for m, n in ((1, 1), (3, 5), (300, 500), (4096.0, 4096.0))]
        assert counts == sorted(counts)
        assert counts[0] >= 0
        assert all(map(math.isfinite, counts))
    for side in (Kind.LEFT, Kind.RIGHT):
        if (side,) * op.arity in op.signatures and op.name.startswith("matmul"):
            assert op.meaning.operations(3, 5, (side, side), (None, None)) == 2 * (3 if side is Kind.LEFT else 5) ** 3


def test_transcendental_operations() -> None:
    """What hardware does in one instruction is not counted as a call of a function."""
    none = {"identity", "get_pi", "get_e", "get_eps", "abs", "sign", "square", "sqrt", "cube", "reciprocal", "negative"}
    none |= {"add", "subtract", "multiply", "divide", "max", "min", "interp", "where", "is_finite", "clip_value"}
    none |= {"greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "floor", "mod"}
    none |= {op.name for op in REDUCTIONS}
    for op in ELEMENTWISE + REDUCTIONS:
        for protected in (False, True):
            assert op.under(protected).transcendental == int(op.name not in none), op.name  # type: ignore[union-attr]


def test_kinds_of_results() -> None:
    """An elementwise result has the join of its arguments' kinds; a reduction, but for clip, that of its scope."""
    for op in ELEMENTWISE:
        for kinds in itertools.product(Kind, repeat=op.arity):
            assert result_kind(op, kinds) is join(kinds)
    for op in REDUCTIONS:
        scope = Kind.TENSOR if op.name == "clip" else op.meaning.scope  # type: ignore[union-attr]
        assert set(op.signatures.values()) == {scope}
        assert not accepted_kinds(op.name)[0] & {Kind.SCALAR, op.meaning.scope}  # type: ignore[union-attr]


@given(st.sampled_from(sorted(OPS)), st.frozensets(st.sampled_from(Kind)), st.randoms(use_true_random=False))
def test_fitting_kinds_lead_to_a_signature(name: str, available: frozenset[Kind], rng: Any) -> None:
    """Who draws argument after argument from what fits ends at a signature; what does not fit is in none."""
    op, kinds = OPS[name], ()
    for position in range(op.arity):
        fitting = fitting_kinds(name, kinds, available)
        expected = {k[position] for k in op.signatures if k[:position] == kinds and set(k[position:]) <= available}
        assert fitting == expected
        assert fitting <= accepted_kinds(name)[position]
        if not fitting:
            assert position == 0
            return
        kinds = (*kinds, rng.choice(sorted(fitting)))
    assert kinds in op.signatures


PAPER = """
    get_pi get_e get_eps abs cos sin tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh exp exp2 exp10
    expm1 log log10 log2 log1p square sqrt cube cbrt sign reciprocal negative norm global_norm add subtract multiply
    divide max min power dot cosine_sim clip interp
"""


def test_the_vocabulary_of_the_paper() -> None:
    """45 functions less the two without a meaning on floats, plus negation's twin: a search over them is repeatable."""
    assert tuple(PAPER.split()) == LION
    assert len(LION) == len(set(LION)) == 44


def test_the_full_vocabulary() -> None:
    """Every op can be found but the plain assignment; those of the paper stand first."""
    assert FULL[: len(LION)] == LION
    assert len(FULL) == len(set(FULL))
    assert set(FULL) == set(OPS) - {"identity"}
    assert {**VOCABULARIES} == {"lion": LION, "full": FULL}
