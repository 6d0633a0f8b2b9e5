import ast
import importlib.util
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
from strategies import random_program

from evolion.discovered.library import known
from evolion.discovered.optax_source import TARGETS, to_source
from evolion.discovered.optax_transform import to_optax
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.kinds import Kind
from evolion.primitives.ops import LION, OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import Parameter, Program, Statement

RNG = np.random.default_rng(5)
PARAMS = {"a": jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32), "b": [jnp.float32(0.5), None], "c": jnp.zeros((0, 2))}
GRADIENTS = [jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), PARAMS) for _ in range(3)]


def imported(source: str, folder: Path, name: str = "optimizer") -> Any:
    """The function of an exported module, imported from a file as a user would."""
    path = folder / f"module_{len(list(folder.iterdir()))}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


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


@pytest.mark.parametrize("name", known())
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_exported_known_programs_equal_the_transform(name: str, dtype: Any, tmp_path: Path) -> None:
    """What a user pastes into a project trains as it did in the search."""
    assert_equal_numerics(known()[name], tmp_path, dtype=dtype)


def chain_of(ops: tuple[str, ...], protected: bool) -> Program:
    """A program with one slot of its own for the result of each op, so that all of them are compared at once."""
    statements: list[Statement] = []
    slots = []
    operands = {Kind.TENSOR: ("g", "w", "x"), Kind.SCALAR: ("t", "b", "lr"), Kind.LEAF: ("h", "h", "h")}
    for number, name in enumerate(ops):
        for variant in range(3):
            kinds = [accepted[(variant + i) % len(accepted)] for i, accepted in enumerate(OPS[name].accepts)]
            args = tuple(operands[kind][(i + variant) % 3] for i, kind in enumerate(kinds))
            slots.append(Parameter(f"s{number}v{variant}", Kind.TENSOR, slot=True))
            statements.append(Statement(slots[-1].name, name, args))
    # The update reads each slot, so that none of them is dead code.
    sums = [Statement("total", "add", ("lr", "g"))]
    sums += [Statement("total", "add", ("total", slot.name)) for slot in slots]
    text = "def train(w, g, lr, t, *, b=0.75):\n    x = tanh(g) + 0.5\n    h = norm(w)\n    return x * h"
    base = parse(text)
    return Program(
        (*base.parameters, *slots),
        base.hyperparameters,
        (*base.statements[:3], *sums, *statements),
        "total",
        protected,
    )


@pytest.mark.parametrize("protected", [False, True], ids=["plain", "protected"])
@pytest.mark.parametrize("whole", [False, True], ids=["per leaf", "whole trees"])
def test_every_op_of_the_vocabulary_is_written_as_it_is_run(protected: bool, whole: bool, tmp_path: Path) -> None:
    """No source template differs from its JAX meaning, on tensors, leaves and scalars, in either arithmetic."""
    reducing = {name for name in LION if chain_is_whole(name)}
    ops = tuple(name for name in LION if whole or name not in reducing)
    assert len(ops) == len(LION) - (0 if whole else len(reducing))
    assert_equal_numerics(chain_of(ops, protected), tmp_path, rtol=1e-4, steps=1)


def chain_is_whole(name: str) -> bool:
    """Whether an op sums over the whole tree."""
    source = getattr(OPS[name].meaning, "scope", None)
    return source is Kind.SCALAR


def moderate(program: Program) -> bool:
    """Whether float32 holds the constants, and rounding is not magnified without bound."""
    constants = [a for s in program.statements for a in s.args if isinstance(a, float)]
    constants += [h.value for h in program.hyperparameters] + [u for u in [program.update] if isinstance(u, float)]
    return all(abs(value) < 30.0 and (value == 0.0 or abs(value) > 1e-9) for value in constants)


def test_random_programs_are_written_as_they_are_run(tmp_path: Path) -> None:
    """Rebound names, clashes with Python's own, precedence, dead code and narrow slots survive the export."""
    rng, found = random.Random(4), []
    tame = tuple(op for op in OPS if op not in {"tan", "exp10", "cosh", "sinh", "power", "cube", "sin", "cos"})
    while len(found) < 24:
        program = remove_dead_code(random_program(rng, statements=14, ops=tame, prose=False))
        if moderate(program) and len(program.statements) > 3 and "noise" not in program.inputs:
            found.append(program)
    for program in found:
        assert_equal_numerics(program, tmp_path, rtol=2e-3, steps=2)


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
    """Provenance, evidence and hyperparameters stand in the docstring; imports are jax, optax and typing."""
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
    assert modules == {"typing", "jax", "jax.numpy", "optax"}
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
