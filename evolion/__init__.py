"""Evolion discovers neural-network optimizers by evolutionary program search.

The public names are below; each loads what it needs when it is first used, so that `import evolion` is quick.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evolion.api import evaluate, key, known, load, search, simplify, tasks, to_optax, to_source, train
    from evolion.config import RunConfig
    from evolion.driver import Result
    from evolion.primitives.parser import parse
    from evolion.primitives.program import Program, ProgramError
    from evolion.proxies.score import Score

    __version__: str

__all__ = [
    "Program",
    "ProgramError",
    "Result",
    "RunConfig",
    "Score",
    "__version__",
    "evaluate",
    "key",
    "known",
    "load",
    "parse",
    "search",
    "simplify",
    "tasks",
    "to_optax",
    "to_source",
    "train",
]

_HOMES = {
    "Program": "evolion.primitives.program",
    "ProgramError": "evolion.primitives.program",
    "Result": "evolion.driver",
    "RunConfig": "evolion.config",
    "Score": "evolion.proxies.score",
    "evaluate": "evolion.api",
    "key": "evolion.api",
    "known": "evolion.api",
    "load": "evolion.api",
    "parse": "evolion.primitives.parser",
    "simplify": "evolion.api",
    "tasks": "evolion.api",
    "to_optax": "evolion.api",
    "to_source": "evolion.api",
    "train": "evolion.api",
}


class _SearchRoom(ModuleType):
    """The sub-package `evolion.search`, which is the public function of that name as well.

    The import system binds a sub-package to its name in the parent, whatever was bound there before, so a function
    `search` would be lost with the first import of `evolion.search.mutation`. The module is made callable instead.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Result:
        """Run a whole discovery; see `evolion.api.search`, to which all arguments go."""
        from evolion.api import search

        return search(*args, **kwargs)


importlib.import_module("evolion.search").__class__ = _SearchRoom


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.import_module("importlib.metadata").version("evolion")
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'evolion' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
