"""Programs that look at whole parameter tensors, rows, columns or the whole tree."""

from oracles.running import Case

_BETAS = {"b1": 0.9, "b2": 0.99}

PER_TENSOR: tuple[Case, ...] = (
    Case("adamp", "adamp@timm", 0.01, {**_BETAS, "weight_decay": 0.1}, transposed=True),
    Case("sgdp", "sgdp@timm", 0.05, {"momentum": 0.9, "weight_decay": 0.01}, transposed=True),
    Case("cautious_adamw", "cautious_adamw@timm", 0.01, {**_BETAS, "weight_decay": 0.0}),
    Case("cautious_lion", "cautious_lion@timm", 0.01, _BETAS),
    Case("mars_adamw", "mars@timm", 0.01, {"b1": 0.95, "b2": 0.99, "gamma": 0.025}),
    Case("lars", "lars@timm", 0.5, {"momentum": 0.9, "weight_decay": 0.01, "trust_coeff": 0.02}),
    Case("lamb", "lamb@timm", 0.01, {**_BETAS, "eps": 1e-6, "weight_decay": 0.01}),
    Case("novograd", "novograd@optax", 0.01, {"b1": 0.95, "b2": 0.98, "eps": 1e-8, "weight_decay": 0.01}),
    Case(
        "adafactor",
        "adafactor@optax",
        0.01,
        {"multiply_by_parameter_scale": 0.0},
        tolerance=1e-6,
        note="the implementation computes its decay rate in float32",
    ),
    Case("sm3", "sm3@optax", 0.1, {"momentum": 0.9}),
    Case("sgd_sai", "sgdsai@gh", 0.01, {"momentum": 0.9, "weight_decay": 0.01}),
    Case("adam_mini", "adammini@adam_mini", 0.01, {**_BETAS, "weight_decay": 0.1, "whole_tensor": 1.0}),
    Case("dog", "dog@dog", 1.0, {"reps_rel": 0.01}),
    Case("ldog", "ldog@dog", 1.0, {"reps_rel": 0.01}),
    Case("prodigy", "prodigy@prodigyopt", 1.0, {**_BETAS, "d0": 0.001, "weight_decay": 0.01}),
    Case("dadapt_adam", "dadapt_adam@dadaptation", 1.0, {**_BETAS, "d0": 0.001, "use_bias_correction": 1.0}),
    Case(
        "mechanic_sgd",
        "mechanic+sgd@mechanic",
        0.1,
        {"s_init": 0.01, "s_decay": 0.01},
        tolerance=1e-6,
        note="the implementation keeps its betas and scales in float32",
    ),
    Case(
        "swats",
        "swats@jettify",
        0.01,
        {**_BETAS, "eps": 1e-8},
        regimes=("gauss",),
        note="in regime const the implementation switches tensor by tensor, within one step",
    ),
    Case(
        "ranger21",
        "ranger21@po",
        0.01,
        {**_BETAS, "weight_decay": 0.01},
        tolerance=1e-5,
        transposed=True,
        note="the implementation normalises the gradient twice; see test_known_per_tensor.py",
    ),
    Case("adahessian", "adahessian@timm", 0.05, {**_BETAS, "weight_decay": 0.01}),
)
