import io
from dataclasses import dataclass

import pytest
from rich.console import Console

from evolion.view import LineView, LiveView, Observer, Phase, Progress, progress_line, silent, view_on

SEARCH = Progress(Phase.SEARCH, 50, 200, 30, 10, 5, 7, (-1.0, 3.25), "def train(g):\n    return g\n", 4, 0.07)


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


@pytest.mark.parametrize("width", [60, 80, 200])
def test_live_view_shows_bar_line_and_program(width: int) -> None:
    """A terminal of any width shows the state below the bar and then the best program."""
    stream = io.StringIO()
    view = LiveView(Console(file=stream, width=width, height=40, force_terminal=True, color_system=None))
    with view.shown():
        view.on_progress(SEARCH)
    shown = stream.getvalue()
    assert 0 <= shown.index("━") < shown.index("search 50/200") < shown.index("candidate 7") < shown.index("return g")


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
