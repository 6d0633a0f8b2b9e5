import ast
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from exported_modules import assert_close, imported, moderate
from strategies import random_program

from evolion.discovered.library import known
from evolion.discovered.optax_source import TARGETS, to_source
from evolion.discovered.optax_transform import to_optax
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.kinds import Kind
from evolion.primitives.op import Elementwise, Op
from evolion.primitives.ops import LION, OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import Parameter, Program, Statement

RNG = np.random.default_rng(5)
PARAMS = {
    "a": jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32),
    "b": [jnp.float32(0.5), None],
    "c": jnp.ones((2, 1, 3)),
}
GRADIENTS = [jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), PARAMS) for _ in range(3)]


def follow(tx: Any, params: Any, extra: dict[str, Any], steps: int) -> Any:
    """Updates of up to three steps and the last state, along given weights."""
    state, seen = tx.init(params), []
    for gradient in GRADIENTS[:steps]:
        gradient = jax.tree.map(lambda g, p: g.astype(p.dtype), gradient, params)
        updates, state = tx.update(gradient, state, params, **extra)
        seen.append(updates)
    return seen, state


def arguments_of(program: Program) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the transform of a program needs, and what each of its updates needs."""
    inputs = program.inputs
    build = {"learning_rate": optax.linear_schedule(0.1, 0.3, 2)} if "lr" in inputs else {}
    build |= {"horizon": 10} if "horizon" in inputs else {}
    extra = {"value": jnp.float32(0.7)} if "loss" in inputs else {}
    return build, extra | ({"hess": jax.tree.map(jnp.cos, PARAMS)} if "hess" in inputs else {})


def assert_equal_numerics(
    program: Program, folder: Path, *, rtol: float = 1e-5, dtype: Any = jnp.float32, steps: int = 3
) -> None:
    """The exported module and `to_optax` make the same updates and states."""
    build, extra = arguments_of(program)
    ours = to_optax(program, **build)
    theirs = imported(to_source(program, "optax"), folder)(**build)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
    reference, computed = jax.jit(lambda p: (follow(ours, p, extra, steps), follow(theirs, p, extra, steps)))(params)
    assert jax.tree.structure(reference[0]) == jax.tree.structure(computed[0])
    assert reference[1]._fields == computed[1]._fields
    assert jax.tree.map(jax.typeof, [reference[0], tuple(reference[1])]) == jax.tree.map(
        jax.typeof, [computed[0], tuple(computed[1])]
    )
    for mine, other in zip(jax.tree.leaves(reference), jax.tree.leaves(computed), strict=True):
        mine, other = np.asarray(mine, np.float64), np.asarray(other, np.float64)
        np.testing.assert_allclose(other, mine, rtol=rtol, atol=1e-30, err_msg=str(program))


@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "sgd"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_exported_programs_equal_the_transform(name: str, dtype: Any, tmp_path: Path) -> None:
    """What a user pastes into a project trains as it did in the search, in single and half precision."""
    assert_equal_numerics(known()[name], tmp_path, dtype=dtype)


def signatures_of(op: Op, rng: random.Random) -> list[tuple[Kind, ...]]:
    """All kinds of arguments of an op; of an op on entries one choice, as it does not ask for their kinds."""
    found = list(op.signatures)
    return [rng.choice(found)] if isinstance(op.meaning, Elementwise) else found


def chain_of(names: list[str], protected: bool, rng: random.Random) -> Program:
    """A program with one slot of its own for the result of each op for each kind of arguments."""
    text = """
def train(w, g, lr, t, *, b=0.75):
    x = tanh(g) + 0.5
    h = tensor_mean(abs(w))
    r = row_mean(square(g))
    c = column_mean(abs(w))
    p = left_gram(w)
    q = right_gram(w)
    return x * h + r * c * (norm(p) + norm(q)) + b * lr + t
