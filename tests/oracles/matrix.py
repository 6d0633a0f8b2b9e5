"""Programs with matrix operations."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from oracles.running import Case, stored

BFLOAT16 = "the implementation iterates in bfloat16"


def _kron_probe(step: int) -> tuple[NDArray[Any], NDArray[Any]]:
    drawn = stored()["kron@timm/gauss/rng"][step + 1]
    return drawn[:40].reshape(8, 5), drawn[40:]


def _apollo_projection(step: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The stored projection is noise divided by the root of its rank, which is 2; the program reads its first rows."""
    noise = np.zeros((8, 5))
    noise[:2] = np.sqrt(2.0) * stored()["apollo+channel@apollo_torch/gauss/proj"][step + 1]
    return noise, np.zeros(5)


MATRIX: tuple[Case, ...] = (
    Case("muon", "muon@gh", 0.02, {"weight_decay": 0.1}, 2e-2, transposed=True, leaves="w", note=BFLOAT16),
    Case("scion", "scion@gh", 0.02, {}, 2e-2, transposed=True, note=BFLOAT16),
    Case("shampoo", "shampoo@po", 0.1, {"eps": 1e-4}),
    Case(
        "galore",
        "galore@galore_torch",
        0.01,
        {"update_proj_gap": 5, "b2": 0.99, "eps": 1e-8},
        1e-6,
        transposed=True,
        steps=5,
        note="the implementation decomposes in float32; from its first refresh on signs of singular vectors matter",
    ),
    Case(
        "apollo",
        "apollo+channel@apollo_torch",
        0.01,
        {"update_proj_gap": 5, "b2": 0.99, "eps": 1e-8},
        noise=_apollo_projection,
    ),
    Case("psgd_kron", "kron@timm", 0.01, {}, 1e-6, noise=_kron_probe, note="the implementation solves in float32"),
)
