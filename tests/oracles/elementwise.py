"""Programs that work entry by entry."""

from oracles.running import Case

SLOW_ALONE = {"b2": 0.99, "slow_share": 0.95, "fast_share": 0.0, "weight_decay": 0.0}

ELEMENTWISE = (
    Case("sgd", "sgd@torch", 0.1),
    Case("momentum", "momentum@torch", 0.05),
    Case("momentum_dampened", "momentum@torch", 0.05, {"dampening": 0.0}),
    Case("nesterov", "nesterov@torch", 0.05),
    Case("sgdw", "sgdw@timm", 0.1, {"weight_decay": 0.1}),
    Case("rmsprop_momentum", "rmsprop@torch", 0.01, {"decay": 0.9, "momentum": 0.0}),
    Case("rmsprop_centered_momentum", "rmsprop+centered_mom@torch", 0.01, {"decay": 0.9}),
    Case("adagrad", "adagrad@torch", 0.1, {"eps": 0.0}, tolerance=1e-6, note="torch adds eps outside the root"),
    Case("adadelta", "adadelta@torch", 1.0),
    Case("adam", "adam@torch", 0.01, {"b2": 0.99}),
    Case("adamw", "adamw@torch", 0.01, {"b2": 0.99, "weight_decay": 0.1}),
    Case("nadam", "nadam@torch", 0.01, {"b2": 0.99}, tolerance=1e-8, note="torch keeps the product in float32"),
    Case("nadam_constant", "nadam+const@optax", 0.01, {"b2": 0.99}),
    Case("radam", "radam@torch", 0.01, {"b2": 0.99}),
    Case("amsgrad", "amsgrad@torch", 0.01, {"b2": 0.99}),
    Case("adamax", "adamax@torch", 0.01, {"b2": 0.99}),
    Case("yogi", "yogi@optax", 0.01, {"b2": 0.99}),
    Case("adabelief", "adabelief@optax", 0.01, {"b2": 0.99, "eps": 1e-12, "eps_root": 1e-12}),
    Case("adabound", "adabound@jettify", 0.01, {"b2": 0.99, "gamma": 0.05, "base_lr": 0.01}),
    Case("diffgrad", "diffgrad@jettify", 0.01, {"b2": 0.99}),
    Case("adan", "adan@timm", 0.01),
    Case("lion", "lion@optax", 0.01, {"b2": 0.99, "weight_decay": 0.1}),
    Case("signsgd", "signsgd@optax", 0.01),
    Case("signum", "signum@optax", 0.01),
    Case("powersign", "powersign@tf", 0.05),
    Case("ademamix", "ademamix@optax", 0.01, {"b2": 0.99, "b3": 0.999, "weight_decay": 0.0}),
    Case("adopt", "adopt@optax", 0.01, {"b2": 0.999}),
    Case("qhadam", "qhadam@jettify", 0.01, {"b1": 0.999, "b2": 0.99, "nu1": 0.95}),
    Case("mt_dao", "qhadam@jettify", 0.01, SLOW_ALONE, note="one slow momentum on one worker is QHAdam"),
    Case("lookahead_momentum", "lookahead@optax", 0.05),
    Case("schedule_free_sgd", "schedulefree_sgd@sf", 0.1),
    Case("schedule_free_adamw", "schedulefree_adamw@sf", 0.02, {"b2": 0.99}),
    Case("grokfast_sgd", "grokfast+ema_sgd@gh", 0.05, {"alpha": 0.9}),
)
