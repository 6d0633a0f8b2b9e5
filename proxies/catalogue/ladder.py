"""One language model over three decades of parameters."""

import math

from evolion.proxies.spec import TaskSpec

TOKENS_PER_PARAMETER = 20
"""What is about best for a given compute (Hoffmann et al., arXiv:2203.15556)."""

VOCABULARY, CONTEXT, EXPANSION = 512, 32, 4

# Name, depth, width, heads, sequences per step, best rate of AdamW.
_TABLE = (
    ("ladder-30k", 2, 36, 3, 16, 1.6e-2),
    ("ladder-100k", 2, 64, 4, 32, 1e-2),
    ("ladder-300k", 4, 80, 5, 64, 8e-3),
    ("ladder-1m", 4, 144, 6, 128, 5e-3),
    ("ladder-3m", 5, 224, 7, 256, 3e-3),
    ("ladder-10m", 8, 320, 10, 512, 2e-3),
    ("ladder-30m", 10, 512, 16, 1024, 1.2e-3),
)


def non_embedding_parameters(depth: int, width: int) -> int:
    """The weights of the blocks: 4 width**2 of attention and 2 EXPANSION width**2 of the perceptron in each."""
    return depth * (4 + 2 * EXPANSION) * width**2


def rung(name: str, depth: int, width: int, heads: int, batch_size: int, rate: float) -> TaskSpec:
    """One size of the family, trained on 20 tokens for each weight of its blocks."""
    tokens = TOKENS_PER_PARAMETER * non_embedding_parameters(depth, width)
    return TaskSpec(
        name=name,
        family="transformer",
        summary=f"transformer of {depth} layers of width {width} on a generated Zipf-bigram language of 512 tokens",
        model="transformer.LanguageModel",
        sizes={
            "width": width,
            "depth": depth,
            "heads": heads,
            "vocabulary": VOCABULARY,
            "context": CONTEXT,
            "expansion": EXPANSION,
            "activation": "gelu",
            "norm": "pre",
        },
        data=f"zipf-bigram:?vocabulary={VOCABULARY}&context={CONTEXT}",
        objective="cross-entropy",
        steps=round(tokens / (batch_size * CONTEXT)),
        batch_size=batch_size,
        learning_rates=(rate / 3, rate, rate * 3),
        start=math.log(VOCABULARY),
        metric="cross-entropy, nats",
        purpose="diagnostic",
    )


SPECS = tuple(rung(*row) for row in _TABLE)
