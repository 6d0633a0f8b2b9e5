from collections.abc import Iterator
from pathlib import Path

import pytest

from evolion.evaluators.environment import prepare

pytest.register_assert_rewrite("laws.evaluator_laws")

# Before any test computes with jax: scores of this process are compared with those of workers, bit for bit.
prepare()


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests: starting it takes seconds. Its workers find the functions of the tests by PYTHONPATH."""
    import ray

    from evolion.evaluators.ray_pool import connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        connect("local", 4)
        yield
        ray.shutdown()
