"""Sequence models other than plain language: recall, in-context chains, recurrent nets."""

import math
from collections.abc import Mapping

from evolion.proxies.spec import TaskSpec

_RUNGS: Mapping[str, Mapping[str, float]] = {
    "10x": {"width": 2, "horizon": 2.5},
    "100x": {"width": 4, "depth": 2, "horizon": 3},
}

MARKOV_LM = TaskSpec(
    name="markov-lm",
    family="transformer",
    summary="two-layer transformer of width 32 on sequences from Markov chains of 8 states, each its own",
    model="transformer.LanguageModel",
    sizes={"width": 32, "depth": 2, "heads": 2, "vocabulary": 8, "context": 32, "activation": "gelu", "norm": "pre"},
    data="markov-chains:?states=8&context=32",
    objective="cross-entropy",
    steps=600,
    batch_size=16,
    learning_rates=(3e-3, 1e-2, 3e-2),
    start=math.log(8),
    metric="cross-entropy, nats",
    rungs=_RUNGS,
)

RECALL_LM = TaskSpec(
    name="recall-lm",
    family="transformer",
    summary="two-layer transformer of width 32 that recalls which value came with a key, six pairs at a time",
    model="transformer.LanguageModel",
    sizes={"width": 32, "depth": 2, "heads": 2, "vocabulary": 32, "context": 23, "activation": "gelu", "norm": "pre"},
    data="recall:?pairs=6&keys=16&values=16",
    objective="asked cross-entropy",
    steps=500,
    batch_size=32,
    learning_rates=(3e-3, 1e-2, 3e-2),
    start=math.log(32),
    metric="cross-entropy of the values asked for, nats",
    rungs=_RUNGS,
)

TEXT_GRU = TaskSpec(
    name="text-gru",
    family="recurrent",
    summary="gated recurrent units, one layer of width 64, on characters of docstrings",
    model="recurrent.GruLanguageModel",
    sizes={"width": 64, "depth": 1, "vocabulary": 97, "activation": "tanh"},
    data="docstrings:?context=32",
    objective="cross-entropy",
    steps=500,
    batch_size=16,
    learning_rates=(3e-3, 1e-2, 3e-2),
    start=math.log(97),
    metric="cross-entropy, nats per character",
    rungs=_RUNGS,
)

SPECS = (MARKOV_LM, RECALL_LM, TEXT_GRU)
