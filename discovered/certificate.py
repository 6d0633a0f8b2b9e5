"""The certificate of an exported module: it does what the reference interpreter does, in every precision.

The module is imported and run in a fresh process, in which Evolion cannot be imported, under jit, on random trees of
parameters, once with the default hyperparameters and a constant learning rate and once with others and a schedule.
Before each step module and interpreter are given the same weights, so that the gap is that of one step and of the
state behind it, not of a trajectory that rounding may drive apart.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.discovered.classes import class_of
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.layout import Layout
from evolion.primitives.numpy_interpreter import initial_slots, stepper
from evolion.primitives.program import Program

__all__ = ["RUNNERS", "Certificate", "CertificateError", "Comparison", "certified", "certify"]

STEPS = 12
SECONDS = 300
TREES = (((), (7,), (5, 3), (2, 3, 4), (2, 1, 3, 2), (0, 3)), ((4, 4), (), (3, 6), (2, 2, 1, 3), (3,), (2, 0, 2)))
"""The shapes of the leaves of each trial: ranks 0 to 4, wide, tall and square. The last is empty, and is left out where
a program brings entries together: no entries have no mean and no largest."""

PRECISIONS: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "float64": (1e-10, 1e-10, 2.0**-53),
        "float32": (1e-4, 1e-2, 2.0**-24),
        "bfloat16": (4.5e-3, 1.5e-2, 2.0**-24),
    }
)
"""For each dtype of parameters the gap that is always allowed, that of programs with matrix products or decompositions,
which amplify rounding, and the relative rounding of the arithmetic. Parameters in bfloat16 are updated in float32 and
the update is rounded, by 2^-8 at most."""

AMPLIFIED = 10.0
"""How many times more than a rounding of the inputs moves the updates of the interpreter a module may be off."""

MEANINGLESS = 0.25
"""A larger gap than this is never allowed: where rounding makes one, nothing is decided in that precision."""

_EPSILON = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8}
"""By how much a dtype rounds, at most."""

Array = NDArray[np.float64]


class CertificateError(Exception):
    """An export that cannot be certified: it does not run, or not as its program does."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Module and interpreter in one precision.

    Attributes:
        dtype: That of parameters and gradients.
        gap: The largest difference of an entry of an update, over the largest update of its parameter tensor.
        tolerance: The largest gap that is allowed; None where rounding alone decides and nothing can be said.
        sensitivity: How far a rounding of weights and gradients moves the interpreter's updates, as such a gap.

    """

    dtype: str
    gap: float
    tolerance: float | None
    sensitivity: float

    @property
    def passed(self) -> bool:
        """Whether the module may be called the program in this precision."""
        return self.tolerance is None or self.gap <= self.tolerance


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was run, and what came of it.

    Attributes:
        target: What the program was exported to.
        comparisons: One for each precision.
        versions: Those of what ran.
        noise: Whether random numbers were replaced by given ones.
        empty_leaf: Whether one leaf of each tree was empty.

    """

    target: str
    comparisons: tuple[Comparison, ...]
    versions: Mapping[str, str]
    noise: bool
    empty_leaf: bool

    def lines(self) -> list[str]:
        """Return the certificate as text, in lines of at most 100 characters."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        ranks = "ranks 0 to 4, one leaf empty" if self.empty_leaf else "ranks 0 to 4"
        head = [
            "Verified: this module against Evolion's interpreter in NumPy (float64), compiled, on CPU, over",
            f"{len(TREES)} trees of parameters ({ranks}), {STEPS} steps each, with default and with other",
            "hyperparameters. Largest difference of an update, over the largest of its tensor:",
            "",
        ]
        rows = [f"    {'parameters':<10}  {'gap':>8}  allowed"]
        for one in self.comparisons:
            allowed = "nothing is decided: rounding alone moves" if one.tolerance is None else f"{one.tolerance:.1e}"
            allowed += f" {one.sensitivity:.0%}" if one.tolerance is None else ""
            rows.append(f"    {one.dtype:<10}  {one.gap:>8.1e}  {allowed}")
        tail = ["A gap is what the rounding of the new weights does not explain."] * (self.target == "torch")
        tail += (
            ["Random numbers were replaced by given ones; how they are drawn is not verified."] if self.noise else []
        )
        return [*head, *rows, "", *tail, f"With {versions}."]

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain data."""
        return {
            "target": self.target,
            "versions": dict(self.versions),
            "given_noise": self.noise,
            "steps": STEPS,
            "trees": [list(map(list, _shapes(number, self.empty_leaf))) for number in range(len(TREES))],
            "comparisons": [
                {"dtype": c.dtype, "gap": c.gap, "tolerance": c.tolerance, "sensitivity": c.sensitivity}
                for c in self.comparisons
            ],
        }


