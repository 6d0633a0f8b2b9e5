"""The gate that classes of workers pass before a run mixes them: see `evaluators.batch.gate`.

Each class that trains a stage is compared with the default one on every task that it trains, by short trainings of a
fixed set of programs. Classes whose numerics are equal give equal scores and are not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evolion.discovered.library import known
from evolion.evaluators.batch.gate import GATE_PROGRAMS, Verdict, gate
from evolion.evaluators.types import Evaluator, Job, Score
from evolion.proxies.registry import get_spec

__all__ = ["GATE_STEPS", "GateRow", "gate_devices", "refusal"]

GATE_STEPS = 40
"""Steps of each training: enough for an op that is computed otherwise to show, few enough to cost seconds."""


@dataclass(frozen=True, slots=True)
class GateRow:
    """What the gate said of one class and one task.

    Attributes:
        device: The class that was compared with the default one.
        task: The task.
        steps: The length of the trainings.
        verdict: The answer.

    """

    device: str
    task: str
    steps: int
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """Return plain data for JSON; a difference that is infinite is None."""
        verdict = asdict(self.verdict)
        worst = verdict["worst"] if verdict["worst"] != float("inf") else None
        return {"device": self.device, "task": self.task, "steps": self.steps, **verdict, "worst": worst}


def gate_devices(
    evaluator: Evaluator, trained: Iterable[tuple[str, str]], *, steps: int = GATE_STEPS
) -> tuple[GateRow, ...]:
    """Compare classes of workers with the default one; waits for a worker of each.

    Args:
        evaluator: An evaluator with nothing in flight.
        trained: (device, task) of each stage, in any order.
        steps: The length of the trainings.

    """
    pairs = sorted({pair for pair in trained if pair[0]})
    pairs = [pair for pair in pairs if evaluator.numerics_of(pair[0]) != evaluator.numerics]
    sides = sorted({*pairs, *(("", task) for _, task in pairs)})
    scores = _scores(evaluator, sides, steps)
    return tuple(GateRow(device, task, steps, gate(scores["", task], scores[device, task])) for device, task in pairs)


def refusal(rows: Sequence[GateRow]) -> str:
    """Return why classes may not be mixed, in one line, "" if they may."""
    bad = next((row for row in rows if not row.verdict.passed), None)
    if bad is None:
        return ""
    return f"workers of class {bad.device!r} do not compute as the default ones on {bad.task}: {bad.verdict.message}"


def _scores(
    evaluator: Evaluator, sides: Sequence[tuple[str, str]], steps: int
) -> Mapping[tuple[str, str], Mapping[str, Score]]:
    found: dict[tuple[str, str], dict[str, Score]] = {side: {} for side in sides}
    waiting: dict[int, tuple[tuple[str, str], str]] = {}
    for side in sides:
        device, task = side
        rates = get_spec(task).learning_rates
        for name in GATE_PROGRAMS:
            number = -1 - len(waiting)
            waiting[number] = (side, name)
            rate = (rates[len(rates) // 2],)
            evaluator.submit(Job(number, known()[name], task, steps, (0,), rate, device=device))
    while waiting:
        finished = evaluator.collect()
        if not finished:
            raise RuntimeError(f"the evaluator gave up {len(waiting)} jobs of the gate")
        for job, score in finished:
            side, name = waiting.pop(job.number)
            found[side][name] = score
    return found
