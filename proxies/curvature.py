"""Which estimate of the Hessian diagonal a training run supplies, as plain data. Loads neither jax nor flax."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Curvature", "Estimator"]


class Estimator(StrEnum):
    """How the Hessian diagonal is estimated on the batch of a step (see `evolion.proxies.hessian`)."""

    HUTCHINSON = "hutchinson"
    GAUSS_NEWTON_BARTLETT = "gauss-newton-bartlett"


_GRADIENTS = {Estimator.HUTCHINSON: 3.0, Estimator.GAUSS_NEWTON_BARTLETT: 4 / 3}
"""What an estimate costs, in gradients, by matrix products: a forward pass has one for each layer, a backward pass two;
differentiating both along a direction twice as many again; drawing labels needs one more forward pass."""


@dataclass(frozen=True, slots=True)
class Curvature:
    """The estimate of the Hessian diagonal that programs which read `hess` are given.

    Attributes:
        estimator: Hutchinson's for any task; Gauss-Newton-Bartlett for those whose labels can be drawn.
        period: The estimate is made at steps 1, 1 + period, … and the last one is given again in between. The default
            is that of Sophia (Liu et al., arXiv:2305.14342); AdaHessian (Yao et al., arXiv:2006.00719) has 1.

    Raises:
        ValueError: For a period below 1 or another estimator.

    """

    estimator: Estimator = Estimator.HUTCHINSON
    period: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "estimator", Estimator(self.estimator))
        if self.period < 1:
            raise ValueError(f"period is {self.period}: the Hessian is estimated every so many steps, at least 1")

    def __str__(self) -> str:
        """Print what it is: "hutchinson every 10 steps"."""
        return f"{self.estimator.value} every {self.period} steps" if self.period > 1 else f"{self.estimator.value}"

    def gradients(self, steps: int) -> float:
        """Return what the estimates of a run of this many steps cost, in gradients of a batch."""
        return _GRADIENTS[self.estimator] * -(-steps // self.period)
