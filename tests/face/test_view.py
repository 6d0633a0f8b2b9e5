import io
import logging
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from evolion.evaluators.types import PoolStatus
from evolion.progress import (
    Observer,
    Pace,
    Phase,
    Progress,
    StageProgress,
    duration_text,
    interval_of,
    several,
    silent,
)
from evolion.view import LineView, LiveView, progress_line, view_on

SEARCH = Progress(Phase.SEARCH, 50, 200, 30, 10, 5, 7, (-1.0, 3.25), "def train(g):\n    return g\n", 4, 0.07)

FULL = Progress(
    Phase.SEARCH,
    1240,
    2000,
    623,
    412,
    87,
    7,
    (-2.0, 3.25),
    "def train(g):\n    return g\n",
    31,
    0.07,
    PoolStatus(4, 3, 2, int(0.8 * 2**30), deaths=1, wanted=6),
    1273,
    3,
    205,
    (
        StageProgress("stage 1", "digits-mlp", 100, 623, 187, 4),
        StageProgress("stage 2", "digits-mlp", None, 187, 94, 1),
        StageProgress("stage 3", "zipf-lm", None, 94, 90, 0),
    ),
    (3.2, 3.31),
    1,
)


@dataclass
class Clock:
    """A clock that the test sets, in seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def at(done: int, phase: Phase = Phase.SEARCH, total: int = 200) -> Progress:
    return Progress(phase, done, total)


def test_line_tells_what_matters() -> None:
    """Progress, rate, time left, share known by key, failures and the best so far are all in the line."""
    line = progress_line(SEARCH, 2.0)
    for part in (
        "search 50/200",
        "2.0/s",
        "1:15 left",
        "20% known by key",
        "10% failed",
        "4 confirmed in 7%",
        "3.25",
        "candidate 7",
    ):
        assert part in line


def test_lines_are_rare() -> None:
    """A log gets the start and the end of each phase and a line every half minute, however often the driver calls."""
    stream, clock = io.StringIO(), Clock()
    view = LineView(stream, clock=clock)
    for done in range(201):
        clock.now = done * 0.5
        view.on_progress(at(done))
    for done in range(11):
        view.on_progress(at(done, Phase.TUNING, 10))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1 + 3 + 1 + 2
    assert all(line.startswith("evolion: ") for line in lines)


def test_rate_is_of_this_process_and_phase() -> None:
    """What a resumed run replays from its store, and the phase before, do not count as speed."""
    stream, clock = io.StringIO(), Clock()
    view = LineView(stream, interval=0.0, clock=clock)
    view.on_progress(at(100))
    clock.now = 10.0
    view.on_progress(at(120))
    assert "2.0/s" in stream.getvalue().splitlines()[-1]
    view.on_progress(at(0, Phase.RETEST))
    assert "/s" not in stream.getvalue().splitlines()[-1]


def drawn(view: LiveView, console: Console) -> str:
    with console.capture() as capture:
        console.print(view.render())
    return capture.get()


def test_live_view_in_eighty_columns_and_ten_lines() -> None:
    """The smallest usual terminal shows it all: bar, rates, workers, funnel, stages, the best."""
    console, clock = Console(width=80, height=10, force_terminal=True, color_system=None), Clock()
    view = LiveView(console, clock=clock, memory=lambda: 2**29)
    view.on_progress(replace(FULL, done=1000, stages=tuple(replace(s, entered=s.entered // 2) for s in FULL.stages)))
    clock.now = 13.0
    view.on_progress(FULL)
    assert drawn(view, console) == (
        "search   ━━━━━━━━━━━━━━━━━━━━━━━━╸                1,240/2,000  18.5/s  0:41 left\n"
        "workers  2 of 4 busy, 3 ready, 6 wanted, 0.8 GiB held, driver 0.5 GiB, 1 died\n"
        "funnel   1,273 generated, 3 invalid, 412 duplicate, 205 probed; restart 1\n"
        "stage 1  digits-mlp 100 steps  623 in  24.0/s  187 passed  4 waiting\n"
        "stage 2  digits-mlp            187 in   7.2/s   94 passed  1 waiting\n"
        "stage 3  zipf-lm                94 in   3.6/s   90 passed\n"
        "best     3.25 in stage 3 (candidate 7), 95% in 3.2 to 3.31; 31 confirmed\n"
        "def train(g):\n"
        "    return g\n"
    )


def test_line_in_full() -> None:
    """A plain line says what the live view says, and why nothing runs where nothing does."""
    assert progress_line(FULL, 18.5, 2**29) == (
        "search 1,240/2,000, 18.5/s, 0:41 left, 33% known by key, 7% failed, 623/187/94 entered the stages and "
        "90 finished, 31 confirmed in 7% of the training time, restart 1, best 3.25 in stage 3 (candidate 7), "
        "95% in 3.2 to 3.31, workers 2 of 4 busy, 3 ready, 6 wanted, 0.8 GiB held, driver 0.5 GiB, 1 died"
    )
    stuck = Progress(Phase.SEARCH, 0, 9, workers=PoolStatus(2, waiting="no machine has a free CPU"))
    assert progress_line(stuck, None) == (
        "search 0/9, workers 0 of 2 busy, 0 ready, nothing runs: no machine has a free CPU"
    )


@pytest.mark.parametrize(
    ("workers", "generated", "said"),
    [
        (PoolStatus(8, ready=8, busy=2), 50 + 17, True),
        (PoolStatus(8, ready=8, busy=4), 50 + 17, False),
        (PoolStatus(8, ready=3, busy=2), 50 + 17, False),
        (PoolStatus(8, ready=8, busy=2), 50 + 32, False),
        (PoolStatus(8, ready=8, busy=2), 200, False),
    ],
)
def test_workers_that_wait_for_the_lag_are_seen(workers: PoolStatus, generated: int, said: bool) -> None:
    """Workers that join a run whose lag is too small for them stand idle in sight of whoever looks, with the reason."""
    line = progress_line(replace(SEARCH, done=50, total=200, generated=generated, workers=workers), None)
    expected = "most workers wait: search.lag lets 17 candidates be in flight, too few for so many"
    assert line.endswith(expected) == said
    assert ("wait" in line) == said


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("height", [8, 10, 12, 40])
def test_live_view_fits_the_terminal(width: int, height: int) -> None:
    """No line is wrapped and none scrolls away: what does not fit the terminal could not be redrawn without flicker."""
    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    many = tuple(StageProgress(f"stage {number}", "digits-mlp", 100, 9) for number in range(1, 7))
    waiting = PoolStatus(2, waiting="no machine has a free CPU")
    for progress in (at(1), FULL, replace(FULL, stages=many), replace(FULL, workers=waiting, stages=many)):
        view = LiveView(console, title="runs/first: running")
        view.on_progress(progress)
        lines = drawn(view, console).splitlines()
        assert len(lines) < height
        assert all(len(line.rstrip()) <= width for line in lines)


def test_live_view_clears_itself_away() -> None:
    """Inside the block the terminal shows the state; at its end the lines are gone, as the result says more."""
    stream = io.StringIO()
    view = LiveView(Console(file=stream, width=80, height=40, force_terminal=True, color_system=None))
    with view.shown():
        view.on_progress(SEARCH)
    shown = stream.getvalue()
    assert 0 <= shown.index("━") < shown.index("50/200") < shown.index("candidate 7") < shown.index("return g")
    assert shown.rstrip().endswith("\x1b[2K")


def test_rate_follows_the_last_minute() -> None:
    """A run that slows down says so within minutes, and one that stalls goes towards nothing."""
    pace = Pace(window=60.0, units=20)
    for second in range(600):
        pace.add(at(10 * second, total=10**6), float(second))
    assert pace.rates(599.0) == (pytest.approx(10.0),)
    for second in range(600, 700):
        pace.add(at(6000 + second - 600, total=10**6), float(second))
    assert pace.rates(699.0)[0] == pytest.approx(1.0, rel=0.1)
    assert pace.rates(6990.0)[0] == pytest.approx(0.0, abs=0.02)


def test_rate_of_slow_candidates() -> None:
    """Where a candidate takes ten minutes, the window is longer than a minute, and what is remembered stays small."""
    pace = Pace(window=60.0, units=20)
    for call in range(50_000):
        pace.add(at(call // 600, total=1000), float(call))
    assert pace.rates(50_000.0)[0] == pytest.approx(1 / 600, rel=0.1)


class Broken:
    """An observer that fails."""

    calls = 0

    def on_progress(self, progress: Progress) -> None:
        self.calls += 1
        raise OSError("no space left on device")


def test_broken_observer_is_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    """A view that raises is told no more, with one warning; the others are told everything."""
    seen: list[Progress] = []
    broken = Broken()

    class Good:
        def on_progress(self, progress: Progress) -> None:
            seen.append(progress)

    observer = several(broken, Good(), silent())
    with caplog.at_level(logging.WARNING):
        for done in range(3):
            observer.on_progress(at(done))
    assert broken.calls == 1
    assert seen == [at(0), at(1), at(2)]
    assert caplog.messages == ["Broken shows no more, the run goes on: OSError: no space left on device"]


def test_interval_of_a_confirmed_value() -> None:
    """The interval is that of a logarithm: as many times below the value as above it."""
    low, high = interval_of(2.0, 0.1)
    assert low * high == pytest.approx(4.0)
    assert high / 2.0 == pytest.approx(1.2165, abs=1e-4)


def test_times_in_words() -> None:
    """Minutes, hours and days are all readable at a glance."""
    assert [duration_text(seconds) for seconds in (5, 75, 3725, 200_000)] == ["0:05", "1:15", "1:02:05", "2 d 7:33 h"]


def test_long_programs_do_not_fill_the_terminal() -> None:
    """The live view never grows beyond the terminal: it could not be redrawn."""
    stream = io.StringIO()
    console = Console(file=stream, width=100, height=10, force_terminal=True)
    view = LiveView(console)
    view.on_progress(Progress(Phase.SEARCH, 1, 2, best_text="x = g\n" * 30))
    console.print(view.render())
    assert "x = g" not in stream.getvalue()


def test_view_suits_the_stream() -> None:
    """Live in a terminal, plain lines where a log wants them, nothing elsewhere or where JSON is asked for."""
    with view_on(Terminal()) as view:
        assert isinstance(view, LiveView)
    with view_on(io.StringIO(), lines=True) as view:
        assert isinstance(view, LineView)
    stream = io.StringIO()
    observers: list[Observer] = [silent()]
    with view_on(stream) as elsewhere, view_on(Terminal(), quiet=True) as quiet:
        observers += [elsewhere, quiet]
        for observer in observers:
            observer.on_progress(SEARCH)
    assert stream.getvalue() == ""
