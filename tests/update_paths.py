"""A program on a few tensors with given gradients, by the interpreter, the compiled path and the NumPy reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from evolion.evaluators import compiled, interpreter
from evolion.evaluators.encoding import encode, rows_of, scalar_table
from evolion.evaluators.loop import StepInputs, UpdateRule, tensors_of
from evolion.primitives.layout import Layout
from evolion.primitives.numpy_interpreter import trajectory
from evolion.primitives.program import Program

LAYOUT = Layout(((3, 2), (), (4,)))
STEPS = 3
RATES = np.array([0.02, 0.05, 0.01], np.float32)


@cache
def given() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Weights, and for each step the gradient and the loss."""
    rng = np.random.default_rng(3)
    weights = rng.normal(size=LAYOUT.entries).astype(np.float32)
    return weights, rng.normal(size=(STEPS, LAYOUT.entries)).astype(np.float32), np.float32([2.5, 1.5, 1.0])


def diagonals() -> NDArray[np.float32]:
    """An estimate of the Hessian diagonal for each step, for programs that read one."""
    _, gradients, _ = given()
    return np.float32(0.3) + np.square(gradients[:, ::-1])


def path(rule: UpdateRule, arguments: Any, table: Any, *, hess: bool) -> jax.Array:
    """The weights after each step with given gradients, shape (STEPS, parameters)."""
    weights, gradients, losses = given()
    estimates = diagonals() if hess else None

    def step(state: Any, inputs: Any) -> tuple[Any, jax.Array]:
        number, gradient, loss, scalars, estimate = inputs
        given = StepInputs(tensors_of(gradient, LAYOUT), loss, scalars, jnp.int32(5), number, estimate)
        state = rule.update(arguments, state, given)
        return state, jnp.concatenate([jnp.ravel(tensor) for tensor in rule.weights(state)])

    inputs = (jnp.arange(STEPS), gradients, losses, table, estimates)
    return lax.scan(step, rule.init(arguments, tensors_of(jnp.asarray(weights), LAYOUT)), inputs)[1]


@cache
def _interpreter(vocabulary: str, rows: int, hess: bool) -> Callable[[Any, Any], jax.Array]:
    rule = interpreter._rule(LAYOUT, vocabulary, rows)
    return jax.jit(lambda arguments, table: path(rule, arguments, table, hess=hess))


def interpreted(program: Program) -> NDArray[np.float32]:
    """The weights after each step of a program that can be interpreted, by the loop that a job would take."""
    encoding = encode(program)
    run = _interpreter(encoding.vocabulary, rows_of(encoding), encoding.hess >= 0)
    return np.asarray(run(interpreter.code_of(encoding), scalar_table(encoding, RATES)))


def compiled_paths(programs: list[Program]) -> list[NDArray[np.float32]]:
    """The same of the compiled path, all in one compilation."""
    table = np.stack([RATES, np.arange(1, STEPS + 1), np.full(STEPS, STEPS)], axis=1).astype(np.float32)
    rules = [
        (compiled._rule(program, LAYOUT), compiled.arguments_of(program), "hess" in program.inputs)
        for program in programs
    ]
    paths = jax.jit(lambda: [path(rule, arguments, table, hess=hess) for rule, arguments, hess in rules])
    return [np.asarray(weights) for weights in paths()]


def reference(program: Program) -> NDArray[np.float64]:
    """The weights after each step in float64, by the NumPy interpreter."""
    weights, gradients, losses = given()
    key = [jax.random.fold_in(jax.random.key(5), step) for step in range(STEPS)]
    noise = [np.asarray(jax.random.normal(k, (LAYOUT.entries,), jnp.float32)) for k in key]
    inputs = {
        "loss": list(losses),
        "horizon": [float(STEPS)] * STEPS,
        "noise": [LAYOUT.unflatten(vector) for vector in noise],
        "hess": [LAYOUT.unflatten(vector) for vector in diagonals()],
    }
    tensors = trajectory(
        program,
        LAYOUT.unflatten(weights),
        [LAYOUT.unflatten(gradient) for gradient in gradients],
        learning_rate=RATES.tolist(),
        inputs=inputs,
    )
    return np.stack([LAYOUT.flatten(step) for step in tensors[1:]])


def close(found: Any, expected: Any, tolerance: float) -> bool:
    return bool(np.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True))
