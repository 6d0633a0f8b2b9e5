"""What is no program, composed in Optax around exported ones: the code of docs/known.md, as it stands there."""

import re
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "known.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (.+?)\n(.*?)(?=^###? |\Z)", PAGE, re.MULTILINE | re.DOTALL))
SHARED = PAGE.partition("## What is no program")[2].partition("### ")[0]
STEPS = 60

rng = np.random.default_rng(0)
CURVATURE = {"kernel": np.exp(rng.normal(size=(6, 4))), "bias": np.ones(4)}
TARGET = {"kernel": rng.normal(size=(6, 4)), "bias": rng.normal(size=4)}
START = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), TARGET)


def loss(params: Any) -> Any:
    """A quadratic of known curvature whose least value is 0."""
    parts = jax.tree.map(lambda h, p, target: jnp.sum(h * (p - target) ** 2), CURVATURE, params, TARGET)
    return optax.tree.sum(parts) / 2


gradient = jax.grad(loss)


def code(section: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return str(block)


@cache
def composed(title: str) -> dict[str, Any]:
    """Run the block of a section of the page after the one that all share; return the names that it defines."""
    names: dict[str, Any] = {}
    for text in (code(SHARED), code(SECTIONS[title])):
        exec(compile(text, f"docs/known.md, {title}", "exec"), names)
    return names


def trained(tx: Any, **extra_args: Any) -> Any:
    """The parameters after some steps under jit, and the last state."""

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(gradient(params), state, params, **extra_args)
        return optax.apply_updates(params, updates), state

    params, state = START, tx.init(START)
    for _ in range(STEPS):
        params, state = step(params, state)
    assert loss(params) < 0.2 * loss(START)
    return params, state


def close(one: Any, other: Any, rtol: float = 1e-5) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("title", SECTIONS)
def test_every_composition_is_tried(title: str) -> None:
    """A section of the page has one block of code that runs, a row in its table, and a test here."""
    composed(title)
    assert re.search(rf"^\| {title}|{title}[ ,|]", SHARED, re.MULTILINE | re.IGNORECASE)
    assert f'"{title}"' in re.sub(r"SECTIONS\b", "", Path(__file__).read_text(encoding="utf-8"))


def test_sam_takes_the_gradient_at_perturbed_weights() -> None:
    """The update is the exported program's on the gradient one normalised step uphill."""
    names = composed("SAM")
    tx, base = names["tx"], names["base"]
    trained(tx, grad_fn=lambda params, _: gradient(params))
    g = gradient(START)
    uphill = optax.tree.add_scale(START, 0.05 / optax.tree.norm(g), g)
    theirs, _ = base.update(gradient(uphill), base.init(START), START)
    ours, _ = jax.jit(partial(tx.update, grad_fn=lambda params, _: gradient(params)))(g, tx.init(START), START)
    close(ours, theirs)


def test_gsam_without_its_second_part_is_sam() -> None:
    """With alpha 0 a step is that of SAM; with it the loss at the weights counts more, and falls as well."""
    names = composed("GSAM")
    base = names["base"]
    sam = composed("SAM")["tx"]
    ours, _ = names["gsam"](base, gradient, 0.05, 0.0)(START, base.init(START))
    uphill = jax.jit(partial(sam.update, grad_fn=lambda params, _: gradient(params)))
    updates, _ = uphill(gradient(START), sam.init(START), START)
    close(ours, optax.apply_updates(START, updates))
    params, state = START, base.init(START)
    step = jax.jit(names["gsam"](base, gradient))
    for _ in range(STEPS):
        params, state = step(params, state)
    assert loss(params) < 0.2 * loss(START)


def test_entropy_sgd_follows_its_inner_loop() -> None:
    """One inner step without noise pulls along the gradient; a whole run trains."""
    names = composed("Entropy-SGD")
    sgd = optax.sgd(1.0)
    step = names["entropy_sgd"](sgd, gradient, steps=1, rate=0.1, decay=0.75, noise=0.0)
    ours, _ = jax.jit(step)(START, sgd.init(START), jax.random.key(0))
    close(ours, optax.tree.add_scale(START, -0.1 * 0.25, gradient(START)))
    base = names["base"]
    params, state, step = START, base.init(START), jax.jit(names["entropy_sgd"](base, gradient))
    for key in jax.random.split(jax.random.key(0), STEPS):
        params, state = step(params, state, key)
    assert loss(params) < 0.2 * loss(START)


def test_mfac_multiplies_with_the_inverse_fisher_matrix() -> None:
    """The Woodbury form is the dense inverse, when the window has come round as well."""
    names = composed("M-FAC")
    trained(names["tx"])
    tx, gradients = names["mfac"](window=3, damping=0.5), rng.normal(size=(5, 4)).astype(np.float32)
    state, update = tx.init({"w": jnp.zeros(4)}), jax.jit(tx.update)
    for g in gradients:
        updates, state = update({"w": jnp.asarray(g)}, state)
    fisher = 0.5 * np.eye(4) + gradients[-3:].T @ gradients[-3:] / 3
    np.testing.assert_allclose(updates["w"], np.linalg.solve(fisher, gradients[-1]), rtol=1e-4)


def test_mkor_multiplies_with_the_inverses_of_both_factors() -> None:
    """The rank-one formula is the dense inverse, the length is the gradient's, and the bias goes through."""
    names = composed("MKOR")
    tx = names["mkor"](0.9)
    state, update = tx.init(START), jax.jit(tx.update)
    left, right, g = np.eye(6), np.eye(4), rng.normal(size=(6, 4))
    for _ in range(3):
        a, d = rng.normal(size=6), rng.normal(size=4)
        left, right = 0.9 * left + 0.1 * np.outer(a, a), 0.9 * right + 0.1 * np.outer(d, d)
        given = {"activations": {"kernel": a, "bias": None}, "deltas": {"kernel": d, "bias": None}}
        updates, state = update({"kernel": jnp.asarray(g), "bias": jnp.ones(4)}, state, START, **given)
    expected = np.linalg.inv(left) @ g @ np.linalg.inv(right)
    np.testing.assert_allclose(updates["kernel"], expected * np.linalg.norm(g) / np.linalg.norm(expected), rtol=1e-4)
    np.testing.assert_array_equal(updates["bias"], 1)
    trained(
        names["tx"], activations={"kernel": jnp.ones(6), "bias": None}, deltas={"kernel": jnp.ones(4), "bias": None}
    )


def test_adadagrad_asks_for_the_batch_that_the_variance_needs() -> None:
    """The norm test is that of the paper, never shrinks the batch and keeps to its limit."""
    names = composed("AdAdaGrad")
    trained(names["tx"])
    examples = rng.normal(loc=0.1, size=(64, 5)).astype(np.float32)
    mean = examples.mean(axis=0)
    wanted = int(np.ceil(examples.var(axis=0, ddof=1).sum() / (0.5**2 * (mean @ mean))))
    given = {"w": jnp.asarray(examples)}
    assert wanted > 64
    assert names["next_batch_size"](given, 64) == wanted
    assert names["next_batch_size"](given, 10 * wanted) == 10 * wanted
    assert names["next_batch_size"](given, 64, largest=65) == 65


def test_state_of_one_byte_trains_as_well() -> None:
    """Large slots take a byte per number and a little, and training hardly notices."""
    names = composed("8-bit state")
    large = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), {"a": rng.normal(size=(40, 50)), "b": np.ones(3)})
    paths = []
    for tx in (names["tx"], names["base"]):
        params, state = jax.tree.map(jnp.zeros_like, large), tx.init(large)
        update = jax.jit(tx.update)
        for _ in range(STEPS):
            updates, state = update(optax.tree.sub(params, large), state, params)
            params = optax.apply_updates(params, updates)
        paths.append((params, state))
    (ours, packed), (theirs, full) = paths
    assert optax.tree.norm(optax.tree.sub(ours, theirs)) < 0.1 * optax.tree.norm(theirs)
    sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(state)) for state in (packed, full)]
    assert sizes[0] < 0.28 * sizes[1]


