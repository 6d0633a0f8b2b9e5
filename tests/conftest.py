import os

import pytest
from hypothesis import HealthCheck, settings

# Laws assert outside of test modules; their failures shall show the values as well.
pytest.register_assert_rewrite("laws")

settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples in every run: a submission does not fail for what another one broke.
settings.register_profile("ci", parent=settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure(config: pytest.Config) -> None:
    # Set in the environment, not through jax.config: tests that need no jax do not import it, and worker
    # processes inherit it. Strict dtype promotion is not set: optax itself computes `decay ** count` on integers.
    os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
    wants_accelerator = "gpu" in config.option.markexpr and "not gpu" not in config.option.markexpr
    if not wants_accelerator:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        from evolion.evaluators.environment import prepare

        # Before any test starts jax: scores of this process are compared bit for bit with those of workers.
        prepare()
