"""The laws of tasks, on every task of the registry."""

import pytest

pytest.register_assert_rewrite("laws.task_laws")

from laws.task_laws import TaskLaws  # noqa: E402

from evolion.proxies.registry import TASKS  # noqa: E402
from evolion.proxies.task import Task  # noqa: E402

CLASSES = {"digits-mlp": 10, "digits-cnn": 10, "zipf-lm": 128}


@pytest.fixture(scope="module", params=sorted(TASKS))
def task(request: pytest.FixtureRequest) -> Task:
    """Each registered task in turn."""
    return TASKS[request.param]


@pytest.fixture(scope="module")
def classes(task: Task) -> int:
    """How many answers the task chooses from."""
    return CLASSES[task.name]


class TestRegisteredTasks(TaskLaws):
    """A task that enters the registry obeys the laws."""


def test_digests_differ() -> None:
    """Two tasks never share stored scores."""
    assert len({task.digest for task in TASKS.values()}) == len(TASKS)
