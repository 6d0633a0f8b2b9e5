"""The Zipf-bigram language and the model of it."""

import jax
import numpy as np
import optax
import pytest

from evolion.proxies.data.arrays import digest
from evolion.proxies.data.source import SPLITS
from evolion.proxies.data.streams import raw_stream
from evolion.proxies.data.zipf import language_of
from evolion.proxies.registry import get_task
from evolion.proxies.schedules import warmup_cosine
from evolion.proxies.training import train

DATA_DIGEST = "20d2b9a9c7a2d5633184ff393486ed1a71ec3d8e572d610e125e4090213499f4"
LANGUAGE = language_of(128)
ADAMW = optax.adamw(warmup_cosine(6e-2, 400), weight_decay=0.1)


def test_chain_is_exact() -> None:
    """Rows are distributions without zeros, in whole units, and the stationary distribution is one."""
    chain, state = LANGUAGE.transitions, LANGUAGE.stationary
    assert (chain.sum(axis=1) == 2**32).all()
    assert state.sum() == 2**32
    assert chain.min() > 0
    assert np.allclose(state @ (chain / 2**32), state, rtol=0, atol=64)


def test_rows_mix_a_shared_and_a_permuted_law() -> None:
    """Each row is half Zipf(1) over all tokens and half Zipf(1.5) over its own order of them."""
    ranks = np.arange(1, LANGUAGE.vocabulary + 1)
    shared, sparse = 1 / ranks / (1 / ranks).sum(), ranks**-1.5 / (ranks**-1.5).sum()
    own = 2 * LANGUAGE.transitions / 2**32 - shared
    assert np.allclose(np.sort(own, axis=1)[:, ::-1], sparse, atol=1e-7)
    assert len({row.tobytes() for row in np.argsort(own, axis=1)}) == LANGUAGE.vocabulary


def test_data_is_pinned() -> None:
    """Everybody trains on the same text: the digest of the data never changes."""
    assert digest("zipf", {split: get_task("zipf-lm").data(split) for split in SPLITS}) == DATA_DIGEST


def test_floor_is_the_entropy_of_a_long_sample() -> None:
    """The mean surprise of a million tokens under the chain is the stored floor, and tokens are stationary."""
    tokens = LANGUAGE.sample(raw_stream(9, 9), 2000, 501)
    chain = LANGUAGE.transitions / 2**32
    surprise = -np.log(chain[tokens[:, :-1], tokens[:, 1:]]).mean()
    assert surprise == pytest.approx(LANGUAGE.entropy_rate(), abs=0.01)
    assert get_task("zipf-lm").floor == LANGUAGE.entropy_rate()
    for column in (tokens[:, 0], tokens[:, 1:].ravel()):
        observed = np.bincount(column, minlength=LANGUAGE.vocabulary) / column.size
        assert np.abs(observed - LANGUAGE.stationary / 2**32).max() < 5 * (0.25 / column.size) ** 0.5


def test_single_epoch_at_the_default_horizon() -> None:
    """No sequence is seen twice in a default run, so the loss measures optimization alone."""
    task = get_task("zipf-lm")
    order = task.order(0, task.steps).ravel()
    assert len(set(order.tolist())) == order.size


def test_model_sees_only_the_past() -> None:
    """Changing a token leaves the predictions before it as they were."""
    task = get_task("zipf-lm")
    model, params = task.model, {"params": task.init(0)}  # type: ignore[attr-defined]
    tokens = np.array(task.data("test")["inputs"][:2])
    changed = tokens.copy()
    changed[:, 9] = (changed[:, 9] + 1) % LANGUAGE.vocabulary
    before, after = (jax.jit(model.apply)(params, x) for x in (tokens, changed))
    assert np.allclose(before[:, :9], after[:, :9], atol=1e-5)
    assert not np.allclose(before[:, 9:], after[:, 9:], atol=1e-3)


def test_adamw_lands_between_floor_and_unigram() -> None:
    """A default run learns the bigrams: far below what the token frequencies give, yet never below the entropy."""
    task = get_task("zipf-lm")
    score = train(task, ADAMW)
    assert score.loss is not None
    assert LANGUAGE.entropy_rate() < score.loss < LANGUAGE.unigram_entropy() - 0.5


@pytest.mark.slow
def test_adamw_beats_momentum() -> None:
    """The anchor of language models: tuned AdamW is clearly better than tuned gradient descent with momentum."""
    task = get_task("zipf-lm")
    momentum = [optax.sgd(warmup_cosine(rate, 400), momentum=0.9) for rate in (0.3, 0.6, 1.0)]
    adamw = [train(task, ADAMW, seed=seed).loss for seed in (0, 1)]
    for tx in momentum:
        assert all(
            mine is not None and (theirs := train(task, tx, seed=seed).loss) is not None and mine < theirs - 0.05
            for seed, mine in enumerate(adamw)
        )
