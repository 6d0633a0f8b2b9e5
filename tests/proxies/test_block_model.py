"""Graphs of stochastic block models, and graph networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from evolion.proxies.data.arrays import digest
from evolion.proxies.data.block_model import BETWEEN, WITHIN, community_means
from evolion.proxies.data.source import SPLITS
from evolion.proxies.data.uri import open_source
from evolion.proxies.initialization import initialize
from evolion.proxies.models.graph import GraphNet, normalized_adjacency

DATA_DIGEST = "15995b31c0a6b6d4d70dc98628062602e7a109e9aa23c53c8b29ca97d48d6d53"
SOURCE = open_source("block-model:?nodes=12&communities=3&features=4")


def graphs(count: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    batch = SOURCE.gather("train", np.arange(count))
    return batch["inputs"][..., :12], batch["inputs"][..., 12:], batch["targets"]


def test_graphs_are_undirected_and_without_loops() -> None:
    """An adjacency matrix is symmetric, of zeros and ones, with a zero diagonal."""
    adjacency, _, _ = graphs(50)
    assert np.array_equal(adjacency, adjacency.transpose(0, 2, 1))
    assert set(np.unique(adjacency)) == {0, 1}
    assert not adjacency.diagonal(axis1=1, axis2=2).any()


def test_edges_follow_the_communities() -> None:
    """Nodes of one community are joined as often as the model says, and others less often."""
    adjacency, _, targets = graphs(1000)
    above = np.triu(np.ones((12, 12), bool), 1)
    same = (targets[:, :, None] == targets[:, None, :]) & above
    other = (targets[:, :, None] != targets[:, None, :]) & above
    assert adjacency[same].mean() == pytest.approx(WITHIN, abs=0.02)
    assert adjacency[other].mean() == pytest.approx(BETWEEN, abs=0.02)


def test_features_tell_the_community() -> None:
    """In their own units features are the mean of the community with noise of one."""
    _, features, targets = graphs(2000)
    own = features * np.arange(1, 5)
    for community, mean in enumerate(community_means(3, 4)):
        assert np.allclose(own[targets == community].mean(axis=0), mean, atol=0.06)
        assert np.allclose(own[targets == community].std(axis=0), 1, atol=0.06)


def test_normalized_adjacency_by_hand() -> None:
    """Two joined nodes share evenly; a node alone keeps what it has."""
    adjacency = jnp.array([[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    expected = [[[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]]
    assert np.allclose(normalized_adjacency(adjacency), expected)


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_names_of_nodes_do_not_matter(norm: str) -> None:
    """Nodes in another order get the same answers in that order."""
    model = GraphNet(width=8, depth=2, outputs=3, norm=norm)
    adjacency, features, _ = graphs(5)
    order = np.random.default_rng(0).permutation(12)
    inputs = np.concatenate([adjacency, features], axis=2)
    other = np.concatenate([adjacency[:, order][:, :, order], features[:, order]], axis=2)
    params = {"params": initialize(model, inputs[:1], 0)}
    before, after = (np.asarray(jax.jit(model.apply)(params, x)) for x in (inputs, other))
    assert np.allclose(before[:, order], after, atol=1e-5)


def test_data_is_pinned() -> None:
    """Everybody trains on the same graphs: the digest never changes."""
    source = open_source("block-model:")
    assert digest("graphs", {split: source.gather(split, np.arange(64)) for split in SPLITS}) == DATA_DIGEST
