"""Whether scores of two classes of devices may be mixed in one run or store.

Scores under different numerics tags need not be equal bit for bit. Two classes of devices may still do the same for a
search: when a fixed set of programs, scored on both, ends with losses that agree within a tolerance and in the same
order. This is the gate; it is passed once for two classes of devices, a task and a number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evolion.evaluators.types import Score, Status

__all__ = ["CORRELATION", "GATE_PROGRAMS", "TOLERANCE", "Verdict", "gate"]

GATE_PROGRAMS = (
    *("adagrad", "adam", "adamw", "adamw_seed", "lion"),
    *("momentum", "nesterov", "rmsprop", "sgd", "signsgd"),
)
"""The known programs that are scored on both classes of devices."""

TOLERANCE = 0.02
"""How far apart two losses of one program may be, as a share of the smaller.

Some programs take the sign of small differences: their runs part by rounding alone, as those of two seeds do."""

CORRELATION = 0.95
"""The least rank correlation (Spearman) between the two orders. Two neighbours of ten that swap places give 0.988."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether scores may be mixed.

    Attributes:
        passed: Whether they may.
        worst: The largest relative difference of the losses of one program, infinite if only one has a loss.
        correlation: Spearman's rank correlation of the two orders; a program without a loss ranks last.
        message: One line that says why not, "" if they may.

    """

    passed: bool
    worst: float
    correlation: float
    message: str = ""


def gate(
    scores_a: Mapping[str, Score],
    scores_b: Mapping[str, Score],
    *,
    tolerance: float = TOLERANCE,
    correlation: float = CORRELATION,
) -> Verdict:
    """Compare the scores of the same programs on two classes of devices.

    Args:
        scores_a: Scores by the name of the program, on one class.
        scores_b: Scores of the same programs for equal jobs on the other.
        tolerance: The largest relative difference of two losses of one program, at least 0.
        correlation: The least rank correlation of the two orders, from -1 to 1.

    Raises:
        ValueError: If the names differ or are fewer than three, for which an order says nothing.

    """
    if scores_a.keys() != scores_b.keys():
        only = ", ".join(sorted(scores_a.keys() ^ scores_b.keys()))
        raise ValueError(f"the gate compares scores of the same programs; only one of the two sides has {only}")
    if len(scores_a) < 3:
        raise ValueError(f"the gate needs at least 3 programs, not {len(scores_a)}")
    names = sorted(scores_a)
    apart = {name: _apart(scores_a[name], scores_b[name]) for name in names}
    rank = _correlation([_loss(scores_a[name]) for name in names], [_loss(scores_b[name]) for name in names])
    worst = max(names, key=lambda name: apart[name])
    if apart[worst] > tolerance:
        a, b = _shown(scores_a[worst]), _shown(scores_b[worst])
        why = f"{worst} ends with {a} on one and {b} on the other, further apart than {tolerance:.1%}"
    elif rank < correlation:
        why = f"they order the programs differently: rank correlation {rank:.3f}, at least {correlation:g} is needed"
    else:
        return Verdict(True, apart[worst], rank)
    message = f"scores of these two classes of devices cannot be mixed: {why}; use one class, and a store of its own"
    return Verdict(False, apart[worst], rank, message)


def _loss(score: Score) -> float:
    return score.loss if score.status is Status.OK and score.loss is not None else math.inf


def _apart(a: Score, b: Score) -> float:
    first, second = _loss(a), _loss(b)
    if first == second:
        return 0.0
    smaller = min(abs(first), abs(second))
    return math.inf if math.isinf(first) or math.isinf(second) or smaller == 0 else abs(first - second) / smaller


def _shown(score: Score) -> str:
    return f"loss {score.loss:.6g}" if score.loss is not None else f"status {score.status.value}"


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation: Pearson's of the mean ranks. Equal orders of equals alone give 1."""
    a, b = _ranks(first), _ranks(second)
    middle = (len(a) - 1) / 2
    products = math.fsum((x - middle) * (y - middle) for x, y in zip(a, b, strict=True))
    spread = math.sqrt(math.fsum((x - middle) ** 2 for x in a) * math.fsum((y - middle) ** 2 for y in b))
    return products / spread if spread else float(a == b)


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value from 0, the mean of their ranks for equal ones."""
    ordered = sorted(values)
    return [(ordered.index(value) + len(ordered) - 1 - ordered[::-1].index(value)) / 2 for value in values]
