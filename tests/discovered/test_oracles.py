import pytest
from oracles.cases import CASES
from oracles.running import Case, by_jax, by_numpy, expected, gap, regimes_of

RUNS = [
    pytest.param(case, regime, id=f"{case.program}-{case.source}-{regime}")
    for case in CASES
    for regime in regimes_of(case)
]


@pytest.mark.parametrize(("case", "regime"), RUNS)
def test_numpy_follows_the_independent_implementation(case: Case, regime: str) -> None:
    """A reference program is the published rule, epsilons and zero gradients included, as somebody else ran it."""
    assert gap(by_numpy(case, regime), expected(case, regime)) <= case.tolerance


@pytest.mark.parametrize(("case", "regime"), [run for run in RUNS if run.values[1] not in ("tiny", "sparse")])
def test_jax_follows_the_independent_implementation(case: Case, regime: str) -> None:
    """The Optax transform of a reference program is the published rule as well."""
    assert gap(by_jax(case, regime), expected(case, regime)) <= case.tolerance
