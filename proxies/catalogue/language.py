"""Transformer language models."""

import math
from collections.abc import Mapping
from dataclasses import replace

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

# Embeddings start small, as in language models: from standard normal ones Lion falls behind AdamW (docs/tasks.md).
TEXT_LM = TaskSpec(
    name="text-lm",
    family="transformer",
    summary="one-layer transformer of width 32 on characters of docstrings, small batches, a long run",
    model="transformer.LanguageModel",
    sizes={"width": 32, "depth": 1, "heads": 2, "vocabulary": 97, "context": 16, "activation": "relu", "norm": "pre"},
    data="docstrings:?context=16",
    objective="cross-entropy",
    steps=6000,
    batch_size=16,
    learning_rates=(3e-3, 1e-2, 3e-2),
    start=math.log(97),
    metric="cross-entropy, nats per character",
    embedding_scale=0.1,
    rungs=_RUNGS,
)

# Two characters an example: with more, a batch of 256 leaves so small a model little noise, and Lion falls behind.
TEXT_LM_LARGE_BATCH = replace(
    TEXT_LM,
    name="text-lm-large-batch",
    summary="one-layer transformer of width 32 on pairs of characters of docstrings, batches of 256, a long run",
    sizes={**TEXT_LM.sizes, "context": 2},
    data="docstrings:?context=2",
    steps=5000,
    batch_size=256,
)

SPECS = (ZIPF_LM, TEXT_LM, TEXT_LM_LARGE_BATCH)
