"""The errors of the face: what a caller gave cannot be used."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["ConfigError", "InputError", "JobError", "RunError", "close_matches"]


class InputError(ValueError):
    """Something that a caller gave cannot be used; the message says in one line what was wrong and what to do."""


class ConfigError(InputError):
    """A configuration is not valid; the message names the key."""


class RunError(InputError):
    """A run folder cannot be created, opened or continued; the message names the folder."""


class JobError(RuntimeError):
    """The input was fine and the work failed all the same; the message says in one line what is known."""


def close_matches(name: str, known: Iterable[str]) -> str:
    """Return `: did you mean 'x'?` where a known name is near, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=3)
    return f": did you mean {' or '.join(map(repr, near))}?" if near else ""