def test_autoclip_clips_to_a_percentile_of_the_norms() -> None:
    """The history, the percentile and the epsilon are those of the authors' code."""
    names = composed("AutoClip")
    trained(names["tx"])
    tx = names["autoclip"](percentile=30, window=100)
    state, update, norms = tx.init(START), jax.jit(tx.update), []
    for g in rng.normal(size=(8, 5)) * np.exp(rng.normal(size=(8, 1))):
        norms.append(np.linalg.norm(g))
        updates, state = update(jnp.asarray(g, jnp.float32), state)
        scale = min(1.0, np.percentile(norms, 30) / (norms[-1] + 1e-6))
        np.testing.assert_allclose(updates, scale * g, rtol=1e-5)


def test_averages_are_those_of_the_weights() -> None:
    """Both averages are the sums that they stand for, and neither touches the training."""
    names = composed("Averaging")
    init, step = names["averaged"](names["base"], gradient, decay=0.9)
    step = jax.jit(step)
    params, state, path = START, init(START), []
    for _ in range(12):
        params, state = step(params, state)
        path.append(params["kernel"])
    weights = 0.9 ** np.arange(12)[::-1]
    np.testing.assert_allclose(state["ema"]["kernel"], np.tensordot(weights / weights.sum(), path, 1), rtol=1e-4)
    np.testing.assert_allclose(state["swa"]["kernel"], np.mean(path, axis=0), rtol=1e-4)
    base = names["base"]
    alone, inner, update = START, base.init(START), jax.jit(base.update)
    for _ in range(12):
        updates, inner = update(gradient(alone), inner, alone)
        alone = optax.apply_updates(alone, updates)
    close(alone, params)


@pytest.mark.parametrize(("title", "high", "low"), [("SGDR", 10, 9), ("One-cycle", 18, 59)])
def test_schedules_set_the_learning_rate_of_a_step(title: str, high: int, low: int) -> None:
    """Steps follow the schedule: long where it is high, short at the end of a period."""
    tx = composed(title)["tx"]
    params, state, lengths = START, tx.init(START), []
    update = jax.jit(tx.update)
    for _ in range(STEPS):
        updates, state = update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        lengths.append(float(optax.tree.norm(updates)))
    assert lengths[high] > 5 * lengths[low]
    assert loss(params) < 0.2 * loss(START)
