"""How commands that take long are stopped: Ctrl-C, or a polite request to end, and one line that says how to go on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Interrupted", "interruptible"]


class Interrupted(Exception):
    """A command was stopped from outside; holds the advice to the user."""


@contextmanager
def interruptible(advice: Callable[[], str]) -> Iterator[None]:
    """Let Ctrl-C and a polite request to end stop the work where it stands; `advice` then says what is kept.

    Raises:
        Interrupted: With the advice, if the work was stopped.

    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(advice()) from None
    finally:
        signal.signal(signal.SIGTERM, earlier)
