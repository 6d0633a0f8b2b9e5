"""`block-model:?nodes=24&communities=4&features=8`: which community does each node of a graph belong to?

Each example is one graph of a stochastic block model: every node belongs to a community drawn at random; two nodes of
one community are joined with probability 0.4, others with 0.1. A node shows a vector of features, the mean of its
community under much noise, so that a model has to gather what the neighbours say. The means are fixed. Feature k is in
units of its own, 1 / k of the first's, as measured quantities are.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.source import SPLITS, Field, GeneratedSource, Info, Source
from evolion.proxies.data.streams import integers, normal, raw_stream, rounded, uniform
from evolion.proxies.data.uri import Uri

WITHIN, BETWEEN = 0.4, 0.1
SIGNAL = 0.35
"""The scale of a community's mean; that of the noise is 1, both before features get their units."""

_STREAM = 16


def open_uri(uri: Uri) -> Source:
    """Adjacency beside features (inputs), float32 (nodes, nodes + features); communities (targets), int32 (nodes,)."""
    nodes = uri.integer("nodes", 24, 2, 1024)
    communities = uri.integer("communities", 4, 2, 64)
    features = uri.integer("features", 8, 1, 1024)
    return GeneratedSource(
        Info(
            fields={
                "inputs": Field("float32", (nodes, nodes + features)),
                "targets": Field("int32", (nodes,), communities),
            },
            examples=dict.fromkeys(SPLITS),
            digest=hashlib.sha256(
                f"block-model 1 {nodes} {communities} {features} {WITHIN} {BETWEEN} {SIGNAL}".encode()
            ).hexdigest(),
            note="generated",
        ),
        _STREAM,
        _generator(nodes, communities, features),
    )


def community_means(communities: int, features: int) -> NDArray[np.float64]:
    """The mean of the features in each community; shape (communities, features)."""
    return SIGNAL * normal(raw_stream(_STREAM, 1000, communities, features), (communities, features))


def _generator(
    nodes: int, communities: int, features: int
) -> Callable[[np.random.PCG64, int], Mapping[str, NDArray[Any]]]:
    means = community_means(communities, features)
    above = np.triu_indices(nodes, 1)

    def generate(bits: np.random.PCG64, count: int) -> Mapping[str, NDArray[Any]]:
        targets = integers(bits, communities, (count, nodes))
        chance = np.where(targets[:, above[0]] == targets[:, above[1]], WITHIN, BETWEEN)
        inputs = np.zeros((count, nodes, nodes + features), np.float32)
        inputs[:, above[0], above[1]] = uniform(bits, chance.shape) < chance
        inputs[:, :, :nodes] += inputs[:, :, :nodes].transpose(0, 2, 1)
        seen = means[targets] + normal(bits, (count, nodes, features))
        inputs[:, :, nodes:] = rounded(seen / np.arange(1, features + 1))
        return {"inputs": inputs, "targets": targets.astype(np.int32)}

    return generate
