"""What a screen says of one program after the other."""

import pytest

from evolion.discovered.library import known
from evolion.primitives import screening
from evolion.primitives.descent import Descent, descent
from evolion.primitives.keys import ProbeStatus, probe, structural_key
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.primitives.screening import Screen, Screened


def of(rate: float, more: str = "", parameters: str = "w, g, m, lr") -> Program:
    return parse(f"def train({parameters}):\n    m = interp(g, m, {rate})\n    return lr * (tanh(20 * m){more}), m\n")


def check(screen: Screen, program: Program) -> Screened:
    return screen.check(program, structural_key(program))


def test_each_answer_of_the_probes_has_its_status() -> None:
    """What is dead, unbounded or without descent is told apart, and keeps its own key."""
    screen = Screen()
    for text, status in [
        ("def train(g):\n    return 0 * g\n", ProbeStatus.DEAD),
        ("def train(g, lr):\n    return lr / g\n", ProbeStatus.UNBOUNDED),
        ("def train(w, lr):\n    return lr * w\n", ProbeStatus.NO_DESCENT),
        ("def train(g, lr):\n    return lr * g\n", ProbeStatus.OK),
    ]:
        program = parse(text)
        assert check(screen, program) == Screened(program, probe(program).key, status)


def test_programs_that_go_the_same_way_count_as_the_first() -> None:
    """A rule that moves the weights as another did, to some percent, takes its scores, under its key."""
    screen = Screen()
    first, alike, other = of(0.91), of(0.910003), of(0.8)
    assert len({probe(program).key for program in (first, alike, other)}) == 3
    assert check(screen, first).program == first
    assert check(screen, alike) == Screened(first, probe(first).key, ProbeStatus.OK)
    assert check(screen, other).program == other
    assert check(Screen(alike=False), alike).program == alike


def test_the_same_behaviour_keeps_the_program_as_written() -> None:
    """Programs with one behavioural key need no parsing and no second descent."""
    screen, first = Screen(), of(0.9)
    twin = of(0.9, " + 0")
    assert probe(first).key == probe(twin).key
    check(screen, first)
    assert check(screen, twin) == Screened(twin, probe(first).key, ProbeStatus.OK)


@pytest.mark.parametrize("more", [" + 1e-7 / t", " + 1e-7 * noise", " + 1e-7 * loss", " + 1e-7 / horizon"])
def test_what_reads_more_than_the_gradient_is_like_no_other(more: str) -> None:
    """A few steps do not show what a program makes of the time, so only equal behaviour counts."""
    name = next(name for name in ("t", "noise", "loss", "horizon") if name in more.split("7")[1])
    one, other = (of(rate, more, f"w, g, m, lr, {name}") for rate in (0.91, 0.910003))
    screen = Screen()
    check(screen, one)
    assert check(screen, other).program == other


@pytest.mark.parametrize("rule", ["m / horizon", "max(loss - 0.1, 0) * m", "noise * 0", "hess * 0"])
def test_what_hangs_on_a_whole_run_is_not_refused_by_a_few_steps(rule: str) -> None:
    """A horizon of 16 and a loss that starts low are of the probe, not of training: such rules are trained."""
    name = next(name for name in ("horizon", "loss", "noise", "hess") if name in rule)
    program = parse(
        f"def train(w, g, m, lr, {name}):\n    m = interp(g, m, 0.9)\n    return 1e-9 * m - lr * {rule}, m\n"
    )
    assert not descent(program).succeeds
    assert check(Screen(), program).status is ProbeStatus.OK


def test_ways_that_end_nowhere_are_no_ways() -> None:
    """Programs that overflow at a rate or do not move at one have nothing in common but that."""
    tiny = parse("def train(g, lr):\n    return max(lr - 0.2, 0) * g\n")
    huge = parse("def train(g, lr):\n    return exp(exp(1e3 * lr)) * g\n")
    assert (descent(tiny).way, descent(huge).way) == ("", "")


def test_each_behaviour_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe of descent is most of what a screen costs, and half of all candidates are known by their key."""
    looked: list[Program] = []

    def counting(program: Program) -> Descent:
        looked.append(program)
        return descent(program)

    monkeypatch.setattr(screening, "descent", counting)
    screen = Screen()
    programs = [known()["lion"], known()["sgd"], known()["lion"], parse("def train(w, lr):\n    return lr * w\n")]
    answers = [check(screen, program) for program in programs * 2]
    assert answers[:4] == answers[4:]
    assert looked == [programs[0], programs[1], programs[3]]


def test_equal_sequences_have_equal_answers() -> None:
    """A run that is resumed screens its candidates anew, and must come to the same."""
    programs = [of(rate / 1000, more) for rate in (900, 901, 890, 700) for more in ("", " + w", " - 3 * w")]
    one, other = Screen(), Screen()
    assert [check(one, program) for program in programs] == [check(other, program) for program in programs]
