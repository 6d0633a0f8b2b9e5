"""The tasks by name. Each is built when first asked for; naming them loads neither jax nor data."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evolion.proxies.task import Task

_BUILDERS: Mapping[str, tuple[str, str]] = {
    "digits-mlp": ("evolion.proxies.digits", "digits_mlp"),
    "digits-cnn": ("evolion.proxies.digits", "digits_cnn"),
    "zipf-lm": ("evolion.proxies.zipf_lm", "zipf_lm"),
}


class _LazyTasks(Mapping[str, "Task"]):
    """A read-only mapping that builds a task at its first use and keeps it."""

    def __getitem__(self, name: str) -> "Task":
        return _build(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_BUILDERS)

    def __len__(self) -> int:
        return len(_BUILDERS)


@cache
def _build(name: str) -> "Task":
    module, builder = _BUILDERS[name]
    build: Callable[[], Task] = getattr(import_module(module), builder)
    return build()


TASKS: Mapping[str, "Task"] = _LazyTasks()


def get_task(name: str) -> "Task":
    """The task of this name. Raises ValueError, naming the known tasks, if there is none."""
    if name not in _BUILDERS:
        raise ValueError(f"unknown task {name!r}: choose one of {', '.join(_BUILDERS)}")
    return _build(name)
