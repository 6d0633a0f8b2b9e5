"""Tasks by name and modifiers: "zipf-lm:width=2,horizon=4", "glyph-vit:activation=tanh", "zipf-lm:10x".

Scale knobs multiply: `width`, `depth`, `batch`, `horizon`. A rung of the ladder (`10x`, `100x`) stands for the knobs
that the task gives it. The others make a held-out variant by rule: the same task with one thing changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from evolion.proxies.spec import Size, TaskSpec

__all__ = ["MODIFIERS", "RUNGS", "modified"]

RUNGS = ("10x", "100x")

_Modify = Callable[[TaskSpec, str], TaskSpec]


def modified(spec: TaskSpec, text: str) -> TaskSpec:
    """Apply comma-separated modifiers; the name of the result says which.

    Raises:
        ValueError: For a modifier that does not exist, that the task cannot take, or with a value out of range.

    """
    result = spec
    for modifier in text.split(","):
        key, equals, value = modifier.strip().partition("=")
        if not equals and key in RUNGS:
            result = _rung(result, key)
        elif key in MODIFIERS and bool(equals) != (key in _FLAGS):
            result = MODIFIERS[key](result, value)
        else:
            known = ", ".join([*RUNGS, *(name if name in _FLAGS else f"{name}=…" for name in MODIFIERS)])
            raise ValueError(f"task {spec.name!r} has no modifier {modifier.strip()!r}: choose from {known}")
    return replace(result, name=f"{spec.name}:{text}")


def _rung(spec: TaskSpec, rung: str) -> TaskSpec:
    if rung not in spec.rungs:
        have = ", ".join(spec.rungs) or "none"
        raise ValueError(f"task {spec.name!r} has no rung {rung!r} of a ladder (it has: {have})")
    for knob, factor in spec.rungs[rung].items():
        spec = MODIFIERS[knob](spec, repr(factor))
    return spec


def _number(spec: TaskSpec, key: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ValueError(f"task {spec.name!r}: {key} is {text!r}, not a number from {low:g} to {high:g}")
    return value


def _scaled_size(key: str, whole: int = 1) -> _Modify:
    def modify(spec: TaskSpec, text: str) -> TaskSpec:
        factor = _number(spec, key, text, 1 / 64, 1024)
        if key not in spec.sizes:
            raise ValueError(f"task {spec.name!r} has no {key} to scale")
        step = int(spec.sizes.get("heads", 1)) if key == "width" else whole  # type: ignore[arg-type]
        size = max(step, step * round(float(spec.sizes[key]) * factor / step))  # type: ignore[arg-type]
        return replace(spec, sizes={**spec.sizes, key: size})

    return modify


def _scaled_count(key: str, field: str) -> _Modify:
    def modify(spec: TaskSpec, text: str) -> TaskSpec:
        count = max(1, round(getattr(spec, field) * _number(spec, key, text, 1 / 1024, 1e6)))
        changes: dict[str, Any] = {field: count}
        return replace(spec, **changes)

    return modify


def _chosen(key: str, choices: tuple[str, ...]) -> _Modify:
    def modify(spec: TaskSpec, text: str) -> TaskSpec:
        if key not in spec.sizes:
            raise ValueError(f"task {spec.name!r} has no {key} to change")
        if text not in choices:
            raise ValueError(f"task {spec.name!r}: {key} is {text!r}, choose one of {', '.join(choices)}")
        sizes: dict[str, Size] = {**spec.sizes, key: text}
        return replace(spec, sizes=sizes)

    return modify


def _delay(spec: TaskSpec, text: str) -> TaskSpec:
    value = _number(spec, "delay", text, 1, 64)
    if value != round(value):
        raise ValueError(f"task {spec.name!r}: delay is {text!r}, not a whole number of steps")
    return replace(spec, gradient_delay=round(value))


ACTIVATIONS = ("relu", "gelu", "silu", "tanh")
NORMS = ("pre", "post", "none")

MODIFIERS: Mapping[str, _Modify] = {
    "width": _scaled_size("width"),
    "depth": _scaled_size("depth"),
    "batch": _scaled_count("batch", "batch_size"),
    "horizon": _scaled_count("horizon", "steps"),
    "activation": _chosen("activation", ACTIVATIONS),
    "norm": _chosen("norm", NORMS),
    "init": lambda spec, text: replace(spec, init_scale=spec.init_scale * _number(spec, "init", text, 1 / 64, 64)),
    "label-noise": lambda spec, text: replace(spec, label_noise=_number(spec, "label-noise", text, 0, 1)),
    "reparameterized": lambda spec, _: replace(spec, reparameterized=True),
    "bfloat16-gradients": lambda spec, _: replace(spec, gradient_dtype="bfloat16"),
    "delay": _delay,
}
"""By name, what each does to a specification."""

_FLAGS = ("reparameterized", "bfloat16-gradients")
