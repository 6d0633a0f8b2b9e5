"""What a training run is worth, as plain data. Loads neither jax nor flax."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

CURVE_POINTS = 20
TAIL_SHARE = 0.05
DIVERGENCE_FACTOR = 10.0
DIVERGENCE_MARGIN = 10.0


class Status(StrEnum):
    """How an evaluation ended. Only `OK` carries a loss; every other status is a result too, never an exception."""

    OK = "ok"
    DIVERGED = "diverged"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Run:
    """One training run: one learning rate, one seed.

    `loss` is the final loss on the evaluation split and `train_loss` the mean training loss over the tail of the run
    (see `tail_start`); both are None unless the run is ok. `steps` counts the gradients computed.
    """

    learning_rate: float | None
    seed: int
    status: Status
    loss: float | None
    train_loss: float | None
    steps: int

    def __post_init__(self) -> None:
        _check_loss(self.status, self.loss)


@dataclass(frozen=True, slots=True)
class Score:
    """The outcome of one evaluation, over its seeds at its best learning rate.

    `loss`: final loss on the evaluation split (mean over seeds), finite if `status` is ok, None otherwise.
    `curve`: training loss at up to 20 evenly spaced steps (`curve_steps`), mean over seeds; shorter after a divergence.
    `steps`: gradients computed. `seconds`: wall time, not part of equality.
    `train_loss`: mean training loss over the last 5 % of the steps; on small data sets it resolves optimizers that the
    validation loss does not.

    Raises ValueError if status and loss contradict each other.
    """

    status: Status
    loss: float | None
    curve: tuple[float, ...]
    steps: int
    seconds: float = field(compare=False)
    train_loss: float | None = None
    learning_rate: float | None = None
    runs: tuple[Run, ...] = ()
    message: str = ""

    def __post_init__(self) -> None:
        _check_loss(self.status, self.loss)

    @property
    def spread(self) -> float | None:
        """Standard error of the loss over the seeds at the best learning rate; None unless ok with several seeds."""
        losses = [run.loss for run in self.runs if run.learning_rate == self.learning_rate and run.loss is not None]
        if self.status is not Status.OK or len(losses) < 2:
            return None
        mean = math.fsum(losses) / len(losses)
        return math.sqrt(math.fsum((loss - mean) ** 2 for loss in losses) / ((len(losses) - 1) * len(losses)))


def _check_loss(status: Status, loss: float | None) -> None:
    right = loss is not None and math.isfinite(loss) if status is Status.OK else loss is None
    if not right:
        raise ValueError(f"status {status.value!r} with loss {loss}: 'ok' has a finite loss, every other status None")


def curve_steps(horizon: int) -> tuple[int, ...]:
    """The steps (from 0) at which a curve of `horizon` steps is sampled: at most 20, evenly spaced, ends included."""
    points = min(CURVE_POINTS, horizon)
    return (0,) if points == 1 else tuple(round(i * (horizon - 1) / (points - 1)) for i in range(points))


def tail_start(horizon: int) -> int:
    """First step (from 0) of the tail over which `train_loss` is the mean: the last 5 %, at least one step."""
    return horizon - max(1, round(TAIL_SHARE * horizon))


def final_loss_diverged(start: float, final: float) -> bool:
    """Whether a final loss counts as divergence: not finite, or above 10 times the loss at the start plus 10."""
    return not math.isfinite(final) or final > DIVERGENCE_FACTOR * start + DIVERGENCE_MARGIN


def score_of_run(
    losses: Sequence[float],
    *,
    horizon: int,
    final: float,
    finite: bool,
    seed: int,
    seconds: float,
    learning_rate: float | None = None,
) -> Score:
    """The score of a single run.

    `losses`: training loss of each step done, the first being the loss at the start; fewer than `horizon` after an
    early stop. `final`: loss on the evaluation split. `finite`: whether the last parameters were finite.
    """
    steps = len(losses)
    curve = tuple(float(losses[i]) for i in curve_steps(horizon) if i < steps and math.isfinite(losses[i]))
    trained = finite and steps == horizon and math.isfinite(losses[-1])
    if not trained or final_loss_diverged(float(losses[0]), final):
        run = Run(learning_rate, seed, Status.DIVERGED, None, None, steps)
        message = f"training diverged at step {steps} of {horizon}"
        return Score(Status.DIVERGED, None, curve, steps, seconds, None, learning_rate, (run,), message)
    tail = losses[tail_start(horizon) :]
    train_loss = math.fsum(tail) / len(tail)
    run = Run(learning_rate, seed, Status.OK, final, train_loss, steps)
    return Score(Status.OK, final, curve, steps, seconds, train_loss, learning_rate, (run,))
