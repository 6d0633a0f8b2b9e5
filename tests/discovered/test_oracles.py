import pytest
from oracles.cases import CASES
from oracles.running import Case, by_jax, by_numpy, gap, regimes_of

RUNS = [
    pytest.param(case, regime, id=f"{case.program}-{case.source}-{regime}")
    for case in CASES
    for regime in regimes_of(case)
]
# Optax draws its own noise, and the regimes that show where an epsilon stands need no second execution.
BY_JAX = [run for run in RUNS if run.values[1] not in ("tiny", "sparse") and not run.values[0].noise]  # type: ignore[union-attr]


@pytest.mark.parametrize(("case", "regime"), RUNS)
def test_numpy_follows_the_independent_implementation(case: Case, regime: str) -> None:
    """A reference program is the published rule, epsilons and zero gradients included, as somebody else ran it."""
    assert gap(case, regime, by_numpy(case, regime)) <= case.tolerance


@pytest.mark.parametrize(("case", "regime"), BY_JAX)
def test_jax_follows_the_independent_implementation(case: Case, regime: str) -> None:
    """The Optax transform of a reference program is the published rule as well."""
    assert gap(case, regime, by_jax(case, regime)) <= case.tolerance
