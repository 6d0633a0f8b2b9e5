"""What a person sees of a run that goes on: a live view in a terminal, a line now and then in a log that wants it.

The driver tells an `Observer` how far it is; everything here only looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from evolion.progress import Observer, Phase, Progress, duration_text, fitness_text, silent

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = [
    "LineView",
    "LiveView",
    "Observer",
    "Phase",
    "Progress",
    "fitness_text",
    "progress_line",
    "silent",
    "view_on",
]


@dataclass(slots=True)
class Pace:
    """Units per second since a phase was first seen, so that what an earlier process did does not count."""

    phase: Phase | None = None
    start: float = 0.0
    first: int = 0

    def rate(self, progress: Progress, now: float) -> float | None:
        """Return units per second in this phase, None while it cannot be told; `now` is in seconds."""
        if progress.phase is not self.phase:
            self.phase, self.start, self.first = progress.phase, now, progress.done
        seconds, units = now - self.start, progress.done - self.first
        return units / seconds if units > 0 and seconds > 0 else None


def progress_line(progress: Progress, rate: float | None) -> str:
    """Return the state of a run as one plain line."""
    parts = [f"{progress.phase.value} {progress.done:,}/{progress.total:,}"]
    if rate is not None:
        parts.append(f"{rate:.1f}/s")
        parts.append(f"{duration_text((progress.total - progress.done) / rate)} left")
    if progress.phase is Phase.SEARCH and progress.done:
        parts.append(f"{progress.reused / progress.done:.0%} known by key")
        parts.append(f"{progress.failed / progress.done:.0%} failed")
        if progress.confirmed:
            parts.append(f"{progress.confirmed:,} confirmed in {progress.confirming:.0%} of the training time")
    if progress.best_fitness is not None:
        parts.append(f"best {fitness_text(progress.best_fitness, progress.best_number)}")
    return ", ".join(parts)


@dataclass(slots=True)
class LineView:
    """Writes a plain line at the start of each phase, at most every `interval` seconds, and at its end."""

    stream: TextIO
    interval: float = 30.0
    clock: Callable[[], float] = time.monotonic
    _pace: Pace = field(default_factory=Pace)
    _written: tuple[Phase, bool] | None = None
    _next: float = 0.0

    def on_progress(self, progress: Progress) -> None:
        """Write a line if one is due."""
        now = self.clock()
        rate = self._pace.rate(progress, now)
        state = (progress.phase, progress.done >= progress.total)
        if state == self._written and (state[1] or now < self._next):
            return
        self._written, self._next = state, now + self.interval
        self.stream.write(f"evolion: {progress_line(progress, rate)}\n")
        self.stream.flush()


@dataclass(slots=True)
class LiveView:
    """Redraws a few lines of a terminal: bar, rate, time left, share known by key, the best program so far."""

    console: Console
    clock: Callable[[], float] = time.monotonic
    _pace: Pace = field(default_factory=Pace)
    _latest: Progress | None = None

    def on_progress(self, progress: Progress) -> None:
        """Take note; the redrawing thread shows it."""
        self._pace.rate(progress, self.clock())
        self._latest = progress

    @contextmanager
    def shown(self) -> Iterator[LiveView]:
        """Show the view inside the block and clear it away at the end, where the result says more."""
        from rich.live import Live

        with Live(get_renderable=self.render, console=self.console, refresh_per_second=4, transient=True):
            yield self

    def render(self) -> RenderableType:
        """Return what is shown now."""
        from rich.progress_bar import ProgressBar
        from rich.syntax import Syntax
        from rich.table import Table
        from rich.text import Text

        progress = self._latest
        if progress is None:
            return Text("starting the workers ...")
        line = progress_line(progress, self._pace.rate(progress, self.clock()))
        bar = ProgressBar(total=max(progress.total, 1), completed=progress.done, width=min(80, self.console.width))
        view = Table.grid()
        view.add_row(bar)
        view.add_row(Text(line))
        if progress.workers is not None:
            view.add_row(Text(str(progress.workers)))
        program = progress.best_text.rstrip()
        if program and len(program.splitlines()) <= self.console.height - 7:
            view.add_row(Syntax(program, "python", theme="ansi_dark", background_color="default"))
        return view


@contextmanager
def view_on(stream: TextIO, *, quiet: bool = False, lines: bool = False) -> Iterator[Observer]:
    """Return the view that suits a stream: live in a terminal, else nothing; plain lines for a log if `lines`."""
    if lines:
        yield LineView(stream)
    elif quiet or not stream.isatty():
        yield silent()
    else:
        from rich.console import Console

        with LiveView(Console(file=stream)).shown() as view:
            yield view
