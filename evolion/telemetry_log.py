"""The log of a run: what `evolion` says through the standard library's logging, a JSON object a line.

It lies in the run folder and is bounded: two files, the current one and the one before.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from evolion.evaluators.memory import resident_bytes
from evolion.progress import Pace, Phase, Progress, fitness_text
from evolion.view import progress_line

__all__ = ["LOG", "JsonLines", "LogFile", "LogView", "logging_to"]

LOG = "log.jsonl"
"""The log in a run folder."""

_HELD = 1000
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}

_log = logging.getLogger("evolion.run")


class JsonLines(logging.Formatter):
    """Makes a JSON object of a record.

    `time` is UTC; `level`, `logger` and `message` are what logging calls so, and whatever else the caller gave as
    `extra`, such as `job`, `candidate` or `worker`, stands beside them.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        # Ray marks records for itself, with a name that begins so.
        said |= {name: value for name, value in vars(record).items() if name not in _STANDARD and name[0] != "_"}
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


@dataclass(slots=True)
class LogFile:
    """A text file that is made once `begun` says so, holds lines back until then, and never grows beyond a bound.

    A new run wants an empty folder, so that its log cannot be there before it. A log that cannot be written ends no
    run: there is one warning on standard error.

    Attributes:
        path: The file; what it holds stays. At `limit` it becomes `PATH.1`, in the place of an earlier one.
        begun: Whether it may be made now.
        limit: Bytes.

    """

    path: Path
    begun: Callable[[], bool] = lambda: True
    limit: int = 4 * 2**20
    _held: deque[str] = field(default_factory=lambda: deque(maxlen=_HELD))
    _file: TextIO | None = None
    _broken: bool = False

    def write(self, line: str) -> None:
        """Write a line, with its end, or hold it back."""
        if self._broken:
            return
        self._held.append(line)
        try:
            while self._held and (self._file is not None or self.begun()):
                self._put(self._held[0])
                self._held.popleft()
        except OSError as error:
            self._broken = True
            print(f"evolion: {self.path} is written no more, the run goes on: {error}", file=sys.stderr)

    def _put(self, line: str) -> None:
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8")
        if self._file.tell() and self._file.tell() + len(line) > self.limit:
            self._file.close()
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
            self._file = self.path.open("a", encoding="utf-8")
        self._file.write(line)
        self._file.flush()

    def flush(self) -> None:
        """Do nothing: each line is written at once."""

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


@dataclass(frozen=True, slots=True)
class _StandardError:
    """Standard error as it is at the time: a live view takes care of it while it shows."""

    def write(self, text: str) -> None:
        sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


@contextmanager
def logging_to(path: Path, begun: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Inside the block, write what `evolion` logs into a file as JSON lines, and its warnings on standard error.

    Args:
        path: The file; what it holds stays.
        begun: Whether it may be made now.

    """
    logger = logging.getLogger("evolion")
    before = logger.level
    log, warnings = LogFile(path, begun), _StandardError()
    handlers = logging.StreamHandler(log), logging.StreamHandler(warnings)
    handlers[0].setFormatter(JsonLines())
    handlers[0].setLevel(logging.INFO)
    handlers[1].setFormatter(logging.Formatter("evolion: %(message)s"))
    handlers[1].setLevel(logging.WARNING)
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        for handler in handlers:
            logger.removeHandler(handler)
        log.close()


@dataclass(slots=True)
class LogView:
    """An observer that logs the beginning and the end of each phase, each new best, and the state now and then.

    Attributes:
        interval: Seconds between two lines on the state.
        best_interval: Seconds between two lines on a new best; the latest of a quick succession is told.
        clock: In seconds.
        memory: What this process holds, in bytes.

    """

    interval: float = 300.0
    best_interval: float = 1.0
    clock: Callable[[], float] = time.monotonic
    memory: Callable[[], int] = resident_bytes
    _pace: Pace = field(default_factory=Pace)
    _state: tuple[Phase, bool, bool] | None = None
    _next: float = 0.0
    _best: int | None = None
    _next_best: float = 0.0

    def on_progress(self, progress: Progress) -> None:
        """Log what is new."""
        now = self.clock()
        self._pace.add(progress, now)
        ended = progress.done >= progress.total
        self._tell_best(progress, now, ended=ended)
        # Whether something runs, not the reason: that may count, and would be told each time.
        waiting = progress.workers is not None and progress.workers.waiting != ""
        state = (progress.phase, ended, waiting)
        if state == self._state and (ended or now < self._next):
            return
        self._state, self._next = state, now + self.interval
        rate, memory = self._pace.rates(now)[0], self.memory()
        fields = {"phase": progress.phase.value, "done": progress.done, "total": progress.total, "rate": rate}
        _log.info(progress_line(progress, rate, memory), extra=fields | {"driver_bytes": memory})

    def _tell_best(self, progress: Progress, now: float, *, ended: bool) -> None:
        number, fitness = progress.best_number, progress.best_fitness
        if fitness is None or number == self._best or (now < self._next_best and not ended):
            return
        self._best, self._next_best = number, now + self.best_interval
        extra = {"candidate": number, "fitness": list(fitness), "interval": progress.best_interval}
        _log.info("new best: %s", fitness_text(fitness, number), extra=extra)