@dataclass(frozen=True, slots=True)
class _Trial:
    """What module and interpreter are both given: steps x entries, but for the numbers of each step."""

    program: Program
    layout: Layout
    dtype: str
    rates: tuple[float, ...]
    schedule: bool
    given: Mapping[str, Array]

    def values(self, step: int) -> dict[str, Any]:
        """Return the inputs of a step but the weights, and the hyperparameters, as the interpreter takes them."""
        numbers = {"lr": self.rates[step], "t": step + 1.0, "horizon": float(STEPS), "loss": self.given["value"][step]}
        arrays = {name: self.given[name][step] for name in ("g", "hess", "noise")}
        constants: dict[str, Any] = {h.name: h.value for h in self.program.hyperparameters}
        return constants | {name: np.float64(number) for name, number in numbers.items()} | arrays


def certify(program: Program, target: str, source: str, name: str) -> Certificate:
    """Run exported source text beside the interpreter of its program.

    Args:
        program: What was exported.
        target: What it was exported to, one of `RUNNERS`.
        source: The module; it is run as Python, in another process.
        name: What the optimizer is called in it.

    Raises:
        CertificateError: If the module fails, or is not the program; with the gap and what was allowed.
        ValueError: If modules of this target are not run.

    """
    if target not in RUNNERS:
        raise ValueError(f"an export to {target} cannot be verified; those that can: {', '.join(RUNNERS)}")
    live = remove_dead_code(program)
    empty_leaf = class_of(live) == "elementwise"
    trials = [_trial(live, dtype, number, empty_leaf) for dtype in PRECISIONS for number in range(len(TREES))]
    references = [_followed(trial) for trial in trials]
    results, versions = RUNNERS[target](source, name, trials, references)
    comparisons = []
    for dtype, (plain, matrices, rounding) in PRECISIONS.items():
        chosen = [i for i, trial in enumerate(trials) if trial.dtype == dtype]
        gaps = [_gap(trials[i].layout, results[i], references[i][1]) for i in chosen]
        moved = []
        for i in chosen:
            shaken = _followed(_shaken(trials[i], rounding), references[i][0], rounding)[1]
            moved.append(_gap(trials[i].layout, shaken, references[i][1]))
        sensitivity = max(moved)
        allowed = max(matrices if class_of(live) == "matrix" else plain, AMPLIFIED * sensitivity)
        comparisons.append(Comparison(dtype, max(gaps), allowed if allowed <= MEANINGLESS else None, sensitivity))
    if comparisons and all(one.tolerance is None for one in comparisons):
        raise CertificateError(
            "nothing can be verified: a rounding of weights, gradients and hyperparameters alone moves the updates by "
            f"{min(one.sensitivity for one in comparisons):.0%} of the largest"
        )
    done = Certificate(target, tuple(comparisons), versions, "noise" in live.inputs, empty_leaf)
    for one in comparisons:
        if not one.passed:
            raise CertificateError(
                f"the export to {target} is not its program: with {one.dtype} parameters its updates are off by "
                f"{one.gap:.1e} of the largest, and {one.tolerance:.1e} is allowed"
            )
    return done


def _shapes(number: int, empty_leaf: bool) -> tuple[tuple[int, ...], ...]:
    return TREES[number] if empty_leaf else TREES[number][:-1]


