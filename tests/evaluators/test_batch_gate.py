from __future__ import annotations

import pytest

from evolion.discovered.library import known
from evolion.evaluators.batch.gate import GATE_PROGRAMS, gate
from evolion.evaluators.types import Score, Status

LOSSES = (0.11, 0.12, 0.2, 0.31, 0.4, 0.5, 0.61, 0.7, 0.9, 2.3)


def scores(*losses: float | None) -> dict[str, Score]:
    return {
        name: Score(Status.OK if loss is not None else Status.DIVERGED, loss, (), 100, 1.0)
        for name, loss in zip(GATE_PROGRAMS, losses, strict=True)
    }


def test_the_programs_of_the_gate_are_known() -> None:
    """Both sides can score them."""
    assert set(GATE_PROGRAMS) <= set(known())


def test_rounding_passes() -> None:
    """Devices round differently: losses some tenths of a percent apart may be mixed."""
    verdict = gate(scores(*LOSSES), scores(*(loss * 1.004 for loss in LOSSES)))
    assert verdict.passed
    assert verdict.message == ""
    assert verdict.worst == pytest.approx(0.004)
    assert verdict.correlation == 1.0


def test_one_loss_that_differs_is_refused_by_name() -> None:
    """An op that one device computes wrongly shows in the program that uses it."""
    verdict = gate(scores(*LOSSES), scores(*LOSSES[:-1], 2.5))
    assert not verdict.passed
    assert "signsgd ends with loss 2.3 on one and loss 2.5 on the other" in verdict.message
    assert verdict.message.startswith("scores of these two classes of devices cannot be mixed")


def test_a_divergence_on_one_side_is_refused() -> None:
    """A program that diverges on one class of devices alone has no loss to compare; on both it is equal."""
    verdict = gate(scores(*LOSSES), scores(None, *LOSSES[1:]))
    assert "adagrad ends with loss 0.11 on one and status diverged on the other" in verdict.message
    assert gate(scores(None, *LOSSES[1:]), scores(None, *LOSSES[1:])).passed


def test_another_order_is_refused() -> None:
    """A search follows ranks: losses within the tolerance in another order are no basis for one."""
    near = [1.0 + 0.001 * place for place in range(len(LOSSES))]
    verdict = gate(scores(*near), scores(*near[::-1]))
    assert not verdict.passed
    assert verdict.correlation == pytest.approx(-1.0)
    assert "rank correlation -1.000, at least 0.95 is needed" in verdict.message
    swapped = [near[1], near[0], *near[2:]]
    assert gate(scores(*near), scores(*swapped)).passed


def test_equal_losses_share_a_rank() -> None:
    """Ties are no order; all equal on both sides is agreement, on one side alone it is not."""
    same = scores(*[1.0] * len(LOSSES))
    assert gate(same, same).correlation == 1.0
    assert not gate(same, scores(*[1.0 + 0.001 * place for place in range(len(LOSSES))])).passed


def test_different_programs_are_an_error() -> None:
    """Scores of other programs say nothing, and neither does an order of two."""
    one = scores(*LOSSES)
    with pytest.raises(ValueError, match="only one of the two sides has signsgd"):
        gate(one, {name: score for name, score in one.items() if name != "signsgd"})
    with pytest.raises(ValueError, match="at least 3 programs, not 0"):
        gate({}, {})