"""
    base = parse(text)
    operands = {Kind.SCALAR: ("t", "b", "lr", 0.5), Kind.LEAF: ("h",), Kind.ROW: ("r",), Kind.COLUMN: ("c",)}
    operands |= {Kind.TENSOR: ("g", "w", "x"), Kind.LEFT: ("p",), Kind.RIGHT: ("q",)}
    statements, sums, slots = [], [Statement("total", "identity", (base.update,))], []
    for name in names:
        for kinds in signatures_of(OPS[name], rng):
            args = tuple(operands[kind][position % len(operands[kind])] for position, kind in enumerate(kinds))
            slot = Parameter(f"s{len(slots)}", OPS[name].signatures[kinds], slot=True)
            slots.append(slot)
            statements.append(Statement(slot.name, name, args))
            # The update reads each slot, so that none of them is dead code.
            square = slot.kind in (Kind.LEFT, Kind.RIGHT)
            sums += [Statement("number", "trace", (slot.name,))] if square else []
            sums.append(Statement("total", "add", ("total", "number" if square else slot.name)))
    parameters = (*base.parameters, *slots)
    return Program(parameters, base.hyperparameters, (*base.statements, *sums, *statements), "total", protected)


def is_global(name: str) -> bool:
    """Whether an op reduces the whole tree."""
    return getattr(OPS[name].meaning, "scope", None) is Kind.SCALAR


@pytest.mark.parametrize("protected", [False, True], ids=["plain", "protected"])
@pytest.mark.parametrize("whole", [False, True], ids=["per leaf", "whole trees"])
def test_every_op_is_written_as_it_is_run(protected: bool, whole: bool, tmp_path: Path) -> None:
    """No source template differs from its JAX meaning, on values of any kind, in either arithmetic."""
    rng = random.Random(2)
    # Under protection only what differs by it; whole trees are written by the same templates, so a few of the ops do.
    names = [name for name, op in OPS.items() if not protected or op.protected is not None]
    names = [name for name in names if not is_global(name)]
    if whole:
        names = [name for name in OPS if is_global(name)] + rng.sample(names, min(10, len(names)))
    program = chain_of(names, protected, rng)
    with jax.enable_x64(True):
        params = {"kernel": jnp.asarray(RNG.normal(size=(2, 1, 3)))}
        gradients = jax.tree.map(jnp.cos, params)
        updated = []
        for made in (to_optax(program, 0.1), imported(to_source(program, "optax"), tmp_path)(0.1)):
            # Without a compilation of the whole: most operations are compiled once for both.
            updated.append(made.update(gradients, made.init(params), params))
    assert jax.tree.map(jax.typeof, tuple(updated[0][1])) == jax.tree.map(jax.typeof, tuple(updated[1][1]))
    assert_close(updated[0][0], updated[1][0], rtol=1e-9)
    for statement, slot in zip(program.statements[-len(program.slots) :], program.slots, strict=True):
        mine, other = getattr(updated[0][1], slot.name), getattr(updated[1][1], slot.name)
        assert_close(mine, other, rtol=1e-9, about=str(statement))


def test_random_programs_are_written_as_they_are_run(tmp_path: Path) -> None:
    """Rebound names, clashes with Python's own, precedence, dead code and narrow slots survive the export."""
    rng, found = random.Random(4), []
    tame = tuple(op for op in LION if op not in {"tan", "exp10", "cosh", "sinh", "power", "cube", "sin", "cos"})
    while len(found) < 24:
        program = remove_dead_code(random_program(rng, statements=14, ops=tame, prose=False))
        if moderate(program) and len(program.statements) > 3 and "noise" not in program.inputs:
            found.append(program)
    for program in found:
        assert_equal_numerics(program, tmp_path, rtol=2e-3, steps=2)


def test_a_tensor_without_entries_is_no_error(tmp_path: Path) -> None:
    """An empty leaf has a largest entry of minus infinity, and changes nothing for the others."""
    text = """
def train(g, r: row, c: column, n: leaf, lr):
    r = r + row_max(g)
    c = c + column_mean(abs(g))
    n = n + tensor_max(g)
    return lr * (r * c + n + global_max(g)), r, c, n
"""
    program, folder = parse(text), tmp_path
    made = imported(to_source(program, "optax"), folder)(0.1)
    tree = {"empty": jnp.zeros((0, 2)), "full": jnp.ones((2, 2))}
    for tx in (made, to_optax(program, 0.1)):
        updates, state = tx.update(tree, tx.init(tree))
        np.testing.assert_allclose(updates["full"], -0.3)
        assert float(state.n["empty"]) == -np.inf
    assert state.r["empty"].shape == (0, 1)


def test_other_ops_keep_their_precedence(tmp_path: Path) -> None:
    """Signs, powers and quotients are put into parentheses where Python needs them."""
    text = """
def train(w, g, lr, t, *, b=0.5):
    a = (-2) ** (t - 1) * g - (w - (g - lr))
    c = -(a ** 2) / (b / (t * 3)) / (1 - b)
    d = (a + c) ** -2 * (b ** -1 / 0.3) - (-b) ** 0.5 * 0
    return a - (c - reciprocal(negative(b - 2 ** -t))) + 0 * max(d, 1)
"""
    assert_equal_numerics(parse(text), tmp_path)


