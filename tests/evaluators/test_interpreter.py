"""The interpreter against the compiled path, the NumPy reference and the Optax transform of the same program."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from update_paths import LAYOUT, close, compiled_paths, interpreted, reference

from evolion.discovered.library import known
from evolion.discovered.optax_transform import to_optax
from evolion.evaluators import interpreter
from evolion.evaluators.encoding import CapacityError, encode, loop_of, scalar_table
from evolion.evaluators.evaluate import evaluate_compiled, evaluate_job
from evolion.evaluators.flat_ops import flat_meaning
from evolion.evaluators.types import Job
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.keys import ProbeStatus, probe
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.proxies.curvature import Curvature
from evolion.proxies.registry import get_task
from evolion.proxies.schedules import warmup_cosine
from evolion.proxies.score import Status
from evolion.proxies.training import train
from evolion.search.mutation import MutationConfig, mutate

TASK, TRAINED = "digits-mlp", 40
CHILDREN = 100
TRAINED_PROGRAMS = (
    *("adagrad", "adam", "adamw", "adamw_seed", "lion"),
    *("momentum", "nesterov", "rmsprop", "sgd", "signsgd"),
)
"""Known programs that are trained to an end: each costs the compilation of its transform."""


def middle_rate() -> float:
    rates = get_task(TASK).learning_rates
    return rates[len(rates) // 2]


def job(program: Program | str, **options: Any) -> Job:
    options = {"steps": TRAINED, "seeds": (0,), "learning_rates": (1e-3,)} | options
    return Job(0, parse(program) if isinstance(program, str) else program, TASK, **options)


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


@pytest.mark.slow
def test_children_are_interpreted_as_they_compile() -> None:
    """What a search generates does the same in both paths, and what the reference says where rounding is harmless.

    Rounding is harmless where float32 and float64 agree; a child that takes the sine of a large number, or the sign of
    a difference of equals, may differ. Such children are few.
    """
    source = children()
    programs = [remove_dead_code(next(source)) for _ in range(CHILDREN)]
    interpret = [interpreted(program) for program in programs]
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


INPUTS = {
    "loss": "def train(g, loss):\n    return g * loss\n",
    "noise": "def train(noise):\n    return 0.1 * noise\n",
    "hess": "def train(g, hess, m):\n    m = interp(hess, m, 0.5)\n    return g / (m + abs(hess)), m\n",
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
        np.testing.assert_allclose(interpreted(program), expected, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(theirs, expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_reductions_stay_in_their_tensor() -> None:
    """A norm of one tensor is spread over the entries of that tensor, a global one over all."""
    vector = np.arange(1, LAYOUT.entries + 1, dtype=np.float32)
    norms = [np.linalg.norm(tensor) for tensor in LAYOUT.unflatten(vector)]
    np.testing.assert_allclose(flat_meaning("norm", False, LAYOUT)(vector), np.repeat(norms, LAYOUT.sizes), rtol=1e-6)
    np.testing.assert_allclose(flat_meaning("global_norm", False, LAYOUT)(vector), [np.linalg.norm(vector)], rtol=1e-6)


@pytest.mark.parametrize("name", TRAINED_PROGRAMS)
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


def test_the_loop_of_a_program_is_named_without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool allows what compiles more time: it must know which programs share a loop, as the interpreter has them."""
    asked: list[tuple[Any, ...]] = []

    def compiled(*loop: Any) -> Any:
        asked.append(loop)
        return lambda *_, **__: None

    monkeypatch.setattr(interpreter, "_compiled", compiled)
    for program in known().values():
        loop = loop_of(program)
        try:
            encoding = encode(program)
        except CapacityError:
            assert loop is None
            continue
        assert loop is not None
        table = scalar_table(encoding, np.ones(3, np.float32))
        interpreter.interpret(encoding, table, TASK, seed=0, split="validation", curvature=Curvature())
        assert asked[-1] == (TASK, loop.vocabulary, loop.rows, Curvature() if loop.hess else None)
    assert len(set(asked)) > 4


def test_nothing_is_compiled_after_the_first_candidate(caplog: pytest.LogCaptureFixture) -> None:
    """A candidate costs no compilation, whatever it is made of, at any rate and from any seed."""

    def compilations(*jobs: Job) -> list[str]:
        caplog.clear()
        with jax.log_compiles(True), caplog.at_level(logging.WARNING, logger="jax"):
            for each in jobs:
                evaluate_job(each)
        return [record.getMessage() for record in caplog.records if "Compiling" in record.getMessage()]

    horizon = 520  # longer than in other tests, whose loop would do
    first = compilations(job(known()["adamw"], steps=horizon, seeds=(0, 1)))
    assert any("run" in message for message in first), "the way of counting has to see the compilation of the loop"
    others = [
        job(known()["lion"], steps=horizon, seeds=(2,), learning_rates=(1e-4, 3e-3)),
        *(job(text, steps=horizon) for name, text in INPUTS.items() if name != "hess"),
    ]
    assert compilations(*others) == []
