"""Sequences from Markov chains, each its own."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolion.proxies.data.arrays import digest
from evolion.proxies.data.markov import CONCENTRATION, FLOORS, bayes_losses, chains, estimate_floor, sample
from evolion.proxies.data.source import SPLITS
from evolion.proxies.data.streams import raw_stream
from evolion.proxies.data.uri import open_source
from evolion.proxies.registry import SPECS

DATA_DIGEST = "67a2631f25503d0e455d82ea4b55e698b2c1885a59fc54eacea4c336a2247d9b"


def test_rows_follow_the_dirichlet_law() -> None:
    """Mean and variance of a transition probability are those of the law that chains are drawn from."""
    table = chains(raw_stream(9, 9), 4000, 8) / 2**32
    assert (table[..., -1] == 1).all()
    shares = np.diff(table, axis=-1, prepend=0)
    assert shares.min() >= 0
    variance = (1 / 8) * (7 / 8) / (8 * CONCENTRATION + 1)
    assert np.allclose(shares.mean(axis=(0, 1)), 1 / 8, atol=0.005)
    assert np.allclose(shares.var(axis=(0, 1)), variance, rtol=0.05)


def test_sequences_follow_their_own_chain() -> None:
    """A long sequence moves as its chain says."""
    tokens = sample(raw_stream(9, 8), 1, 4, 40_000)[0]
    table = chains(raw_stream(9, 8), 1, 4)[0] / 2**32
    counts = np.zeros((4, 4))
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    visited = counts.sum(axis=1) > 2000
    assert visited.any()
    observed = counts[visited] / counts[visited].sum(axis=1, keepdims=True)
    assert np.allclose(np.cumsum(observed, axis=1), table[visited], atol=0.05)


@given(st.integers(2, 6), st.integers(2, 12), st.integers(0, 1000))
@settings(max_examples=25)
def test_posterior_mean_is_a_distribution(states: int, length: int, seed: int) -> None:
    """Over all possible next states the chances of the Bayes prediction sum to one; without evidence they are equal."""
    prefix = sample(raw_stream(9, seed), 1, states, length)
    continued = np.concatenate([np.repeat(prefix, states, 0), np.arange(states, dtype=np.int32)[:, None]], axis=1)
    losses = bayes_losses(continued, states)
    assert np.exp(-losses[:, -1]).sum() == pytest.approx(1)
    assert np.allclose(losses[:, 0], math.log(states))


def test_bayes_losses_by_hand() -> None:
    """Counts enter as the posterior mean has them: after 0 1 0, what followed 0 once was 1."""
    losses = bayes_losses(np.array([[0, 1, 0, 1]], np.int32), 2)
    assert np.exp(-losses[0]) == pytest.approx([0.5, 0.5, (1 + CONCENTRATION) / (1 + 2 * CONCENTRATION)])


def test_recorded_floor_is_the_bayes_loss() -> None:
    """What is recorded as floor is what a small estimate from the same sequences finds, within its error."""
    (states, context), (floor, error) = next(iter(FLOORS.items()))
    estimate, spread = estimate_floor(states, context, 3)
    assert estimate == pytest.approx(floor, abs=6 * (error + spread))
    assert open_source(f"markov-chains:?states={states}&context={context}").info.floor == floor


def test_tasks_on_chains_have_a_floor() -> None:
    """Every task of the catalogue on chains is one whose Bayes-optimal loss has been computed."""
    sources = {spec.data for spec in SPECS.values() if spec.data.startswith("markov-chains:")}
    assert sources
    assert all(open_source(data).info.floor is not None for data in sources)


def test_other_sizes_have_no_floor() -> None:
    """A size whose Bayes loss nobody has computed says so rather than guess."""
    assert open_source("markov-chains:?states=3&context=5").info.floor is None


def test_data_is_pinned() -> None:
    """Everybody trains on the same sequences: the digest never changes."""
    source = open_source("markov-chains:?states=8&context=32")
    assert digest("markov", {split: source.gather(split, np.arange(64)) for split in SPLITS}) == DATA_DIGEST
