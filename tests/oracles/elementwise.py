"""Programs that work entry by entry."""

from oracles.running import Case

ELEMENTWISE = (
    Case("sgd", "sgd@torch", 0.1),
    Case("momentum", "momentum@torch", 0.05),
    Case("adamw", "adamw@torch", 0.01, {"b2": 0.99, "weight_decay": 0.1}),
    Case("lion", "lion@optax", 0.01, {"b2": 0.99, "weight_decay": 0.1}),
)
