"""Transformer language models."""

import math
from collections.abc import Mapping

from evolion.proxies.spec import TaskSpec

_RUNGS: Mapping[str, Mapping[str, float]] = {
    "10x": {"width": 2, "horizon": 2.5},
    "100x": {"width": 4, "depth": 2, "horizon": 3},
}

ZIPF_LM = TaskSpec(
    name="zipf-lm",
    family="transformer",
    summary="one-layer transformer of width 32 on a generated Zipf-bigram language of 128 tokens",
    model="transformer.LanguageModel",
    sizes={"width": 32, "depth": 1, "heads": 2, "vocabulary": 128, "context": 16, "activation": "relu", "norm": "pre"},
    data="zipf-bigram:?vocabulary=128&context=16",
    objective="cross-entropy",
    steps=400,
    batch_size=16,
    learning_rates=(1e-2, 3e-2, 1e-1),
    start=math.log(128),
    metric="cross-entropy, nats",
    rungs=_RUNGS,
)

SPECS = (ZIPF_LM,)
