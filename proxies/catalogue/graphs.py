"""Graph networks."""

import math

from evolion.proxies.spec import TaskSpec

BLOCK_GRAPH = TaskSpec(
    name="block-graph",
    family="graph",
    summary="graph convolutions, three layers of width 32, on communities of stochastic block models",
    model="graph.GraphNet",
    sizes={"width": 32, "depth": 3, "outputs": 4, "activation": "relu", "norm": "pre"},
    data="block-model:?nodes=24&communities=4&features=8",
    objective="cross-entropy",
    steps=600,
    batch_size=16,
    learning_rates=(3e-3, 1e-2, 3e-2),
    start=math.log(4),
    metric="cross-entropy, nats per node",
    rungs={"10x": {"width": 2, "horizon": 2.5}, "100x": {"width": 4, "depth": 2, "horizon": 3}},
)

SPECS = (BLOCK_GRAPH,)