def test_inputs_beyond_the_gradient(tmp_path: Path) -> None:
    """Loss, curvature, horizon, initial weights and noise reach the exported module as they reach the transform."""
    text = """
def train(w, g, w0, hess, noise, loss, t, horizon, r: scalar, n: leaf, *, seed_=2):
    r = r + loss
    n = n + seed_
    return g / hess + (w - w0) * r + 0.1 * noise * (t / horizon) + n, r, n
"""
    assert_equal_numerics(parse(text), tmp_path)
    assert_equal_numerics(parse(text.replace("r + loss", "r + dot(g, noise)")), tmp_path)
    made = imported(to_source(parse(text), "optax"), tmp_path)(horizon=10)
    with pytest.raises(ValueError, match=r"optimizer needs hess: call update\(grads, state, params, hess=...\)"):
        made.update(PARAMS, made.init(PARAMS), PARAMS, value=1.0)


def test_lion_reads_as_a_person_would_write_it() -> None:
    """Names of the program, no numbered temporaries, no superfluous parentheses."""
    source = to_source(known()["lion"], "optax", name="lion")
    assert "direction = jnp.sign((1 - b1) * g + b1 * m)\n" in source
    assert "m = (1 - b2) * g + b2 * m\n" in source
    assert "update = lr * (direction + weight_decay * w)\n" in source
    adamw = to_source(known()["adamw"], "optax", name="adamw")
    assert "mhat = m / (1 - b1 ** t)\n" in adamw
    assert not [node.id for node in ast.walk(ast.parse(adamw)) if isinstance(node, ast.Name) and node.id[:1] == "x"]


@pytest.mark.parametrize("name", known())
def test_modules_document_themselves(name: str) -> None:
    """Provenance, evidence and hyperparameters stand in the docstring; imports are jax, optax and typing or math."""
    evidence = 'rule | loss\n"""mine""" | 0.1 \\ 0.2'
    source = to_source(known()[name], "optax", name=name, evidence=evidence)
    tree = ast.parse(source)
    documentation = ast.get_docstring(tree)
    assert documentation is not None
    assert evidence in documentation
    assert "behavioural key" in documentation
    assert all(f"{h.name}={h.value!r}" in documentation for h in known()[name].hyperparameters)
    modules = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert modules == {"typing", "jax", "jax.numpy", "optax"} | (modules & {"math"})
    assert max(map(len, source.splitlines())) <= 120


def test_a_new_process_needs_no_evolion(tmp_path: Path) -> None:
    """The exported file trains in a Python process that loads jax and optax and nothing of this package."""
    (tmp_path / "mine.py").write_text(to_source(known()["lion"], "optax", name="lion", b1=0.95), encoding="utf-8")
    code = (
        "import sys, jax, optax; sys.path.insert(0, '.'); import mine; tx = mine.lion(0.5)\n"
        "p = {'a': jax.numpy.ones(2)}; u, s = jax.jit(tx.update)(p, tx.init(p), p)\n"
        "print(round(float(u['a'][0]), 6), s._fields, mine.lion.__defaults__, "
        # An editable install brings a finder of its own name, which is no module of the package.
        "[m for m in sys.modules if m.split('.')[0] == 'evolion'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "-0.5005 ('count', 'm') (0.95, 0.99, 0.001) []\n"


def test_text_target_is_the_program() -> None:
    """The text form is the program again, with the evidence in its docstring and the given hyperparameters."""
    assert parse(to_source(known()["adam"], "text")) == known()["adam"]
    program = parse(to_source(known()["adam"], "text", evidence="loss \n0.1", b1=0.8))
    assert program.hyperparameters[0].value == 0.8
    assert program.docstring.endswith("Evidence:\n\nloss\n0.1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "fortran"}, f"no export target 'fortran'; there are: {', '.join(TARGETS)}"),
        ({"target": "optax", "b3": 0.1}, "no hyperparameter 'b3'; it has: b1, b2, weight_decay"),
        ({"target": "optax", "name": "my rule"}, "'my rule' cannot name"),
        ({"target": "optax", "name": "lambda"}, "'lambda' cannot name"),
        ({"target": "optax", "name": "jnp"}, "'jnp' cannot name"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    """Targets, hyperparameters and names that do not exist are answered with those that do."""
    with pytest.raises(ValueError, match=message):
        to_source(known()["lion"], **arguments)
