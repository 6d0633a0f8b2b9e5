"""Programs per tensor, row, column or tree beside Optax, or beside transcriptions of papers and authors' code."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import per_tensor_rules as rules
from oracles import running
from oracles.per_tensor import PER_TENSOR
from oracles.per_tensor_rules import Array, Rule, from_optax
from oracles.running import Case, by_jax, by_numpy, gap

from evolion.discovered.library import known
from evolion.primitives.parser import parse

ALL = ("gauss", "tiny", "sparse")


def drawn(step: int) -> tuple[Array, Array]:
    """The noise of a step."""
    rng = np.random.default_rng(step)
    return rng.normal(size=(8, 5)), rng.normal(size=5)


def made(
    program: str,
    lr: float | None,
    rule: Callable[[], Rule],
    hyperparameters: Mapping[str, float] | None = None,
    **options: Any,
) -> tuple[Case, Callable[[], Rule]]:
    options = {"regimes": ALL, **options}
    return Case(program, "", lr, hyperparameters or {}, **options), rule


BETAS = {"b1": 0.9, "b2": 0.99}
SOPHIA = {"b1": 0.9, "b2": 0.95, "weight_decay": 0.1, "update_period": 3.0}
REFERENCES = [
    made(
        "adamp",
        0.01,
        lambda: rules.adamp(0.01, 0.9, 0.99, 0.1, 1.5),
        {**BETAS, "weight_decay": 0.1, "delta": 1.5, "wd_ratio": 0.2, "nesterov": 1.0},
        transposed=True,
        regimes=("gauss", "tiny"),
    ),
    made(
        "sgdp",
        0.05,
        lambda: rules.sgdp(0.05, 0.9, 0.3, 0.01, 1.5),
        {"dampening": 0.3, "weight_decay": 0.01, "delta": 1.5, "wd_ratio": 0.2, "nesterov": 1.0},
        transposed=True,
        regimes=("gauss", "tiny"),
    ),
    made(
        "mars_lion",
        0.01,
        lambda: rules.mars("lion", 0.01, 0.9, 0.0, 0.05, 0.1),
        {"b1": 0.9, "gamma": 0.05, "weight_decay": 0.1},
    ),
    made(
        "mars_shampoo",
        0.01,
        lambda: rules.mars("shampoo", 0.01, 0.95, 0.99, 0.025, 0.1),
        {"weight_decay": 0.1},
        transposed=True,
    ),
    made(
        "adafactor",
        0.1,
        lambda: from_optax(
            lambda: optax.adafactor(0.1, 1, momentum=0.9, dtype_momentum=jnp.float64, weight_decay_rate=0.01)
        ),
        {"momentum": 0.9, "weight_decay_rate": 0.01},
        tolerance=1e-6,
        note="Optax computes its decay rate in float32",
    ),
    made(
        "adafactor_relative_step",
        0.3,
        lambda: rules.adafactor_relative_step(0.3, 1e-3, 0.01),
        {"weight_decay": 0.01},
        regimes=("gauss", "sparse"),
    ),
    made("gravity", 0.1, lambda: rules.gravity(0.1, 0.0, 0.9, None), {"alpha": 0.0}, regimes=("gauss", "tiny")),
    made(
        "gravity",
        0.1,
        lambda: rules.gravity(0.1, 0.01, 0.8, drawn),
        {"beta": 0.8},
        noise=drawn,
        regimes=("gauss", "tiny"),
    ),
    made(
        "adam_mini",
        0.01,
        lambda: rules.adam_mini(0.01, 0.9, 0.99, 1e-8, 0.1),
        {**BETAS, "weight_decay": 0.1},
        transposed=True,
    ),
    *(
        made(
            "subset_norm_adam",
            0.05,
            lambda: rules.subset_norm_adam(0.05, 0.9, 0.99, 1e-6, 0.1),
            {**BETAS, "weight_decay": 0.1},
            transposed=transposed,
        )
        for transposed in (False, True)
    ),
    made(
        "dadapt_sgd",
        1.0,
        lambda: rules.dadapt_sgd(1.0, 0.5, 1e-3, 0.01),
        {"momentum": 0.5, "d0": 1e-3, "weight_decay": 0.01},
        regimes=("gauss", "affine"),
    ),
    made(
        "dadapt_adam",
        1.0,
        lambda: from_optax(lambda: optax.contrib.dadapt_adamw(1.0, (0.9, 0.99), estim_lr0=1e-3, weight_decay=0.05)),
        {**BETAS, "d0": 1e-3, "weight_decay": 0.05, "decouple": 1.0, "use_bias_correction": 1.0},
        regimes=("gauss", "affine"),
    ),
    made(
        "prodigy",
        1.0,
        lambda: from_optax(
            lambda: optax.contrib.prodigy(
                1.0, (0.9, 0.99), 0.95, estim_lr0=1e-3, estim_lr_coef=2.0, weight_decay=0.05, safeguard_warmup=True
            )
        ),
        {
            **BETAS,
            "b3": 0.95,
            "d0": 1e-3,
            "d_coef": 2.0,
            "weight_decay": 0.05,
            "use_bias_correction": 1.0,
            "safeguard_warmup": 1.0,
        },
        regimes=("gauss", "affine"),
    ),
    made(
        "lamb",
        0.01,
        lambda: from_optax(lambda: optax.lamb(0.01, 0.9, 0.99)),
        BETAS,
    ),
    made(
        "lars",
        0.1,
        lambda: rules.lars(0.1, 0.9, 0.3, 0.01, 0.02),
        {"dampening": 0.3, "weight_decay": 0.01, "trust_coeff": 0.02, "nesterov": 1.0, "trust_clip": 1.0},
    ),
    made("orthograd", 0.1, lambda: rules.orthograd(0.1, True)),
    made("orthograd", 0.1, lambda: rules.orthograd(0.1, False), {"rescale": 0.0}),
    made(
        "induced_metric_sgd", 0.1, lambda: rules.induced_metric(0.1, 0.9, 0.1, 0.1, 0.05, None), {"weight_decay": 0.05}
    ),
    made(
        "induced_metric_sgd_log",
        0.1,
        lambda: rules.induced_metric(0.1, 0.9, 0.1, 0.1, 0.05, 2.5),
        {"weight_decay": 0.05},
        loss=2.5,
    ),
    made("adagrad_norm", 1.0, lambda: rules.adagrad_norm(1.0, 0.1)),
    made("normalized_sgdm", 0.1, lambda: rules.normalized_sgdm(0.1, 0.9, 1e-8)),
    made(
        "adaptive_gradient_clipping",
        0.1,
        lambda: from_optax(lambda: optax.chain(optax.adaptive_grad_clip(0.3), optax.sgd(0.1))),
        {"clipping": 0.3},
    ),
    made("fira_limiter", 0.01, lambda: rules.fira_limiter(0.01, 0.9, 0.99, 1.01, 0.1), {**BETAS, "weight_decay": 0.1}),
    made(
        "sophia_g",
        0.01,
        lambda: rules.sophia(0.01, 0.9, 0.95, 2.0, 1e-15, 0.1, 3, True),
        {**SOPHIA, "rho": 2.0},
        regimes=("affine",),
    ),
    made(
        "sophia_h",
        0.01,
        lambda: rules.sophia(0.01, 0.9, 0.95, 2.0, 1e-12, 0.1, 3, False),
        {**SOPHIA, "gamma": 2.0},
        regimes=("affine",),
    ),
    made(
        "swats",
        0.01,
        lambda: rules.swats(0.01, 0.9, 0.99, 1e-8, 1e-8),
        {**BETAS, "eps": 1e-8, "tolerance": 1e-8},
        regimes=("const", "gauss"),
    ),
    made(
        "swats",
        0.01,
        lambda: rules.swats(0.01, 0.9, 0.99, 1e-9, 3e-3),
        {**BETAS, "tolerance": 3e-3},
        regimes=("gauss", "affine"),
        note="switches on the way",
    ),
    made(
        "adahessian",
        0.05,
        lambda: rules.adahessian(0.05, 0.9, 0.99, 1e-8, 0.5),
        {**BETAS, "hessian_power": 0.5},
        regimes=("affine",),
    ),
]
"""Programs and settings that no stored trajectory shows, each beside somebody else's formula."""
RUNS = [
    pytest.param(index, regime, id=f"{case.program}-{index}-{regime}")
    for index, (case, _) in enumerate(REFERENCES)
    for regime in case.regimes
]
BY_JAX = [
    pytest.param(index, case.regimes[0], id=f"{case.program}-{index}-{case.regimes[0]}")
    for index, (case, _) in enumerate(REFERENCES)
    if not case.noise
]
"""One regime each: what differs between both executions does not hang on the gradients."""


