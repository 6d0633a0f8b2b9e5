"""The interpreter against the compiled path, the NumPy reference and the Optax transform of the same program."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpy.typing import NDArray

from evolion.discovered.library import known
from evolion.discovered.optax_transform import to_optax
from evolion.evaluators import compiled, interpreter
from evolion.evaluators.encoding import encode, scalar_table
from evolion.evaluators.evaluate import evaluate_compiled, evaluate_job
from evolion.evaluators.flat_ops import flat_meaning
from evolion.evaluators.loop import StepInputs, UpdateRule
from evolion.evaluators.types import Job
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.keys import ProbeStatus, probe
from evolion.primitives.kinds import Kind
from evolion.primitives.layout import Layout
from evolion.primitives.numpy_interpreter import trajectory
from evolion.primitives.ops import LION, OPS
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.proxies.registry import get_task
from evolion.proxies.schedules import warmup_cosine
from evolion.proxies.score import Status
from evolion.proxies.training import train
from evolion.search.mutation import MutationConfig, mutate

TASK, TRAINED = "digits-mlp", 40
LAYOUT = Layout(((3, 2), (), (4,)))
STEPS, CHILDREN = 3, 100
RATES = np.array([0.02, 0.05, 0.01], np.float32)


def middle_rate() -> float:
    rates = get_task(TASK).learning_rates
    return rates[len(rates) // 2]


def job(program: Program | str, **options: Any) -> Job:
    options = {"steps": TRAINED, "seeds": (0,), "learning_rates": (1e-3,)} | options
    return Job(0, parse(program) if isinstance(program, str) else program, TASK, **options)


@cache
def given() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Weights, and for each step the gradient and the loss."""
    rng = np.random.default_rng(3)
    weights = rng.normal(size=LAYOUT.entries).astype(np.float32)
    return weights, rng.normal(size=(STEPS, LAYOUT.entries)).astype(np.float32), np.float32([2.5, 1.5, 1.0])


def path(rule: UpdateRule, arguments: Any, table: Any) -> jax.Array:
    """The weights after each step with given gradients, shape (STEPS, parameters)."""
    weights, gradients, losses = given()

    def step(carry: Any, inputs: Any) -> tuple[Any, jax.Array]:
        weights, state = carry
        number, gradient, loss, scalars = inputs
        update, state = rule.update(
            arguments, state, StepInputs(weights, gradient, loss, scalars, jnp.int32(5), number)
        )
        weights = weights - update
        return (weights, state), weights

    start = jnp.asarray(weights)
    inputs = (jnp.arange(STEPS), gradients, losses, table)
    return lax.scan(step, (start, rule.init(arguments, start)), inputs)[1]


@cache
def interpreted() -> Callable[[Program], NDArray[np.float32]]:
    """One compiled function that interprets any program on the small layout."""
    rule = interpreter._rule(LAYOUT)
    run = jax.jit(lambda arguments, table: path(rule, arguments, table))

    def weights_of(program: Program) -> NDArray[np.float32]:
        encoding = encode(program)
        numbers = map(np.int32, (encoding.length, encoding.update, encoding.initial_weights))
        return np.asarray(run(interpreter._Code(encoding.code, *numbers), scalar_table(encoding, RATES)))

    return weights_of


def compiled_paths(programs: list[Program]) -> list[NDArray[np.float32]]:
    """The same of the compiled path, all in one compilation."""
    table = np.stack([RATES, np.arange(1, STEPS + 1), np.full(STEPS, STEPS)], axis=1).astype(np.float32)
    rules = [compiled._rule(program, LAYOUT) for program in programs]
    return [np.asarray(weights) for weights in jax.jit(lambda: [path(rule, None, table) for rule in rules])()]


