"""The registry of tasks."""

import subprocess
import sys

import pytest

from evolion.proxies.registry import TASKS, get_task


@pytest.mark.parametrize("name", sorted(TASKS))
def test_tasks_carry_their_name(name: str) -> None:
    """A task is stored under the name it reports, and built once."""
    assert get_task(name).name == name
    assert get_task(name) is TASKS[name]


def test_unknown_task_lists_the_known_ones() -> None:
    """A misspelt task is one line that says which names are right."""
    with pytest.raises(ValueError, match="unknown task") as raised:
        get_task("digit-mlp")
    assert str(raised.value).startswith("unknown task 'digit-mlp', did you mean 'digits-mlp'? (known: digits-mlp, ")
    assert "digit-mlp" not in TASKS


def test_names_and_scores_load_no_jax() -> None:
    """Listing tasks and handling scores stays instant: neither loads jax, flax or the data."""
    program = (
        "import sys; from evolion.proxies.registry import TASKS; import evolion.proxies.score; list(TASKS); "
        "sys.exit(bool({'jax', 'flax', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
