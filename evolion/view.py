"""What a person sees of a run that goes on: a live view in a terminal, a line now and then in a log that wants it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from evolion.evaluators.memory import resident_bytes
from evolion.progress import (
    IN_FLIGHT_FOR_A_WORKER,
    Observer,
    Pace,
    Phase,
    Progress,
    StageProgress,
    duration_text,
    fitness_text,
    silent,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from evolion.evaluators.types import PoolStatus

__all__ = [
    "LineView",
    "LiveView",
    "details",
    "progress_line",
    "view_on",
]

_WIDTH = 100
"""A wider terminal makes nothing clearer."""


def progress_line(progress: Progress, rate: float | None, driver_bytes: int = 0) -> str:
    """Return the state of a run as one plain line."""
    parts = [f"{progress.phase.value} {progress.done:,}/{progress.total:,}"]
    if rate is not None:
        parts += _speed(progress, rate)
    if progress.phase is Phase.SEARCH and progress.done:
        parts.append(f"{progress.reused / progress.done:.0%} known by key")
        parts.append(f"{progress.failed / progress.done:.0%} failed")
        if progress.stages:
            entered = "/".join(f"{stage.entered:,}" for stage in progress.stages)
            parts.append(f"{entered} entered the stages and {progress.stages[-1].passed:,} finished")
        if progress.confirmed:
            share = f" in {progress.confirming:.0%} of the training time" if progress.confirming else ""
            parts.append(f"{progress.confirmed:,} confirmed{share}")
        if progress.restarts:
            parts.append(f"restart {progress.restarts:,}")
    if progress.best_fitness is not None:
        parts.append(f"best {_best(progress)}")
    workers = _workers(progress.workers, driver_bytes)
    if progress.workers is not None:
        workers[0] = f"workers {workers[0]}"
    return ", ".join([*parts, *workers, *_waiting(progress)])


def details(progress: Progress, rates: Sequence[float | None], driver_bytes: int, *, lines: int) -> list[str]:
    """Return what a live view says below its bar, for 80 columns.

    Args:
        progress: How far the run is.
        rates: What `Pace.rates` says.
        driver_bytes: What this process holds; 0 if that is of no interest.
        lines: At most so many; where the stages do not fit, they share one. At least 5 are said.

    """
    said = [f"workers  {', '.join(parts)}"] if (parts := _workers(progress.workers, driver_bytes)) else []
    said += [f"         {reason}" for reason in _waiting(progress)]
    best = []
    if progress.phase is Phase.SEARCH:
        said.append(f"funnel   {_funnel(progress)}")
        confirmed = f"; {progress.confirmed:,} confirmed" if progress.confirmed else ""
        if progress.best_fitness is not None:
            best.append(f"best     {_best(progress)}{confirmed}")
    stages = _stage_lines(progress.stages, rates[1:])
    if len(said) + len(stages) + len(best) > lines and stages:
        entered = " > ".join(f"{stage.entered:,}" for stage in progress.stages)
        stages = [f"stages   {entered} entered, {progress.stages[-1].passed:,} finished"]
    return said + stages + best


def _speed(progress: Progress, rate: float) -> list[str]:
    left = progress.total - progress.done
    return [f"{rate:.1f}/s", *([f"{duration_text(left / rate)} left"] if left > 0 else [])]


def _best(progress: Progress) -> str:
    fitness, interval = progress.best_fitness, progress.best_interval
    assert fitness is not None
    between = "" if interval is None else f", 95% in {interval[0]:.4g} to {interval[1]:.4g}"
    return fitness_text(fitness, progress.best_number) + between


def _funnel(progress: Progress) -> str:
    counts = {
        "generated": progress.generated or progress.done,
        "invalid": progress.invalid,
        "duplicate": progress.reused,
        "probed": progress.probed,
    }
    restarts = f"; restart {progress.restarts:,}" if progress.restarts else ""
    return ", ".join(f"{count:,} {what}" for what, count in counts.items()) + restarts


def _stage_lines(stages: Sequence[StageProgress], rates: Sequence[float | None]) -> list[str]:
    def cells(number: int, stage: StageProgress) -> tuple[str, ...]:
        rate = rates[number] if number < len(rates) else None
        return (
            f"{stage.entered:,} in",
            "" if rate is None else f"{rate:.1f}/s",
            f"{stage.passed:,} passed",
            f"{stage.waiting:,} waiting" if stage.waiting else "",
        )

    heads = [f"{stage.name}  {stage.task}" + (f" {stage.steps:,} steps" if stage.steps else "") for stage in stages]
    rows = [cells(number, stage) for number, stage in enumerate(stages)]
    width = max(map(len, heads), default=0)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([head.ljust(width), *(cell.rjust(w) for cell, w in zip(row, widths, strict=True))]).rstrip()
        for head, row in zip(heads, rows, strict=True)
    ]


def _workers(status: PoolStatus | None, driver_bytes: int) -> list[str]:
    """Return what the workers do and hold, and what this process does, in a few parts."""
    driver = [f"driver {driver_bytes / 2**30:.1f} GiB"] if driver_bytes else []
    if status is None:
        return driver
    parts = [f"{status.busy:,} of {status.workers:,} busy"]
    if status.ready < status.workers:
        parts.append(f"{status.ready:,} ready")
    if status.wanted > status.workers:
        parts.append(f"{status.wanted:,} wanted")
    if status.resident_bytes:
        parts.append(f"{status.resident_bytes / 2**30:.1f} GiB held")
    past = {
        "died": status.deaths,
        "timed out": status.timeouts,
        "quarantined": status.quarantined,
        "nodes lost": status.nodes_lost,
    }
    return parts + driver + [f"{count:,} {what}" for what, count in past.items() if count]


def _waiting(progress: Progress) -> list[str]:
    """Return why workers do nothing: all of them, or most of those that a run with a small lag has."""
    status = progress.workers
    if status is None:
        return []
    if status.waiting:
        return [f"nothing runs: {status.waiting}"]
    flying = progress.generated - progress.done
    asks_more = progress.phase is Phase.SEARCH and progress.generated < progress.total
    if asks_more and flying < IN_FLIGHT_FOR_A_WORKER * status.ready and 2 * status.busy < status.ready:
        return [f"most workers wait: search.lag lets {flying:,} candidates be in flight, too few for so many"]
    return []


@dataclass(slots=True)
class LineView:
    """Writes a plain line at the start of each phase, at most every `interval` seconds, and at its end."""

    stream: TextIO
    interval: float = 30.0
    clock: Callable[[], float] = time.monotonic
    memory: Callable[[], int] = resident_bytes
    _pace: Pace = field(default_factory=Pace)
    _written: tuple[Phase, bool] | None = None
    _next: float = 0.0

    def on_progress(self, progress: Progress) -> None:
        """Write a line if one is due."""
        now = self.clock()
        self._pace.add(progress, now)
        state = (progress.phase, progress.done >= progress.total)
        if state == self._written and (state[1] or now < self._next):
            return
        self._written, self._next = state, now + self.interval
        self.stream.write(f"evolion: {progress_line(progress, self._pace.rates(now)[0], self.memory())}\n")
        self.stream.flush()


@dataclass(slots=True)
class LiveView:
    """Redraws a few lines of a terminal: bar, rate and time left, workers, funnel, stages, the best program so far.

    Attributes:
        console: Where.
        title: A first line of its own.
        clock: In seconds.
        memory: What this process holds, in bytes; 0 if that is of no interest.

    """

    console: Console
    title: str = ""
    clock: Callable[[], float] = time.monotonic
    memory: Callable[[], int] = resident_bytes
    _pace: Pace = field(default_factory=Pace)
    _latest: Progress | None = None

    def on_progress(self, progress: Progress) -> None:
        """Take note; the redrawing thread shows it."""
        self._pace.add(progress, self.clock())
        self._latest = progress

    @contextmanager
    def shown(self, *, transient: bool = True) -> Iterator[LiveView]:
        """Show the view inside the block; if `transient`, clear it away at the end, where the result says more."""
        from rich.live import Live

        with Live(get_renderable=self.render, console=self.console, refresh_per_second=4, transient=transient):
            yield self

    def render(self) -> RenderableType:
        """Return what is shown now: at least one line less than the terminal has, and none is wrapped."""
        from rich.console import Group
        from rich.syntax import Syntax
        from rich.text import Text

        progress = self._latest
        title = [self._line(self.title)] if self.title else []
        if progress is None:
            return Group(*title, Text("starting the workers ..."))
        rates = self._pace.rates(self.clock())
        room = self.console.height - 2 - len(title)
        said = details(progress, rates, self.memory(), lines=room)
        rows: list[RenderableType] = [*title, self._bar(progress, rates[0]), *map(self._line, said)]
        program = progress.best_text.rstrip()
        if program and len(program.splitlines()) <= room - len(said):
            rows.append(Syntax(program, "python", theme="ansi_dark", background_color="default"))
        return Group(*rows)

    def _bar(self, progress: Progress, rate: float | None) -> RenderableType:
        from rich.constrain import Constrain
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        parts = [f"{progress.done:,}/{progress.total:,}"]
        if rate is not None:
            parts += _speed(progress, rate)
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(no_wrap=True, min_width=8)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        bar = ProgressBar(total=max(progress.total, 1), completed=progress.done)
        row.add_row(progress.phase.value, bar, "  ".join(parts))
        return Constrain(row, _WIDTH)

    @staticmethod
    def _line(text: str) -> RenderableType:
        from rich.text import Text

        return Text(text, no_wrap=True, overflow="ellipsis")


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
