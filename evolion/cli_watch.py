"""How commands show what a run does: the observers of one that works, and the watching of one from outside."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from evolion.errors import InputError, JobError, RunError
from evolion.progress import Observer, Pace, several
from evolion.run_files import DATABASE
from evolion.run_watch import Follower, Seen, seen_to_json, title_of
from evolion.telemetry_log import LOG, LogView, logging_to
from evolion.telemetry_ray import ray_measurements
from evolion.telemetry_tensorboard import tensorboard
from evolion.view import LiveView, progress_line, view_on

__all__ = ["Watching", "observed", "watch"]

_log = logging.getLogger("evolion.run")


@dataclass(frozen=True, slots=True)
class Watching:
    """What is to be shown of a run.

    Attributes:
        folder: The run folder; it may not exist yet.
        quiet: Whether nothing is to be shown on standard error but warnings.
        lines: Whether plain lines are to be written there.
        log: The log; None for the one in the run folder.
        events: The folder of event files; None for none.

    """

    folder: Path
    quiet: bool = False
    lines: bool = False
    log: Path | None = None
    events: Path | None = None

    @staticmethod
    def of(
        folder: str, quiet: bool, lines: bool, log: str | None, tensorboard: bool, tensorboard_dir: str | None
    ) -> Watching:
        """Return what the options of a command ask for."""
        path = Path(folder)
        events = Path(tensorboard_dir) if tensorboard_dir else path / "tensorboard" if tensorboard else None
        return Watching(path, quiet, lines, Path(log) if log else None, events)


@contextmanager
def observed(watching: Watching, doing: str) -> Iterator[Observer]:
    """Return the observer of a run: the view, the log, event files, the metrics of a Ray cluster.

    The log says how the block began and ended.

    Args:
        watching: What is to be shown.
        doing: What the log calls the block: "search", "resume".

    Raises:
        InputError: If the log has no folder, or event files are wanted and their library is missing.

    """
    log = watching.log or watching.folder / LOG
    if watching.log is not None and not log.absolute().parent.is_dir():
        raise InputError(f"the log cannot be written: there is no folder {log.absolute().parent}")
    with ExitStack() as stack:
        boards = [stack.enter_context(tensorboard(watching.events))] if watching.events else []
        stack.enter_context(logging_to(log, lambda: _may_hold(log, watching.folder)))
        view = stack.enter_context(view_on(sys.stderr, quiet=watching.quiet, lines=watching.lines))
        stack.enter_context(_told(doing))
        yield several(view, LogView(), *boards, ray_measurements(watching.folder.absolute().name))


def _may_hold(log: Path, folder: Path) -> bool:
    """Whether a run has begun, and is not one that may only be read."""
    return (folder / DATABASE).exists() and os.access(log.parent, os.W_OK)


@contextmanager
def _told(doing: str) -> Iterator[None]:
    from evolion import __version__

    _log.info("%s begins", doing, extra={"version": __version__, "pid": os.getpid(), "host": os.uname().nodename})
    try:
        yield
    except BaseException as error:
        # Those that a user is told of in a line need no traceback. None is a warning here: standard error says it.
        known = isinstance(error, InputError | JobError | KeyboardInterrupt)
        said = ": ".join(filter(None, (type(error).__name__, str(error))))
        _log.info("%s stops: %s", doing, said, exc_info=not known)
        raise
    _log.info("%s is done", doing)


@dataclass(slots=True)
class _Lines:
    """A line for each reading, where nothing can be redrawn or JSON is wanted."""

    stream: TextIO
    folder: Path
    as_json: bool
    _pace: Pace = field(default_factory=Pace)

    def show(self, seen: Seen) -> None:
        clock, now = time.monotonic(), time.time()
        self._pace.add(seen.progress, clock)
        rates = self._pace.rates(clock)
        if self.as_json:
            line = json.dumps(seen_to_json(self.folder, seen, rates, now))
        else:
            line = f"{title_of(self.folder, seen, now)}: {progress_line(seen.progress, rates[0])}"
        print(line, file=self.stream, flush=True)


def watch(
    folder: Path,
    stream: TextIO,
    *,
    interval: float,
    as_json: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show how far a run is every `interval` seconds until it is finished: live in a terminal, else a line each time.

    A run that nobody is at is watched on, as somebody may go on with it.

    Raises:
        RunError: If there is no run. One that cannot be read for a while, later, is no error.

    """
    follower = Follower(folder)
    seen = follower.read()
    if as_json or not stream.isatty():
        _loop(follower, seen, _Lines(stream, folder, as_json).show, interval, sleep)
        return
    from rich.console import Console

    view = LiveView(Console(file=stream), memory=lambda: 0)

    def show(seen: Seen) -> None:
        view.title = title_of(folder, seen, time.time())
        view.on_progress(seen.progress)

    show(seen)
    with view.shown(transient=False):
        _loop(follower, seen, show, interval, sleep)


def _loop(
    follower: Follower, seen: Seen, show: Callable[[Seen], None], interval: float, sleep: Callable[[float], None]
) -> None:
    show(seen)
    while seen.state != "finished":
        sleep(interval)
        try:
            seen = follower.read()
        except RunError:
            continue  # a disk that is away for a moment; what was seen last stays
        show(seen)
