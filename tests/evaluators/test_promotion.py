"""Which jobs are compiled: a pure function of the job, that grows with the work, and part of the numerics tag."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import pytest

from evolion.discovered.library import known
from evolion.evaluators import evaluate, promotion
from evolion.evaluators.encoding import CapacityError, encode
from evolion.evaluators.environment import numerics_tag
from evolion.evaluators.evaluate import evaluate_compiled, evaluate_interpreted, evaluate_job
from evolion.evaluators.promotion import COSTS, RULE, Costs, Path, Plan, Size, choose, plan, size_of
from evolion.evaluators.types import Job
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.proxies.registry import get_task

SMALL, LARGE = Size(3_466, 6, 102), Size(1_148_688, 28, 1_017)


def job(program: Program | str = "adamw", **options: Any) -> Job:
    options = {"task": "digits-mlp", "steps": 500, "seeds": (0,), "learning_rates": (1e-3,)} | options
    return Job(0, known()[program] if isinstance(program, str) else program, **options)


def chosen(given: Job, size: Size = SMALL, costs: Costs = COSTS) -> Plan:
    return choose(given, encode(given.program), size, costs)


def paths(plans: list[Plan]) -> list[bool]:
    return [each.path is Path.COMPILED for each in plans]


def test_a_short_run_is_interpreted_and_long_work_is_compiled() -> None:
    """A search never pays a compilation for one candidate of a short run; what trains for hours does not crawl."""
    assert chosen(job()).path is Path.INTERPRETED
    assert chosen(job(steps=100_000, seeds=tuple(range(100)))).path is Path.COMPILED
    assert chosen(job(steps=5_000, seeds=tuple(range(20))), LARGE).path is Path.COMPILED


@pytest.mark.parametrize("name", ["steps", "seeds", "learning_rates"])
@pytest.mark.parametrize("program", ["sgd", "adamw", "lamb"])
def test_the_choice_is_monotone_in_the_work(name: str, program: str) -> None:
    """More steps, seeds or rates never turn a compiled job into an interpreted one, and turn it once."""
    counts = [2**k for k in range(24)] if name == "steps" else [2**k for k in range(14)]
    grown = [job(program, steps=2_000) if name != "steps" else job(program) for _ in counts]
    values = [count if name == "steps" else tuple(range(1, count + 1)) for count in counts]
    plans = [chosen(replace(each, **{name: value}), LARGE) for each, value in zip(grown, values, strict=True)]
    assert paths(plans) == sorted(paths(plans))
    assert paths(plans)[0] is False
    assert paths(plans)[-1] is True
    seconds = [each.interpretation_seconds for each in plans]
    assert seconds == sorted(seconds)
    assert len({each.compilation_seconds for each in plans}) == 1


def test_the_choice_is_monotone_in_the_network() -> None:
    """An instruction costs more on a larger network; how long a compilation takes does not hang on its width."""
    plans = [chosen(job(steps=2_000), replace(SMALL, parameters=10**k)) for k in range(2, 10)]
    assert paths(plans) == sorted(paths(plans))
    assert True in paths(plans)
    assert len({each.compilation_seconds for each in plans}) == 1


def test_what_does_not_run_is_not_counted() -> None:
    """Dead code and scalars that are known before the first step cost nothing to interpret."""
    lean = parse("def train(g, lr):\n    return lr * g\n")
    padded = parse(
        "def train(g, lr, t):\n    x = sin(g)\n    rate = lr * sqrt(1 - 0.9 ** t) / sqrt(1 - 0.9 ** t)\n"
        "    return rate * g\n"
    )
    assert chosen(job(lean)).interpretation_seconds == chosen(job(padded)).interpretation_seconds


def test_reductions_and_noise_cost_more_than_arithmetic() -> None:
    """What needs a whole tensor cannot be done while a part of it is in the cache."""
    costs = Costs(whole_instruction=1.0)
    for text in ("return lr * g / norm(g)", "return lr * g * noise"):
        arguments = "g, lr, noise" if "noise" in text else "g, lr"
        assert chosen(job(parse(f"def train({arguments}):\n    {text}\n")), costs=costs).interpretation_seconds > 500
    assert chosen(job(), costs=costs).interpretation_seconds < 1


def test_a_program_that_cannot_be_interpreted_is_compiled() -> None:
    """Matrix programs have no encoding: they are compiled, whatever the work."""
    matrix = job("muon", steps=1)
    with pytest.raises(CapacityError):
        evaluate_interpreted(matrix)
    found = choose(matrix, None, SMALL)
    assert (found.path, found.interpretation_seconds) == (Path.COMPILED, math.inf)
    assert plan(matrix).path is Path.COMPILED


def test_a_network_too_large_for_registers_is_not_interpreted() -> None:
    """Rows for every value of a step would take gigabytes on a network of ten million parameters."""
    sizes = [replace(LARGE, parameters=count) for count in (3_249_568, 10_173_760)]
    assert paths([chosen(job(steps=1), size) for size in sizes]) == [False, True]


def test_an_estimate_of_the_hessian_is_compiled_too() -> None:
    """A program that reads it has more than the gradient in its loop."""
    plain = parse("def train(g, lr):\n    return lr * g\n")
    reader = parse("def train(hess, lr):\n    return lr * hess\n")
    assert chosen(job(reader)).compilation_seconds > chosen(job(plain)).compilation_seconds


def test_the_size_of_a_task_is_that_of_its_network() -> None:
    """Parameters and tensors are those that train; the bodies of loops are counted, so a recurrent net is not tiny."""
    task = get_task("digits-mlp")
    size = size_of("digits-mlp")
    assert (size.parameters, size.tensors) == (3_466, 6)
    assert size.parameters == sum(leaf.size for layer in task.init(0).values() for leaf in layer.values())
    assert 50 < size.equations < 500
    assert size_of("text-gru").equations > 100


SCRIPT = """
from evolion.evaluators.promotion import plan
from evolion.evaluators.types import Job
from evolion.discovered.library import known
for name in ("adamw", "lamb", "muon"):
    for steps in (1, 700, 3_000_000):
        print(plan(Job(0, known()[name], "digits-mlp", steps, (0, 1), (1e-3,))))
"""


def test_every_process_chooses_alike() -> None:
    """Two workers and a resumed run take the same path: what a process did before does not enter the choice."""
    evaluate_job(job(steps=2))
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    ours = [
        repr(plan(job(name, steps=steps, seeds=(0, 1))))
        for name in ("adamw", "lamb", "muon")
        for steps in (1, 700, 3_000_000)
    ]
    assert done.stdout.splitlines() == ours
    assert {each.split("'")[1] for each in ours} == {"interpreted", "compiled"}


def test_a_plan_is_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A promoted job gets the score of the compiled path bit for bit, another one that of the interpreter."""
    one = job(steps=20)
    assert plan(one).path is Path.INTERPRETED
    assert evaluate_job(one) == evaluate_interpreted(one)
    eager = Costs(instruction=1.0)
    monkeypatch.setattr(evaluate, "choose", lambda *given: choose(*given, eager))
    assert evaluate_job(one) == evaluate_compiled(one)


def test_the_rule_is_part_of_the_numerics_tag() -> None:
    """Scores made under other constants may have taken the other path: they are never taken for these."""
    assert RULE in numerics_tag()
    assert RULE not in numerics_tag("another path")
    found = {promotion.rule_of(replace(COSTS, **{field.name: 2.0})) for field in fields(Costs)}
    assert len({*found, RULE}) == len(fields(Costs)) + 1
