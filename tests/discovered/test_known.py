import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from evolion.discovered.library import known
from evolion.discovered.optax_transform import to_optax
from evolion.primitives.numpy_interpreter import trajectory
from evolion.primitives.parser import parse

STEPS = 30
SCHEDULE = optax.warmup_cosine_decay_schedule(1e-4, 0.02, 5, STEPS, 1e-3)

NAMESAKES: Mapping[str, Callable[[Any], Any]] = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "rmsprop": optax.rmsprop,
    "adagrad": optax.adagrad,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "lion": optax.lion,
    "signsgd": optax.sign_sgd,
}

WITHOUT_REFERENCE: Mapping[str, str] = {}
"""For each known program that is compared with nothing, why."""


def tree(rng: np.random.Generator, scale: float = 1.0) -> Any:
    """Nested containers, a scalar, an empty tensor and a None."""
    shapes = {"dense": {"kernel": (4, 3), "bias": (3,)}, "scale": [(), ((2, 1, 2), (0, 3))]}
    arrays = jax.tree.map(
        lambda shape: np.asarray(scale * rng.normal(size=shape), np.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple) and all(isinstance(entry, int) for entry in node),
    )
    return arrays | {"unused": None}


def stacked_gradients(seed: int) -> Any:
    """A gradient for each step along a leading axis; some entries tiny, some zero for a while."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(size=STEPS) * 2.0)
    trees = [tree(rng, size[step]) for step in range(STEPS)]
    gradients = jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
    gradients["dense"]["kernel"][:10, 0] = 0.0
    gradients["dense"]["kernel"][:, 1] *= 1e-9
    return gradients


def run(tx: Any, params: Any, gradients: Any, *, as_float32: bool = False) -> Any:
    """The parameters after each step. `as_float32` gives the rule float32 copies and rounds only its updates."""

    def widened(values: Any) -> Any:
        return optax.tree.cast(values, jnp.float32) if as_float32 else values

    def step(carry: Any, gradient: Any) -> Any:
        params, state = carry
        updates, state = tx.update(widened(gradient), state, widened(params))
        params = optax.apply_updates(params, jax.tree.map(lambda u, p: u.astype(p.dtype), updates, params))
        return (params, state), params

    return jax.lax.scan(step, (params, tx.init(widened(params))), gradients)[1]


def displacements(path: Any, start: Any) -> np.ndarray[Any, Any]:
    """Steps x entries: how far each weight is from its start."""
    moved = jax.tree.map(lambda p, s: (np.asarray(p, np.float64) - np.asarray(s, np.float64)).reshape(STEPS, -1),
                         path, start)  # fmt: skip
    return np.concatenate(jax.tree.leaves(moved), axis=1)


def test_every_known_program_has_a_reference() -> None:
    """A new program is compared with somebody else's implementation or formula, or listed as one that is not."""
    here = Path(__file__)
    modules = [here, *here.parent.glob("test_known_*.py"), *(here.parents[1] / "oracles").glob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in modules if path.name != "test_known_reports.py"]
    named = set(re.findall(r'"([a-z0-9_]+)"', "\n".join(texts)))
    assert set(known()) <= named
    assert set(WITHOUT_REFERENCE) <= set(known())


@pytest.mark.parametrize("name", NAMESAKES)
def test_known_equals_optax_step_by_step(name: str) -> None:
    """Under jit, with a schedule, on a nested tree, in float32 and with bfloat16 parameters beside float32 state."""
    start = tree(np.random.default_rng(7))
    low = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), start)
    gradients = stacked_gradients(8)
    low_gradients = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), gradients)

    @jax.jit
    def paths(start: Any, low: Any) -> Any:
        ours, theirs = to_optax(known()[name], SCHEDULE), NAMESAKES[name](SCHEDULE)
        full = run(ours, start, gradients), run(theirs, start, gradients)
        half = run(ours, low, low_gradients), run(theirs, low, low_gradients, as_float32=True)
        return full, half, run(theirs, low, low_gradients)

    (ours, theirs), half, plain = paths(start, low)
    mine, reference = displacements(ours, start), displacements(theirs, start)
    # The displacement is read off float32 weights near 1, whose last bit is 1.2e-7.
    np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=3e-7)
    assert np.abs(reference[-1]).max() > 1e-2
    mine, reference, coarse = (displacements(path, low) for path in (*half, plain))
    # One rounding that falls to the other side is one last place of bfloat16.
    np.testing.assert_allclose(mine, reference, rtol=0.01, atol=0.02)
    assert np.mean(mine == reference) > 0.98
    assert np.linalg.norm(mine - coarse) < 0.3 * np.linalg.norm(mine)


def test_seed_is_the_program_of_the_paper() -> None:
    """The warm start of the search has no bias correction, and no epsilon but that of protected division."""
    start, gradients = tree(np.random.default_rng(7)), stacked_gradients(8)
    path = jax.jit(lambda s: run(to_optax(known()["adamw_seed"], SCHEDULE), s, gradients))(start)
    w = jax.tree.map(np.float64, start)
    m = v = jax.tree.map(np.zeros_like, w)
    for step in range(STEPS):
        g = jax.tree.map(lambda leaf, step=step: np.float64(leaf[step]), gradients)
        rate = float(SCHEDULE(step))
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        w = jax.tree.map(lambda w, m, v, r=rate: w - r * (m / (np.sqrt(v) + 1e-8) + 0.01 * w), w, m, v)
    last = jax.tree.map(lambda leaf: leaf[-1], path)
    for ours, theirs in zip(jax.tree.leaves(last), jax.tree.leaves(w), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*NAMESAKES, "adamw_seed"])
def test_numpy_and_jax_follow_one_trajectory(name: str) -> None:
    """The reference interpreter, which keys are made of, and the transform that people train with agree.

    The other programs are run by both where their references are.
    """
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in [(3, 2), (4,)]]
    gradients = [[rng.normal(size=w.shape).astype(np.float32) for w in weights] for _ in range(10)]
    rates = [0.01 * (step + 1) for step in range(10)]
    reference = trajectory(known()[name], weights, gradients, learning_rate=rates)
    tx = to_optax(known()[name], lambda count: 0.01 * (count + 1))

    @jax.jit
    def follow(params: Any) -> Any:
        state = tx.init(params)
        for gradient in gradients:
            updates, state = tx.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params

    for ours, theirs in zip(follow(weights), reference[-1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", known())
def test_known_programs_survive_print_and_parse(name: str) -> None:
    """The library is in the language it documents, docstrings included."""
    program = known()[name]
    assert parse(str(program)) == program
    assert "Form:" in program.docstring
    assert any(word in program.docstring for word in ("Recommended:", "warm start"))
