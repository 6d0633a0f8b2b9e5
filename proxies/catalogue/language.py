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

TEXT_LM = TaskSpec(
    name="text-lm",
    family="transformer",
    summary="one-layer transformer of width 48 on characters of docstrings, small batches, a long run",
    model="transformer.LanguageModel",
    sizes={"width": 48, "depth": 1, "heads": 3, "vocabulary": 97, "context": 32, "activation": "gelu", "norm": "pre"},
    data="docstrings:?context=32",
    objective="cross-entropy",
    steps=2000,
    batch_size=16,
    learning_rates=(1e-2, 3e-2, 1e-1),
    start=math.log(97),
    metric="cross-entropy, nats per character",
    rungs=_RUNGS,
)

TEXT_LM_LARGE_BATCH = replace(
    TEXT_LM,
    name="text-lm-large-batch",
    summary="one-layer transformer of width 32 on characters of docstrings, batches of 256",
    sizes={**TEXT_LM.sizes, "width": 32, "heads": 2, "context": 16},
    data="docstrings:?context=16",
    steps=300,
    batch_size=256,
    rungs={"10x": {"width": 2, "horizon": 2.5}, "100x": {"width": 4, "depth": 2, "horizon": 3}},
)

SPECS = (ZIPF_LM, TEXT_LM, TEXT_LM_LARGE_BATCH)
