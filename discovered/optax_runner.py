"""Runs an exported Optax module on given numbers: `python -I optax_runner.py MODULE NAME REQUEST.npz RESULT.npz`.

It is run by `evolion export --verify` in a process of its own, in which Evolion cannot be imported, and imports nothing
but NumPy, JAX and Optax itself. The request holds JSON under `trials`, a list of

- `shapes` of the leaves, `dtype` of the parameters, `arguments` of the exported function after the learning rate;
- `rates`, one learning rate per step (null for a program without), and `schedule`, whether they come as one;
- `extra`: the names of the keyword arguments of `update`; `noise`: whether random numbers are replaced by given ones;

and for trial i the arrays `i/w`, `i/g`, `i/hess`, `i/noise` (steps x entries) and `i/value` (steps). The result holds
the updates of trial i, as `i`, of the shape of `i/w`.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

__all__ = ["main", "updates_of"]


def updates_of(make: Any, trial: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    """Return the updates of one trial under jit, steps x entries, in float64."""
    shapes = [tuple(shape) for shape in trial["shapes"]]
    starts = np.cumsum([0, *[int(np.prod(shape)) for shape in shapes]])
    dtype = jnp.dtype(trial["dtype"])
    with jax.enable_x64(trial["dtype"] == "float64"):

        def tree(vector: Any) -> Any:
            leaves = [
                jnp.asarray(vector[start:end].reshape(shape), dtype)
                for start, end, shape in zip(starts, starts[1:], shapes, strict=False)
            ]
            return {"first": leaves[0], "rest": [leaves[1:], None]}

        tx = make(*_rate(trial), *trial["arguments"])

        @jax.jit
        def step(g: Any, state: Any, params: Any, noise: Any, extra: Any) -> Any:
            if trial["noise"]:
                optax.tree.random_like = lambda *_, **__: noise
            return tx.update(g, state, params, **extra)

        state, results = tx.init(tree(arrays["w"][0])), []
        for t in range(len(arrays["w"])):
            extra: dict[str, Any] = {"value": jnp.asarray(arrays["value"][t])} if "value" in trial["extra"] else {}
            extra |= {"hess": tree(arrays["hess"][t])} if "hess" in trial["extra"] else {}
            # The noise has the dtype in which a step computes, which is float32 at least.
            noise = jax.tree.map(
                lambda leaf: jnp.asarray(leaf, jnp.promote_types(leaf.dtype, jnp.float32)), tree(arrays["noise"][t])
            )
            updates, state = step(tree(arrays["g"][t]), state, tree(arrays["w"][t]), noise, extra)
            results.append(np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(updates)]))
            for leaf in jax.tree.leaves(updates):
                if leaf.dtype != dtype:
                    raise TypeError(f"parameters of {dtype} got updates of {leaf.dtype}")
    return np.stack(results)


def _rate(trial: Mapping[str, Any]) -> list[Any]:
    rates = trial["rates"]
    if rates is None:
        return []
    if not trial["schedule"]:
        return [rates[0]]
    return [lambda count: jnp.asarray(rates)[count]]


def main(arguments: list[str]) -> None:
    """Load the module, run all trials, write the updates."""
    path, name, request, result = arguments
    sys.modules["evolion"] = None  # type: ignore[assignment]
    spec = importlib.util.spec_from_file_location("exported", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with np.load(request) as file:
        trials = json.loads(str(file["trials"]))
        arrays = [
            {what: file[f"{i}/{what}"] for what in ("w", "g", "hess", "noise", "value")} for i in range(len(trials))
        ]
    make = getattr(module, name)
    found = [updates_of(make, trial, given) for trial, given in zip(trials, arrays, strict=True)]
    versions = {package.__name__: package.__version__ for package in (jax, optax)}
    np.savez(result, versions=json.dumps(versions), **{str(i): value for i, value in enumerate(found)})


if __name__ == "__main__":
    main(sys.argv[1:])
