"""Whether a job is interpreted or compiled: what either costs, estimated from the job alone.

An interpreted program costs no compilation, but each of its instructions costs more at each step than the same
operation in a loop that was compiled for the program. So short runs are interpreted, and a program is compiled once its
steps, seeds and learning rates (on a large network above all) would waste more than the compilation takes.

The two paths round differently, so the choice is a pure function of the job: no clock and no load of a machine enters
it, nor what a process has compiled before. Two workers, two machines and a resumed run choose alike. `RULE` names the
choice in the numerics tag; it changes with every constant.

The constants were fitted by `benchmarks/evaluation/promotion.py` on 22 November 2026, to processor seconds of one core
of an AMD EPYC with AVX-512 (jax 0.10.2). What interpreting costs is met within a third where it matters, compilation
within two fifths, but for recurrent networks, whose loops take twice as long to compile as their equations say. On
another machine both costs are scaled alike, more or less.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from evolion.evaluators.encoding import PERSISTENT, CapacityError, Encoding, encode
from evolion.evaluators.opcodes import is_whole
from evolion.evaluators.types import Job
from evolion.primitives.dataflow import remove_dead_code

__all__ = ["COSTS", "RULE", "Costs", "Path", "Plan", "Size", "choose", "plan", "rule_of", "size_of"]

_VERSION = 1
"""To be raised when the formulas change; constants change the rule by themselves."""


class Path(StrEnum):
    """How a program is run."""

    INTERPRETED = "interpreted"
    COMPILED = "compiled"


@dataclass(frozen=True, slots=True)
class Costs:
    """What the two paths cost, in processor seconds.

    Attributes:
        instruction: Interpreting one instruction, at each step, above what it costs compiled.
        entry: The same for each parameter of the network.
        whole_instruction: As `instruction`, for one that needs a whole tensor at once, such as a norm, or draws noise.
        whole_entry: As `entry`, for such an instruction.
        loop: Compiling a training loop that does nothing.
        equation: Compiling one equation of the loss and its gradient.
        statement: Compiling one statement of a program, for each parameter tensor.
        hessian: How many times the equations of the gradient are compiled more, where an estimate of the Hessian is.
        margin: How many times over the compilation must pay for itself, as a compiled program takes memory too.
        registers: The most bytes that the interpreter's registers may take; on a larger network all is compiled.

    """

    instruction: float = 5e-8
    entry: float = 1.9e-10
    whole_instruction: float = 5e-8
    whole_entry: float = 6.6e-10
    loop: float = 0.32
    equation: float = 0.007
    statement: float = 0.0006
    hessian: float = 1.5
    margin: float = 1.5
    registers: float = 2.0**29


COSTS = Costs()


def rule_of(costs: Costs) -> str:
    """Name the choice that these constants make."""
    return f"promotion {_VERSION}.{hashlib.sha256(repr(costs).encode()).hexdigest()[:8]}"


RULE = rule_of(COSTS)
"""Names this choice in the numerics tag, so that scores made under another one are never taken for these."""


@dataclass(frozen=True, slots=True)
class Size:
    """What of a task decides the costs.

    Attributes:
        parameters: The number of parameters.
        tensors: The number of parameter tensors.
        equations: The equations of the loss and its gradient, as jax traces them.

    """

    parameters: int
    tensors: int
    equations: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How a job is run, and why.

    Attributes:
        path: Interpreted or compiled.
        interpretation_seconds: What interpreting costs above a compiled loop, over all steps, seeds and learning rates;
            infinite where a program cannot be interpreted.
        compilation_seconds: What compiling costs, once.

    """

    path: Path
    interpretation_seconds: float
    compilation_seconds: float


def plan(job: Job) -> Plan:
    """Return how `evaluate.evaluate_job` runs a job, without running it. Loads the task."""
    try:
        encoding = encode(job.program)
    except CapacityError:
        encoding = None
    return choose(job, encoding, size_of(job.task))


def choose(job: Job, encoding: Encoding | None, size: Size, costs: Costs = COSTS) -> Plan:
    """Return how a job is run whose encoded program is `encoding`, None if it cannot be interpreted."""
    compilation = _compilation(job, size, costs)
    if encoding is None or 4 * PERSISTENT * size.parameters > costs.registers:
        return Plan(Path.COMPILED, math.inf, compilation)
    runs = len(job.seeds) * len(job.learning_rates)
    interpretation = runs * job.steps * _step(encoding, size, costs)
    path = Path.COMPILED if interpretation > costs.margin * compilation else Path.INTERPRETED
    return Plan(path, interpretation, compilation)


def _step(encoding: Encoding, size: Size, costs: Costs) -> float:
    numbers = encoding.code[: encoding.length, 0].tolist()
    whole = sum(map(is_whole, numbers))
    narrow = len(numbers) - whole
    return math.fsum(
        (
            narrow * (costs.instruction + costs.entry * size.parameters),
            whole * (costs.whole_instruction + costs.whole_entry * size.parameters),
        )
    )


def _compilation(job: Job, size: Size, costs: Costs) -> float:
    program = remove_dead_code(job.program)
    gradients = 1.0 + (costs.hessian if "hess" in program.inputs else 0.0)
    equations = gradients * size.equations * costs.equation
    return math.fsum((costs.loop, equations, len(program.statements) * size.tensors * costs.statement))


@lru_cache(maxsize=16)
def size_of(task: str) -> Size:
    """Return what of a task decides the costs. Its gradient is traced, once per process."""
    from evolion.evaluators.gradient import gradient_equations
    from evolion.evaluators.loop import flat_task

    layout = flat_task(task).layout
    return Size(layout.entries, len(layout.shapes), sum(1 for _ in gradient_equations(task)))