def reference(program: Program) -> NDArray[np.float64]:
    """The weights after each step in float64, by the NumPy interpreter."""
    weights, gradients, losses = given()
    key = [jax.random.fold_in(jax.random.key(5), step) for step in range(STEPS)]
    noise = [np.asarray(jax.random.normal(k, (LAYOUT.entries,), jnp.float32)) for k in key]
    inputs = {
        "loss": list(losses),
        "horizon": [float(STEPS)] * STEPS,
        "noise": [LAYOUT.unflatten(vector) for vector in noise],
    }
    tensors = trajectory(
        program,
        LAYOUT.unflatten(weights),
        [LAYOUT.unflatten(gradient) for gradient in gradients],
        learning_rate=RATES.tolist(),
        inputs=inputs,
    )
    return np.stack([LAYOUT.flatten(step) for step in tensors[1:]])


def children() -> Iterator[Program]:
    """Programs some mutations away from known ones that stay within bounds on the probe."""
    rng = np.random.default_rng(11)
    seeds = [known()[name] for name in ("adamw_seed", "adamw", "lion")]
    extra = ("w", "g", "lr", "t", "horizon", "noise", "loss", "w0")
    while True:
        for seed in seeds:
            child, config = seed, MutationConfig(inputs=extra).for_seed(seed)
            for _ in range(int(rng.integers(1, 6))):
                child, _ = mutate(child, rng, config)
            if probe(child).status is ProbeStatus.OK:
                yield child


def close(found: Any, expected: Any, tolerance: float) -> bool:
    return bool(np.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True))


def test_children_are_interpreted_as_they_compile() -> None:
    """What a search generates does the same in both paths, and what the reference says where rounding is harmless.

    Rounding is harmless where float32 and float64 agree; a child that takes the sine of a large number, or the sign of
    a difference of equals, may differ. Such children are few.
    """
    source = children()
    programs = [remove_dead_code(next(source)) for _ in range(CHILDREN)]
    interpret = [interpreted()(program) for program in programs]
    paths = [
        (program, ours, theirs)
        for program, ours, theirs in zip(programs, interpret, compiled_paths(programs), strict=True)
        if not close(ours, theirs, 1e-4)
    ]
    assert len(paths) <= 2, "\n".join(f"{program}\n{ours}\n{theirs}" for program, ours, theirs in paths)
    off = [
        program for program, ours in zip(programs, interpret, strict=True) if not close(ours, reference(program), 1e-3)
    ]
    assert len(off) <= 5, "\n".join(map(str, off))


def program_of(op: str, protected: bool, wide: bool) -> Program:
    """A program whose update is one op of tensors (or of scalars that are not known before the step)."""
    names = iter(("w", "g", "x") if wide else ("loss", "x", "loss"))
    arguments = [next(names) if Kind.TENSOR in accepted else "0.7" for accepted in OPS[op].accepts]
    body = f"    x = {'w * g' if wide else 'loss / 4'}\n    return {op}({', '.join(arguments)}) * 0.1\n"
    return parse(f"{'@protected' if protected else ''}\ndef train(w, g, loss):\n{body}".lstrip())


@pytest.mark.parametrize("protected", [False, True], ids=["plain", "protected"])
def test_every_op_means_the_same(protected: bool) -> None:
    """Each op of the vocabulary, on tensors and on scalars, NaN and infinities where the reference has them."""
    for op in ("identity", *LION):
        for wide in (True, False):
            if not wide and any(Kind.SCALAR not in accepted for accepted in OPS[op].accepts):
                continue
            program = program_of(op, protected, wide)
            found, expected = interpreted()(program), reference(program)
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6, err_msg=str(program))


