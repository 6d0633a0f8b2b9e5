"""Memory that compiling leaves behind, handed back to the system.

XLA takes hundreds of megabytes to compile a training loop and frees them, but the C library keeps what was freed, in
pieces, for the process. A worker that then interprets for hours never needs it again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import jax

__all__ = ["hand_back"]

_COMPILATION = "/jax/core/compile/backend_compile_duration"

_WORTH_SECONDS = 0.2
"""After so much compilation memory is handed back, which takes milliseconds: a training loop takes longer."""

_state = {"seconds": 0.0}


def _note(event: str, duration_secs: float, **_: str | int) -> None:
    if event == _COMPILATION:
        _state["seconds"] += duration_secs


jax.monitoring.register_event_duration_secs_listener(_note)


def hand_back() -> bool:
    """Hand freed memory back if something was compiled since the last time; say whether that was done.

    For between two jobs. Does nothing where the C library cannot be asked to, which only that of GNU can.
    """
    trim = _trim()
    if trim is None or _state["seconds"] < _WORTH_SECONDS:
        return False
    _state["seconds"] = 0.0
    trim(0)
    return True


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        found: Any = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return lambda kept: int(found(ctypes.c_size_t(kept)))
