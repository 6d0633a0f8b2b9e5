"""Runs an exported PyTorch module on given numbers: `python -I torch_runner.py MODULE NAME REQUEST.npz RESULT.npz`.

What `optax_runner.py` is for Optax, with the same request; imports nothing but NumPy and PyTorch itself. The name is
not used: the module's one optimizer class is taken. The result holds the weights after each step.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["main", "weights_of"]


def weights_of(make: Any, trial: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    """Return the weights after each step of one trial, steps x entries, in float64."""
    shapes = [tuple(shape) for shape in trial["shapes"]]
    starts = np.cumsum([0, *[int(np.prod(shape)) for shape in shapes]])
    dtype = getattr(torch, trial["dtype"])

    def tensors(vector: Any) -> list[Any]:
        pairs = zip(starts, starts[1:], shapes, strict=False)
        return [torch.tensor(vector[start:end].reshape(shape)).to(dtype) for start, end, shape in pairs]

    params = [torch.nn.Parameter(tensor) for tensor in tensors(arrays["w"][0])]
    optimizer = make(params, **_options(make, trial))
    results, drawn = [], torch.randn
    for t in range(len(arrays["w"])):
        for p, w, g in zip(params, tensors(arrays["w"][t]), tensors(arrays["g"][t]), strict=True):
            p.data.copy_(w)
            p.grad = g
        for group in optimizer.param_groups:
            if trial["rates"] is not None:
                group["lr"] = trial["rates"][t if trial["schedule"] else 0]
        given: dict[str, Any] = {"hess": tensors(arrays["hess"][t])} if "hess" in trial["extra"] else {}
        if "value" in trial["extra"]:
            given["closure"] = lambda t=t: torch.tensor(arrays["value"][t])
        noise = iter([np.reshape(x, -1) for x in np.split(arrays["noise"][t], starts[1:-1]) if x.size])
        if trial["noise"]:
            torch.randn = lambda shape, *, noise=noise, dtype, **_: torch.tensor(next(noise)).to(dtype).reshape(shape)
        try:
            optimizer.step(**given)
        finally:
            torch.randn = drawn
        results.append(np.concatenate([p.detach().double().numpy().ravel() for p in params]))
    return np.stack(results)


def _options(make: Any, trial: Mapping[str, Any]) -> dict[str, Any]:
    """Give names to the arguments of a trial, which come in the order of the constructor's keywords."""
    parameters = inspect.signature(make).parameters.values()
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    options = dict(zip(names, trial["arguments"], strict=False))
    if trial["rates"] is not None:
        options["lr"] = trial["rates"][0]
    # The trees are laid out as the language has them, with the outputs of a layer on the last axis.
    return options | ({"output_axis": -1} if "output_axis" in names else {})


def main(arguments: list[str]) -> None:
    """Load the module, run all trials, write the weights."""
    path, _, request, result = arguments
    sys.modules["evolion"] = None  # type: ignore[assignment]
    spec = importlib.util.spec_from_file_location("exported", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = [x for x in vars(module).values() if isinstance(x, type) and issubclass(x, torch.optim.Optimizer)]
    with np.load(request) as file:
        trials = json.loads(str(file["trials"]))
        arrays = [
            {what: file[f"{i}/{what}"] for what in ("w", "g", "hess", "noise", "value")} for i in range(len(trials))
        ]
    found = [weights_of(made[0], trial, given) for trial, given in zip(trials, arrays, strict=True)]
    np.savez(result, versions=json.dumps({"torch": torch.__version__}), **{str(i): x for i, x in enumerate(found)})


if __name__ == "__main__":
    main(sys.argv[1:])