def _trial(program: Program, dtype: str, number: int, empty_leaf: bool) -> _Trial:
    """Draw a trial: the same numbers for every program, every time."""
    rng = np.random.default_rng([2302, number])
    layout = Layout(_shapes(number, empty_leaf))
    shape = (STEPS, layout.entries)
    # Weights not much larger than their updates: in a low precision their rounding would hide what is compared.
    start, drift = rng.normal(size=layout.entries) / 32, rng.normal(size=layout.entries)
    g = (drift + rng.normal(size=shape)) * np.exp(rng.normal(size=(STEPS, 1)))
    g[rng.random(shape) < 0.05] = 0.0
    given = {"g": g, "hess": np.exp(rng.normal(size=shape)), "noise": rng.normal(size=shape)}
    given = {name: _rounded(value, dtype) for name, value in given.items()}
    given |= {"start": _rounded(start, dtype), "value": np.exp(rng.normal(size=STEPS)).astype(np.float32) * 1.0}
    rates = 2.0**-6 * (np.ones(STEPS) if number == 0 else 1.0 + np.arange(STEPS) % 4)
    values = {h.name: _drawn(h.value, rng) for h in program.hyperparameters} if number else {}
    return _Trial(program.with_hyperparameters(**values), layout, dtype, tuple(rates), number > 0, given)


def _drawn(value: float, rng: np.random.Generator) -> float:
    """Return a number near a default; whole ones, such as switches and periods, stay."""
    if value == round(value):
        return value
    if abs(value) > 1:
        return float(value * rng.uniform(0.95, 1.05))
    factor = float(rng.uniform(0.7, 1.4))
    return 1.0 - (1.0 - value) * factor if 0.5 < value < 1 else value * factor


