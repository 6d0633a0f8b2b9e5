"""Noisy quadratic models, along the axes and rotated."""

from dataclasses import replace

from evolion.proxies.spec import TaskSpec

_DIMENSION = 512
_INIT_SCALE = 0.1

NOISY_QUADRATIC = TaskSpec(
    name="noisy-quadratic",
    family="quadratic",
    summary="quadratic of 512 dimensions with curvatures 1/i and gradient noise of the same variance",
    model="quadratic.NoisyQuadratic",
    sizes={"dimension": _DIMENSION, "power": 1.0, "rotated": False},
    data=f"quadratic:?dimension={_DIMENSION}",
    objective="mean output",
    steps=1000,
    batch_size=16,
    learning_rates=(1e-2, 3e-2, 1e-1),
    # Half the sum of the curvatures, at errors of one but for the initial weights.
    start=0.5 * sum(1 / i for i in range(1, _DIMENSION + 1)) * (1 + _INIT_SCALE**2),
    metric="expected loss",
    rungs={"10x": {"horizon": 10}, "100x": {"horizon": 50}},
    init_scale=_INIT_SCALE,
)

NOISY_QUADRATIC_ROTATED = replace(
    NOISY_QUADRATIC,
    name="noisy-quadratic-rotated",
    summary="the noisy quadratic in a rotated basis, where no coordinate has a curvature of its own",
    sizes={**NOISY_QUADRATIC.sizes, "rotated": True},
)

SPECS: tuple[TaskSpec, ...] = (NOISY_QUADRATIC, NOISY_QUADRATIC_ROTATED)
