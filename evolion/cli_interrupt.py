"""How commands that take long are stopped: Ctrl-C, or a polite request to end, and one line that says how to go on."""

from __future__ import annotations

import errno
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from evolion.errors import JobError

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Interrupted", "interruptible"]

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


class Interrupted(Exception):
    """A command was stopped from outside; holds the advice to the user."""


@contextmanager
def interruptible(advice: Callable[[], str]) -> Iterator[None]:
    """Let Ctrl-C and a polite request to end stop the work where it stands; `advice` then says what is kept.

    Raises:
        Interrupted: With the advice, if the work was stopped.
        JobError: With the advice, if a disk is full or fails, or another process keeps a database to itself.

    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(advice()) from None
    except (OSError, sqlite3.OperationalError) as error:
        if isinstance(error, OSError) and error.errno not in _DISK:
            raise
        raise JobError(f"{error}: {advice()}") from error
    finally:
        signal.signal(signal.SIGTERM, earlier)
