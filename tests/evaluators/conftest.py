from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("laws.evaluator_laws")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests: starting it takes seconds. Its workers find the functions of the tests by PYTHONPATH.

    Besides processors it has two of a resource of its own.
    """
    import ray

    from evolion.evaluators.ray_connection import connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"slots": 2}')
        connect("local", 4)
        yield
        ray.shutdown()
