"""What a cluster's workers need to run this code: the package as one folder that Ray can send to every node."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["ROOMS", "package_folder", "working_environment"]

PACKAGE = "evolion"
ROOMS = ("discovered", "evaluators", "pictures", "primitives", "proxies", "search")
"""The packages inside it, which an editable installation keeps in folders beside it."""

_SKIPPED = shutil.ignore_patterns("__pycache__", "*.py[co]", *(f".{name}_cache" for name in ("mypy", "ruff", "pytest")))
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_KEY = "py_modules"


def working_environment(folder: Path) -> dict[str, Any]:
    """Return the `runtime_env` for `ray.init` with which workers import the code of this process, whatever they have.

    The libraries that it needs are the cluster's to bring. Empty inside a job that was submitted with modules of its
    own: Ray takes them from there.

    Args:
        folder: An empty folder for a copy of the package, where it does not lie in one place. It must last until Ray
            has been started.

    """
    return {} if _KEY in _submitted() else {_KEY: [str(package_folder(folder))]}


def package_folder(folder: Path) -> Path:
    """Return a folder that holds the whole package: the installed one, or a copy in `folder`."""
    home = _home(PACKAGE)
    homes = {room: _home(f"{PACKAGE}.{room}") for room in ROOMS}
    if all(path == home / room for room, path in homes.items()):
        return home
    copy = folder / PACKAGE
    shutil.copytree(home, copy, ignore=_SKIPPED)
    for room, path in homes.items():
        shutil.copytree(path, copy / room, ignore=_SKIPPED, dirs_exist_ok=True)
    return copy


def _home(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the package {package} cannot be found", name=package)
    return Path(spec.origin).parent


def _submitted() -> Mapping[str, Any]:
    """Return the runtime environment that a submitted job was given."""
    try:
        said: Mapping[str, Any] = json.loads(os.environ.get(_JOB, "{}")).get("runtime_env") or {}
    except (ValueError, AttributeError):
        return {}
    return said