def _rounded(values: Array, dtype: str) -> Array:
    """Return the nearest numbers of a dtype, in float64."""
    if dtype == "float64":
        return values
    single = values.astype(np.float32)
    if dtype == "bfloat16":
        single = ((single.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)
    return single.astype(np.float64)


def _shaken(trial: _Trial, rounding: float) -> _Trial:
    """Return a trial whose gradients, hyperparameters and the like are off by as much as rounding makes them."""
    rng = np.random.default_rng(7)
    moved = {n: x * (1 + rounding * rng.choice([-1.0, 1.0], size=x.shape)) for n, x in trial.given.items()}
    constants = {h.name: h.value * (1 + rounding) for h in trial.program.hyperparameters if h.value != round(h.value)}
    return replace(trial, given=moved, program=trial.program.with_hyperparameters(**constants))


def _followed(trial: _Trial, weights: Array | None = None, rounding: float = 0.0) -> tuple[Array, Array]:
    """Return the weights before each step and the updates to add to them, as the interpreter makes them.

    Weights that are given are followed, each off by the given rounding, and computed with in that precision.
    """
    single = np.float32 if rounding > _EPSILON["float64"] else np.float64
    step = stepper(trial.program, trial.layout, single)
    slots = initial_slots(trial.program, trial.layout, single)
    w = trial.given["start"] if weights is None else weights[0]
    path, updates = [], []
    rng = np.random.default_rng(8)
    for t in range(STEPS):
        seen = (w if weights is None else weights[t]) * (1 + rounding * rng.choice([-1.0, 1.0], size=w.shape))
        if t == 0:
            first = seen
        with np.errstate(all="ignore"):
            given = trial.values(t) | {"w": seen, "w0": first}
            update, slots = step({name: np.asarray(x, single)[()] for name, x in given.items()} | slots)
        path.append(seen)
        updates.append(-np.asarray(update))
        w = _rounded(np.where(np.isfinite(update), seen - update, seen), trial.dtype)
    return np.stack(path), np.stack(updates)


def _gap(layout: Layout, ours: Array, theirs: Array) -> float:
    """Return the largest difference over the largest entry of its tensor, infinite where only one is no number."""
    if not np.array_equal(np.isfinite(ours), np.isfinite(theirs)):
        return float("inf")
    finite = np.isfinite(theirs)
    sizes, differences = np.where(finite, np.abs(theirs), 0.0), np.abs(np.where(finite, ours - theirs, 0.0))
    starts = [*layout.starts, layout.entries]
    gaps = [0.0]
    for start, end in pairwise(starts):
        if end > start and differences[:, start:end].any():
            largest = sizes[:, start:end].max() or sizes.max()
            gaps.append(float(differences[:, start:end].max() / largest) if largest else float("inf"))
    return max(gaps)


Result = tuple[list[Array], Mapping[str, str]]
Runner = Callable[[str, str, list[_Trial], list[tuple[Array, Array]]], Result]


def _run_optax(source: str, name: str, trials: list[_Trial], references: list[tuple[Array, Array]]) -> Result:
    """Run an Optax module on all trials; return their updates, and the versions of what ran."""
    return _in_process("optax_runner.py", source, name, _request(trials, references), len(trials))


def _run_torch(source: str, name: str, trials: list[_Trial], references: list[tuple[Array, Array]]) -> Result:
    """Run a PyTorch module, which changes the weights in place; what rounding of the weights explains is no gap."""
    if find_spec("torch") is None:
        raise ImportError("an export to torch is verified with PyTorch, which is missing: pip install 'evolion[torch]'")
    found, versions = _in_process("torch_runner.py", source, name, _request(trials, references), len(trials))
    results = []
    for trial, after, (before, updates) in zip(trials, found, references, strict=True):
        exact = before + updates
        difference = after - exact
        rounding = _EPSILON[trial.dtype] * np.abs(exact)
        results.append(updates + np.sign(difference) * np.maximum(np.abs(difference) - rounding, 0.0))
    return results, versions


def _request(trials: list[_Trial], references: list[tuple[Array, Array]]) -> dict[str, Any]:
    """Return what a runner is given, see `optax_runner.py`."""
    extra = {"hess": "hess", "loss": "value"}
    records: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for number, (trial, (w, _)) in enumerate(zip(trials, references, strict=True)):
        inputs = trial.program.inputs
        constants = [h.value for h in trial.program.hyperparameters]
        records.append(
            {
                "shapes": trial.layout.shapes,
                "dtype": trial.dtype,
                "arguments": [float(STEPS), *constants] if "horizon" in inputs else constants,
                "rates": trial.rates if "lr" in inputs else None,
                "schedule": trial.schedule,
                "extra": [extra[name] for name in inputs if name in extra],
                "noise": "noise" in inputs,
            }
        )
        given = {name: value for name, value in trial.given.items() if name != "start"} | {"w": w}
        arrays |= {f"{number}/{what}": value for what, value in given.items()}
    return {"trials": json.dumps(records)} | arrays


def _in_process(runner: str, source: str, name: str, request: Mapping[str, Any], count: int) -> Result:
    """Run a runner of this folder in an isolated interpreter; return an array for each trial, and versions."""
    with tempfile.TemporaryDirectory() as folder, resources.as_file(resources.files("evolion.discovered")) as here:
        module, given, result = (Path(folder) / file for file in ("exported.py", "request.npz", "result.npz"))
        module.write_text(source, encoding="utf-8")
        np.savez(given, **request)
        command = [sys.executable, "-I", str(here / runner), str(module), name, str(given), str(result)]
        try:
            # The last bits of other devices differ, and a process that trains may hold one.
            environment = os.environ | {"JAX_PLATFORMS": "cpu"}
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False, cwd=folder
            )
        except subprocess.TimeoutExpired:
            raise CertificateError(f"the exported module did not finish within {SECONDS} seconds") from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise CertificateError(f"the exported module does not run: {last}")
        with np.load(result) as file:
            versions = {"Python": platform.python_version(), "NumPy": np.__version__} | json.loads(
                str(file["versions"])
            )
            return [np.asarray(file[str(i)], np.float64) for i in range(count)], versions


RUNNERS: Mapping[str, Runner] = MappingProxyType({"optax": _run_optax, "torch": _run_torch})
"""For each target that can be verified what runs its modules: from the source, the name of the optimizer in it, trials
and references (weights before each step and updates, steps x entries) to updates that are added to weights, and
versions."""


def certified(source: str, certificate: Certificate) -> str:
    """Return the source of a module with the certificate at the end of its docstring."""
    docstring = ast.parse(source).body[0]
    assert docstring.end_lineno is not None
    lines = source.split("\n")
    last = lines[docstring.end_lineno - 1]
    text = last.removesuffix('"""').rstrip()
    head = [*lines[: docstring.end_lineno - 1], *([text] if text else [])]
    return "\n".join([*head, "", *certificate.lines(), '"""', *lines[docstring.end_lineno :]])