def distance(ours: Array, theirs: Array) -> float:
    """The largest difference over the largest displacement from the start."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs - theirs[0]).max())


@cache
def reference(index: int, regime: str) -> Array:
    case, rule = REFERENCES[index]
    return rules.reference_path(case, regime, rule())


@pytest.mark.parametrize(("index", "regime"), RUNS)
def test_numpy_follows_the_published_rule(index: int, regime: str) -> None:
    """A program without a stored trajectory is what Optax, the paper or the authors' code says."""
    case, _ = REFERENCES[index]
    assert distance(by_numpy(case, regime), reference(index, regime)) <= case.tolerance


@pytest.mark.parametrize(("index", "regime"), BY_JAX)
def test_jax_follows_the_published_rule(index: int, regime: str) -> None:
    """The Optax transform of such a program is the rule as well."""
    case, _ = REFERENCES[index]
    assert distance(by_jax(case, regime), reference(index, regime)) <= case.tolerance


def test_swats_switches() -> None:
    """The references of SWATS reach their second phase, or half the rule were untested."""
    never = [replace(case, hyperparameters={**case.hyperparameters, "tolerance": 0.0}) for case, _ in REFERENCES]
    pairs = [(case, adam) for (case, _), adam in zip(REFERENCES, never, strict=True) if case.program == "swats"]
    for case, adam in pairs:
        assert distance(by_numpy(case, case.regimes[0]), by_numpy(adam, case.regimes[0])) > 0.01


def test_ranger21_normalises_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gap to pytorch_optimizer is the second normalisation there and nothing else."""
    case = next(case for case in PER_TENSOR if case.program == "ranger21")
    once = str(known()["ranger21"])
    assert gap(case, "gauss", by_numpy(case, "gauss")) > 1e-7
    lines = once.splitlines()
    at = next(i for i, text in enumerate(lines) if "interp" in text and text.strip().startswith("v ="))
    again = ["    again = sqrt(tensor_sum(square(g - tensor_mean(g))) / (n - 1))", "    g = g / (again + 1e-8)"]
    twice = parse("\n".join([*lines[:at], *again, *lines[at:]]))
    monkeypatch.setattr(running, "known", lambda: {"ranger21": twice})
    assert gap(case, "gauss", by_numpy(case, "gauss")) <= 1e-9