INPUTS = {
    "loss": "def train(g, loss):\n    return g * loss\n",
    "noise": "def train(noise):\n    return 0.1 * noise\n",
    "w0": "def train(w, w0, g):\n    return g + 0.5 * (w - w0)\n",
    "t and horizon": "def train(g, t, horizon):\n    return g * t / horizon\n",
    "no lr": "def train(g):\n    return 0.1 * g\n",
    "constant": "def train():\n    return 0.1\n",
    "infinite constant": "def train(g, *, a=1e300):\n    return g / a + 1 / 1e300\n",
    "scalar slot": "def train(g, n: scalar):\n    n = n + dot(g, g)\n    return g / n, n\n",
    "leaf slot": "def train(g, n: leaf):\n    n = interp(norm(g), n, 0.9)\n    return g * n, n\n",
    "update = slot": "def train(g, m):\n    x = m\n    m = m + g\n    return 0.1 * x, m\n",
    "clip": "def train(g, t):\n    return clip(g, 1 / t)\n",
}


def test_inputs_and_slots_mean_the_same_in_both_paths() -> None:
    """Every reserved input, state of every kind and updates of every kind: both paths agree with the reference."""
    programs = [parse(text) for text in INPUTS.values()]
    for name, program, theirs in zip(INPUTS, programs, compiled_paths(programs), strict=True):
        expected = reference(program)
        np.testing.assert_allclose(interpreted()(program), expected, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(theirs, expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_reductions_stay_in_their_tensor() -> None:
    """A norm of one tensor is spread over the entries of that tensor, a global one over all."""
    vector = np.arange(1, LAYOUT.entries + 1, dtype=np.float32)
    norms = [np.linalg.norm(tensor) for tensor in LAYOUT.unflatten(vector)]
    np.testing.assert_allclose(flat_meaning("norm", False, LAYOUT)(vector), np.repeat(norms, LAYOUT.sizes), rtol=1e-6)
    np.testing.assert_allclose(flat_meaning("global_norm", False, LAYOUT)(vector), [np.linalg.norm(vector)], rtol=1e-6)


@pytest.mark.parametrize("name", list(known()))
def test_training_equals_the_optax_transform(name: str) -> None:
    """A known program, interpreted, trains a task to the loss that its Optax transform reaches in the plain loop.

    They differ in rounding alone: by less than 0.1 % after 40 steps at the task's middle rate.
    """
    task, rate = get_task(TASK), middle_rate()
    expected = train(task, to_optax(known()[name], warmup_cosine(rate, TRAINED)), steps=TRAINED)
    assert expected.status is Status.OK
    score = evaluate_job(job(known()[name], learning_rates=(rate,)))
    assert score.loss == pytest.approx(expected.loss, rel=1e-3)
    assert score.train_loss == pytest.approx(expected.train_loss, rel=1e-3)
    assert score.curve == pytest.approx(expected.curve, rel=1e-3)


@pytest.mark.parametrize("name", ["adamw_seed", "lion"])
def test_training_compiled_equals_training_interpreted(name: str) -> None:
    """Which of the two paths a program takes is a matter of cost: the scores agree to less than 0.1 %."""
    one = job(known()[name], learning_rates=(middle_rate(),))
    ours, theirs = evaluate_job(one), evaluate_compiled(one)
    assert ours.status is theirs.status is Status.OK
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)
    assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)


def test_nothing_is_compiled_after_the_first_candidate(caplog: pytest.LogCaptureFixture) -> None:
    """A candidate costs no compilation, whatever it is made of, at any rate and from any seed."""

    def compilations(*jobs: Job) -> list[str]:
        caplog.clear()
        with jax.log_compiles(True), caplog.at_level(logging.WARNING, logger="jax"):
            for each in jobs:
                evaluate_job(each)
        return [record.getMessage() for record in caplog.records if "Compiling" in record.getMessage()]

    horizon = 9
    first = compilations(job(known()["adamw"], steps=horizon, seeds=(0, 1)))
    assert any("run" in message for message in first), "the way of counting has to see the compilation of the loop"
    others = [
        job(known()["lion"], steps=horizon, seeds=(2,), learning_rates=(1e-4, 3e-3)),
        *(job(text, steps=horizon) for text in INPUTS.values()),
    ]
    assert compilations(*others) == []
