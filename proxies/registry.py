"""The tasks by name. Each is built when first asked for; naming them loads neither jax nor data.

A name may carry modifiers after a colon, "zipf-lm:10x" or "digits-mlp:width=2,activation=tanh": see `modifiers`.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from evolion.proxies.modifiers import modified
from evolion.proxies.spec import TaskSpec

if TYPE_CHECKING:
    from evolion.proxies.task import Task

_MODULES = ("images", "language", "sequences", "regression", "fields", "graphs", "quadratic", "ladder")


def _catalogue() -> Mapping[str, TaskSpec]:
    specs = [spec for name in _MODULES for spec in import_module(f"evolion.proxies.catalogue.{name}").SPECS]
    return MappingProxyType({spec.name: spec for spec in specs})


SPECS: Mapping[str, TaskSpec] = _catalogue()
"""The tasks of the catalogue as data, by name."""


def get_spec(name: str) -> TaskSpec:
    """The specification of a name, with its modifiers applied; builds nothing.

    Raises ValueError, naming the known tasks, if there is none, or for modifiers that it cannot take.
    """
    base, colon, modifiers = name.partition(":")
    if base not in SPECS:
        near = get_close_matches(base, SPECS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown task {base!r}{hint} (known: {', '.join(SPECS)})")
    return modified(SPECS[base], modifiers) if colon else SPECS[base]


def get_task(name: str) -> "Task":
    """The task of this name, always the same object.

    Raises ValueError as `get_spec` does.
    """
    return _build(name)


@lru_cache(maxsize=64)
def _build(name: str) -> "Task":
    spec = get_spec(name)
    from evolion.proxies.task import ModelTask

    return ModelTask(spec)


class _LazyTasks(Mapping[str, "Task"]):
    """A read-only mapping of the catalogue that builds a task at its first use and keeps it."""

    def __getitem__(self, name: str) -> "Task":
        if name not in SPECS:
            raise KeyError(name)
        return get_task(name)

    def __iter__(self) -> Iterator[str]:
        return iter(SPECS)

    def __len__(self) -> int:
        return len(SPECS)


TASKS: Mapping[str, "Task"] = _LazyTasks()
